/** What a planned change of the primary would meet: asked when a person looks (a dry run), not all the time. */
import { type Decoded, integer, list, nullable, number, object, text } from '../../core/decode.ts';
import type { Failure, Result } from '../../core/result.ts';
import { failure } from './failure.ts';
import { type Instance, ROLES } from './instance.ts';
import { quoteLiteral, withLocalSql } from './sql.ts';

export const workload = object({
  /** Transactions of clients that run longer than `LONG_MS`. */
  longTransactions: integer,
  /** Of the longest of them; 0: there is none. */
  longestMs: number({ min: 0 }),
  preparedTransactions: integer,
  /** Logical slots that no standby has (before PostgreSQL 17: all of them). */
  logicalSlots: list(text),
  /** WAL file whose archiving failed last, after the last success; null: archiving is off, or works. */
  archivingFails: nullable(text),
});
export type Workload = Decoded<typeof workload>;

/** As long as proxies wait for running transactions before a switchover gives up. */
const LONG_MS = 2000;
const LIMITS = { connectMs: 700, statementMs: 1500 };

/** Errors: those of withLocalSql; `workload.unreadable`. */
export async function readWorkload(instance: Instance): Promise<Result<Workload, Failure>> {
  const own = Object.values(ROLES).map(quoteLiteral).join(', ');
  const running = `FROM pg_stat_activity WHERE backend_type = 'client backend' AND usename NOT IN (${own}) AND xact_start < clock_timestamp() - interval '${LONG_MS} ms'`;
  const read = await withLocalSql(instance, { limits: LIMITS }, async (sql) => {
    const [row = {}] = await sql.query(`SELECT (SELECT count(*)::int ${running}) AS long,
      (SELECT coalesce(max(extract(epoch FROM clock_timestamp() - xact_start)) * 1000, 0)::float8 ${running}) AS longest,
      (SELECT count(*)::int FROM pg_prepared_xacts) AS prepared,
      (SELECT coalesce(json_agg(slot_name ORDER BY slot_name), '[]') FROM pg_replication_slots s
        WHERE slot_type = 'logical' AND NOT temporary AND NOT coalesce((to_jsonb(s) ->> 'failover')::boolean, false)) AS logical,
      (SELECT last_failed_wal FROM pg_stat_archiver
        WHERE current_setting('archive_mode') <> 'off' AND last_failed_time > coalesce(last_archived_time, '-infinity')) AS archiving`);
    return workload(
      {
        longTransactions: row['long'],
        longestMs: row['longest'],
        preparedTransactions: row['prepared'],
        logicalSlots: row['logical'],
        archivingFails: row['archiving'] ?? null,
      },
      '',
    );
  });
  if (!read.ok) return read;
  if (read.value.ok) return { ok: true, value: read.value.value };
  const { path, message } = read.value.error;
  return {
    ok: false,
    error: failure('workload.unreadable', 'the sessions of the server cannot be told', `${path}: ${message}`, 'nothing was changed', '', true),
  };
}
