/** What a server does as a standby: recovers, connects to its upstream and again after each failure, receives, replays, leaves recovery when promoted. */
import { type Core, type Link, type Receiver, type Run, afterIn, directoryOf, nextPid, note, setting } from './core.ts';
import { type DataDirectory, newestTimeline } from './directory.ts';
import { insert, takeCheckpoint } from './primary.ts';
import { conninfoOf, connectReceiver, endReceiver, endpointOf, fetchHistories, pushAll, reloadSender, reply } from './replication.ts';
import { type TimelineBranch, type WalRecord, branchOf, contains, forkLsnOf, forkTimeline, recordAt } from './wal.ts';

/**
 * What a start as standby would follow, and why it is fatal: the newest timeline with a history file here must contain our checkpoint.
 * *Source:* PostgreSQL, xlogrecovery.c, InitWalRecovery ("requested timeline … is not a child of this server's history").
 */
export function chooseTarget(
  directory: DataDirectory,
  along: 'newest' | 'checkpoint',
): { readonly target: TimelineBranch; readonly fatal: string | null } {
  const known = branchOf(directory.timeline, directory.checkpointTli) ?? directory.timeline;
  const target = along === 'newest' ? newestTimeline(directory, known) : known;
  if (branchOf(directory.timeline, target.tli) === target) return { target: directory.timeline, fatal: null };
  const fork = forkLsnOf(target, known.tli);
  if (fork === null || fork < directory.checkpoint.lsn)
    return { target, fatal: `FATAL: requested timeline ${target.tli} is not a child of this server's history` };
  const { minRecovery } = directory;
  const needed =
    minRecovery === null ? null : (forkLsnOf(target, minRecovery.tli) ?? (target.tli === minRecovery.tli ? Number.POSITIVE_INFINITY : -1));
  if (minRecovery !== null && needed !== null && needed < minRecovery.lsn)
    return { target, fatal: `FATAL: requested timeline ${target.tli} does not contain minimum recovery point` };
  return { target, fatal: null };
}

/** Local WAL was read to its end along the target: what lies past a fork of it is not replayed. */
export function replayLocal(core: Core, run: Run): void {
  const directory = directoryOf(core);
  const { target } = run;
  if (target !== directory.timeline) {
    const fork = forkLsnOf(target, directory.timeline.tli);
    if (fork !== null && fork < directory.end.lsn) {
      const at = recordAt(directory.end, fork);
      if (!contains(at, directory.applied)) spoil(core, directory, `pages hold WAL past the fork of timeline ${target.tli}`);
      directory.end = at;
      directory.durable = at;
    }
  }
  run.replayed = directory.end;
  if (contains(directory.end, directory.applied) || directory.corrupt !== null) directory.applied = directory.end;
}

/**
 * A standby ended without a restart point. Each page that was written raised the minimum recovery point first, so that no page is ahead of it: either pages up to
 * the end of replay were written, or only those of the last restart point. Which of both is a coin that needs no draw.
 * *Source:* PostgreSQL, xlog.c, XLogFlush and UpdateMinRecoveryPoint.
 */
export function leavePages(directory: DataDirectory): void {
  const { applied, durable, minRecovery, checkpoint } = directory;
  const reached = contains(durable, applied) ? applied : durable;
  const floor = Math.max(minRecovery?.lsn ?? 0, checkpoint.lsn);
  if (reached.lsn <= floor) return;
  if (Math.floor(reached.lsn / 8) % 2 === 0) directory.minRecovery = { lsn: reached.lsn, tli: reached.tli };
  else directory.applied = recordAt(reached, floor);
}

export function spoil(core: Core, directory: DataDirectory, why: string): void {
  if (directory.corrupt !== null) return;
  directory.corrupt = why;
  note(core, `!! the data of ${core.name} is spoiled: ${why}`);
}

/** Consistent: reads are possible. */
export function becomeConsistent(core: Core, run: Run): void {
  const directory = directoryOf(core);
  if (run.status !== 'starting' || run.role !== 'standby' || !isConsistent(directory, run)) return;
  run.status = 'standby';
  directory.backupLabel = false;
}

function isConsistent(directory: DataDirectory, run: Run): boolean {
  return directory.minRecovery === null || run.replayed.lsn >= directory.minRecovery.lsn;
}

/** Recovery has used up local WAL: a walreceiver is wanted when there is an upstream. */
export function wantReceiver(core: Core, run: Run): void {
  if (
    run.role !== 'standby' ||
    run.receiver !== null ||
    run.stuck ||
    run.startupBlocked ||
    run.replayPaused ||
    run.promoting ||
    run.status === 'stopping'
  )
    return;
  if (endpointOf(run.startupConninfo) === null || run.retryTimer !== null) return;
  const waitMs = Math.max(0, run.lastAttemptAt + core.timings.walRetrieveRetry - core.clock.now());
  run.retryTimer = afterIn(core, run, waitMs, () => {
    run.retryTimer = null;
    if (run.receiver !== null || run.startupBlocked || run.replayPaused || run.promoting || run.status === 'stopping') return;
    const endpoint = endpointOf(run.startupConninfo);
    if (endpoint === null) return;
    run.lastAttemptAt = core.clock.now();
    const receiver: Receiver = { pid: nextPid(core), ...endpoint, conninfo: run.startupConninfo, link: null };
    run.receiver = receiver;
    connectReceiver(core, run, receiver);
  });
}

