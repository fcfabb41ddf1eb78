/**
 * One run of an agent: the real parts of src/agent put together as in agent.ts, with models behind their doors. It lives in a scope of its own:
 * killed or stopped, nothing of it runs any more, whatever it was waiting for.
 */
import { type ClusterWatch, type RememberedCluster, watchCluster } from '../../src/agent/cluster-watch.ts';
import { type AgentLoop, createAgentLoop } from '../../src/agent/loop.ts';
import { openMemory } from '../../src/agent/memory.ts';
import { refuseDuplicateNode } from '../../src/agent/duplicate-node.ts';
import { type Promiser, openPromiser } from '../../src/agent/promises/promiser.ts';
import { type AgentVips, createAgentVips } from '../../src/agent/vip/agent-vips.ts';
import type { VipKernel } from '../../src/agent/vip/kernel.ts';
import type { MemoryPort, SyncPort } from '../../src/agent/ports.ts';
import { ok } from '../../src/core/result.ts';
import { agentStatus } from '../../src/agent/status.ts';
import { answerRoute } from '../../src/agent/http/health.ts';
import { createSyncKeeper } from '../../src/agent/postgres/sync-keeper.ts';
import { createPublisher } from '../../src/agent/publisher.ts';
import { createViewpoints } from '../../src/agent/viewpoints.ts';
import { createWitnessPort } from '../../src/agent/witness-port.ts';
import { type WriteLeaseParts, createWriteLease } from '../../src/agent/write-lease.ts';
import type { Clock } from '../../src/base/clock.ts';
import { type Loop, startLoop } from '../../src/base/loop.ts';
import { encodeJson } from '../../src/core/decode.ts';
import type { ClusterId, MonoMs, NodeId, Term } from '../../src/core/ids.ts';
import type { PromiseAnswer, PromiseRequest, PromiseReturn } from '../../src/core/node/promises.ts';
import { DEFAULTS, findNode } from '../../src/core/spec.ts';
import { type ClusterState, type Goal, handoverPart, isBystander } from '../../src/core/state.ts';
import { clusterKeys } from '../../src/store/keys.ts';
import { keepSession } from '../../src/store/session.ts';
import type { Store } from '../../src/store/store.ts';
import type { Violation } from '../checks/violation.ts';
import type { Scope } from '../clock.ts';
import type { ModelPort } from '../model/postgres/port.ts';
import type { Trace } from '../trace.ts';
import type { Disk } from './disk.ts';
import type { SimGuard } from './guard.ts';
import type { HostClock } from './host-clock.ts';
import { watchOrders } from './orders.ts';
import type { Port } from './port.ts';

const REPORT_TTL_MS = 3000;
const MEMBER_RETRY_MS = 500;
const REMEMBER_AFTER_MS = 1000;

export interface AgentHost {
  readonly node: NodeId;
  readonly cluster: ClusterId;
  readonly kind: 'data' | 'witness';
  readonly bootId: string;
  readonly scope: Scope;
  readonly hostClock: HostClock;
  readonly disk: Disk;
  readonly port: Port;
  readonly guard: SimGuard;
  readonly trace: Trace;
  /** New at every start; from the run's randomness. */
  readonly agentRun: string;
  readonly store: Store;
  /** What was known when a former run ended; shared by the runs of one host. */
  readonly remembered: { current: RememberedCluster | null };
  /** A data node's; absent for a witness. */
  readonly postgres:
    | ((options: { readonly spec: () => ReturnType<ClusterWatch['current']>['spec']; readonly closeFirewall: () => Promise<void> }) => ModelPort)
    | null;
  readonly ask: (node: NodeId, request: PromiseRequest) => Promise<PromiseAnswer | null>;
  readonly tell: (node: NodeId, given: PromiseReturn) => Promise<void>;
  /** It asks for promises, its own among them. */
  readonly onAsked: () => void;
  readonly agentAlive: (node: NodeId) => Promise<boolean>;
  readonly probe: (
    node: NodeId,
    timeoutMs: number,
  ) => Promise<{ readonly verdict: 'primary' | 'standby' | 'blocked' | 'failed'; readonly error: string | null }>;
  /** One of the trusted addresses answers. */
  readonly trusted: (timeoutMs: number) => Promise<boolean>;
  /** Its place in the local network; null: without virtual addresses. */
  readonly lan: { readonly kernel: VipKernel; readonly mac: string } | null;
  /** It did what no agent may do. */
  readonly broken: (violation: Violation) => void;
  /** A step broke an invariant of its own: the process dies (the guard goes on). */
  readonly crash: (error: Error) => void;
}

export interface SimAgent {
  onPromise(request: PromiseRequest): Promise<PromiseAnswer>;
  onPromiseReturn(given: PromiseReturn): void;
  /** What a proxy is told under /v1/route. */
  routeAnswer(): Readonly<Record<string, unknown>>;
  /** By its own deadline. */
  heldTerm(): Term | null;
  deadline(): MonoMs | null;
  isOpen(): boolean;
  knowledge(): ReturnType<ClusterWatch['current']>;
  memory(): MemoryPort;
}

