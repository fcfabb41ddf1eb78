/** A checkpoint on request, e.g. before a planned stop, so that the stop itself is short. */
import { monoMs } from '../../base/clock.ts';
import type { Failure, Result } from '../../core/result.ts';
import type { Instance } from './instance.ts';
import { withLocalSql } from './sql.ts';

/** A checkpoint writes all dirty buffers: minutes on a loaded server. */
const CHECKPOINT_LIMIT_MS = 300_000;

/** On a standby: a restart point. Errors: those of withLocalSql. */
export function runCheckpoint(
  instance: Instance,
  options: { readonly signal?: AbortSignal } = {},
): Promise<Result<{ readonly durationMs: number }, Failure>> {
  const startedAt = monoMs();
  return withLocalSql(instance, { ...options, limits: { connectMs: 2000, statementMs: CHECKPOINT_LIMIT_MS } }, async (sql) => {
    await sql.query('CHECKPOINT');
    return { durationMs: monoMs() - startedAt };
  });
}