export function receiverEnded(core: Core, run: Run, receiver: Receiver, why: string): void {
  if (run.receiver !== receiver) return;
  run.receiver = null;
  run.lastError = why;
  rescanTimelines(core, run);
  wantReceiver(core, run);
}

/** SIGTERM to the walreceiver. */
export function terminateReceiver(core: Core, run: Run): void {
  const { receiver } = run;
  if (receiver === null) return;
  if (receiver.link !== null) endReceiver(receiver.link);
  receiverEnded(core, run, receiver, 'FATAL: terminating walreceiver process due to administrator command');
}

/** The startup process has loaded new settings: a walreceiver with other ones is ended, unless the process sits inside of replay. */
export function startupReload(core: Core, run: Run, settings: ReadonlyMap<string, string>): void {
  run.startupConninfo = conninfoOf(settings);
  run.startupSlot = setting(settings, 'primary_slot_name');
  if (run.replayPaused) return;
  const { receiver } = run;
  if (receiver !== null && receiver.conninfo !== run.startupConninfo) {
    // A restart that was asked for waits for nothing. *Source:* xlogrecovery.c, pendingWalRcvRestart.
    run.lastAttemptAt = Number.NEGATIVE_INFINITY;
    terminateReceiver(core, run);
  }
  wantReceiver(core, run);
}

/** *Source:* PostgreSQL, xlogrecovery.c, rescanLatestTimeLine. */
export function rescanTimelines(core: Core, run: Run): void {
  const directory = directoryOf(core);
  const newest = newestTimeline(directory, run.target);
  if (newest === run.target) return;
  const fork = forkLsnOf(newest, run.target.tli);
  if (fork === null || fork < run.replayed.lsn) return;
  run.target = newest;
}

export function receiveWal(core: Core, link: Link, target: WalRecord): void {
  const run = link.standbyRun;
  const directory = directoryOf(core);
  if (core.disk.stuck) return;
  if (core.disk.full || core.disk.readOnly) {
    terminateReceiver(core, run);
    return;
  }
  if (target === directory.end || contains(directory.end, target)) {
    reply(link);
    return;
  }
  if (core.disk.fsyncMs <= 2) store(core, link, target);
  else
    afterIn(core, run, core.disk.fsyncMs * (0.6 + 0.8 * core.random.next()), () => {
      // A walreceiver that ended meanwhile (a promotion, a detach) writes nothing more.
      if (!core.disk.stuck && !link.receiverGone && run.role === 'standby') store(core, link, target);
    });
}

/**
 * What of it a receiver gets: a walsender sends no more than its timeline has before the receiver has fetched the next one's history, over the same connection.
 * A server that ended meanwhile (its directory may have been made anew since) gives it to nobody. *Source:* walsender.c, sendTimeLineIsHistoric; walreceiver.c, WalRcvFetchTimeLineHistoryFiles.
 */
function upToKnownTimeline(directory: DataDirectory, link: Link, target: WalRecord): WalRecord {
  let record = target;
  while (record.tli !== directory.timeline.tli && record.prev !== null && branchOf(directoryOf(link.upstream).timeline, record.tli) === null)
    record = record.prev;
  return record;
}

function store(core: Core, link: Link, received: WalRecord): void {
  const run = link.standbyRun;
  const directory = directoryOf(core);
  const target = upToKnownTimeline(directory, link, received);
  if (contains(directory.end, target)) {
    reply(link);
    return;
  }
  if (target.prev !== directory.end && !contains(target, directory.end)) {
    storeForeign(core, link, target);
    return;
  }
  adoptTimeline(core, run, link, target);
  directory.end = target;
  directory.durable = target;
  pushAll(run);
  replay(core, run);
  reply(link);
}

/**
 * WAL of another history under the same numbers (a twin timeline): the segment is written over from its beginning. Up to the own end replay does not
 * notice. Beyond it the first record does not fit, and replay stops for good. After the next start the other history is replayed onto our pages.
 */
function storeForeign(core: Core, link: Link, target: WalRecord): void {
  const run = link.standbyRun;
  const directory = directoryOf(core);
  const timeline = branchOf(directoryOf(link.upstream).timeline, target.tli) ?? directory.timeline;
  directory.overwritten = { end: target, timeline };
  spoil(core, directory, `streams from ${link.upstream.name} what does not follow its own WAL`);
  if (target.lsn <= directory.end.lsn) {
    reply(link);
    return;
  }
  run.stuck = true;
  terminateReceiver(core, run);
  run.lastError = 'record with incorrect prev-link';
}

