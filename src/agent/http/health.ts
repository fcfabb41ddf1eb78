/**
 * The health URLs that load balancers use for PostgreSQL. Pure. 200 only when it is true now, 503 otherwise.
 *
 * Invariant: `/primary` answers 200 only before the own deadline of a confirmed write lease (Z24).
 * Because: the status carries the deadline, and it is compared with the clock at each request; a stale status cannot keep the answer alive.
 * *Source:* the URL names follow Patroni's REST API ("Health check endpoints"), which HAProxy configurations of this ecosystem use.
 */
import type { MonoMs } from '../../core/ids.ts';
import type { AgentStatus } from './status.ts';

export interface HealthAnswer {
  readonly code: 200 | 400 | 503;
  readonly body: Readonly<Record<string, unknown>>;
}

const SIZE = /^(\d{1,15})\s*(B|kB|MB|GB|TB)?$/i;
const UNITS: Readonly<Record<string, number>> = { b: 1, kb: 1024, mb: 1024 ** 2, gb: 1024 ** 3, tb: 1024 ** 4 };

/** Bytes of `16MB`, `1GB`, `1048576`; null when it is no size. Units are PostgreSQL's (powers of 1024). */
export function parseSize(text: string): number | null {
  const match = SIZE.exec(text.trim());
  if (match === null) return null;
  return Number(match[1]) * (UNITS[(match[2] ?? 'B').toLowerCase()] ?? 1);
}

export function isOpenPrimary(status: AgentStatus, now: MonoMs): boolean {
  return status.role === 'primary' && status.open && status.lease !== null && status.lease.deadline > now;
}

/** Null: not a health URL. `query.lag` bounds the lag of standbys; an unknown lag never passes a bound. */
export function answerHealth(path: string, query: URLSearchParams, status: AgentStatus, now: MonoMs): HealthAnswer | null {
  const primary = isOpenPrimary(status, now);
  const lagText = query.get('lag');
  const lagLimit = lagText === null ? null : parseSize(lagText);
  if (lagText !== null && lagLimit === null) return { code: 400, body: { error: `lag=${lagText} is not a size like 16MB` } };
  const closeEnough = lagLimit === null || (status.lagBytes !== null && status.lagBytes <= lagLimit);
  const standby = status.role === 'standby' && status.streaming && !status.maintenance && !status.delayed && closeEnough;
  const checks: Readonly<Record<string, boolean>> = {
    '/': primary,
    '/primary': primary,
    '/read-write': primary,
    '/replica': standby,
    '/standby': standby,
    '/read-only': primary || standby,
    '/sync': standby && status.synchronous,
    '/synchronous': standby && status.synchronous,
    '/async': standby && !status.synchronous,
    '/asynchronous': standby && !status.synchronous,
    '/health': status.role !== null,
    '/livez': true,
    '/readyz': status.ready,
  };
  const holds = Object.hasOwn(checks, path) ? checks[path] : undefined;
  if (holds === undefined) return null;
  return {
    code: holds ? 200 : 503,
    body: {
      cluster: status.cluster,
      node: status.node,
      role: primary ? 'primary' : status.role === 'primary' ? 'closed' : status.role,
      term: status.term,
      lagBytes: status.lagBytes,
    },
  };
}

/** What a proxy may rely on: this node is the primary of `term` for `validMs` more; 0 when it is not. */
export function answerRoute(status: AgentStatus, now: MonoMs): Readonly<Record<string, unknown>> {
  const primary = isOpenPrimary(status, now);
  return {
    cluster: status.cluster,
    node: status.node,
    incarnation: status.incarnation,
    term: primary ? (status.lease?.term ?? status.term) : status.term,
    primary,
    validMs: primary && status.lease !== null ? Math.max(0, Math.floor(status.lease.deadline - now)) : 0,
  };
}
