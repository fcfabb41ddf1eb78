/** `pgherd agent`: one node's agent, put together. What it decides is in core/node; what it does is in execute.ts. */
import { randomUUID } from 'node:crypto';
import { join } from 'node:path';
import { now as readNow, realClock } from '../base/clock.ts';
import { collectGarbage } from '../base/collect-garbage.ts';
import { loadConfig } from '../base/config.ts';
import { type Logger, createLogger } from '../base/log.ts';
import { type Loop, startLoop } from '../base/loop.ts';
import { raisePriority, stepBack } from '../base/priority.ts';
import { type RecentLines, keepRecentLines } from '../base/recent-lines.ts';
import { isTold } from '../base/seldom.ts';
import { handleShutdown } from '../base/shutdown.ts';
import { notifySystemd } from '../base/systemd.ts';
import { VERSION } from '../base/version.ts';
import { encodeJson } from '../core/decode.ts';
import type { NodeId } from '../core/ids.ts';
import type { Member } from '../core/report.ts';
import { type Failure, type Result, describeFailure } from '../core/result.ts';
import { isMaintenance } from '../core/cluster/observe.ts';
import { DEFAULTS, findNode } from '../core/spec.ts';
import { type ClusterState, handoverPart, isAside, isBystander } from '../core/state.ts';
import { identityOf } from '../store/access.ts';
import { openHostAccess } from '../store/host-access.ts';
import { clusterKeys } from '../store/keys.ts';
import { keepSession } from '../store/session.ts';
import type { Store } from '../store/store.ts';
import { type CertificateKeeper, keepCertificate } from './certificate/keeper.ts';
import { type ClusterWatch, watchCluster } from './cluster-watch.ts';
import { type AgentConfig, agentConfig } from '../core/agent-config.ts';
import { hostController } from './controller-host.ts';
import { refuseDuplicateNode } from './duplicate-node.ts';
import { createAgentClient } from './http/agent-client.ts';
import { type AgentHttp, startAgentHttp } from './http/server.ts';
import { type AgentLoop, createAgentLoop } from './loop.ts';
import { openMemory } from './memory.ts';
import type { MemoryPort } from './ports.ts';
import { createPostgresPort } from './postgres-port.ts';
import { type ParameterCheck, createParameterCheck } from './postgres/check-parameters.ts';
import { readWorkload } from './postgres/workload.ts';
import { createWitnessPort } from './witness-port.ts';
import { createSyncKeeper } from './postgres/sync-keeper.ts';
import { createOverrideWatch } from './overridden-settings.ts';
import { diskTrouble, watchDisk } from './probe/disk.ts';
import { createProber } from './probe/probe-member.ts';
import { askTrusted } from './probe/trusted.ts';
import { type Promiser, openPromiser } from './promises/promiser.ts';
import { type Publisher, createPublisher } from './publisher.ts';
import { type AgentSetup, setUpAgent } from './setup.ts';
import { createHostFacts } from './host-facts.ts';
import { createWeakCommits } from './weak-commits.ts';
import { createLogReader } from './read-log.ts';
import { reloadAgent, reloadTls } from './reload.ts';
import { readRemembered, rememberCluster } from './remembered-cluster.ts';
import { agentStatus, renderMetrics } from './status.ts';
import { type Viewpoints, createViewpoints } from './viewpoints.ts';
import { type AgentVips, createAgentVips, ownMacs } from './vip/agent-vips.ts';
import { type WriteLeaseParts, createWriteLease } from './write-lease.ts';

/** The report vanishes this long after the agent's last sign of life. Shorter than this, a slow disk of the store would make nodes blink. */
const REPORT_TTL_MS = 3000;
const MEMBER_RETRY_MS = 500;

