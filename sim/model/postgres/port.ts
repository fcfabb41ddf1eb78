/** `PostgresPort` over a modelled server: the door through which the real agent loop works on it. Bound anew for each run of the agent. */
import type { BoundPostgres } from '../../../src/agent/postgres-port.ts';
import { failure } from '../../../src/agent/postgres/failure.ts';
import type { Logger } from '../../../src/base/log.ts';
import type { NodeId, Term } from '../../../src/core/ids.ts';
import { formatLsn } from '../../../src/core/lsn.ts';
import type { PostgresReport } from '../../../src/core/report.ts';
import { type Failure, type Result, err, ok } from '../../../src/core/result.ts';
import { type ClusterSpec, internalHost } from '../../../src/core/spec.ts';
import type { Scope } from '../../clock.ts';
import type { Random } from '../../random.ts';
import type { DataDirectory, Disk, Slot } from './directory.ts';
import { cloneServer, rewindServer } from './port-copy.ts';
import { detachServer, followUpstream, killAllProcesses, promoteServer, startServer, stopServer, takeCheckpoint, waitReplay } from './port-life.ts';
import { createModelObserver } from './port-observe.ts';
import { type PortContext, clearUpstream, setUpstream, setWinning, slotName, withSession } from './port-session.ts';
import { applicationOf, endpointOf } from './replication.ts';
import type { Server } from './server.ts';
import type { SyncDoors } from '../../../src/agent/postgres/sync-set.ts';
import { createSyncDoors } from './sync-doors.ts';

export interface ModelPortOptions {
  readonly server: Server;
  /** All servers by host: where upstreams are found. */
  readonly servers: ReadonlyMap<string, Server>;
  readonly agent: Scope;
  readonly random: Random;
  readonly log: Logger;
  readonly spec: () => ClusterSpec | null;
  readonly closeFirewall: () => Promise<void>;
  /** `plain`: walreceivers bear the node's name only. Default: `NODE.INCARNATION`, by which a synchronous set knows a data directory. */
  readonly names?: 'voter' | 'plain';
}

const FIREWALL_LIMIT_MS = 75;
const IMMEDIATE_STOP_MS = 250;
/** From the death of the postmaster until the agent knows it and has killed what was left. */
const NOTICE_MS = 8;
const MARK_BYTES = 96;

/** With the doors of the synchronous set. */
export interface ModelPort extends BoundPostgres {
  readonly sync: SyncDoors;
}

