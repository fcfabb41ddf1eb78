/** One viewpoint on another member's PostgreSQL: a fresh connection and a bounded write, not a ping (I6, H50). */
import { monoMs, realClock } from '../../base/clock.ts';
import type { NodeId } from '../../core/ids.ts';
import type { Endpoint } from '../postgres/conninfo.ts';
import { messageOf } from '../postgres/failure.ts';
import type { Instance } from '../postgres/instance.ts';
import { type Sql, openSql, sqlStateOf } from '../postgres/sql.ts';
import { memberTarget } from '../postgres/upstream-sql.ts';

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

/** `synchronous_commit=local` comes with the session (sql.ts): the write must not wait for standbys, whose loss is another fact. */
const WRITE = `INSERT INTO pgherd.heartbeat AS h (node, at) SELECT $1, clock_timestamp() WHERE NOT pg_is_in_recovery()
  ON CONFLICT (node) DO UPDATE SET at = EXCLUDED.at RETURNING 1 AS wrote`;

/**
 * Never rejects, and answers within `limitMs` plus a few milliseconds, whatever the other side does (half-open TCP, a stopped
 * process, a full backlog: Q19): the socket is destroyed at the limit.
 */
export async function probeMember(
  instance: Instance,
  endpoint: Endpoint,
  options: { readonly self: NodeId; readonly limitMs: number },
): Promise<ProbeAnswer> {
  const startedAt = monoMs();
  const answer = (verdict: ProbeAnswer['verdict'], error: string | null): ProbeAnswer => ({ verdict, error, durationMs: monoMs() - startedAt });
  let timer: NodeJS.Timeout | null = null;
  const stop = new AbortController();
  const late = new Promise<ProbeAnswer>((resolve) => {
    timer = setTimeout(() => {
      stop.abort();
      resolve(answer('failed', `no answer within ${options.limitMs} ms`));
    }, options.limitMs);
  });
  const look = ask(instance, endpoint, options, stop.signal).then(
    (verdict) => answer(verdict, null),
    (cause: unknown) => {
      const verdict = classifyError(cause);
      return answer(verdict, messageOf(cause));
    },
  );
  try {
    return await Promise.race([look, late]);
  } finally {
    if (timer !== null) clearTimeout(timer);
  }
}

async function ask(
  instance: Instance,
  endpoint: Endpoint,
  options: { readonly self: NodeId; readonly limitMs: number },
  signal: AbortSignal,
): Promise<'primary' | 'standby'> {
  const sql = await open(instance, endpoint, options);
  const onAbort = (): void => sql.destroy();
  signal.addEventListener('abort', onAbort, { once: true });
  try {
    if (signal.aborted) throw new Error('too late');
    return await look(sql, options.self);
  } finally {
    signal.removeEventListener('abort', onAbort);
    sql.close();
  }
}

async function open(instance: Instance, endpoint: Endpoint, options: { readonly self: NodeId; readonly limitMs: number }): Promise<Sql> {
  const target = await memberTarget(instance, endpoint, 'probe');
  return openSql(target, { connectMs: options.limitMs, statementMs: options.limitMs }, { applicationName: `pgherd_probe ${options.self}` });
}

/** A statement that writes fails on a standby with 25006, even when it would write nothing. */
async function look(sql: Sql, self: NodeId): Promise<'primary' | 'standby'> {
  try {
    await sql.query(WRITE, [self]);
    return 'primary';
  } catch (cause) {
    if (sqlStateOf(cause) === '25006') return 'standby';
    throw cause;
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
 */
export function createProber(instance: Instance, self: NodeId): Prober {
  let kept: { readonly key: string; readonly sql: Sql } | null = null;
  let round = 0;
  const drop = (): void => {
    kept?.sql.destroy();
    kept = null;
  };

  async function overKept(endpoint: Endpoint, limitMs: number): Promise<ProbeAnswer> {
    const key = `${endpoint.host}:${endpoint.port}`;
    if (kept !== null && (kept.key !== key || !kept.sql.isOpen())) drop();
    const startedAt = monoMs();
    let timer: NodeJS.Timeout | null = null;
    try {
      const late = new Promise<never>((_, reject) => {
        timer = setTimeout(() => reject(new Error(`no answer within ${limitMs} ms`)), limitMs);
      });
      const seen = (async () => {
        kept ??= { key, sql: await open(instance, endpoint, { self, limitMs }) };
        return look(kept.sql, self);
      })();
      // The loser of the race must not become an unhandled rejection.
      seen.catch(() => undefined);
      return { verdict: await Promise.race([seen, late]), error: null, durationMs: monoMs() - startedAt };
    } catch (cause) {
      drop();
      return { verdict: classifyError(cause), error: messageOf(cause), durationMs: monoMs() - startedAt };
    } finally {
      if (timer !== null) clearTimeout(timer);
    }
  }

  /** A second look, fresh, begins when the first is silent or has failed, never sooner than COMPANY_AFTER_MS after it began. */
  async function inCompany(endpoint: Endpoint, limitMs: number, look: () => Promise<ProbeAnswer>): Promise<ProbeAnswer> {
    const startedAt = monoMs();
    const first = look();
    const waiting = new AbortController();
    const quick = await Promise.race([first, realClock.sleep(COMPANY_AFTER_MS, waiting.signal).then(() => null)]);
    waiting.abort(ANSWERED);
    if (quick !== null && quick.verdict !== 'failed') return quick;
    await realClock.sleep(Math.max(0, COMPANY_AFTER_MS - (monoMs() - startedAt)));
    const second = await probeMember(instance, endpoint, { self, limitMs: Math.max(SHORTEST_MS, limitMs - (monoMs() - startedAt)) });
    if (second.verdict !== 'failed') return second;
    const other = await first;
    return other.verdict === 'failed' ? { ...second, looks: 2 } : other;
  }

  return {
    probe: async (endpoint, limitMs) => {
      round++;
      const fresh = round % FRESH_EVERY === 0;
      const answer = await inCompany(endpoint, limitMs, () =>
        fresh ? probeMember(instance, endpoint, { self, limitMs }) : overKept(endpoint, limitMs),
      );
      if (answer.verdict !== 'primary') drop();
      return answer;
    },
    close: drop,
  };
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