/** Runs until SIGTERM or SIGINT. Resolves with the exit code: 0 stopped, 1 failed, 2 wrong configuration. PostgreSQL goes on in every case. */
export async function runAgent(configFile: string): Promise<number> {
  const load = (): Result<AgentConfig, Failure> =>
    loadConfig({ file: configFile, decoder: agentConfig, env: process.env, envPrefix: 'PGHERD_AGENT_' });
  const loaded = load();
  if (!loaded.ok) {
    process.stderr.write(`pgherd agent: ${describeFailure(loaded.error)}\n`);
    return 2;
  }
  const config = loaded.value;
  const recent = keepRecentLines();
  const log = createLogger({ role: 'agent', level: config.log.level, fields: { cluster: config.cluster, node: config.node }, recent });
  log.info({ version: VERSION, config: configFile }, 'agent starts');
  raisePriority();
  const setup = await setUpAgent(config);
  if (!setup.ok) return failStart(log, describeFailure(setup.error));
  const memory = await openMemory(join(setup.value.instance.stateDirectory, 'memory.json'));
  if (!memory.ok) return failStart(log, describeFailure(memory.error));
  const agent = await startAgent({ config, log, recent, setup: setup.value, memory: memory.value });
  if (agent === null) return failStart(log, 'the agent could not be started; see above');
  const shutdown = handleShutdown({
    log,
    stop: async (reason) => {
      log.info({ reason }, 'agent stops; PostgreSQL goes on, and its guard with it');
      await notifySystemd('stopping');
      await agent.stop();
    },
    reload: async () => {
      const changed = load();
      if (!changed.ok) throw new Error(describeFailure(changed.error));
      await reloadAgent({ present: config, changed: changed.value, log, reloadTls: agent.reloadTls });
    },
  });
  await notifySystemd('ready');
  return shutdown.done;
}

function failStart(log: Logger, text: string): number {
  log.error({}, text);
  log.flush();
  return 1;
}

interface StartOptions {
  readonly config: AgentConfig;
  readonly log: Logger;
  readonly recent: RecentLines;
  readonly setup: AgentSetup;
  readonly memory: MemoryPort;
}

interface RunningAgent {
  /** Reads the certificates again. Rejects, with the old ones in use, when the files are not usable. */
  readonly reloadTls: () => Promise<void>;
  stop(): Promise<void>;
}