export function createModelPort(options: ModelPortOptions): ModelPort {
  const { server, agent, random, log } = options;
  const { core, disk } = server;
  const context: PortContext = {
    ...options,
    core,
    stopping: false,
    applicationName: () => {
      const { directory } = disk;
      if (options.names === 'plain' || directory === null) return core.name;
      directory.incarnation ??= newIncarnation(random, disk);
      return `${core.name}.${directory.incarnation}`;
    },
  };
  let offline: 'initdb' | 'cloning' | 'rewinding' | null = null;
  let startedAs: { readonly mode: 'primary' | 'standby'; pid: number | null } | null = null;
  let goneCallback: () => void = () => undefined;
  let systemIdentifier: string | null = null;
  let walsenders: PostgresReport['walsenders'] = [];
  let closed = false;
  const observer = createModelObserver(context, () => (offline === 'initdb' ? null : offline));

  server.onExit((run) => {
    if (closed || !agent.alive() || context.stopping || run.isPrivate) return;
    agent.after(NOTICE_MS * (0.5 + random.next()), () => {
      if (closed) return;
      log.warn({ pid: run.pid }, 'the postmaster is gone');
      if (core.run === run) server.killAll();
      goneCallback();
    });
  });

  async function observe(): Promise<PostgresReport> {
    const report = await observer.observe();
    if (offline === 'initdb') return { ...report, state: 'absent', role: null };
    if (offline !== null) return report;
    if (startedAs !== null && startedAs.pid === null) startedAs.pid = report.postmasterPid;
    systemIdentifier = report.systemIdentifier ?? systemIdentifier;
    walsenders = report.walsenders;
    const isStandby = startedAs?.mode === 'standby' && startedAs.pid === report.postmasterPid && report.state !== 'running';
    return isStandby && report.role === 'primary' && report.postmasterPid !== null ? { ...report, role: 'standby' } : report;
  }

  async function bringSettings(spec: ClusterSpec): Promise<Result<{ readonly changed: boolean }, Failure>> {
    const { directory } = disk;
    const managed = managedKey(spec);
    core.applyDelayMs = spec.nodes.find((node) => node.id === core.name)?.delayMs ?? 0;
    if (directory === null && disk.incomplete !== null) return ok({ changed: false });
    if (directory === null)
      return err(failure('postgres.managed-files', `cannot write the managed files of ${core.name}`, 'ENOENT', '', 'check the disk', true));
    const changed = directory.managed !== managed;
    if (changed) {
      if (disk.full || disk.readOnly)
        return err(
          failure(
            'postgres.managed-files',
            `cannot write the managed files of ${core.name}`,
            'ENOSPC',
            'the files written so far are complete',
            'check the disk',
            true,
          ),
        );
      directory.managed = managed;
    }
    const winning = await setWinning(context, { restart_after_crash: 'off' }, null);
    if (!winning.ok) return winning;
    if (!changed || core.run === null) return ok({ changed });
    const reloaded = await withSession(context, null, async (session) => {
      await session.query();
      server.reload();
    });
    return reloaded.ok ? ok({ changed }) : reloaded;
  }

  async function start(
    spec: ClusterSpec,
    mode: 'primary' | 'standby',
    mayStart: () => boolean,
    signal: AbortSignal,
  ): Promise<Result<string, Failure>> {
    const settings = await bringSettings(spec);
    if (!settings.ok) return settings;
    startedAs = { mode, pid: null };
    const started = await startServer(context, { mode, reach: 'normal', mayStart }, signal);
    return started.ok ? ok(`pid ${started.value.pid}, ${Math.round(started.value.ms)} ms`) : started;
  }

  async function withoutServer<T>(what: NonNullable<typeof offline>, work: () => Promise<T>): Promise<T> {
    offline = what;
    try {
      return await work();
    } finally {
      offline = null;
    }
  }

  const port = {
    observe,
    postmaster: () => (core.run === null ? null : { pid: core.run.pid, startTicks: Math.round(core.run.startedAt) }),
    close: () => {
      closed = true;
    },
    preparePromotion: () => undefined,
    configuredUpstream: async () => {
      const conninfo = disk.directory?.settings.get('primary_conninfo') ?? '';
      const endpoint = endpointOf(conninfo);
      const isOurs =
        applicationOf(conninfo) === context.applicationName() && disk.directory?.settings.get('primary_slot_name') === slotName(core.name);
      if (endpoint === null || !isOurs) return null;
      return options.spec()?.nodes.find((node) => internalHost(node) === endpoint.host && node.port === endpoint.port)?.id ?? null;
    },
    initdb: (spec, signal) => withoutServer('initdb', () => initdb(context, spec, signal)),
    applySettings: bringSettings,
    trouble: () => null,
    settingsOutdated: () => false,
    startPrimary: async (spec, mayStart, signal) => {
      const cleared = await clearUpstream(context, signal);
      return cleared.ok ? start(spec, 'primary', mayStart, signal) : cleared;
    },
    startStandby: async (spec, upstream, signal) => {
      const set = upstream === null ? await clearUpstream(context, signal) : await setUpstream(context, upstream, signal);
      return set.ok ? start(spec, 'standby', () => true, signal) : set;
    },
    stop: async (spec, signal, onShutDown) => {
      context.stopping = true;
      const stopped = await stopServer(
        context,
        { from: 'fast', fastMs: spec.stopFastMs, ...(onShutDown === undefined ? {} : { onShutDown }) },
        signal,
      );
      context.stopping = false;
      if (!stopped.ok) return stopped;
      const { rung, clean, shutdownLsn } = stopped.value;
      return ok(`${rung}, ${clean ? 'clean' : 'not clean'}${shutdownLsn === null ? '' : `, shutdown checkpoint ends at ${formatLsn(shutdownLsn)}`}`);
    },
    kill: () => fence(context),
    waitReplay: async (required, signal) => {
      const waited = await waitReplay(context, required, signal);
      return waited.ok ? ok(`replayed ${formatLsn(waited.value)}`) : waited;
    },
    promote: async ({ requiredLsn, usedTimeline, mayPromote, ready, onWritable, signal }) => {
      await ready;
      const promoted = await promoteServer(context, { requiredLsn, usedTimeline, mayPromote }, signal);
      if (promoted.ok) onWritable();
      return promoted.ok ? ok(`timeline ${promoted.value.timeline}, ${Math.round(promoted.value.ms)} ms`) : promoted;
    },
    detach: async (signal) => {
      const seen = await observer.observe();
      if (seen.state === 'absent' || seen.state === 'incomplete') return ok({ position: null, final: true });
      return detachServer(context, signal);
    },
    follow: (upstream, signal) => followUpstream(context, upstream, signal),
    rewind: (spec, upstream, signal, onProgress) =>
      withoutServer('rewinding', () => rewindServer(context, { upstream, keepSaved: spec.keepSavedDirectories, onProgress }, signal)),
    clone: (spec, { upstream, source }, signal, onProgress) =>
      withoutServer('cloning', () =>
        cloneServer(context, { upstream, source, systemIdentifier, keepSaved: spec.keepSavedDirectories, onProgress }, signal),
      ),
    dropData: async () => {
      systemIdentifier = null;
      if (core.run !== null)
        return err(failure('drop-data.running', `${core.name} is not removed`, 'a process works in it', 'it is tried again', '', true));
      disk.directory = null;
      disk.incomplete = null;
      return ok('removed');
    },
    // One insertion into WAL buffers; nobody waits for its flush.
    markOpening: async (term: Term, signal: AbortSignal) => {
      const marked = await withSession(context, signal, async (session) => {
        await session.query();
        if (session.run.role === 'primary') server.write(MARK_BYTES);
        return session.run.role === 'primary';
      });
      if (!marked.ok) return marked;
      if (marked.value) return ok(`marked in term ${term}`);
      return err(
        failure('postgres.query', `a statement on ${core.name} failed`, 'recovery is in progress (SQLSTATE 25006)', 'it is tried again', '', true),
      );
    },
    checkpoint: async (signal) => {
      const done = await takeCheckpoint(context, signal);
      return done.ok ? ok('checkpoint done') : done;
    },
    ensureRolesAndSlots: async (spec, signal) => {
      const made = await withSession(context, signal, async (session) => {
        await session.query();
        await session.query();
        return session.run.role === 'primary';
      });
      if (!made.ok) return made;
      if (!made.value)
        return err(
          failure(
            'postgres.not-primary',
            `roles of ${core.name} cannot be made`,
            'the server is in recovery',
            'they come with replication',
            '',
            true,
          ),
        );
      const slots = await ensureSlots(context, dataNodes(spec), new Map(), signal);
      return slots.ok ? ok('roles and slots are in order') : slots;
    },
    ensureSlots: async (spec) => {
      const positions = new Map(walsenders.flatMap((sender) => (sender.flushLsn === null ? [] : [[sender.node, Number(sender.flushLsn)] as const])));
      const slots = await ensureSlots(context, dataNodes(spec), positions, null);
      return slots.ok ? ok('') : slots;
    },
    listSlots: async () => {
      const { directory } = disk;
      const { run } = core;
      if (directory === null || run === null || !server.answers()) return [];
      const at = run.role === 'primary' ? directory.durable.lsn : run.replayed.lsn;
      return [...directory.slots.values()].map((slot) => ({
        name: slot.name,
        active: slot.active,
        retainedBytes: slot.lost ? null : Math.max(0, at - slot.restartLsn),
        walStatus: slot.lost ? 'lost' : 'reserved',
      }));
    },
    onGone: (callback) => {
      goneCallback = callback;
    },
    problems: () => [],
    sync: createSyncDoors(context),
  } satisfies ModelPort;
  return port;
}

