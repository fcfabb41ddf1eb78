/** One viewpoint on another member's PostgreSQL: a fresh connection and a bounded write, not a ping (I6, H50). */
import { monoMs, realClock } from '../../base/clock.ts';
import type { NodeId } from '../../core/ids.ts';
import type { Endpoint } from '../postgres/conninfo.ts';
import { messageOf } from '../postgres/failure.ts';
import type { Instance } from '../postgres/instance.ts';
import { type Sql, openSql, sqlStateOf } from '../postgres/sql.ts';
import { memberTarget } from '../postgres/upstream-sql.ts';
import { heartbeatOf } from './heartbeat.ts';
import { type PendingWrites, createPendingWrites } from './pending-writes.ts';

export interface ProbeAnswer {
  /**
   * `primary`: took a write (or has no connection free: then `error` says so). `standby`: answers, in recovery. `blocked`: PostgreSQL
   * answers and refuses us (pg_hba, starting, stopping). `failed`: this look failed; the caller counts before it believes that.
   */
  readonly verdict: 'primary' | 'standby' | 'blocked' | 'failed';
  readonly error: string | null;
  readonly durationMs: number;
  /** Looks over different connections that failed together; default 1. */
  readonly looks?: number;
}

/**
 * Never rejects, and answers within `limitMs` plus a few milliseconds, whatever the other side does (half-open TCP, a stopped
 * process, a full backlog: Q19): the socket is destroyed at the limit, unless a write was sent on it. Such a write is left open and counted in
 * `pending`: a process that waits for a stuck disk does not end with its connection, and each further one would use up another.
 */
export async function probeMember(
  instance: Instance,
  endpoint: Endpoint,
  options: { readonly self: NodeId; readonly limitMs: number; readonly pending?: PendingWrites },
): Promise<ProbeAnswer> {
  const startedAt = monoMs();
  const answer = (verdict: ProbeAnswer['verdict'], error: string | null): ProbeAnswer => ({ verdict, error, durationMs: monoMs() - startedAt });
  const own = options.pending ?? createPendingWrites(realClock);
  try {
    const sql = await open(instance, endpoint, options);
    const seen = await look(sql, { ...options, pending: own, limitMs: Math.max(1, options.limitMs - (monoMs() - startedAt)) });
    if (seen === 'late') return answer('failed', `no answer within ${options.limitMs} ms`);
    sql.close();
    return answer(seen, null);
  } catch (cause) {
    return answer(classifyError(cause), messageOf(cause));
  } finally {
    // Nobody else would ever close them.
    if (options.pending === undefined) own.close();
  }
}

/** The statement is left alone for longer than a look: what waits for a disk cannot be cancelled, and its answer, when it comes, frees the connection. */
const STATEMENT_MS = 60_000;

async function open(
  instance: Instance,
  endpoint: Endpoint,
  { self, limitMs, onEnd }: { readonly self: NodeId; readonly limitMs: number; readonly onEnd?: () => void },
): Promise<Sql> {
  const target = await memberTarget(instance, endpoint, 'probe');
  const applicationName = `pgherd_probe ${self}`;
  return openSql(target, { connectMs: limitMs, statementMs: STATEMENT_MS }, { applicationName, ...(onEnd === undefined ? {} : { onEnd }) });
}

/**
 * A statement that writes fails on a standby with 25006, even when it would write nothing. `synchronous_commit=local` comes with the session (sql.ts):
 * the write must not wait for standbys, whose loss is another fact. `late`: the connection is in `pending`, and not the caller's any more.
 * Rejects with the driver's error; the connection is closed then.
 */