/** Null: the agent refused to start (said in the trace); it is to be started again later, as a service manager does. */
export async function startSimAgent(host: AgentHost): Promise<SimAgent | null> {
  const { scope, trace, node } = host;
  const clock = host.hostClock.of(scope);
  const log = trace.logger(`${node}/agent`);
  const keys = clusterKeys(host.cluster);
  const memory = await openMemory('memory.json', host.disk.file('memory.json'));
  if (!memory.ok) throw new Error(memory.error.what);
  const { store } = host;
  const single = await refuseDuplicateNode({
    store,
    keys,
    clock,
    log,
    self: { node, host: node, dataDirectory: '/data', bootId: host.bootId },
  });
  if (!single.ok) {
    log.error({}, single.error.what);
    return null;
  }
  const session = keepSession(store, keys.report(node), { ttlMs: REPORT_TTL_MS, clock });
  let loop: Loop | null = null;
  let lease: WriteLeaseParts | null = null;
  let agentLoop: AgentLoop | null = null;
  const wake = (reason: string): void => loop?.wake(reason);
  const remember = createRemembering(host, clock);
  let lastState: ClusterState | null = null;
  const watch: ClusterWatch = watchCluster({
    store,
    keys,
    clock,
    log,
    remembered: host.remembered.current,
    onChange: (what) => {
      if (what === 'fresh') return;
      remember(watch.current());
      const before = lastState;
      lastState = watch.current().state;
      if (what !== 'state' || !isBystander(before, lastState, node)) wake(what);
    },
  });
  const spec = (): ReturnType<ClusterWatch['current']>['spec'] => watch.current().spec;
  let ordered: Goal | null = null;
  let vips: AgentVips | null = null;
  const closeAll = async (): Promise<void> => {
    await lease?.gate.fence();
    await vips?.keeper.drop();
  };
  const bound =
    host.postgres === null ? null : host.postgres({ spec, closeFirewall: host.lan === null ? async () => lease?.gate.fence() : closeAll });
  const model =
    bound === null ? null : watchOrders(bound, { node, goal: () => ordered, highestTerm: () => memory.value.highestTerm(), broken: host.broken });
  const postgres = model ?? createWitnessPort();
  const sync =
    model === null ? NO_SYNC : createSyncKeeper({ instance: NO_INSTANCE, doors: model.sync, clock, log, wake: () => wake('synchronous set') });
  const promiser = openPromiser({
    stateDirectory: '/state',
    storage: host.disk.file('promises.json'),
    bootId: host.bootId,
    clock,
    facts: () => promiserFacts(host, watch, memory.value),
  });
  if (!promiser.ok) throw new Error(promiser.error.what);
  lease = await createWriteLease({
    config: { node, cluster: host.cluster, port: 5432, firewall: 'auto', guard: true, watchdog: { mode: 'off', device: '', timeoutSeconds: 5 } },
    instance: { stateDirectory: '/state', dataDirectory: '/data' } as Parameters<typeof createWriteLease>[0]['instance'],
    doors: {
      clock,
      bootMs: host.hostClock.bootMs,
      firewall: host.port.firewall(scope),
      guard: host.kind === 'witness' ? null : host.guard.client(scope),
      adoptable: host.guard.adoptable,
      // The modelled port knows members by their part, not by their addresses.
      resolve: () => Promise.resolve(['192.0.2.1']),
    },
    bootId: host.bootId,
    store,
    keys,
    log,
    spec,
    state: () => watch.current().state,
    promiser: () => {
      host.onAsked();
      return promiser.value;
    },
    ask: host.ask,
    tell: host.tell,
    postmaster: () => postgres.postmaster(),
    kill: () => postgres.kill(),
    onLost: () => agentLoop?.leaseLost(),
    onChange: () => wake('lease'),
  });
  const viewpoints = createViewpoints({
    node,
    clock,
    probe: (target) => host.probe(target.node, target.timeoutMs),
    agentAlive: host.agentAlive,
    trusted: (_addresses, timeoutMs) => host.trusted(timeoutMs),
    onChange: () => wake('viewpoint'),
  });
  const { lan } = host;
  if (lan !== null)
    vips = createAgentVips({
      config: { node, kind: host.kind, vipInterface: null },
      clock,
      log,
      watch,
      lease: lease.keeper,
      viewpoints,
      kernel: lan.kernel,
      macs: () => [lan.mac],
      onChange: () => wake('virtual address'),
    });
  const publisher = createPublisher({
    node,
    bootId: host.bootId,
    agentRun: host.agentRun,
    clock,
    log,
    memory: memory.value,
    lease,
    viewpoints,
    postgres,
    sync,
    host: { current: () => null },
    weakCommits: { current: () => [] },
    spec,
    overrides: { look: () => undefined, merge: (problems) => problems },
    vips: vips?.keeper ?? { report: () => [], problems: () => [] },
    put: session.put,
    certificateProblems: () => [],
    knowledge: watch.current,
    reportIntervalMs: () => spec()?.reportIntervalMs ?? DEFAULTS.reportIntervalMs,
    handover: () => handoverPart(watch.current().state, node),
  });
  agentLoop = createAgentLoop({
    node,
    witness: host.kind === 'witness',
    postgres,
    sync,
    lease: lease.keeper,
    firewall: lease.gate,
    memory: memory.value,
    ballot: promiser.value,
    clock,
    log,
    onStatus: (status) => {
      vips?.note(status);
      publisher.publish(status);
    },
    wake: () => wake('action'),
  });
  postgres.onGone(() => wake('postmaster gone'));
  const adopted = host.kind === 'data' && (await lease.adopt()) ? lease.keeper.heldTerm() : null;
  const known = watch.current().state;
  if (adopted !== null && known?.primary === node && known.primaryTerm === adopted) agentLoop.leaseAdopted();
  void register(host, clock, keys.member(node));
  const running = agentLoop;
  loop = startLoop({
    name: 'agent',
    intervalMs: DEFAULTS.reportIntervalMs,
    log,
    clock,
    crash: host.crash,
    step: async () => {
      const { spec: current, state, stateRevision, incarnation } = watch.current();
      ordered = state?.goals[node] ?? null;
      await running.step({ spec: current, state, stateRevision, incarnation });
    },
  });
  startLoop({
    name: 'viewpoints',
    intervalMs: DEFAULTS.probeIntervalMs,
    log,
    clock,
    crash: host.crash,
    step: async () => {
      const { spec: current, state } = watch.current();
      if (current === null || findNode(current, node) === null) return;
      await viewpoints.round(current, state?.primary ?? null);
    },
  });
  const { keeper } = lease;
  return {
    onPromise: (request) => promiser.value.onPromise(request),
    onPromiseReturn: (given) => promiser.value.onReturn(given),
    routeAnswer: () => {
      const status = agentStatus({
        config: { cluster: host.cluster, node } as Parameters<typeof agentStatus>[0]['config'],
        knowledge: watch.current(),
        report: publisher.latest(),
        highestTerm: memory.value.highestTerm(),
        lease: { term: keeper.heldTerm(), deadline: keeper.deadline() },
      });
      return answerRoute(status, clock.now().mono);
    },
    heldTerm: keeper.heldTerm,
    deadline: keeper.deadline,
    isOpen: () => running.status()?.open ?? false,
    knowledge: watch.current,
    memory: () => memory.value,
  };
}