/** Everything that lives as long as the agent, in the order in which it is needed. */
async function startAgent(options: StartOptions): Promise<RunningAgent | null> {
  const { config, log, setup, memory } = options;
  const { instance } = setup;
  const keys = clusterKeys(config.cluster);
  const tls = identityOf(config.store);
  const hosted: { controller: { stop(): Promise<void> } | null; restart: () => void } = { controller: null, restart: () => undefined };
  const hostAccess = openHostAccess({
    access: config.store,
    kind: 'agent',
    name: `${config.cluster}/${config.node}`,
    near: [config.host, config.internalHost ?? config.host],
    clock: realClock,
    log,
    onMoved: () => hosted.restart(),
  });
  const { store } = hostAccess;
  const single = await refuseDuplicateNode({ store, keys, clock: realClock, log, self: { ...config, bootId: setup.bootId } });
  if (!single.ok) {
    log.error({ code: single.error.code }, describeFailure(single.error));
    void hostAccess.close();
    return null;
  }
  const client = tls === null ? null : createAgentClient({ tls });
  let refusals = 0;
  const session = keepSession(store, keys.report(config.node), {
    ttlMs: REPORT_TTL_MS,
    onProblem: (error) => {
      refusals = error === null ? 0 : refusals + 1;
      if (error === null) log.info({}, 'the store takes reports again');
      else if (isTold(refusals)) log.warn({ error: error.kind, refusals }, `the store does not take reports: ${error.message}`);
    },
  });
  let loop: Loop | null = null;
  let lease: WriteLeaseParts | null = null;
  let agentLoop: AgentLoop | null = null;
  let vips: AgentVips | null = null;
  const wake = (reason: string): void => loop?.wake(reason);
  const rememberedFile = join(instance.stateDirectory, 'cluster.json');
  let lastState: ClusterState | null = null;
  let wasOpen = false;
  const remembering = rememberCluster(rememberedFile, log);
  const watch: ClusterWatch = watchCluster({
    store,
    keys,
    clock: realClock,
    log,
    remembered: readRemembered(rememberedFile, log),
    onChange: (what) => {
      if (what === 'fresh') return;
      remembering.note(watch.current());
      const before = lastState;
      lastState = watch.current().state;
      if (isAside(lastState, config.node) && !isAside(before, config.node)) stepBack();
      if (what !== 'state' || !isBystander(before, lastState, config.node)) wake(what);
      // Writes go on until the old primary has its checkpoint. After a loss there is no such time.
      const { from = null, to = null, phase = null } = lastState?.switchover ?? {};
      if (phase === 'checkpoint' && (from === config.node || to === config.node)) collectGarbage();
    },
  });
  const spec = (): ReturnType<ClusterWatch['current']>['spec'] => watch.current().spec;
  const parameters = createParameterCheck(instance);
  const postgres =
    config.kind === 'witness'
      ? createWitnessPort()
      : createPostgresPort({
          instance,
          parameters,
          log,
          spec,
          closeFirewall: async () => lease?.gate.fence(),
          dropAddresses: async () => vips?.keeper.drop(),
        });
  const promiser = openPromiser({
    stateDirectory: instance.stateDirectory,
    bootId: setup.bootId,
    clock: realClock,
    facts: () => promiserFacts(config, watch, memory),
  });
  if (!promiser.ok) {
    log.error({ code: promiser.error.code }, describeFailure(promiser.error));
    await session.close();
    watch.close();
    postgres.close();
    client?.close();
    void hostAccess.close();
    return null;
  }
  const endpointOf = (node: NodeId): { host: string; port: number } | null => {
    const member = watch.current().members.get(node);
    return member === undefined ? null : { host: member.internalHost ?? member.host, port: member.agentPort };
  };
  lease = await createWriteLease({
    config,
    instance,
    bootId: setup.bootId,
    store,
    keys,
    log,
    spec,
    state: () => watch.current().state,
    promiser: () => promiser.value,
    ask: async (node, request) => {
      const endpoint = endpointOf(node);
      return endpoint === null || client === null ? null : client.promise(endpoint, request);
    },
    tell: async (node, given) => {
      const endpoint = endpointOf(node);
      if (endpoint !== null) await client?.returnPromise(endpoint, given);
    },
    postmaster: () => postgres.postmaster(),
    addresses: () => vips?.keeper.places() ?? [],
    kill: () => postgres.kill(),
    onLost: () => agentLoop?.leaseLost(),
    onChange: () => wake('lease'),
  });
  let probing: Loop | null = null;
  const prober = createProber(instance, config.node, () => probing?.wake('a connection broke'));
  const viewpoints = createViewpoints({
    node: config.node,
    clock: realClock,
    probe: ({ host, port, timeoutMs }) => prober.probe({ host, port }, timeoutMs),
    agentAlive: async (node) => {
      const endpoint = endpointOf(node);
      return endpoint !== null && client !== null && (await client.alive(endpoint)) !== null;
    },
    trusted: async (addresses, limitMs) => (await askTrusted(addresses, { limitMs })).reachable,
    onChange: () => wake('viewpoint'),
  });
  const certificate: { keeper: CertificateKeeper | null } = { keeper: null };
  vips = createAgentVips({ config, clock: realClock, log, watch, lease: lease.keeper, viewpoints, onChange: () => wake('virtual address') });
  const addresses = vips;
  const sync = createSyncKeeper({ instance, clock: realClock, log, wake: () => wake('synchronous set') });
  const disk = config.kind === 'witness' ? null : watchDisk({ instance, node: config.node, log, onChange: () => wake('disk') });
  const publisher = createPublisher({
    node: config.node,
    bootId: setup.bootId,
    agentRun: randomUUID(),
    clock: realClock,
    log,
    memory,
    lease,
    viewpoints,
    postgres,
    overrides: createOverrideWatch({ instance, log, mayMend: () => !isMaintenance(watch.current(), config.node) }),
    host: createHostFacts(instance, { clock: realClock, log }),
    weakCommits: createWeakCommits(instance, { clock: realClock, log }),
    ...(disk === null ? {} : { disk }),
    spec,
    sync,
    vips: addresses.keeper,
    put: session.put,
    certificateProblems: () => certificate.keeper?.problems() ?? [],
    knowledge: watch.current,
    reportIntervalMs: () => spec()?.reportIntervalMs ?? DEFAULTS.reportIntervalMs,
    handover: () => handoverPart(watch.current().state, config.node),
  });
  agentLoop = createAgentLoop({
    node: config.node,
    witness: config.kind === 'witness',
    // Upkeep writes: on a disk that takes no writes it would keep the loop for seconds, and a fence with it.
    postgres: { ...postgres, trouble: () => postgres.trouble() ?? (disk === null ? null : diskTrouble(disk)) },
    lease: lease.keeper,
    firewall: lease.gate,
    memory,
    ballot: promiser.value,
    sync,
    clock: realClock,
    log,
    onStatus: (status) => {
      if (status.open && !wasOpen) stepBack();
      wasOpen = status.open;
      addresses.note(status);
      publisher.publish(status);
    },
    wake: () => wake('action'),
  });
  const http = await openHttp({ ...options, watch, promiser: promiser.value, lease, publisher, parameters });
  if (http === null) {
    // What is open keeps the process alive: an agent that cannot start must end.
    await session.close();
    watch.close();
    await addresses.keeper.stop();
    lease.stop();
    prober.close();
    disk?.writes.close();
    postgres.close();
    client?.close();
    void hostAccess.close();
    return null;
  }
  const takeCertificates = (): Promise<void> => reloadTls({ files: tls, http, client, instance: config.kind === 'witness' ? null : instance });
  certificate.keeper = keepCertificate({
    stateDirectory: instance.stateDirectory,
    cert: tls?.cert ?? null,
    clock: realClock,
    log,
    onRenewed: takeCertificates,
  });
  postgres.onGone(() => wake('postmaster gone'));
  // Invariant: an opening is confirmed by the store (§4.5). Because: only a term that the state calls opened may go on without it; a candidate whose
  // agent died between its claim and its opening asks the store first. Broken if: every adopted lease counts as confirmed.
  const adopted = (await lease.adopt()) ? lease.keeper.heldTerm() : null;
  const known = watch.current().state;
  if (adopted !== null && known?.primary === config.node && known.primaryTerm === adopted) agentLoop.leaseAdopted();
  const registration = { current: register(options, store, keys.member(config.node)) };
  const running = agentLoop;
  loop = startLoop({
    name: 'agent',
    intervalMs: DEFAULTS.reportIntervalMs,
    aligned: true,
    log,
    step: async () => {
      const { spec: current, state, stateRevision, incarnation } = watch.current();
      await running.step({ spec: current, state, stateRevision, incarnation });
    },
  });
  const host = (): ReturnType<typeof hostController> =>
    hostController({ config, store, clock: realClock, log, primary: () => watch.current().state?.primary ?? null });
  hosted.controller = host();
  // A controller knows one store only; and only some stores want one here.
  hosted.restart = () => {
    const former = hosted.controller;
    hosted.controller = host();
    // An entry that was written while the copy was under way would be missing there.
    registration.current.abort();
    registration.current = register(options, store, keys.member(config.node));
    void former?.stop();
  };
  probing = startProbing({ log, watch, viewpoints, node: config.node });
  return {
    reloadTls: takeCertificates,
    stop: async () => {
      await certificate.keeper?.stop();
      await hosted.controller?.stop();
      await probing?.stop();
      await loop?.stop();
      await running.stop();
      await addresses.keeper.stop();
      registration.current.abort();
      watch.close();
      await http.close();
      lease?.stop();
      prober.close();
      disk?.writes.close();
      postgres.close();
      client?.close();
      // The report stays until its lease ends: an agent that is restarted at once is not missed by anybody.
      const left = session.leave();
      await hostAccess.close();
      await left;
    },
  };
}