/** What the managed files depend on; one text for each spec that was seen. */
const managedKeys = new WeakMap<ClusterSpec, string>();
function managedKey(spec: ClusterSpec): string {
  let key = managedKeys.get(spec);
  if (key === undefined) {
    key = JSON.stringify([spec.postgres, spec.nodes.map((node) => [node.host, node.internalHost])]);
    managedKeys.set(spec, key);
  }
  return key;
}

/** Each run of an agent draws the same numbers: what makes a name new is how many this host had. */
function newIncarnation(random: Random, disk: Disk): string {
  const drawn = random.int(NAMES) + disk.lives++ * STRIDE;
  return (drawn % NAMES).toString(16).padStart(8, '0');
}

const NAMES = 2 ** 32;
/** Odd, so that it meets every number before one comes again. */
const STRIDE = 0x9e37_79b1;

function dataNodes(spec: ClusterSpec): readonly NodeId[] {
  return spec.nodes.filter((node) => node.kind === 'data').map((node) => node.id);
}

async function initdb(context: PortContext, spec: ClusterSpec, signal: AbortSignal): Promise<Result<string, Failure>> {
  const { core, agent, server } = context;
  if (core.disk.directory !== null || core.disk.incomplete !== null)
    return err(
      failure(
        'initdb.not-empty',
        `initdb of ${core.name} is refused`,
        'the directory is not empty',
        'nothing was changed',
        'adopt the existing data',
        false,
      ),
    );
  await agent.sleep(core.timings.initdb * (0.7 + 0.6 * context.random.next()), signal);
  if (signal.aborted || core.disk.full || core.disk.readOnly)
    return err(
      failure(
        'initdb.failed',
        `initdb of ${core.name} failed`,
        signal.aborted ? 'aborted' : 'no space left on device',
        'no cluster was made',
        'see the cause',
        !signal.aborted,
      ),
    );
  const directory = server.initdb();
  directory.managed = managedKey(spec);
  directory.incarnation = newIncarnation(context.random, context.core.disk);
  return ok(`system identifier ${directory.systemIdentifier}`);
}