async function look(
  sql: Sql,
  options: { readonly self: NodeId; readonly limitMs: number; readonly pending: PendingWrites },
): Promise<'primary' | 'standby' | 'late'> {
  const sentAt = monoMs();
  const answer = sql.query(heartbeatOf(options.self));
  const limit = new AbortController();
  const late = realClock.sleep(options.limitMs, limit.signal).then(() => 'late' as const);
  try {
    const seen = await Promise.race([answer.then(() => 'primary' as const), late]);
    if (seen === 'late') options.pending.leave(sql, sentAt, answer);
    return seen;
  } catch (cause) {
    if (sqlStateOf(cause) === '25006') return 'standby';
    sql.close();
    throw cause;
  } finally {
    limit.abort(ANSWERED);
  }
}

export interface Prober {
  probe(endpoint: Endpoint, limitMs: number): Promise<ProbeAnswer>;
  close(): void;
}

/** A login costs both sides some milliseconds of processor; every eighth look tests it, the others only the write. */
const FRESH_EVERY = 8;
/**
 * A look that is silent for this long gets company: another one over a fresh connection, with what is left of the limit. The two fail together
 * then, and not one after the other. A healthy write takes milliseconds; waiting less would log in whenever a disk is slow.
 */
const COMPANY_AFTER_MS = 250;
/** A reason of our own: without one, each answered probe would build an error with its stack. */
const ANSWERED = Symbol('answered');
/** A fresh connection gets at least this, however short the limit is. */
const SHORTEST_MS = 100;

/**
 * Probes one member again and again. The write goes over a kept connection; every eighth look, and each one beside a silent or broken connection, uses
 * a fresh one (architecture 4.6): a server that serves old sessions and lets nobody in is noticed within eight looks. `looks` says how many failed.
 * `onBroken`: the other side ended the kept connection between two looks; the next one need not wait for its turn.
 */
export function createProber(instance: Instance, self: NodeId, onBroken: () => void = () => undefined): Prober {
  let kept: { readonly key: string; readonly sql: Sql } | null = null;
  let round = 0;
  /** Of the member that was asked last. */
  let pending: { readonly key: string; readonly writes: PendingWrites } | null = null;
  const drop = (): void => {
    kept?.sql.destroy();
    kept = null;
  };

  function pendingOf(key: string): PendingWrites {
    if (pending?.key === key) return pending.writes;
    pending?.writes.close();
    pending = { key, writes: createPendingWrites(realClock) };
    return pending.writes;
  }

  async function openKept(endpoint: Endpoint, limitMs: number): Promise<Sql> {
    let opened: Sql | null = null;
    const onEnd = (): void => {
      if (kept !== null && kept.sql === opened) onBroken();
    };
    opened = await open(instance, endpoint, { self, limitMs, onEnd });
    return opened;
  }

  async function overKept(endpoint: Endpoint, limitMs: number, writes: PendingWrites): Promise<ProbeAnswer> {
    const key = keyOf(endpoint);
    if (kept !== null && (kept.key !== key || !kept.sql.isOpen())) drop();
    const startedAt = monoMs();
    const answer = (verdict: ProbeAnswer['verdict'], error: string | null): ProbeAnswer => ({ verdict, error, durationMs: monoMs() - startedAt });
    let sql: Sql | null = kept?.sql ?? null;
    kept = null;
    try {
      sql ??= await openKept(endpoint, limitMs);
      const seen = await look(sql, { self, limitMs: Math.max(1, limitMs - (monoMs() - startedAt)), pending: writes });
      if (seen === 'late') return answer('failed', `no answer within ${limitMs} ms`);
      kept = { key, sql };
      return answer(seen, null);
    } catch (cause) {
      return answer(classifyError(cause), messageOf(cause));
    }
  }

  /** A second look, fresh, begins when the first is silent or has failed, never sooner than COMPANY_AFTER_MS after it began. */
  async function inCompany(endpoint: Endpoint, limitMs: number, writes: PendingWrites, first: () => Promise<ProbeAnswer>): Promise<ProbeAnswer> {
    const startedAt = monoMs();
    const begun = first();
    const waiting = new AbortController();
    const quick = await Promise.race([begun, realClock.sleep(COMPANY_AFTER_MS, waiting.signal).then(() => null)]);
    waiting.abort(ANSWERED);
    if (quick !== null && quick.verdict !== 'failed') return quick;
    await realClock.sleep(Math.max(0, COMPANY_AFTER_MS - (monoMs() - startedAt)));
    if (!writes.mayWrite()) return begun;
    const left = Math.max(SHORTEST_MS, limitMs - (monoMs() - startedAt));
    const second = await probeMember(instance, endpoint, { self, limitMs: left, pending: writes });
    if (second.verdict !== 'failed') return second;
    const other = await begun;
    return other.verdict === 'failed' ? { ...second, looks: 2 } : other;
  }

  return {
    probe: async (endpoint, limitMs) => {
      round++;
      const writes = pendingOf(keyOf(endpoint));
      const waiting = writes.since();
      if (waiting !== null && !writes.mayWrite()) {
        const still = await stillWaiting(instance, endpoint, { self, limitMs, writes, sinceMs: monoMs() - waiting });
        if (still !== null) return still;
      }
      const fresh = round % FRESH_EVERY === 0;
      const answer = await inCompany(endpoint, limitMs, writes, () =>
        fresh ? probeMember(instance, endpoint, { self, limitMs, pending: writes }) : overKept(endpoint, limitMs, writes),
      );
      if (answer.verdict !== 'primary') drop();
      return answer;
    },
    close: () => {
      drop();
      pending?.writes.close();
    },
  };
}