function adoptTimeline(core: Core, run: Run, link: Link, target: WalRecord): void {
  const directory = directoryOf(core);
  if (target.tli === directory.timeline.tli) return;
  const branch = branchOf(directoryOf(link.upstream).timeline, target.tli);
  if (branch === null) return;
  // Also of numbers between that are no ancestors: without them the startup process would not look as far as the new one.
  fetchHistories(directory, directoryOf(link.upstream), directory.timeline.tli, target.tli);
  directory.timeline = branch;
  rescanTimelines(core, run);
}

/** Replays what was received, unless it is paused, blocked or slow. */
export function replay(core: Core, run: Run): void {
  if (run.role !== 'standby' || run.replayPaused || run.startupBlocked || run.replayTimer !== null) return;
  const directory = directoryOf(core);
  if (run.replayed === directory.end) return;
  // Delayed on purpose: what is here now is applied that much later. *Source:* PostgreSQL manual, recovery_min_apply_delay (counts once consistency is reached).
  const isDelayed = core.applyDelayMs > 0 && run.status === 'standby';
  const until = isDelayed ? directory.end : null;
  const apply = (): void => {
    run.replayTimer = null;
    if (run.replayPaused || run.startupBlocked) return;
    run.replayed = until ?? directory.end;
    directory.applied = run.replayed;
    becomeConsistent(core, run);
  };
  const slowMs = core.timings.replayDelay === 0 ? 0 : core.timings.replayDelay * (0.5 + core.random.next());
  const waitMs = isDelayed ? core.applyDelayMs : slowMs;
  if (waitMs === 0) {
    apply();
    return;
  }
  run.replayTimer = afterIn(core, run, waitMs, () => {
    apply();
    if (run.receiver?.link != null) reply(run.receiver.link);
    replay(core, run);
  });
}

/** After a pause or a block: goes on with replay, and with the settings that came meanwhile. */
export function resumeReplay(core: Core, run: Run): void {
  replay(core, run);
  if (run.receiver?.link != null) reply(run.receiver.link);
  startupReload(core, run, run.loaded);
}

/**
 * The server leaves recovery: a new timeline with the next number that no history file here has, from the end of what was received.
 * Without effect on a primary, and while the startup process hears nothing (the request is lost then, as the product expects).
 */
export function promote(core: Core, run: Run): void {
  if (run.role !== 'standby' || run.status !== 'standby' || run.promoting || run.startupBlocked || run.replayPaused) return;
  run.promoting = true;
  run.retryTimer?.cancel();
  run.retryTimer = null;
  terminateReceiver(core, run);
  afterIn(core, run, core.timings.promote * (0.7 + 0.6 * core.random.next()), () => {
    const directory = directoryOf(core);
    replay(core, run);
    run.replayTimer?.cancel();
    run.replayTimer = null;
    run.replayed = directory.end;
    let tli = run.target.tli + 1;
    while (directory.histories.has(tli)) tli++;
    const timeline = forkTimeline(branchAtEnd(run.target, directory.end.lsn), tli, directory.end, core.name);
    directory.histories.set(tli, timeline);
    directory.timeline = timeline;
    directory.state = 'in production';
    directory.minRecovery = null;
    directory.standbySignal = false;
    run.promoting = false;
    run.role = 'primary';
    run.status = 'primary';
    run.inserted = directory.end;
    // Flushed before anybody may write. *Source:* PostgreSQL, xlog.c, CreateEndOfRecoveryRecord.
    const record = insert(core, run, 'end-of-recovery');
    directory.end = record;
    directory.durable = record;
    directory.applied = record;
    pushAll(run);
    // Standbys of this standby ask for the new timeline, and their walsenders look at their priority anew. *Source:* walsender.c, StartReplication.
    for (const link of run.links) afterIn(core, run, 5, () => reloadSender(link, run.loaded));
    note(core, `promoted: timeline ${tli} from ${timeline.forkLsn.toString(16)}`);
    // The first checkpoint of the new timeline is spread over minutes, unless there is next to nothing to write.
    const spread = directory.end.lsn - directory.checkpoint.lsn > SMALL_BYTES;
    const waitMs = spread ? core.timings.checkpointEvery * (0.1 + 0.8 * core.random.next()) : 0;
    afterIn(core, run, waitMs, () => takeCheckpoint(core, run, () => undefined));
  });
}

/** WAL since the last checkpoint that dirties a handful of pages. */
const SMALL_BYTES = 1000;

/** A position exactly at a fork is still the parent's. */
function branchAtEnd(timeline: TimelineBranch, lsn: number): TimelineBranch {
  let at = timeline;
  while (at.parent !== null && lsn <= at.forkLsn) at = at.parent;
  return at;
}
