/**
 * A modelled PostgreSQL server: its directory, its processes, the ways in which they start, stop and die. What reaches it from outside comes through
 * the functions of `Server`; the agent's door is port.ts.
 *
 * States of a start (`Run.status`): starting → standby | primary → stopping → (none). A standby becomes primary by promotion. Any state ends by kill.
 */
import type { Scheduler, Scope } from '../../clock.ts';
import type { Network } from '../../network.ts';
import type { Random } from '../../random.ts';
import type { StreamHub } from '../stream.ts';
import { type CommitOutcome, type Core, type Run, type Timings, USUAL, afterIn, directoryOf, isResponsive, nextPid, note } from './core.ts';
import { type DataDirectory, type Disk, createDirectory, createDisk, isCleanlyShutDown, losePower, showOverwritten } from './directory.ts';
import {
  type ModelCommit,
  cancelSyncWaits,
  endSessions,
  flush,
  insert,
  removeOldWal,
  restartPoint,
  submitCommit,
  syncConfigOf,
  takeCheckpoint,
  updateSyncDefined,
} from './primary.ts';
import { endReceiver, endSender, linksOf, pushAll, reloadSender, review } from './replication.ts';
import {
  becomeConsistent,
  chooseTarget,
  promote,
  receiveWal,
  receiverEnded,
  replayLocal,
  rescanTimelines,
  resumeReplay,
  startupReload,
  terminateReceiver,
  leavePages,
} from './standby.ts';
import { type WalRecord, contains } from './wal.ts';

export interface ServerOptions {
  readonly name: string;
  readonly host: string;
  readonly port: number;
  readonly clock: Scheduler;
  /** The machine. */
  readonly machine: Scope;
  readonly network: Network;
  readonly streams: StreamHub;
  readonly random: Random;
  readonly timings?: Partial<Timings>;
  readonly find: (host: string, port: number) => Core | null;
  readonly admits?: () => boolean;
  /** One for all servers of a world. */
  readonly journal: Map<number, WalRecord>;
}

export interface StartHow {
  /** Only the private socket. */
  readonly isPrivate: boolean;
  /** recovery_target_timeline: `latest` or `current`. */
  readonly along: 'newest' | 'checkpoint';
}

export interface Server {
  readonly core: Core;
  readonly disk: Disk;
  /** Like `postgres -D`: the role comes from standby.signal. Null: started, `settled` says how it went on. */
  start(options: StartHow, settled: (outcome: 'up' | { readonly failed: string }) => void): void;
  /** SIGINT, SIGQUIT to the postmaster. Nothing happens while it is stopped (they wait). */
  signal(mode: 'fast' | 'immediate'): void;
  /** SIGKILL for every process. */
  killAll(): void;
  /** SIGKILL for the postmaster alone: sessions that are at work go on for a moment. */
  killPostmaster(): void;
  /** SIGSTOP and SIGCONT for all processes. */
  pause(): void;
  resume(): void;
  /** Machine: power off (what was not fsynced is lost), on again with a new scope; suspended or resumed by its scope: look at connections. */
  powerOff(): void;
  powerOn(machine: Scope): void;
  reviewLinks(): void;
  /** Writes postgresql.auto.conf; a null value removes the line. */
  alterSystem(changes: Readonly<Record<string, string | null>>): void;
  reload(): void;
  promote(): void;
  terminateWalreceiver(): void;
  checkpoint(done: () => void): void;
  pauseReplay(): void;
  resumeReplay(): void;
  /** The startup process hangs inside of replay: it hears neither settings nor requests, its walreceiver goes on. */
  blockStartup(): void;
  unblockStartup(): void;
  commit(commit: ModelCommit, done: (outcome: CommitOutcome) => void): WalRecord | null;
  /** WAL that is no commit of a client (a heartbeat, vacuum). */
  write(bytes: number): void;
  cancelSyncWaits(): void;
  setDisk(change: Partial<Pick<Disk, 'fsyncMs' | 'full' | 'readOnly' | 'stuck' | 'holdsProcesses'>>): void;
  /** Answers statements: reads at least. */
  answers(): boolean;
  /** A new session could write. */
  isWritable(): boolean;
  /** A new reader sees this commit. */
  sees(record: WalRecord): boolean;
  initdb(): DataDirectory;
  /** Called when the last process is gone. */
  onExit(callback: (run: Run) => void): void;
  /** Lines for a trace. */
  onNote(callback: (text: string) => void): void;
}