/** The member entry is written until it is there; it stays when the agent is gone. */
function register(options: StartOptions, store: Store, key: string): AbortController {
  const { config, setup } = options;
  const stopping = new AbortController();
  const entry: Member = {
    version: 1,
    node: config.node,
    host: config.host,
    internalHost: config.internalHost,
    port: config.port,
    agentPort: config.listen.port,
    dataDirectory: config.dataDirectory,
    agentVersion: VERSION,
    postgresVersion: setup.postgresVersion,
    registeredWallMs: readNow().wall,
    macs: ownMacs(),
  };
  const run = async (): Promise<void> => {
    while (!stopping.signal.aborted) {
      const written = await store.txn([], [{ kind: 'put', key, value: encodeJson(entry) }]);
      if (written.ok) return;
      await realClock.sleep(MEMBER_RETRY_MS, stopping.signal);
    }
  };
  run().catch((cause: unknown) => options.log.error({ cause: String(cause) }, 'registering this member broke'));
  return stopping;
}

function startProbing(options: { readonly log: Logger; readonly watch: ClusterWatch; readonly viewpoints: Viewpoints; readonly node: NodeId }): Loop {
  return startLoop({
    name: 'viewpoints',
    intervalMs: DEFAULTS.probeIntervalMs,
    aligned: true,
    log: options.log,
    step: async () => {
      const { spec, state } = options.watch.current();
      if (spec === null || findNode(spec, options.node) === null) return;
      await options.viewpoints.round(spec, state?.primary ?? null);
    },
  });
}

