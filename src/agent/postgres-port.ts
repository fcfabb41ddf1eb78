/** Binds the loop's PostgresPort to the operations in postgres/, one line each where possible. */
import { join } from 'node:path';
import { monoMs, realClock } from '../base/clock.ts';
import type { Logger } from '../base/log.ts';
import { refuseHbaLine } from '../core/hba.ts';
import type { NodeId } from '../core/ids.ts';
import { formatLsn } from '../core/lsn.ts';
import { FOREIGN_FILES, type NodeProblem, type NodeReport, type PostgresReport } from '../core/report.ts';
import { type Failure, type Result, ok } from '../core/result.ts';
import { type ClusterSpec, durabilityOf, internalHost } from '../core/spec.ts';
import { runFence } from './fence/fence.ts';
import { killTree } from './guard/kill-tree.ts';
import { describeOverride } from './overridden-settings.ts';
import type { PostgresPort, Upstream } from './ports.ts';
import { parseAutoConf } from './postgres/auto-conf.ts';
import { parseUnlessUnchanged } from './postgres/unchanged-file.ts';
import type { ParameterCheck, RefusedParameter } from './postgres/check-parameters.ts';
import { runCheckpoint } from './postgres/checkpoint.ts';
import { cloneFrom } from './postgres/clone.ts';
import { nodeOfApplicationName, parseConninfo } from './postgres/conninfo.ts';
import { readControlData } from './postgres/control-data.ts';
import { alienNames, ensureStandbySignal } from './postgres/data-directory.ts';
import { dropDataDirectory } from './postgres/drop-data.ts';
import { detachStandby } from './postgres/detach.ts';
import { clearUpstream, followUpstream, setUpstream } from './postgres/follow.ts';
import { runInitdb } from './postgres/initdb.ts';
import type { Instance } from './postgres/instance.ts';
import { type ManagedSettings, managedSettingsOf } from './postgres/managed-files.ts';
import { markOpening } from './postgres/opening-mark.ts';
import { createObserver } from './postgres/observe.ts';
import { type PostmasterWatch, canonicalDirectory, findPostmaster, isAlive, readProcess, watchPostmaster } from './postgres/postmaster.ts';
import { promotePostgres, waitReplay } from './postgres/promote.ts';
import { createReadyConnection } from './postgres/ready-connection.ts';
import { type Rewound, rewindTo } from './postgres/rewind.ts';
import { freeBytes } from './postgres/set-aside.ts';
import { applySettings, findOverrides } from './postgres/settings.ts';
import { setupRoles } from './postgres/setup-roles.ts';
import { ensureSlots, listSlots } from './postgres/slots.ts';
import { slotName } from '../core/slot-name.ts';
import { voterName } from '../core/cluster/sync-set.ts';
import { startPostgres } from './postgres/start.ts';
import { stopPostgres } from './postgres/stop.ts';
import type { MappedTablespace } from './postgres/tablespaces.ts';

/** A standby that does not stream within this long failed its follow; it is tried again with a growing pause. */
const FOLLOW_LIMIT_MS = 4000;
/** Longer waits belong to the controller: it ends the attempt or the switchover. */
const REPLAY_LIMIT_MS = 10_000;
const IMMEDIATE_STOP_MS = 250;
/** A lowered value is replayed once in a long while; later only delays the word that a restart is needed. */
const MINIMUMS_EVERY_MS = 1000;
/** A process that SIGKILL does not end within this sits in the kernel (a stuck disk); waiting longer only delays the alarm. */
const KILL_LIMIT_MS = 2000;
/**
 * After a switchover the old primary waits this long before it starts as a standby, which takes a processor for half a second: where nodes share a host, the
 * clients' new connections come first. Not where commits may wait for it.
 */
const CLIENTS_FIRST_MS = 300;
/** A stop that was longer ago had no successor yet. */
const HANDED_OVER_MS = 3000;
/** More wrong lines than people write. */
const MAX_HBA_REFUSED = 100;