export function createServer(options: ServerOptions): Server {
  const core: Core = {
    ...options,
    timings: { ...USUAL, ...options.timings },
    applyDelayMs: 0,
    disk: createDisk(),
    admits: options.admits ?? (() => true),
    process: null,
    run: null,
    lastPid: 1000,
    orphansUntil: 0,
    signals: {
      panic: (why) => {
        note(core, `PANIC: ${why}`);
        exit(core);
      },
      durable: pushAll,
      maybeDrained: (run) => finishStopIfDrained(core, run),
      receiverEnded: (run, receiver, why) => receiverEnded(core, run, receiver, why),
      received: (link, target) => receiveWal(core, link, target),
      rescanTimelines: (run) => rescanTimelines(core, run),
    },
    exits: [],
    notes: [],
  };
  const inRun = (work: (run: Run) => void): void => {
    if (core.run !== null) work(core.run);
  };
  const reviewLinks = (): void => {
    for (const link of linksOf(core)) review(link);
  };
  core.network.onChange(reviewLinks);

  return {
    core,
    disk: core.disk,
    start: (how, settled) => start(core, how, settled),
    signal: (mode) => {
      const { run } = core;
      // Signals wait while the process is stopped.
      if (run !== null) afterIn(core, run, 0, () => (mode === 'fast' ? fastStop(core, run) : immediateStop(core, run)));
    },
    killAll: () => {
      if (core.disk.holdsProcesses) return;
      core.orphansUntil = 0;
      exit(core);
    },
    killPostmaster: () => inRun((run) => killPostmaster(core, run)),
    pause: () => {
      core.process?.pause();
      reviewLinks();
    },
    resume: () => {
      core.process?.resume();
      reviewLinks();
    },
    powerOff: () => {
      const directory = core.disk.directory;
      exit(core);
      if (directory !== null) losePower(directory);
    },
    powerOn: (machine) => {
      core.machine = machine;
    },
    reviewLinks,
    alterSystem: (changes) => {
      const { settings } = directoryOf(core);
      for (const [name, value] of Object.entries(changes)) {
        if (value === null) settings.delete(name);
        else settings.set(name, value);
      }
    },
    reload: () => inRun((run) => reload(core, run)),
    promote: () => inRun((run) => promote(core, run)),
    terminateWalreceiver: () => inRun((run) => terminateReceiver(core, run)),
    checkpoint: (done) => inRun((run) => takeCheckpoint(core, run, done)),
    pauseReplay: () =>
      inRun((run) => {
        if (run.role === 'standby') run.replayPaused = true;
      }),
    resumeReplay: () =>
      inRun((run) => {
        if (!run.replayPaused) return;
        run.replayPaused = false;
        resumeReplay(core, run);
      }),
    blockStartup: () =>
      inRun((run) => {
        if (run.role === 'standby') run.startupBlocked = true;
      }),
    unblockStartup: () =>
      inRun((run) => {
        if (!run.startupBlocked) return;
        run.startupBlocked = false;
        resumeReplay(core, run);
      }),
    commit: (commit, done) => submitCommit(core, commit, done),
    write: (bytes) =>
      inRun((run) => {
        if (run.role !== 'primary') return;
        insert(core, run, 'write', { bytes });
        flush(core, run);
      }),
    cancelSyncWaits: () => inRun(cancelSyncWaits),
    setDisk: (change) => {
      Object.assign(core.disk, change);
      const { run } = core;
      if (change.stuck !== false || run === null) return;
      // Writes that hung return now.
      run.flushing = false;
      if (run.role === 'primary') flush(core, run);
      if (run.status === 'stopping') writeShutdown(core, run);
      reviewLinks();
    },
    answers: () => isResponsive(core) && (core.run?.status === 'standby' || core.run?.status === 'primary'),
    isWritable: () => core.run?.status === 'primary' && isResponsive(core),
    sees: (record) => sees(core, record),
    initdb: () => {
      core.disk.directory = createDirectory(core.random, core.name);
      return core.disk.directory;
    },
    onExit: (callback) => void core.exits.push(callback),
    onNote: (callback) => void core.notes.push(callback),
  };
}

function sees(core: Core, record: WalRecord): boolean {
  const { run } = core;
  if (run === null || !isResponsive(core)) return false;
  if (run.status === 'primary') return !run.hidden.has(record) && contains(run.inserted, record);
  return run.status === 'standby' && contains(run.replayed, record);
}