/** Only for its doors, which are modelled. */
const NO_INSTANCE = {} as Parameters<typeof createSyncKeeper>[0]['instance'];

/** A witness has no server. */
const NO_SYNC: SyncPort = {
  step: () => undefined,
  prepare: async () => ok(null),
  startsAfterCrash: () => undefined,
  startsAsStandby: () => undefined,
  opened: () => undefined,
  ready: () => true,
  report: () => null,
};

/** As agent.ts does: written until it is there. */
async function register(host: AgentHost, clock: Clock, key: string): Promise<void> {
  const entry = {
    version: 1,
    node: host.node,
    host: host.node,
    internalHost: null,
    port: 5432,
    agentPort: 8432,
    dataDirectory: '/data',
    agentVersion: 'simulated',
    postgresVersion: 150018,
    ...(host.lan === null ? {} : { macs: [host.lan.mac] }),
    registeredWallMs: clock.now().wall,
  };
  for (;;) {
    const written = await host.store.txn([], [{ kind: 'put', key, value: encodeJson(entry) }]);
    if (written.ok) return;
    await clock.sleep(MEMBER_RETRY_MS);
  }
}

/** What remembered-cluster.ts does with its file. */
function createRemembering(host: AgentHost, clock: Clock): (knowledge: ReturnType<ClusterWatch['current']>) => void {
  let next: ReturnType<ClusterWatch['current']> | null = null;
  let writing = false;
  const write = async (): Promise<void> => {
    writing = true;
    await clock.sleep(REMEMBER_AFTER_MS);
    if (next !== null && !host.disk.full) {
      const { spec, state, members, incarnation, newestRevision } = next;
      const newest = incarnation === null ? null : { incarnation, revision: newestRevision };
      host.remembered.current = { spec, state, members: [...members.values()], newest };
    }
    writing = false;
  };
  return (knowledge) => {
    next = knowledge;
    if (!writing) void write();
  };
}

/** The same as in agent.ts. */
function promiserFacts(host: AgentHost, watch: ClusterWatch, memory: MemoryPort): ReturnType<Parameters<typeof openPromiser>[0]['facts']> {
  const { state } = watch.current();
  const highest = memory.highestTerm();
  return {
    cluster: host.cluster,
    node: host.node,
    incarnation: state?.incarnation ?? null,
    knownTerm: state !== null && state.term > highest ? state.term : highest,
    electorateRevision: state?.electorate.revision ?? 0,
    electorate: state?.electorate.members ?? [],
    storeHeardAt: watch.current().freshAt,
    promoting: state?.goals[host.node]?.kind === 'promote',
    opened: state === null || state.primary === null ? null : { term: state.primaryTerm, primary: state.primary },
    votedTerm: memory.vote()?.term ?? (0 as Term),
  };
}

export type { Promiser };