export interface PostgresPortOptions {
  readonly instance: Instance;
  readonly parameters: ParameterCheck;
  readonly log: Logger;
  readonly spec: () => ClusterSpec | null;
  readonly closeFirewall: () => Promise<void>;
  readonly dropAddresses: () => Promise<void>;
}

export interface BoundPostgres extends PostgresPort {
  /** The verified postmaster that was seen last; null: none. */
  postmaster(): { readonly pid: number; readonly startTicks: number } | null;
  close(): void;
}

export function createPostgresPort(options: PostgresPortOptions): BoundPostgres {
  const { instance, log } = options;
  const observer = createObserver(instance, {
    members: () => options.spec()?.nodes ?? [],
    busy: () => (offline === 'initdb' ? null : offline),
    onConnectionEnd: () => watched?.lookClosely(),
  });
  const ready = createReadyConnection(instance);
  /** An operation that runs PostgreSQL's programs on the directory without a server that anybody could reach. */
  let offline: 'initdb' | 'cloning' | 'rewinding' | null = null;
  /** How the present server was started: a starting standby must not look like the primary that its directory was last. */
  let startedAs: { readonly mode: 'primary' | 'standby'; pid: number | null } | null = null;
  let problems: readonly NodeProblem[] = [];
  /** The stop ladder works: it looks after every process itself. */
  let stopping = false;
  let goneCallback: () => void = () => undefined;
  let watched: ({ readonly pid: number; readonly startTicks: number } & PostmasterWatch) | null = null;
  let systemIdentifier: string | null = null;
  let walsenders: PostgresReport['walsenders'] = [];
  /** The role of the running server by the last look. */
  let role: PostgresReport['role'] = null;
  /** What a standby needs at least, as last read; empty for a primary. */
  let atLeast: Readonly<Record<string, number>> = {};
  let atLeastRead: { readonly at: number; readonly role: PostgresReport['role'] } = { at: -Infinity, role: null };
  /** Lines for pg_hba.conf that the running server refused, with its reason; nothing but it knows all of its rules. */
  const hbaRefused = new Map<string, string>();
  /** What lies in the data directory and is no PostgreSQL's. */
  let alien: readonly string[] = [];
  /** Of the parameters of the cluster, by the last look. */
  let refused: readonly RefusedParameter[] = [];
  let signalling: Promise<void> | null = null;
  /** When this node stopped for its successor. */
  let handedOverAt: number | null = null;
  /** For whom the managed files were written last. */
  let writtenFor: string | null = null;

  /** The death of the postmaster is noticed at once, whoever started it. */
  function watchProcess(pid: number | null): void {
    const process = pid === null ? null : readProcess(pid);
    const found = isAlive(process) ? process : null;
    if (found !== null && watched?.pid === found.pid && watched.startTicks === found.startTicks) return;
    watched?.stop();
    watched = null;
    if (found === null) return;
    const watch = watchPostmaster(found, () => {
      watched = null;
      if (stopping) return;
      log.warn({ pid: found.pid }, 'the postmaster is gone');
      // Orphaned backends go on acknowledging until they notice by themselves: "crashed" means that none is left (§4.3).
      killTree(
        { dataDirectory: canonicalDirectory(instance.dataDirectory), postmaster: { pid: found.pid, startTime: found.startTicks } },
        { limitMs: KILL_LIMIT_MS },
      ).then(goneCallback, (cause: unknown) => {
        log.error({ cause: String(cause) }, 'killing what the postmaster left behind broke');
        goneCallback();
      });
    });
    watched = { pid: found.pid, startTicks: found.startTicks, ...watch };
  }

  const guardedProcess = (): { readonly pid: number; readonly startTime: number } | null => {
    const found = findPostmaster(instance.dataDirectory);
    return found === null ? null : { pid: found.pid, startTime: found.startTicks };
  };

  async function observe(): Promise<PostgresReport> {
    const report = await observer.observe();
    // initdb's own short-lived backends look like a server; nobody can connect to them.
    if (offline === 'initdb') return { ...report, state: 'absent', role: null };
    if (offline !== null) return report;
    watchProcess(report.postmasterPid);
    if (startedAs !== null && startedAs.pid === null) startedAs.pid = report.postmasterPid;
    systemIdentifier = report.systemIdentifier ?? systemIdentifier;
    walsenders = report.walsenders;
    if (report.state === 'running') await lookAtMinimums(report.role);
    alien = report.state === 'incomplete' ? await alienNames(instance) : [];
    const isStandby = startedAs?.mode === 'standby' && startedAs.pid === report.postmasterPid && report.state !== 'running';
    return isStandby && report.role === 'primary' && report.postmasterPid !== null ? { ...report, role: 'standby' } : report;
  }

  /**
   * pg_control follows the primary's values as they are replayed. One that cannot be read now (it is being written) says nothing new: what was read
   * before holds, so that no standby is given less by a look that failed.
   */
  async function readMinimums(of: PostgresReport['role']): Promise<Readonly<Record<string, number>>> {
    if (of !== 'standby') return {};
    const control = await readControlData(instance);
    return control.ok ? control.value.minimums : atLeast;
  }

  async function lookAtMinimums(of: PostgresReport['role']): Promise<void> {
    role = of;
    const at = monoMs();
    if (atLeastRead.role === of && at - atLeastRead.at < MINIMUMS_EVERY_MS) return;
    atLeastRead = { at, role: of };
    atLeast = await readMinimums(of);
  }

  const whyHbaRefused = (line: string): string | null => refuseHbaLine(line) ?? hbaRefused.get(line) ?? null;

  /**
   * *Invariant:* no parameter and no pg_hba line that PostgreSQL refuses stands in a file that it reads. *Because:* with one wrong line it does not start, and a running
   * one takes over no change at all, also not that of its upstream. *Broken if:* a typing error of a person reaches pgherd.conf or pg_hba.conf.
   */
  async function settingsOf(spec: ClusterSpec, as: PostgresReport['role']): Promise<ManagedSettings> {
    const managed = managedSettingsOf(spec, instance.node);
    const checked = await options.parameters.check(managed.parameters);
    if (checked.ok) refused = checked.value;
    else log.warn({ cause: checked.error }, 'PostgreSQL could not be asked whether it takes the parameters of the cluster; they are written unseen');
    const leftOut = checked.ok ? checked.value.map((one) => one.name) : [];
    const accepted = Object.fromEntries(Object.entries(managed.parameters).filter(([name]) => !leftOut.includes(name)));
    const hbaLeftOut = managed.hba.filter((line) => whyHbaRefused(line) !== null);
    const hba = managed.hba.filter((line) => !hbaLeftOut.includes(line));
    return {
      ...managed,
      parameters: accepted,
      leftOut,
      hba,
      hbaLeftOut,
      freeBytes: await freeBytes(instance.dataDirectory),
      atLeast: await readMinimums(as),
    };
  }

  async function bringSettings(spec: ClusterSpec, as: PostgresReport['role'] = role): Promise<Result<{ readonly changed: boolean }, Failure>> {
    let settings = await settingsOf(spec, as);
    let applied = await applySettings(instance, settings);
    if (!applied.ok) return applied;
    if (applied.value.hbaRefused.length > 0) {
      for (const { line, why } of applied.value.hbaRefused.slice(0, MAX_HBA_REFUSED - hbaRefused.size)) hbaRefused.set(line, why);
      settings = await settingsOf(spec, as);
      applied = await applySettings(instance, settings);
      if (!applied.ok) return applied;
    }
    writtenFor = JSON.stringify([as, settings.atLeast]);
    for (const error of applied.value.errors) log.error({}, `PostgreSQL refuses a setting: ${error}`);
    for (const { name, why } of refused) log.error({}, `PostgreSQL refuses ${name}, which is left out: ${why}`);
    problems = [
      ...refused.map(describeRefused),
      ...(settings.hbaLeftOut ?? []).map((line) => describeHbaRefused(line, whyHbaRefused(line) ?? '')),
      ...applied.value.errors.map(
        (error): NodeProblem => ({
          code: 'settings.refused',
          text: `PostgreSQL refuses a setting: ${error}`,
          remedy: 'correct it with "pgherd settings set", or in the file that is named',
        }),
      ),
      ...(await findOverrides(instance)).map(describeOverride),
    ];
    return ok({ changed: applied.value.changed.length > 0 });
  }

  async function start(
    spec: ClusterSpec,
    mode: 'primary' | 'standby',
    mayStart: () => boolean,
    signal: AbortSignal,
  ): Promise<Result<string, Failure>> {
    const settings = await bringSettings(spec, mode);
    if (!settings.ok) return settings;
    startedAs = { mode, pid: null };
    const started = await startPostgres(instance, { mode, mayStart, signal, onProgress: (step) => log.info({ step }, 'PostgreSQL is starting') });
    watchProcess(findPostmaster(instance.dataDirectory)?.pid ?? null);
    return started.ok ? ok(`pid ${started.value.pid}, ${Math.round(started.value.durationMs)} ms`) : started;
  }

  /** One at a time: on a disk that does not answer each one would hold a thread of the few that read and write files. */
  function signalled(): Promise<void> {
    signalling ??= ensureStandbySignal(instance).finally(() => {
      signalling = null;
    });
    return signalling;
  }

  async function withoutServer<T>(what: NonNullable<typeof offline>, work: () => Promise<T>): Promise<T> {
    offline = what;
    try {
      return await work();
    } finally {
      offline = null;
    }
  }

  const readUpstream = parseUnlessUnchanged(join(instance.dataDirectory, 'postgresql.auto.conf'), (text) => {
    const winning = parseAutoConf(text ?? '');
    return { conninfo: parseConninfo(winning.get('primary_conninfo') ?? ''), slot: winning.get('primary_slot_name') ?? '' };
  });
  /** A directory whose name cannot be read or kept goes under any name of this node: to insist on one would end its stream again and again. */
  const isOwnName = (name: string, incarnation: string | null): boolean =>
    incarnation === null ? nodeOfApplicationName(name) === instance.node : name === voterName(instance.node, incarnation);

  return {
    observe,
    postmaster: () => watched,
    close: () => {
      watched?.stop();
      observer.close();
      ready.close();
    },
    preparePromotion: () => ready.prepare(),
    configuredUpstream: async (incarnation) => {
      const { conninfo, slot } = await readUpstream();
      if (conninfo === null || !isOwnName(conninfo.get('application_name') ?? '', incarnation) || slot !== slotName(instance.node)) return null;
      const member = options.spec()?.nodes.find((node) => internalHost(node) === conninfo.get('host') && String(node.port) === conninfo.get('port'));
      return member?.id ?? null;
    },
    initdb: async (spec, signal) => {
      const made = await withoutServer('initdb', async () =>
        runInitdb(instance, { checksums: spec.postgres.checksums, settings: await settingsOf(spec, 'primary'), signal }),
      );
      return made.ok ? ok(`system identifier ${made.value.systemIdentifier}`) : made;
    },
    applySettings: (spec) => bringSettings(spec),
    trouble: observer.trouble,
    settingsOutdated: () => role !== null && writtenFor !== null && writtenFor !== JSON.stringify([role, atLeast]),
    startPrimary: async (spec, mayStart, signal) => {
      // A primary has no upstream; the slot name would make a later standby start wait for a slot that may not exist (Q35).
      const cleared = await clearUpstream(instance, { signal });
      return cleared.ok ? start(spec, 'primary', mayStart, signal) : cleared;
    },
    startStandby: async (spec, upstream, signal) => {
      const handedOver = handedOverAt !== null && monoMs() - handedOverAt < HANDED_OVER_MS;
      if (handedOver && durabilityOf(spec).mode === 'async') await realClock.sleep(CLIENTS_FIRST_MS, signal);
      const set = upstream === null ? await clearUpstream(instance, { signal }) : await setUpstream(instance, upstream, { signal });
      return set.ok ? start(spec, 'standby', () => true, signal) : set;
    },
    stop: async (spec, signal, onShutDown) => {
      stopping = true;
      const callback = onShutDown === undefined ? {} : { onShutDown };
      const stopped = await stopPostgres(instance, { from: 'fast', fastMs: spec.stopFastMs, signal, ...callback }).finally(() => {
        stopping = false;
      });
      if (!stopped.ok) return stopped;
      const { rung, clean, shutdownLsn, durationMs } = stopped.value;
      handedOverAt = onShutDown === undefined ? null : monoMs();
      return ok(
        `${rung}, ${clean ? 'clean' : 'not clean'}${shutdownLsn === null ? '' : `, shutdown checkpoint ends at ${formatLsn(shutdownLsn)}`}, ${Math.round(durationMs)} ms`,
      );
    },
    kill: async () => {
      const fenced = await runFence({
        closeFirewall: options.closeFirewall,
        dropAddresses: options.dropAddresses,
        stopImmediate: async () => {
          await stopPostgres(instance, { from: 'immediate', immediateMs: IMMEDIATE_STOP_MS });
        },
        killAll: () =>
          killTree({ dataDirectory: canonicalDirectory(instance.dataDirectory), postmaster: guardedProcess() }, { limitMs: KILL_LIMIT_MS }),
        ensureStandbySignal: () => signalled(),
        clock: realClock,
      });
      return fenced.ok ? ok(`fenced in ${fenced.value.durationMs} ms, killed ${fenced.value.killed.length} processes`) : fenced;
    },
    waitReplay: async (required, signal) => {
      const waited = await waitReplay(instance, required, { limitMs: REPLAY_LIMIT_MS, signal, run: ready.run });
      return waited.ok ? ok(`replayed ${formatLsn(waited.value)}`) : waited;
    },
    promote: async (order) => {
      const promoted = await promotePostgres(instance, { ...order, run: ready.run });
      return promoted.ok ? ok(`timeline ${promoted.value.timeline}, ${Math.round(promoted.value.durationMs)} ms`) : promoted;
    },
    detach: async (signal) => {
      const seen = await observer.observe();
      if (seen.state === 'absent' || seen.state === 'incomplete') return ok({ position: null, final: true });
      const detached = await detachStandby(instance, { signal });
      return detached.ok ? ok({ position: detached.value.position, final: detached.value.final }) : detached;
    },
    follow: async (upstream, signal) => {
      const following = await followUpstream(instance, { upstream, limitMs: FOLLOW_LIMIT_MS, signal });
      if (!following.ok) return following;
      const { timeline } = following.value;
      return ok(timeline === null ? `follows ${upstream.node} after its delay` : `streams from ${upstream.node} on timeline ${timeline}`);
    },
    rewind: async (spec, upstream, signal, onProgress) => {
      const rewound = await withoutServer('rewinding', async () =>
        rewindTo(instance, { upstream, settings: await settingsOf(spec, 'standby'), keepSaved: spec.keepSavedDirectories, signal, onProgress }),
      );
      return rewound.ok ? ok(describeRewind(upstream, rewound.value)) : rewound;
    },
    clone: async (spec, { upstream, source, rateKb }, signal, onProgress) => {
      const settings = await settingsOf(spec, 'standby');
      const cloned = await withoutServer('cloning', () =>
        cloneFrom(instance, {
          upstream,
          source,
          settings,
          systemIdentifier,
          keepSaved: spec.keepSavedDirectories,
          maxRateKb: rateKb,
          signal,
          onProgress,
        }),
      );
      if (!cloned.ok) return cloned;
      return ok(
        `${cloned.value.bytes} bytes from ${source.node}${cloned.value.savedPath === null ? '' : `; the old directory is kept in ${cloned.value.savedPath}`}${describeMapping(cloned.value.tablespaces)}`,
      );
    },
    dropData: async () => {
      systemIdentifier = null;
      const dropped = await dropDataDirectory(instance);
      return dropped.ok ? ok(`${instance.dataDirectory} is removed`) : dropped;
    },
    markOpening: async (term, signal) => {
      const marked = await markOpening(instance, { term, signal, run: ready.run });
      return marked.ok ? ok(`marked at ${marked.value.lsn}`) : marked;
    },
    checkpoint: async (signal) => {
      const done = await runCheckpoint(instance, { signal });
      return done.ok ? ok('checkpoint done') : done;
    },
    ensureRolesAndSlots: async (spec, signal) => {
      const roles = await setupRoles(instance, { signal });
      if (!roles.ok) return roles;
      const slots = await ensureSlots(instance, { members: dataNodes(spec), signal });
      return slots.ok ? ok('roles and slots are in order') : slots;
    },
    ensureSlots: async (spec, known) => {
      const seen = Object.fromEntries(walsenders.flatMap((sender) => (sender.flushLsn === null ? [] : [[sender.node, sender.flushLsn]])));
      const slots = await ensureSlots(instance, { members: dataNodes(spec), positions: { ...known, ...seen } });
      return slots.ok ? ok('') : slots;
    },
    listSlots: async (): Promise<NodeReport['slots']> => {
      const slots = await listSlots(instance);
      return slots.ok ? slots.value : [];
    },
    onGone: (callback) => {
      goneCallback = callback;
    },
    problems: () => (alien.length === 0 ? problems : [...problems, describeAlien(instance.dataDirectory, alien)]),
  };
}

