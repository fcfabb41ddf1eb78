/**
 * Numbers of timelines whose histories this directory never saw. A promotion takes the first number after its own that has no history file here: an empty
 * one makes it go past. A standby asks its upstream for the history of every number up to the upstream's, and gives up at one that is not there.
 * *Source:* PostgreSQL, access/transam/timeline.c, findNewestTimeLine and readTimeLineHistory (a file without lines that are no comments names no
 * ancestors); replication/walreceiver.c, WalRcvFetchTimeLineHistoryFiles.
 *
 * *Invariant:* such a file lies here only while a promotion is under way, or below the history of a timeline that was really opened. *Because:* nothing
 * descends from it, so a standby would follow no timeline that comes before it, and would not start ("not a child of this server's history").
 * It must not be the other's real history: a standby that is behind its fork would take that for its future. *Broken if:* a start or a new upstream
 * comes without `forgetSkipped`.
 */
import { open, rename } from 'node:fs/promises';
import { join } from 'node:path';
import { monoMs, realClock } from '../../base/clock.ts';
import { type Timeline, makeTimeline } from '../../core/ids.ts';
import { type Failure, type Result, err, ok } from '../../core/result.ts';
import { waitingForArchive } from './archive-rest.ts';
import { readControlData } from './control-data.ts';
import { errnoOf, failure, messageOf } from './failure.ts';
import { giveTo, isThere, readIfThere, removeIfThere, syncDirectory } from './files.ts';
import type { Instance } from './instance.ts';
import { withLocalSql } from './sql.ts';
import { historyFileName, listHistoryTimelines } from './timeline-history.ts';

const MARK = '# pgherd: nothing here descends from this timeline.';
const CONTENT = `${MARK}
# Another member may have opened it. If this is the newest history file here, and PostgreSQL does not start because of it, remove it.
`;
/** Writes wait while they are laid. A node that is farther behind is compared by its marks instead (core/cluster/attempts.ts, mayHoldTwin). */
const MAX_SKIPPED = 64;
/** For some files, of which one may be tried three times, a second apart. */
const ARCHIVE_WAIT_MS = 60_000;
const ARCHIVE_LOOK_MS = 500;

/**
 * Makes a promotion of this standby take a number above `used`; null: whatever PostgreSQL takes. Nothing is written where it would do so anyway, or where
 * more than MAX_SKIPPED would be needed. Errors: `promote.timeline`, those of readControlData.
 */
export async function skipTimelines(instance: Instance, used: Timeline | null): Promise<Result<null, Failure>> {
  if (used === null) return ok(null);
  const control = await readControlData(instance);
  if (!control.ok) return control;
  const first = control.value.timeline + 1;
  if (used - first >= MAX_SKIPPED) return ok(null);
  try {
    await lay(instance, first, used);
    return ok(null);
  } catch (cause) {
    const why = `the numbers of timelines up to ${used} cannot be marked as taken: ${messageOf(cause)}`;
    return err(failure('promote.timeline', `${instance.node} is not promoted`, why, 'nothing was requested', 'is the disk full or read-only?', true));
  }
}

/** A copy brings the newest history alone: those of the numbers below it are laid, for standbys that ask for them. Throws errors of the disk. */
export async function fillHistories(instance: Instance): Promise<void> {
  const newest = (await listHistoryTimelines(instance.dataDirectory)).at(-1);
  if (newest !== undefined) await lay(instance, Math.max(2, newest - MAX_SKIPPED), newest - 1);
}

/** Removes what was laid for a promotion that did not come to be: everything above the newest real history. Throws errors of the disk. */
export async function forgetSkipped(dataDirectory: string): Promise<void> {
  let removed = false;
  for (const timeline of (await listHistoryTimelines(dataDirectory)).toReversed()) {
    if (!(await isLaid(dataDirectory, timeline))) break;
    removed = (await removeIfThere(pathOf(dataDirectory, timeline))) || removed;
  }
  if (removed) await syncDirectory(join(dataDirectory, 'pg_wal'));
}