/**
 * No further write is sent while the server itself says that ours wait. What it does not know of was lost on the way (a cut network, a restart), and is
 * forgotten: null then, and the next look writes again.
 */
async function stillWaiting(
  instance: Instance,
  endpoint: Endpoint,
  { self, limitMs, writes, sinceMs }: { readonly self: NodeId; readonly limitMs: number; readonly writes: PendingWrites; readonly sinceMs: number },
): Promise<ProbeAnswer | null> {
  const startedAt = monoMs();
  const answer = (verdict: ProbeAnswer['verdict'], error: string | null): ProbeAnswer => ({ verdict, error, durationMs: monoMs() - startedAt });
  const limit = new AbortController();
  let sql: Sql | null = null;
  try {
    sql = await open(instance, endpoint, { self, limitMs });
    const left = Math.max(SHORTEST_MS, limitMs - (monoMs() - startedAt));
    const late = realClock.sleep(left, limit.signal).then(() => null);
    const rows = await Promise.race([sql.query(OURS_AT_WORK, [`pgherd_probe ${self}`]), late]);
    if (rows === null) return answer('failed', `no answer within ${limitMs} ms`);
    if (rows[0]?.['recovery'] === true) return answer('standby', null);
    if (Number(rows[0]?.['waiting']) >= writes.count()) return answer('failed', `no write has been answered for ${Math.round(sinceMs)} ms`);
    writes.close();
    return null;
  } catch (cause) {
    return answer(classifyError(cause), messageOf(cause));
  } finally {
    limit.abort(ANSWERED);
    sql?.destroy();
  }
}

const OURS_AT_WORK = `SELECT pg_is_in_recovery() AS recovery, (SELECT count(*) FROM pg_stat_activity
  WHERE application_name = $1 AND state = 'active' AND pid <> pg_backend_pid())::int AS waiting`;

function keyOf({ host, port }: Endpoint): string {
  return `${host}:${port}`;
}

/**
 * SQLSTATE 57P03: starting or stopping; class 28: refused by pg_hba or password; 25006: became a standby between the two statements.
 * 53300: full of clients. Such a server works; to call it down would fail over because of load, which is the worse error
 * (its own agent, over a reserved connection, still notices a hang).
 * A refused connection (no listener, or a firewall's reset) is one failed look like any other.
 */
export function classifyError(cause: unknown): 'primary' | 'standby' | 'blocked' | 'failed' {
  const state = sqlStateOf(cause);
  if (state === '53300') return 'primary';
  if (state === '25006') return 'standby';
  return state === '57P03' || state?.startsWith('28') === true ? 'blocked' : 'failed';
}
