/**
 * Health URLs that load balancers already use for PostgreSQL. 200 only when it is true now.
 * Source: the REST API that HAProxy configurations for PostgreSQL clusters check (`/primary`, `/replica?lag=16MB`, `/read-only`, `/sync`, `/async`, `/health`).
 */
import { type Lsn, bytesBetween } from '../../core/lsn.ts';
import type { NodeReport } from '../../core/report.ts';

export interface HealthInput {
  /** Null before the first observation. */
  readonly report: NodeReport | null;
  /** The write lease is valid by our own deadline at this moment (Z24): not what the last report said. */
  readonly leaseValid: boolean;
  /** Newest position of the primary that this agent knows; null when none. */
  readonly primaryLsn: Lsn | null;
  /** This node's sync state as the primary last reported it: sync, quorum, potential, async; null when unknown. */
  readonly syncState: string | null;
}

export interface HealthAnswer {
  readonly status: 200 | 400 | 404 | 503;
  readonly why: string;
}

const yes: HealthAnswer = { status: 200, why: 'ok' };
const no = (why: string): HealthAnswer => ({ status: 503, why });

/** 404 for a path that is none of the health URLs, 400 for a lag that is no size. */
export function answerHealth(path: string, query: URLSearchParams, input: HealthInput): HealthAnswer {
  switch (path) {
    case '/livez':
      return yes;
    case '/readyz':
      return input.report === null ? no('the first observation has not ended') : yes;
    case '/health':
      return input.report?.postgres.state === 'running' ? yes : no(`PostgreSQL is ${input.report?.postgres.state ?? 'unknown'}`);
    case '/':
    case '/primary':
    case '/read-write':
      return primary(input);
    case '/replica':
    case '/standby':
      return standby(input, query.get('lag'));
    case '/read-only':
      return primary(input).status === 200 ? yes : standby(input, query.get('lag'));
    case '/sync':
      return synchronous(input, ['sync', 'quorum']);
    case '/async':
      return synchronous(input, ['async', 'potential']);
    default:
      return { status: 404, why: 'no such health URL' };
  }
}

function primary(input: HealthInput): HealthAnswer {
  const { report } = input;
  if (report === null) return no('not known yet');
  return report.open && input.leaseValid ? yes : no(report.open ? 'the write lease is not valid any more' : 'not an open primary');
}

function standby(input: HealthInput, lag: string | null): HealthAnswer {
  const postgres = input.report?.postgres;
  if (postgres === undefined || postgres.state !== 'running' || postgres.role !== 'standby') return no('not a running standby');
  if (postgres.streamingFrom === null) return no('it does not stream');
  if (lag === null) return yes;
  const limit = parseSize(lag);
  if (limit === null) return { status: 400, why: `"${lag}" is no size; examples: 1048576, 16MB` };
  if (input.primaryLsn === null || postgres.replayedLsn === null) return no('the lag is not known');
  const behind = Math.max(0, bytesBetween({ from: postgres.replayedLsn, to: input.primaryLsn }));
  return behind <= limit ? yes : no(`${behind} bytes behind`);
}

function synchronous(input: HealthInput, states: readonly string[]): HealthAnswer {
  const streaming = standby(input, null);
  if (streaming.status !== 200) return streaming;
  return input.syncState !== null && states.includes(input.syncState) ? yes : no(`sync state ${input.syncState ?? 'unknown'}`);
}

const UNITS: Readonly<Record<string, number>> = { '': 1, B: 1, KB: 1024, MB: 1024 ** 2, GB: 1024 ** 3, TB: 1024 ** 4 };

/** Bytes of `16MB`, `1024`, `2GB` (PostgreSQL's units of 1024, any case); null when it is no size. */
export function parseSize(text: string): number | null {
  const match = /^(\d{1,15})\s*([KMGT]?B?)$/i.exec(text.trim());
  const unit = UNITS[(match?.[2] ?? '?').toUpperCase()];
  return match?.[1] === undefined || unit === undefined ? null : Number(match[1]) * unit;
}
