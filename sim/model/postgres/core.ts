/** What one modelled server is made of. The parts that act on it: server.ts (life), primary.ts, standby.ts, replication.ts. */
import type { Scheduler, Scope, Timer } from '../../clock.ts';
import type { Network } from '../../network.ts';
import type { Random } from '../../random.ts';
import type { Stream, StreamHub } from '../stream.ts';
import type { DataDirectory, Disk, Slot } from './directory.ts';
import type { SyncConfig } from './sync-rep.ts';
import type { TimelineBranch, WalRecord } from './wal.ts';

/** How long things take on this host, ms unless said otherwise. Defaults: Debian's PostgreSQL 15 on the machine that this was written on. */
export interface Timings {
  /** From the spawn until the signal files are read. */
  readonly spawn: number;
  /** Replay of local WAL at a start, bytes a millisecond. */
  readonly redoBytesPerMs: number;
  /** Fixed part of a start after the signal files were read. */
  readonly recovery: number;
  /** A fast stop with its checkpoint, a requested checkpoint. */
  readonly fastStop: number;
  readonly checkpoint: number;
  readonly immediateStop: number;
  /** Distance of the checkpoints that PostgreSQL takes by itself. */
  readonly checkpointEvery: number;
  /** From the request until the server is out of recovery. */
  readonly promote: number;
  /** From a reload until a process has the new settings. */
  readonly reload: number;
  /** Once in a while one process is this late with it. */
  readonly reloadLate: number;
  /** Connecting and authenticating a walreceiver. */
  readonly connect: number;
  readonly walRetrieveRetry: number;
  readonly connectTimeout: number;
  /** wal_sender_timeout and wal_receiver_timeout. */
  readonly replicationTimeout: number;
  /** Bytes a millisecond of a standby that catches up. */
  readonly catchUpBytesPerMs: number;
  /** Replay of what was received. 0: at once. */
  readonly replayDelay: number;
  /** A base backup and a rewind. */
  readonly clone: number;
  readonly rewind: number;
  readonly initdb: number;
  /** WAL is removed in units of this many bytes. */
  readonly segmentBytes: number;
  readonly walKeepBytes: number;
  /** max_slot_wal_keep_size; null: unlimited. */
  readonly slotKeepBytes: number | null;
  /** Backends whose postmaster was killed go on at most so long. */
  readonly orphans: number;
}

export const USUAL: Timings = {
  spawn: 25,
  redoBytesPerMs: 100_000,
  recovery: 35,
  fastStop: 60,
  checkpoint: 25,
  immediateStop: 20,
  checkpointEvery: 300_000,
  promote: 45,
  reload: 8,
  reloadLate: 1500,
  connect: 4,
  walRetrieveRetry: 500,
  connectTimeout: 2000,
  replicationTimeout: 5000,
  catchUpBytesPerMs: 100_000,
  replayDelay: 0,
  clone: 3000,
  rewind: 900,
  initdb: 700,
  segmentBytes: 16 * 1024 * 1024,
  walKeepBytes: 64 * 1024 * 1024,
  slotKeepBytes: null,
  orphans: 200,
};

/** `local` and `off` wait for nobody else; the others are synchronous_commit's own names. */
export type CommitDurability = 'on' | 'remote_apply' | 'remote_write' | 'local' | 'off';

/**
 * `acknowledged`: durable as asked. `unprotected`: committed here, the wait for standbys was cancelled (the client gets a warning).
 * `refused`: read-only, starting, stopping. `lost`: the session ended before the answer; the commit stands or does not.
 */
export type CommitOutcome = 'acknowledged' | 'unprotected' | 'refused' | 'lost';

export interface Pending {
  readonly record: WalRecord;
  readonly durability: CommitDurability;
  readonly done: (outcome: CommitOutcome) => void;
}

/** One replication connection. Each end notices by itself that the other is gone. */
export interface Link {
  readonly upstream: Core;
  readonly standby: Core;
  /** The present starts of both servers: what remains of an older one is no partner. */
  readonly upstreamRun: Run;
  readonly standbyRun: Run;
  readonly application: string;
  readonly conninfo: string;
  readonly pid: number;
  readonly startedAt: number;
  readonly up: Stream;
  readonly down: Stream;
  readonly slot: Slot | null;
  /** `startup`: nothing of interest is sent. */
  state: 'startup' | 'catchup' | 'streaming';
  /** What the upstream has sent. */
  sent: WalRecord | null;
  /** As the upstream knows it; null before the first reply. */
  flush: number | null;
  apply: number;
  /** The walsender's own configuration. */
  config: SyncConfig | null;
  priority: number;
  senderGone: boolean;
  receiverGone: boolean;
  senderTimer: Timer | null;
  receiverTimer: Timer | null;
}

export interface Receiver {
  readonly pid: number;
  readonly host: string;
  readonly port: number;
  readonly conninfo: string;
  link: Link | null;
}

