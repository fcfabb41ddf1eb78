/** Clients of the split port: each writes a number and reads it back, again and again. What they read tells where it was read, and whether it was too old. */
import { Client } from 'pg';
import { monoMs } from '../base/clock.ts';
import type { Login } from './history.ts';

/** Run once, as the owner of the database. The function is not volatile, so that a statement that calls it may be read anywhere. */
export const SPLIT_SCHEMA = [
  'create table if not exists split_check (client int primary key, n bigint not null)',
  `create or replace function served_by() returns int language sql stable as 'select inet_server_port()'`,
];

export interface SplitOptions {
  readonly host: string;
  readonly port: number;
  readonly login: Login;
  readonly clients: number;
  readonly readsPerWrite: number;
  readonly durationMs: number;
  readonly signal?: AbortSignal;
}

export interface SplitReport {
  readonly writes: number;
  readonly reads: number;
  /** Reads that did not show what the same client had written before. */
  readonly stale: number;
  /** PostgreSQL's port → reads that it served. */
  readonly readsByPort: Readonly<Record<string, number>>;
  readonly errorCount: number;
  /** The first ten. */
  readonly errors: readonly string[];
  readonly longestMs: number;
}

/** Longer than any wait that is good: what reaches it is an error. */
const STATEMENT_LIMIT_MS = 30_000;

/** Never rejects. */
export async function checkReadWriteSplit(options: SplitOptions): Promise<SplitReport> {
  const tally = { writes: 0, reads: 0, stale: 0, longestMs: 0 };
  const readsByPort: Record<string, number> = {};
  const errors: string[] = [];
  const endMs = monoMs() + options.durationMs;
  const timed = async <T>(work: Promise<T>): Promise<T> => {
    const sentMs = monoMs();
    const result = await work;
    tally.longestMs = Math.max(tally.longestMs, Math.round(monoMs() - sentMs));
    return result;
  };
  const run = async (client: number): Promise<void> => {
    const { host, port, login } = options;
    const db = new Client({ host, port, ...login, connectionTimeoutMillis: STATEMENT_LIMIT_MS, query_timeout: STATEMENT_LIMIT_MS });
    db.on('error', () => undefined);
    try {
      await db.connect();
      for (let n = 1; monoMs() < endMs && options.signal?.aborted !== true; n++) {
        await timed(db.query('insert into split_check values ($1, $2) on conflict (client) do update set n = excluded.n', [client, n]));
        tally.writes += 1;
        for (let read = 0; read < options.readsPerWrite; read++) {
          const { rows } = await timed(
            db.query<{ n: string; port: number }>('select n, served_by() as port from split_check where client = $1', [client]),
          );
          const [row] = rows;
          tally.reads += 1;
          if (Number(row?.n ?? 0) < n) tally.stale += 1;
          readsByPort[row?.port ?? 0] = (readsByPort[row?.port ?? 0] ?? 0) + 1;
        }
      }
    } catch (error) {
      errors.push(error instanceof Error ? error.message : String(error));
    } finally {
      await db.end().catch(() => undefined);
    }
  };
  await Promise.all(Array.from({ length: options.clients }, (_, client) => run(client)));
  return { ...tally, readsByPort, errorCount: errors.length, errors: errors.slice(0, 10) };
}
