/**
 * Numbers of timelines that others have opened, and whose histories this directory never saw. A promotion takes the first number after its own that has no
 * history file here: an empty one makes it go past. *Source:* PostgreSQL, access/transam/timeline.c, findNewestTimeLine and readTimeLineHistory (a file
 * without lines that are no comments names no ancestors).
 *
 * *Invariant:* such a file lies here only while a promotion is under way, or below the history of a timeline that was really opened. *Because:* nothing
 * descends from it, so a standby would follow no timeline that comes before it, and would not start ("not a child of this server's history").
 * It must not be the other's real history: a standby that is behind its fork would take that for its future. *Broken if:* a start or a new upstream
 * comes without `forgetSkipped`.
 */
import { join } from 'node:path';
import { type Timeline, makeTimeline } from '../../core/ids.ts';
import { type Failure, type Result, err, ok } from '../../core/result.ts';
import { readControlData } from './control-data.ts';
import { failure, messageOf } from './failure.ts';
import { isThere, readIfThere, removeIfThere, syncDirectory, writeAtomic } from './files.ts';
import type { Instance } from './instance.ts';
import { historyFileName, listHistoryTimelines } from './timeline-history.ts';

const MARK = '# pgherd: another member has opened this timeline.';
const CONTENT = `${MARK}
# It is none of the ancestors of the next one. If it is the newest history file here, and PostgreSQL does not start because of it, remove it.
`;
/** Each costs an fsync, and writes wait meanwhile. A node that is farther behind is compared by its marks (architecture §4). */
const MAX_SKIPPED = 64;

/**
 * Makes a promotion of this standby take a number above `used`; null: whatever PostgreSQL takes. Nothing is written where it would do so anyway.
 * Errors: `promote.timeline`, those of readControlData.
 */
export async function skipTimelines(instance: Instance, used: Timeline | null): Promise<Result<null, Failure>> {
  if (used === null) return ok(null);
  const control = await readControlData(instance);
  if (!control.ok) return control;
  const first = Math.max(control.value.timeline + 1, used - MAX_SKIPPED + 1);
  try {
    for (let timeline = first; timeline <= used; timeline++) {
      const path = pathOf(instance.dataDirectory, makeTimeline(timeline));
      if (!(await isThere(path))) await writeAtomic(path, CONTENT, { owner: instance.os });
    }
    return ok(null);
  } catch (cause) {
    const why = `the numbers of timelines up to ${used} cannot be marked as taken: ${messageOf(cause)}`;
    return err(failure('promote.timeline', `${instance.node} is not promoted`, why, 'nothing was requested', 'is the disk full or read-only?', true));
  }
}

/** Removes what was laid for a promotion that did not come to be: everything above the newest real history. Throws errors of the disk. */
export async function forgetSkipped(dataDirectory: string): Promise<void> {
  let removed = false;
  for (const timeline of (await listHistoryTimelines(dataDirectory)).toReversed()) {
    const path = pathOf(dataDirectory, timeline);
    if ((await readIfThere(path))?.startsWith(MARK) !== true) break;
    removed = (await removeIfThere(path)) || removed;
  }
  if (removed) await syncDirectory(join(dataDirectory, 'pg_wal'));
}

function pathOf(dataDirectory: string, timeline: Timeline): string {
  return join(dataDirectory, 'pg_wal', historyFileName(timeline));
}