async function openHttp(
  options: StartOptions & {
    readonly watch: ClusterWatch;
    readonly promiser: Promiser;
    readonly lease: WriteLeaseParts;
    readonly publisher: Publisher;
    readonly parameters: ParameterCheck;
  },
): Promise<AgentHttp | null> {
  const { config, log } = options;
  const { ca, cert, key } = config.store;
  const status = (): ReturnType<typeof agentStatus> =>
    agentStatus({
      config,
      knowledge: options.watch.current(),
      report: options.publisher.latest(),
      highestTerm: options.memory.highestTerm(),
      lease: { term: options.lease.keeper.heldTerm(), deadline: options.lease.keeper.deadline() },
    });
  try {
    return await startAgentHttp({
      listen: config.listen,
      tls: ca === null || cert === null || key === null ? null : { ca, cert, key },
      getStatus: status,
      onPromise: (request) => options.promiser.onPromise(request),
      onPromiseReturn: (given) => options.promiser.onReturn(given),
      readLog: createLogReader({ stateDirectory: options.setup.instance.stateDirectory, own: options.recent }).read,
      ...(config.kind === 'witness' ? {} : { checkParameters: options.parameters.check, readWorkload: () => readWorkload(options.setup.instance) }),
      metrics: () => renderMetrics(status(), options.publisher.latest()),
      onError: (cause) => log.error({ cause: String(cause) }, 'a request to the agent broke'),
    });
  } catch (cause) {
    log.error(
      { code: 'agent.listen', cause: String(cause) },
      `the agent cannot listen on ${config.listen.host}:${config.listen.port}; change \`listen\` in agent.yaml or end the program that has the port`,
    );
    return null;
  }
}

function promiserFacts(
  config: AgentConfig,
  watch: ClusterWatch,
  memory: MemoryPort,
): Parameters<typeof openPromiser>[0]['facts'] extends () => infer F ? F : never {
  const { state } = watch.current();
  const highest = memory.highestTerm();
  return {
    cluster: config.cluster,
    node: config.node,
    incarnation: state?.incarnation ?? null,
    knownTerm: state !== null && state.term > highest ? state.term : highest,
    opened: state === null || state.primary === null ? null : { term: state.primaryTerm, primary: state.primary },
    electorateRevision: state?.electorate.revision ?? 0,
    electorate: state?.electorate.members ?? [],
    storeHeardAt: watch.current().freshAt,
    promoting: state?.goals[config.node]?.kind === 'promote',
    votedTerm: memory.vote()?.term ?? (0 as never),
  };
}
