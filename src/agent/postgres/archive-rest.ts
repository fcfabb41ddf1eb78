/**
 * WAL segments that a former primary had not archived when it ended. pg_rewind removes what its source does not have any more, and the new primary archives only
 * its own timeline: without this the archive of the people who keep one would have a gap for good (Z49).
 */
import { readdir } from 'node:fs/promises';
import { join } from 'node:path';
import { monoMs, realClock } from '../../base/clock.ts';
import { errnoOf } from './failure.ts';
import type { Instance } from './instance.ts';
import { withLocalSql } from './sql.ts';

/** PostgreSQL tries a segment three times, a second apart, before it pauses for a minute. Longer only keeps the node away. */
const STALL_MS = 20_000;
const LOOK_MS = 100;

/** Names of complete segments that wait for the archiver, oldest first; empty too where nothing is archived. Source: PostgreSQL, access/xlogarchive.c. */
export async function waitingForArchive(instance: Pick<Instance, 'dataDirectory'>): Promise<readonly string[]> {
  try {
    const names = await readdir(join(instance.dataDirectory, 'pg_wal', 'archive_status'));
    return names.flatMap((name) => (name.endsWith('.ready') ? [name.slice(0, -'.ready'.length)] : [])).sort();
  } catch (cause) {
    if (errnoOf(cause) === 'ENOENT') return [];
    throw cause;
  }
}

/**
 * Waits until the running server has archived what waits, as long as it gets on. It archives in recovery only when it was started with
 * `archive_mode = always`. Returns what is left: not empty when the archive takes nothing, or when there is none.
 */
export async function archiveRest(instance: Instance, { signal }: { readonly signal: AbortSignal | null }): Promise<readonly string[]> {
  let left = await waitingForArchive(instance);
  if (left.length === 0 || !(await hasArchive(instance))) return left;
  let movedAt = monoMs();
  while (left.length > 0 && monoMs() - movedAt < STALL_MS && signal?.aborted !== true) {
    await realClock.sleep(LOOK_MS);
    const now = await waitingForArchive(instance);
    if (now.length < left.length) movedAt = monoMs();
    left = now;
  }
  return left;
}

async function hasArchive(instance: Instance): Promise<boolean> {
  const found = await withLocalSql(instance, {}, (sql) =>
    sql.query("SELECT 1 FROM pg_settings WHERE name IN ('archive_command', 'archive_library') AND setting NOT IN ('', '(disabled)')"),
  );
  return found.ok && found.value.length > 0;
}
