/** What a server does as a primary: writes WAL, flushes it, lets commits wait for standbys, takes checkpoints, keeps WAL for slots. */
import { type Core, type Link, type Pending, type Run, afterIn, directoryOf, note, setting } from './core.ts';
import type { CommitDurability, CommitOutcome } from './core.ts';
import type { DataDirectory } from './directory.ts';
import { confirmedPositions, parseSyncNames, type SyncConfig } from './sync-rep.ts';
import { type RecordKind, type WalRecord, appendRecord } from './wal.ts';

export interface ModelCommit {
  readonly id: number;
  readonly durability: CommitDurability;
  readonly bytes?: number;
}

/** Called when the statement reaches the server. Returns the commit's record; null when it was refused (then `done` was called). */
export function submitCommit(core: Core, commit: ModelCommit, done: (outcome: CommitOutcome) => void): WalRecord | null {
  const { run } = core;
  const orphaned = core.clock.now() < core.orphansUntil;
  if (run === null || run.role !== 'primary' || (run.status !== 'primary' && !orphaned)) {
    done('refused');
    return null;
  }
  const record = insert(core, run, 'commit', { commit: commit.id, ...(commit.bytes === undefined ? {} : { bytes: commit.bytes }) });
  core.journal.set(commit.id, record);
  const pending: Pending = { record, durability: commit.durability, done };
  if (commit.durability === 'off') {
    done('acknowledged');
  } else {
    run.hidden.add(record);
    run.flushWait.push(pending);
  }
  flush(core, run);
  return record;
}

/** Adds a record to the WAL buffers. */
export function insert(core: Core, run: Run, kind: RecordKind, options: { readonly commit?: number; readonly bytes?: number } = {}): WalRecord {
  run.inserted = appendRecord(run.inserted, directoryOf(core).timeline.tli, kind, options);
  return run.inserted;
}

/** Begins an fsync of everything inserted so far, unless one is under way: then another follows it. */
export function flush(core: Core, run: Run): void {
  const directory = directoryOf(core);
  if (run.flushing || run.inserted === directory.durable || core.disk.stuck) return;
  if (core.disk.full || core.disk.readOnly) {
    core.signals.panic('could not write to the WAL: no space left on device');
    return;
  }
  run.flushing = true;
  const target = run.inserted;
  // Written, so that it outlives the processes, but not yet on the platter.
  if (core.random.chance(0.5)) directory.end = target;
  afterIn(core, run, core.disk.fsyncMs * (0.6 + 0.8 * core.random.next()), () => {
    run.flushing = false;
    if (core.disk.stuck) return;
    flushed(core, run, target);
    if (run.inserted !== target) flush(core, run);
  });
}

function flushed(core: Core, run: Run, target: WalRecord): void {
  const directory = directoryOf(core);
  directory.end = target;
  directory.durable = target;
  directory.applied = target;
  let ready = 0;
  while (ready < run.flushWait.length && (run.flushWait[ready] as Pending).record.lsn <= target.lsn) ready++;
  if (ready > 0) for (const pending of run.flushWait.splice(0, ready)) waitForStandbys(run, pending);
  core.signals.durable(run);
}

function waitForStandbys(run: Run, pending: Pending): void {
  const { durability } = pending;
  if (durability === 'local' || durability === 'off' || !run.syncDefined || confirmed(run, pending)) finish(run, pending, 'acknowledged');
  else run.syncWait.push(pending);
}

function confirmed(run: Run, { record, durability }: Pending): boolean {
  const { released } = run;
  const position = durability === 'remote_write' ? released.write : durability === 'remote_apply' ? released.apply : released.flush;
  return record.lsn <= position;
}

function finish(run: Run, pending: Pending, outcome: CommitOutcome): void {
  run.hidden.delete(pending.record);
  pending.done(outcome);
}

/**
 * What a walsender does with a reply of its standby: it judges with the configuration that itself has loaded.
 * *Source:* PostgreSQL 15, syncrep.c, SyncRepReleaseWaiters.
 */
export function releaseWaiters(run: Run, own: Link): void {
  if (own.priority === 0 || own.flush === null || own.state !== 'streaming') return;
  const candidates = [...run.links].filter((link) => !link.senderGone && link.priority > 0 && link.flush !== null && link.state === 'streaming');
  const views = new Map(
    candidates.map((link) => [link, { priority: link.priority, write: link.flush ?? 0, flush: link.flush ?? 0, apply: link.apply }]),
  );
  const mine = views.get(own);
  const positions = mine === undefined ? null : confirmedPositions(own.config, mine, [...views.values()]);
  if (positions === null) return;
  const { released } = run;
  released.write = Math.max(released.write, positions.write);
  released.flush = Math.max(released.flush, positions.flush);
  released.apply = Math.max(released.apply, positions.apply);
  if (run.syncWait.length === 0) return;
  const waiting = run.syncWait;
  run.syncWait = waiting.filter((pending) => !confirmed(run, pending));
  for (const pending of waiting) if (confirmed(run, pending)) finish(run, pending, 'acknowledged');
}

