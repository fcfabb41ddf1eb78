/** The timeline that a running server replays or writes. */
import { type Timeline, makeTimeline } from '../../core/ids.ts';
import { type Failure, type Result, err, ok } from '../../core/result.ts';
import { failure } from './failure.ts';
import { type Instance, ROLES } from './instance.ts';
import { withSql } from './sql.ts';

/**
 * By IDENTIFY_SYSTEM over a replication connection: on a standby pg_stat_wal_receiver runs ahead of replay, and pg_control
 * lags behind it (Z46). Errors: those of withSql; `postgres.query` when the answer is not understood.
 * Source: PostgreSQL manual 55.4; walsender.c, IdentifySystem.
 */
export async function replayTimeline(
  instance: Pick<Instance, 'socketDirectory' | 'port'>,
  options: { readonly signal?: AbortSignal } = {},
): Promise<Result<Timeline, Failure>> {
  const target = { host: instance.socketDirectory, port: instance.port, user: ROLES.agent, database: 'replication', password: null };
  const answer = await withSql(target, { ...options, replication: true, limits: { connectMs: 1000, statementMs: 1000 } }, async (sql) => {
    const [row] = await sql.query('IDENTIFY_SYSTEM');
    return Number(row?.['timeline']);
  });
  if (!answer.ok) return answer;
  if (!Number.isInteger(answer.value)) return err(failure('postgres.query', 'IDENTIFY_SYSTEM gave no timeline', '', 'it is tried again', '', true));
  return ok(makeTimeline(answer.value));
}