function dataNodes(spec: ClusterSpec): readonly NodeId[] {
  return spec.nodes.filter((node) => node.kind === 'data').map((node) => node.id);
}

function describeAlien(dataDirectory: string, names: readonly string[]): NodeProblem {
  return {
    code: FOREIGN_FILES,
    text: `the data directory ${dataDirectory} is not empty, and holds no PostgreSQL: ${names.join(', ')}`,
    remedy: 'compare `dataDirectory` in agent.yaml; move what lies there away by hand',
  };
}

function describeHbaRefused(line: string, why: string): NodeProblem {
  return {
    code: 'settings.refused',
    text: `PostgreSQL refuses a line of postgres.hba: ${why}; it is left out: ${line}`,
    remedy: 'correct it with "pgherd meta edit"',
  };
}

function describeRefused({ name, why }: RefusedParameter): NodeProblem {
  return {
    code: 'settings.refused',
    text: `PostgreSQL refuses ${name}: ${why}; it is left out`,
    remedy: `"pgherd settings set ${name}=VALUE" corrects it, "pgherd settings set --unset ${name}" takes it back`,
  };
}

function describeMapping(mapped: readonly MappedTablespace[]): string {
  return mapped.map((one) => `; tablespace ${one.oid} (${one.from}) lies in ${one.to}`).join('');
}

function describeRewind(upstream: Upstream, rewound: Rewound): string {
  const { divergedPath, summary } = rewound;
  const what =
    summary === null ? '' : ` (${summary.bytes} bytes of WAL, ${summary.committed} committed transactions${summary.truncated ? ' or more' : ''})`;
  const saved = divergedPath === null ? '' : `; what only this node had${what} is kept on its host in ${divergedPath}`;
  const [first] = rewound.unarchived;
  const gap =
    first === undefined ? '' : `; ${rewound.unarchived.length} WAL segments from ${first} on were never archived, and the archive has a gap there`;
  if (rewound.contained) return `nothing to rewind: all of its WAL is ${upstream.node}'s${gap}`;
  return `rewound to ${upstream.node} in ${Math.round(rewound.durationMs)} ms${saved}${gap}`;
}
