/** The end of the valid WAL in a data directory. */
import { type Timeline, makeTimeline } from '../../core/ids.ts';
import { type Lsn, makeLsn } from '../../core/lsn.ts';
import type { Fork, Position } from '../../core/report.ts';
import { type Failure, type Result, err, ok } from '../../core/result.ts';
import { type ControlData, isCleanlyShutDown, readControlData } from './control-data.ts';
import { failure, messageOf } from './failure.ts';
import type { Instance } from './instance.ts';
import { type LineageStep, lineageOf, listHistoryTimelines, readHistory, timelineAt } from './timeline-history.ts';
import { walkWal } from './wal-reader.ts';

export interface WalEnd extends Position {
  /** History of `timeline`, oldest first. */
  readonly history: readonly Fork[];
  /** Clean shutdown of a primary: end of the shutdown checkpoint record. */
  readonly shutdownLsn: Lsn | null;
}

/**
 * Reads forward from the last checkpoint (or from `from`, a record boundary known to be replayed) to the first record that is
 * not valid. The timeline is that of the newest local lineage which contains the checkpoint's timeline and owns WAL files.
 * For a running standby give `from` and its replayed `timeline`: then only what lies behind replay is read. For a crashed primary give what it had
 * `flushed` when it was looked at last: then only what lies behind that is read, since WAL is written in order and everything before is there.
 * Errors: those of readControlData, `postgres.wal-unreadable`, `postgres.cancelled`.
 */
export async function readWalEnd(
  instance: Pick<Instance, 'dataDirectory' | 'binDirectory' | 'os'>,
  options: {
    readonly from?: { readonly timeline: Timeline; readonly lsn: Lsn };
    readonly flushed?: Lsn;
    readonly control?: ControlData;
    readonly signal?: AbortSignal;
  } = {},
): Promise<Result<WalEnd, Failure>> {
  const control = options.control === undefined ? await readControlData(instance) : ok(options.control);
  if (!control.ok) return control;
  const { segmentBytes, pageBytes } = control.value;
  const known = Math.max(control.value.timeline, control.value.minRecoveryTimeline ?? 0, options.from?.timeline ?? 0);
  const from = options.from?.lsn ?? control.value.checkpointLsn;
  try {
    const lineages = await localLineages(instance.dataDirectory, makeTimeline(known), from);
    let best: WalEnd | null = null;
    for (const { lineage, history } of lineages) {
      const walk = {
        dataDirectory: instance.dataDirectory,
        segmentBytes,
        pageBytes,
        lineage,
        until: null,
        ...(options.signal === undefined ? {} : { signal: options.signal }),
      };
      const near = options.flushed === undefined ? null : await walkWal({ ...walk, from: options.flushed, nearest: true });
      // Without one valid record near it the short way proves nothing.
      const walked = near !== null && (near.records > 0 || near.reason === 'cancelled') ? near : await walkWal({ ...walk, from });
      if (walked.reason === 'cancelled')
        return err(failure('postgres.cancelled', 'reading the end of WAL', 'the operation was cancelled', 'nothing was changed', '', true));
      const timeline = timelineAt(lineage, walked.end) ?? makeTimeline(known);
      const kept = history.filter((fork) => fork.timeline < timeline);
      const shutdownLsn = control.value.state === 'shut down' && isCleanlyShutDown(control.value) ? walked.end : null;
      // Several local histories: the one whose WAL reaches farther is the one PostgreSQL would replay; a tie goes to the newer timeline only if it owns WAL.
      if (best === null || walked.end > best.lsn) best = { timeline, lsn: walked.end, history: kept, shutdownLsn };
    }
    if (best !== null) return ok(best);
    return ok({ timeline: makeTimeline(known), lsn: makeLsn(from), history: [], shutdownLsn: null });
  } catch (cause) {
    return err(
      failure(
        'postgres.wal-unreadable',
        `cannot read WAL of ${instance.dataDirectory}`,
        messageOf(cause),
        'the position of this node is unknown',
        'check the disk',
        true,
      ),
    );
  }
}

/** Lineages that contain `known`, that one first, then those of newer local history files which forked from it at or after `from`. */
async function localLineages(
  dataDirectory: string,
  known: Timeline,
  from: Lsn,
): Promise<readonly { readonly lineage: readonly LineageStep[]; readonly history: readonly Fork[] }[]> {
  const own = (await readHistory(dataDirectory, known)) ?? [];
  const found = [{ lineage: lineageOf(known, own), history: own }];
  // At most the 16 newest: a directory with thousands of timelines (Q10) must not cost thousands of walks.
  for (const timeline of (await listHistoryTimelines(dataDirectory)).filter((candidate) => candidate > known).slice(-16)) {
    const history = await readHistory(dataDirectory, timeline);
    const fork = history?.find((candidate) => candidate.timeline === known);
    if (history === null || fork === undefined || fork.forkLsn < from) continue;
    found.push({ lineage: lineageOf(timeline, history), history });
  }
  return found;
}