/** As runFence: each step bounded, and what counts is that nothing is left. */
async function fence(context: PortContext): Promise<Result<string, Failure>> {
  const { core, agent, server } = context;
  const begin = agent.now();
  await Promise.race([context.closeFirewall(), agent.sleep(FIREWALL_LIMIT_MS)]);
  const { run } = core;
  if (run !== null && core.process?.paused() !== true) {
    server.signal('immediate');
    const limit = agent.now() + IMMEDIATE_STOP_MS;
    while (core.run === run && agent.now() < limit) await agent.sleep(5);
  }
  const killed = await killAllProcesses(context);
  if (core.disk.directory !== null) core.disk.directory.standbySignal = true;
  if (!killed.ok) return err({ ...killed.error, code: 'fence.survivors' });
  return ok(`fenced in ${Math.round(agent.now() - begin)} ms`);
}

/** As ensureSlots of src/agent/postgres/slots.ts. */
function ensureSlots(
  context: PortContext,
  members: readonly NodeId[],
  positions: ReadonlyMap<string, number>,
  signal: AbortSignal | null,
): Promise<Result<null, Failure>> {
  const { core } = context;
  return withSession(context, signal, async (session) => {
    await session.query();
    const directory = core.disk.directory as DataDirectory;
    const standby = session.run.role === 'standby';
    const wanted = new Map(members.filter((id) => id !== core.name).map((id) => [slotName(id), id] as const));
    for (const slot of [...directory.slots.values()]) {
      if (!slot.name.startsWith('pgherd_') || slot.active || (wanted.has(slot.name) && !slot.lost)) continue;
      directory.slots.delete(slot.name);
    }
    for (const [name, id] of wanted) {
      const slot: Slot | undefined = directory.slots.get(name);
      if (slot === undefined) directory.slots.set(name, { name, restartLsn: directory.checkpoint.lsn, active: false, lost: false });
      else if (standby && !slot.active) {
        const target = Math.min(session.run.replayed.lsn, positions.get(id) ?? directory.checkpoint.lsn);
        slot.restartLsn = Math.max(slot.restartLsn, target);
      }
    }
    return null;
  });
}