/** From one start to the end of its last process. */
export interface Run {
  readonly pid: number;
  readonly startedAt: number;
  /** As the eighth line of postmaster.pid, more or less: `starting` answers nobody, `standby` reads, `primary` everything. */
  status: 'starting' | 'standby' | 'primary' | 'stopping';
  /** The signal files were read: what this start is. */
  role: 'standby' | 'primary' | null;
  /** Only the private socket. */
  readonly isPrivate: boolean;
  /** Local WAL was replayed to its end. */
  recovered: boolean;
  /** Settings that the postmaster loaded last. */
  loaded: ReadonlyMap<string, string>;
  readonly links: Set<Link>;
  // As a primary.
  inserted: WalRecord;
  flushing: boolean;
  flushWait: Pending[];
  syncWait: Pending[];
  readonly hidden: Set<WalRecord>;
  readonly released: { write: number; flush: number; apply: number };
  /** Settings that the checkpointer has. */
  checkpointerLoaded: ReadonlyMap<string, string>;
  /** The checkpointer's opinion of synchronous_standby_names, which backends go by. */
  syncDefined: boolean;
  // As a standby.
  replayed: WalRecord;
  /** pg_last_wal_receive_lsn is null before the first walreceiver of this start. */
  received: boolean;
  target: TimelineBranch;
  receiver: Receiver | null;
  /** What the startup process has loaded. */
  startupConninfo: string;
  startupSlot: string;
  retryTimer: Timer | null;
  lastAttemptAt: number;
  lastError: string;
  replayPaused: boolean;
  /** The startup process waits for something inside of replay (a lock, a slow disk): it hears nothing. */
  startupBlocked: boolean;
  replayTimer: Timer | null;
  /** Replay met a record that is none of its history: it goes no farther, and asks nobody any more, until the next start. */
  stuck: boolean;
  promoting: boolean;
  /** Set by a fast stop: walsenders have to deliver up to here. */
  stopAt: WalRecord | null;
}

/** What one part tells the others; bound in server.ts. */
export interface Signals {
  /** The server cannot go on. */
  panic(why: string): void;
  /** More WAL may be sent to standbys. */
  durable(run: Run): void;
  /** A walsender was answered or ended while the server stops. */
  maybeDrained(run: Run): void;
  receiverEnded(run: Run, receiver: Receiver, why: string): void;
  received(link: Link, target: WalRecord): void;
  /** History files came: is there a newer timeline to follow? */
  rescanTimelines(run: Run): void;
}

export interface Core {
  readonly name: string;
  readonly host: string;
  readonly port: number;
  readonly clock: Scheduler;
  readonly network: Network;
  readonly streams: StreamHub;
  readonly random: Random;
  readonly timings: Timings;
  /** recovery_min_apply_delay of the managed settings. */
  applyDelayMs: number;
  readonly disk: Disk;
  /** Another server of the world, by its address. */
  readonly find: (host: string, port: number) => Core | null;
  /** Replication connections of other hosts get through the port's firewall now. */
  readonly admits: () => boolean;
  /** Commits of all servers by the client's id. */
  readonly journal: Map<number, WalRecord>;
  machine: Scope;
  process: Scope | null;
  run: Run | null;
  lastPid: number;
  /** Sessions of a killed postmaster that still live. */
  orphansUntil: number;
  readonly signals: Signals;
  readonly exits: ((run: Run) => void)[];
  readonly notes: ((text: string) => void)[];
}

/** The directory of a server that has one; throws otherwise: the caller looked before. */
export function directoryOf(core: Core): DataDirectory {
  if (core.disk.directory === null) throw new Error(`${core.name} has no data directory`);
  return core.disk.directory;
}

/** Runs in the server's processes, unless this start of it is over. */
export function afterIn(core: Core, run: Run, ms: number, work: () => void): Timer | null {
  if (core.process === null || core.run !== run) return null;
  return core.process.after(ms, () => {
    if (core.run === run) work();
  });
}

/** Something arrives at the server's processes. */
export function deliverTo(core: Core, run: Run, work: () => void): void {
  if (core.run !== run) return;
  core.process?.deliver(() => {
    if (core.run === run) work();
  });
}

/** False while its processes are stopped (SIGSTOP, a suspended machine) or there are none. */
export function isResponsive(core: Core): boolean {
  return core.process?.alive() === true && !core.process.paused();
}

export function note(core: Core, text: string): void {
  for (const callback of core.notes) callback(text);
}

export function setting(settings: ReadonlyMap<string, string>, name: string): string {
  return settings.get(name) ?? '';
}

/** Where WAL ends that may be sent on: walsenders send only what is durable here. */
export function sendable(core: Core): WalRecord {
  return directoryOf(core).durable;
}

/** Process ids of one server are never used again. */
export function nextPid(core: Core): number {
  core.lastPid += 1;
  return core.lastPid;
}