/** Query cancel of everybody who waits for standbys: committed here, with a warning to the client. */
export function cancelSyncWaits(run: Run): void {
  for (const pending of run.syncWait.splice(0)) finish(run, pending, 'unprotected');
}

/** Sessions end: the server goes down, or an administrator ends them. Their commits stand as far as they were flushed. */
export function endSessions(run: Run): void {
  const all = [...run.flushWait.splice(0), ...run.syncWait.splice(0)];
  for (const pending of all) finish(run, pending, 'lost');
}

export function syncConfigOf(settings: ReadonlyMap<string, string>): SyncConfig | null {
  return parseSyncNames(setting(settings, 'synchronous_standby_names'));
}

/** The checkpointer has the new settings. *Source:* syncrep.c, SyncRepUpdateSyncStandbysDefined: waiters go free when the list became empty. */
export function updateSyncDefined(run: Run, settings: ReadonlyMap<string, string>): void {
  run.syncDefined = syncConfigOf(settings) !== null;
  if (!run.syncDefined) for (const pending of run.syncWait.splice(0)) finish(run, pending, 'acknowledged');
}

/** A checkpoint of a primary, a restart point of a standby; `done` when it is in pg_control. */
export function takeCheckpoint(core: Core, run: Run, done: () => void): void {
  const directory = directoryOf(core);
  const ms = core.timings.checkpoint * (0.5 + core.random.next()) + core.disk.fsyncMs * 10;
  afterIn(core, run, ms, () => {
    if (core.disk.stuck) return;
    if (run.role === 'primary') {
      const record = insert(core, run, 'checkpoint');
      flush(core, run);
      whenFlushed(core, run, record, () => {
        directory.checkpoint = record;
        directory.checkpointTli = record.tli;
        removeOldWal(core, directory);
        done();
      });
      return;
    }
    restartPoint(core, run, directory);
    done();
  });
}

function whenFlushed(core: Core, run: Run, record: WalRecord, then: () => void): void {
  if (directoryOf(core).durable.lsn >= record.lsn) then();
  else afterIn(core, run, 1, () => whenFlushed(core, run, record, then));
}

/** The newest checkpoint that was replayed becomes where a restart begins. */
export function restartPoint(core: Core, run: Run, directory: DataDirectory): void {
  let at: WalRecord | null = run.replayed;
  const floor = directory.checkpoint.lsn;
  while (at !== null && at.lsn > floor && at.kind !== 'checkpoint' && at.kind !== 'shutdown' && at.kind !== 'end-of-recovery') at = at.prev;
  if (at !== null && at.lsn > floor && at.kind !== 'end-of-recovery') {
    directory.checkpoint = at;
    directory.checkpointTli = at.tli;
  }
  directory.minRecovery = { lsn: run.replayed.lsn, tli: run.replayed.tli };
  removeOldWal(core, directory);
}

/** `0`, `32MB`; null when it is not set. */
function bytesOf(text: string | undefined): number | null {
  const match = /^(\d+)(MB)?$/.exec(text ?? '');
  return match === null ? null : Number(match[1]) * 1024 * 1024;
}

/**
 * WAL before the checkpoint goes, except what wal_keep_size and slots keep; a slot that would keep more than max_slot_wal_keep_size is lost.
 * *Source:* PostgreSQL, xlog.c, KeepLogSeg and InvalidateObsoleteReplicationSlots.
 */
export function removeOldWal(core: Core, directory: DataDirectory): void {
  const { segmentBytes } = core.timings;
  const walKeepBytes = bytesOf(directory.settings.get('wal_keep_size')) ?? core.timings.walKeepBytes;
  const slotKeepBytes = bytesOf(directory.settings.get('max_slot_wal_keep_size')) ?? core.timings.slotKeepBytes;
  const segment = (lsn: number): number => Math.floor(lsn / segmentBytes) * segmentBytes;
  const end = directory.end.lsn;
  let keep = segment(Math.min(directory.checkpoint.lsn, end - walKeepBytes));
  for (const slot of directory.slots.values()) {
    if (slot.lost) continue;
    const oldest = slotKeepBytes === null ? slot.restartLsn : Math.max(slot.restartLsn, segment(end - slotKeepBytes));
    keep = Math.min(keep, segment(oldest));
  }
  keep = Math.min(keep, segment(directory.checkpoint.lsn));
  if (keep <= directory.oldestLsn) return;
  directory.oldestLsn = keep;
  for (const slot of directory.slots.values()) {
    if (slot.lost || segment(slot.restartLsn) >= keep) continue;
    slot.lost = true;
    note(core, `slot ${slot.name} is lost`);
  }
}
