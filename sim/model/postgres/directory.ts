/** A data directory and the disk that it lies on. What is here survives the processes; what was not fsynced does not survive a loss of power. */
import type { Random } from '../../random.ts';
import { type TimelineBranch, type WalRecord, firstRecord, firstTimeline, isTaken, takenTimeline } from './wal.ts';

/** As in pg_control. */
export type ControlState =
  | 'starting up'
  | 'shut down'
  | 'shut down in recovery'
  | 'shutting down'
  | 'in crash recovery'
  | 'in archive recovery'
  | 'in production';

export interface Slot {
  readonly name: string;
  restartLsn: number;
  active: boolean;
  /** WAL that it needs was removed. */
  lost: boolean;
}

export interface DataDirectory {
  readonly systemIdentifier: string;
  /** The name of this directory's life, eight hexadecimal digits; null: it was made anew and has none yet. As src/agent/postgres/incarnation.ts. */
  incarnation: string | null;
  state: ControlState;
  checkpoint: WalRecord;
  /** Of the last checkpoint: what pg_control shows, and pg_rewind believes. */
  checkpointTli: number;
  /** End of WAL as the files show it. */
  end: WalRecord;
  /** End of WAL on the platter. */
  durable: WalRecord;
  /** WAL of another history was written over the own from the beginning of a segment: what the files will show once nothing runs. */
  overwritten: { readonly end: WalRecord; readonly timeline: TimelineBranch } | null;
  /** Data pages may hold effects of WAL up to here. */
  applied: WalRecord;
  /** The timeline of `end`. */
  timeline: TimelineBranch;
  /** History files in pg_wal, by number. */
  readonly histories: Map<number, TimelineBranch>;
  /** Not consistent before this much was replayed; null: as soon as local WAL was. */
  minRecovery: { readonly lsn: number; readonly tli: number } | null;
  /** A copy that was never started. */
  backupLabel: boolean;
  /** WAL before this was removed. */
  oldestLsn: number;
  readonly slots: Map<string, Slot>;
  /** postgresql.auto.conf. */
  readonly settings: Map<string, string>;
  /** The managed files were written for this spec (or whatever the caller compares). */
  managed: unknown;
  standbySignal: boolean;
  /** Says that the pages do not belong to the WAL any more, and since when: real PostgreSQL would not notice. */
  corrupt: string | null;
}

export interface Disk {
  directory: DataDirectory | null;
  /** A clone or a rewind was interrupted; the mark lies beside the directory. */
  incomplete: 'clone' | 'rewind' | null;
  /** Directories that were moved away, newest last. */
  readonly saved: DataDirectory[];
  /** Ends of diverged WAL that was kept before a rewind. */
  readonly kept: WalRecord[];
  /** How many names were given to directories here. */
  lives: number;
  /** Processes that wait for this disk cannot be killed (state D). */
  holdsProcesses: boolean;
  /** One fsync. */
  fsyncMs: number;
  /** Nothing can be written: commits fail (a full WAL disk makes the server panic). */
  full: boolean;
  readOnly: boolean;
  /** No write ever returns; reads do. */
  stuck: boolean;
}

export function createDisk(): Disk {
  return {
    directory: null,
    incomplete: null,
    saved: [],
    kept: [],
    lives: 0,
    holdsProcesses: false,
    fsyncMs: 0.5,
    full: false,
    readOnly: false,
    stuck: false,
  };
}

/** What initdb makes: cleanly shut down, with standby.signal (the product puts it there). */
export function createDirectory(random: Random, creator: string): DataDirectory {
  const first = firstRecord();
  return {
    systemIdentifier: String(7_000_000_000_000_000_000n + BigInt(random.int(2 ** 31))),
    incarnation: null,
    state: 'shut down',
    checkpoint: first,
    checkpointTli: 1,
    end: first,
    durable: first,
    applied: first,
    overwritten: null,
    timeline: firstTimeline(creator),
    histories: new Map(),
    minRecovery: null,
    backupLabel: false,
    oldestLsn: 0,
    slots: new Map(),
    settings: new Map(),
    managed: null,
    standbySignal: true,
    corrupt: null,
  };
}

/** A byte-for-byte copy, without slots (pg_basebackup leaves them out). */
export function copyDirectory(from: DataDirectory): DataDirectory {
  return { ...from, incarnation: null, overwritten: null, histories: new Map(from.histories), slots: new Map(), settings: new Map(from.settings) };
}

export function isCleanlyShutDown(directory: DataDirectory): boolean {
  return directory.state === 'shut down' || directory.state === 'shut down in recovery';
}

/** What the directory was last: as roleOf in src/agent/postgres/observe.ts. */
export function lastRole(directory: DataDirectory): 'primary' | 'standby' {
  const standby = directory.state === 'in archive recovery' || directory.state === 'shut down in recovery' || directory.backupLabel;
  return standby ? 'standby' : 'primary';
}

/** Whoever reads the files from the last checkpoint on finds the other history, unless that ends before the checkpoint. */
export function showOverwritten(directory: DataDirectory): void {
  if (directory.overwritten === null || directory.overwritten.end.lsn < directory.checkpoint.lsn) return;
  directory.end = directory.overwritten.end;
  directory.durable = directory.overwritten.end;
  directory.timeline = directory.overwritten.timeline;
  directory.overwritten = null;
}

/** The power fails: what was not fsynced is gone. */
export function losePower(directory: DataDirectory): void {
  directory.end = directory.durable;
  let { timeline } = directory;
  while (timeline.parent !== null && directory.end.lsn <= timeline.forkLsn) timeline = timeline.parent;
  directory.timeline = timeline;
}

/**
 * The timeline that a start as standby would follow: the newest of consecutive numbers that has a history file here.
 * *Source:* PostgreSQL, access/transam/timeline.c, findNewestTimeLine.
 */
export function newestTimeline(directory: DataDirectory, from: TimelineBranch): TimelineBranch {
  let newest = from;
  for (let tli = from.tli + 1; ; tli++) {
    const next = directory.histories.get(tli);
    if (next === undefined) return newest;
    newest = next;
  }
}

/** As skipTimelines. */
export function skipTimelines(directory: DataDirectory, used: number | null): void {
  for (let tli = directory.checkpointTli + 1; tli <= (used ?? 0); tli++)
    if (!directory.histories.has(tli)) directory.histories.set(tli, takenTimeline(tli));
}

/** As fillHistories. */
export function fillHistories(directory: DataDirectory): void {
  const newest = Math.max(0, ...directory.histories.keys());
  for (let tli = 2; tli < newest; tli++) if (!directory.histories.has(tli)) directory.histories.set(tli, takenTimeline(tli));
}

/** As forgetSkipped. */
export function forgetSkipped(directory: DataDirectory): void {
  for (const [tli, timeline] of [...directory.histories].sort(([a], [b]) => b - a)) {
    if (!isTaken(timeline)) return;
    directory.histories.delete(tli);
  }
}