function start(core: Core, how: StartHow, settled: (outcome: 'up' | { readonly failed: string }) => void): void {
  const directory = directoryOf(core);
  if (core.run !== null) throw new Error(`${core.name} runs already`);
  core.process = core.machine.child(`${core.name}/postgres`);
  const settings = new Map(directory.settings);
  const run: Run = {
    pid: nextPid(core),
    startedAt: core.clock.now(),
    status: 'starting',
    role: null,
    isPrivate: how.isPrivate,
    recovered: false,
    loaded: settings,
    links: new Set(),
    inserted: directory.end,
    flushing: false,
    flushWait: [],
    syncWait: [],
    hidden: new Set(),
    released: { write: 0, flush: 0, apply: 0 },
    checkpointerLoaded: settings,
    syncDefined: syncConfigOf(settings) !== null,
    replayed: directory.end,
    received: false,
    target: directory.timeline,
    receiver: null,
    startupConninfo: '',
    startupSlot: '',
    retryTimer: null,
    lastAttemptAt: Number.NEGATIVE_INFINITY,
    lastError: '',
    replayPaused: false,
    startupBlocked: false,
    replayTimer: null,
    stuck: false,
    promoting: false,
    stopAt: null,
  };
  core.run = run;
  for (const slot of directory.slots.values()) slot.active = false;
  const fail = (why: string): void => {
    note(core, why);
    exit(core);
    settled({ failed: why });
  };
  afterIn(core, run, core.timings.spawn * (0.7 + 0.6 * core.random.next()), () => {
    if (core.disk.full || core.disk.readOnly) return fail('FATAL: could not write lock file: no space left on device');
    const fatal = readSignals(run, directory, how.along);
    if (fatal !== null) return fail(fatal);
    const clean = isCleanlyShutDown(directory);
    const redo = clean ? 0 : (directory.end.lsn - directory.checkpoint.lsn) / core.timings.redoBytesPerMs;
    directory.state = run.role === 'standby' ? 'in archive recovery' : 'in crash recovery';
    afterIn(core, run, core.timings.recovery * (0.7 + 0.6 * core.random.next()) + redo + core.disk.fsyncMs * 3, () =>
      whenDiskWorks(core, run, () => {
        run.recovered = true;
        if (run.role === 'standby') beginStandby(core, run);
        else beginPrimary(core, run, directory);
        whenUp(core, run, () => settled('up'));
      }),
    );
  });
}

/** From here on the files may come and go: this start is what they said. */
function readSignals(run: Run, directory: DataDirectory, along: StartHow['along']): string | null {
  run.role = directory.standbySignal ? 'standby' : 'primary';
  if (!contains(directory.end, directory.checkpoint)) return 'PANIC: could not locate a valid checkpoint record';
  if (run.role === 'standby') {
    const { target, fatal } = chooseTarget(directory, along);
    run.target = target;
    return fatal;
  }
  return null;
}

/** A recovery whose fsync does not return waits, for ever if it must. */
function whenDiskWorks(core: Core, run: Run, then: () => void): void {
  if (!core.disk.stuck) then();
  else afterIn(core, run, 200, () => whenDiskWorks(core, run, then));
}

function whenUp(core: Core, run: Run, then: () => void): void {
  if (run.status !== 'starting') then();
  else afterIn(core, run, 5, () => whenUp(core, run, then));
}

function beginStandby(core: Core, run: Run): void {
  replayLocal(core, run);
  becomeConsistent(core, run);
  startupReload(core, run, run.loaded);
  everyCheckpoint(core, run);
}

/** Crash recovery, or a clean start: on the same timeline, as a primary. */
function beginPrimary(core: Core, run: Run, directory: DataDirectory): void {
  directory.backupLabel = false;
  directory.minRecovery = null;
  run.inserted = directory.end;
  directory.applied = directory.end;
  directory.durable = directory.end;
  directory.state = 'in production';
  const record = insert(core, run, 'checkpoint');
  run.status = 'primary';
  flush(core, run);
  directory.checkpoint = record;
  directory.checkpointTli = record.tli;
  directory.end = record;
  directory.durable = record;
  removeOldWal(core, directory);
  everyCheckpoint(core, run);
}

function everyCheckpoint(core: Core, run: Run): void {
  afterIn(core, run, core.timings.checkpointEvery * (0.8 + 0.4 * core.random.next()), () => {
    if (run.status === 'standby' || run.status === 'primary') takeCheckpoint(core, run, () => undefined);
    everyCheckpoint(core, run);
  });
}

