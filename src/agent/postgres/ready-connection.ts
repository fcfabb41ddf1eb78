/**
 * One connection to the own server that was opened before it is needed: in the middle of a promotion a new one costs a fork of the server and a login,
 * 5 to 25 ms on a busy host.
 */
import { monoMs } from '../../base/clock.ts';
import type { Instance } from './instance.ts';
import { LOCAL_LIMITS, type RunSql, type Sql, localTarget, openSql, runOn } from './sql.ts';

export interface ReadyConnection {
  /** Opens one when there is none. Returns at once; a failure is noticed by `run`, which then opens its own. */
  prepare(): void;
  /** `withLocalSql` on the ready connection, or on a new one. */
  readonly run: RunSql;
  close(): void;
}

/** Longer than an attempt or a switchover takes to come to the promotion. */
const KEEP_MS = 10_000;

export function createReadyConnection(instance: Pick<Instance, 'socketDirectory' | 'port'>): ReadyConnection {
  let ready: { readonly sql: Promise<Sql | null>; readonly since: number; readonly timer: NodeJS.Timeout } | null = null;

  const drop = (): void => {
    const current = ready;
    ready = null;
    if (current === null) return;
    clearTimeout(current.timer);
    void current.sql.then((sql) => sql?.close());
  };
  const keep = (sql: Promise<Sql | null>): void => {
    drop();
    const timer = setTimeout(drop, KEEP_MS);
    timer.unref();
    ready = { sql, since: monoMs(), timer };
  };
  /** Lent to one operation, and ready for the next one (a promotion, then the mark of its opening) when it is given back whole. */
  const take = async (): Promise<Sql> => {
    const current = ready;
    ready = null;
    if (current !== null) clearTimeout(current.timer);
    const kept = (await current?.sql) ?? null;
    const sql = kept?.isOpen() === true ? kept : await openSql(localTarget(instance), LOCAL_LIMITS);
    return { ...sql, close: () => (sql.isOpen() ? keep(Promise.resolve(sql)) : sql.close()) };
  };
  return {
    prepare: () => {
      if (ready !== null && monoMs() - ready.since < KEEP_MS / 2) return;
      // Whoever needs it then opens its own, and meets the error there.
      keep(openSql(localTarget(instance), LOCAL_LIMITS).catch(() => null));
    },
    run: (_instance, options, work) => runOn(take, localTarget(instance), options, work),
    close: drop,
  };
}