/**
 * Gives what a promotion went past to the archive: a restore along the newest timeline looks for the histories one after the other, and would end at the
 * first number that is not there. Where the archive has another file of that name it takes none and keeps its own: then nothing is missing.
 * Throws errors of the disk; waits for the archiver at most ARCHIVE_WAIT_MS.
 */
export async function archiveSkipped(instance: Instance): Promise<void> {
  const laid: string[] = [];
  for (const timeline of await listHistoryTimelines(instance.dataDirectory))
    if (await isLaid(instance.dataDirectory, timeline)) laid.push(historyFileName(timeline));
  if (laid.length === 0 || !(await isArchiving(instance))) return;
  const status = join(instance.dataDirectory, 'pg_wal', 'archive_status');
  const offered: string[] = [];
  for (const name of laid)
    if (!(await isThere(join(status, `${name}.done`))) && (await write(instance, join(status, `${name}.ready`), ''))) offered.push(name);
  if (offered.length > 0) await wakeArchiver(instance);
  for (const until = monoMs() + ARCHIVE_WAIT_MS; monoMs() < until; await realClock.sleep(ARCHIVE_LOOK_MS)) {
    const left = (await waitingForArchive(instance)).filter((name) => offered.includes(name));
    if (left.length === 0) return;
    const refused = await lastRefused(instance);
    if (refused === null || !left.includes(refused)) continue;
    await rename(join(status, `${refused}.ready`), join(status, `${refused}.done`));
    await wakeArchiver(instance);
  }
}

async function isArchiving(instance: Instance): Promise<boolean> {
  const found = await withLocalSql(instance, {}, (sql) => sql.query("SELECT 1 WHERE current_setting('archive_mode') <> 'off'"));
  return found.ok && found.value.length > 0;
}

/** It looks once a minute, and pauses so long after three failures, unless something wakes it. *Source:* PostgreSQL, postmaster/pgarch.c, pgarch_MainLoop. */
async function wakeArchiver(instance: Instance): Promise<void> {
  await withLocalSql(instance, {}, (sql) => sql.query('SELECT pg_reload_conf()'));
}

/** What the archiver failed with and tries again; null: nothing. *Source:* PostgreSQL manual, pg_stat_archiver. */
async function lastRefused(instance: Instance): Promise<string | null> {
  const found = await withLocalSql(instance, {}, (sql) =>
    sql.query(
      "SELECT last_failed_wal FROM pg_stat_archiver WHERE last_failed_time > coalesce(last_archived_time, last_failed_time - interval '1 second')",
    ),
  );
  const name = found.ok ? found.value[0]?.['last_failed_wal'] : null;
  return typeof name === 'string' ? name : null;
}

/** One sync for all: what a loss of power leaves empty names no ancestors either. */
async function lay(instance: Instance, first: number, last: number): Promise<void> {
  let laid = false;
  for (let timeline = first; timeline <= last; timeline++)
    laid = (await write(instance, pathOf(instance.dataDirectory, makeTimeline(timeline)), CONTENT)) || laid;
  if (laid) await syncDirectory(join(instance.dataDirectory, 'pg_wal'));
}

/** False when there is such a file, which is left as it is. */
async function write(instance: Instance, path: string, content: string): Promise<boolean> {
  try {
    const handle = await open(path, 'wx', 0o600);
    try {
      await giveTo(handle, instance.os);
      await handle.writeFile(content);
    } finally {
      await handle.close();
    }
    return true;
  } catch (cause) {
    if (errnoOf(cause) === 'EEXIST') return false;
    throw cause;
  }
}

async function isLaid(dataDirectory: string, timeline: Timeline): Promise<boolean> {
  const text = await readIfThere(pathOf(dataDirectory, timeline));
  return text !== null && (text === '' || text.startsWith(MARK));
}

function pathOf(dataDirectory: string, timeline: Timeline): string {
  return join(dataDirectory, 'pg_wal', historyFileName(timeline));
}