/** The postmaster rereads the files, and tells its children, each of which has them at its own time. */
function reload(core: Core, run: Run): void {
  const { random, timings } = core;
  const when = (): number => (random.chance(0.03) ? timings.reloadLate : timings.reload) * random.next();
  afterIn(core, run, 0.5, () => {
    const settings = new Map(directoryOf(core).settings);
    run.loaded = settings;
    afterIn(core, run, when(), () => {
      if (run.loaded !== settings) return;
      run.checkpointerLoaded = settings;
      updateSyncDefined(run, settings);
    });
    for (const link of run.links)
      afterIn(core, run, when(), () => {
        if (run.loaded === settings) reloadSender(link, settings);
      });
    if (run.role !== 'standby') return;
    afterIn(core, run, timings.reload * random.next(), () => {
      if (run.loaded === settings && run.role === 'standby' && !run.startupBlocked) startupReload(core, run, settings);
    });
  });
}

function fastStop(core: Core, run: Run): void {
  if (run.status === 'stopping') return;
  const wasStarting = run.status === 'starting';
  run.status = 'stopping';
  endSessions(run);
  if (wasStarting && run.role !== 'standby') {
    exit(core);
    return;
  }
  if (run.receiver !== null) terminateReceiver(core, run);
  directoryOf(core).state = run.role === 'primary' ? 'shutting down' : 'in archive recovery';
  afterIn(core, run, core.timings.fastStop * (0.6 + 0.8 * core.random.next()) + core.disk.fsyncMs * 10, () => writeShutdown(core, run));
}

/** The shutdown checkpoint; walsenders deliver it before they end. *Source:* PostgreSQL, postmaster.c, PM_SHUTDOWN_2. */
function writeShutdown(core: Core, run: Run): void {
  const directory = directoryOf(core);
  if (core.disk.stuck || run.stopAt !== null) return;
  if (core.disk.full || core.disk.readOnly) {
    core.signals.panic('could not write the shutdown checkpoint');
    return;
  }
  if (run.role === 'primary') {
    const record = insert(core, run, 'shutdown');
    directory.end = record;
    directory.durable = record;
    directory.applied = record;
    directory.checkpoint = record;
    directory.checkpointTli = record.tli;
    directory.state = 'shut down';
    run.stopAt = record;
    pushAll(run);
  } else {
    restartPoint(core, run, directory);
    directory.state = 'shut down in recovery';
    run.stopAt = directory.end;
  }
  finishStopIfDrained(core, run);
}

function finishStopIfDrained(core: Core, run: Run): void {
  const { stopAt } = run;
  if (stopAt === null || core.run !== run) return;
  // Walsenders of a standby do not wait for anything that is new.
  if (run.role === 'primary') for (const link of run.links) if (!link.senderGone && (link.flush ?? 0) < stopAt.lsn) return;
  afterIn(core, run, 3, () => exit(core));
}

function immediateStop(core: Core, run: Run): void {
  afterIn(core, run, core.timings.immediateStop * (0.6 + 0.8 * core.random.next()), () => {
    if (!core.disk.holdsProcesses) exit(core);
  });
}

function killPostmaster(core: Core, run: Run): void {
  const lastMs = core.timings.orphans * core.random.next();
  core.orphansUntil = core.clock.now() + lastMs;
  run.status = 'stopping';
  for (const callback of core.exits) callback(run);
  afterIn(core, run, lastMs, () => exit(core, 'silent'));
}

/** Every process is gone, from one moment to the next. What the directory says stays as it was. */
function exit(core: Core, how: 'announced' | 'silent' = 'announced'): void {
  const { run, process } = core;
  if (run === null) return;
  const links = linksOf(core);
  core.run = null;
  core.process = null;
  process?.kill();
  if (core.disk.directory !== null) {
    if (run.role === 'standby' && run.recovered && core.disk.directory.state === 'in archive recovery') leavePages(core.disk.directory);
    showOverwritten(core.disk.directory);
  }
  for (const slot of core.disk.directory?.slots.values() ?? []) slot.active = false;
  endSessions(run);
  for (const link of links) {
    if (link.upstreamRun === run) endSender(link);
    if (link.standbyRun === run) endReceiver(link);
  }
  if (how === 'announced') for (const callback of core.exits) callback(run);
}
