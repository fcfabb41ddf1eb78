/** A whole world: machines, network, store, servers, nodes, clients. What goes wrong in it is said by a plan (plan.ts), what must hold by checks/. */
import { type Decoder, decodeJson, decodeShared, encodeJson, formatDecodeError } from '../../src/core/decode.ts';
import { type ClusterId, type NodeId, makeClusterId } from '../../src/core/ids.ts';
import { type ClusterSpec, clusterSpec } from '../../src/core/spec.ts';
import { type ClusterState, clusterState } from '../../src/core/state.ts';
import { type ClusterKeys, clusterKeys } from '../../src/store/keys.ts';
import { installLightAbort } from '../abort.ts';
import { type VirtualClock, createClock } from '../clock.ts';
import { type MovableStore, createMovableStore } from '../../src/store/movable.ts';
import type { Store } from '../../src/store/store.ts';
import { type StoreModel, createStoreModel } from '../model/store.ts';
import { createStreamHub } from '../model/stream.ts';
import { type Network, createNetwork } from '../network.ts';
import { hostsOf } from '../plan.ts';
import type { Shape } from '../profiles.ts';
import { type Random, createRandom } from '../random.ts';
import { type Trace, createTrace } from '../trace.ts';
import { createStoreAccess } from './access.ts';
import { createDatabases } from './databases.ts';
import { type Lan, createLan } from './lan.ts';
import { type Machines, createMachines } from './machines.ts';
import { type SimNode, createNode } from './node.ts';
import { createPowerSwitch } from './power.ts';
import { PROXY_HOST, type SimProxy, createProxy } from './proxy.ts';
import { type SimServer, createServer } from './server.ts';

export interface World {
  readonly shape: Shape;
  readonly cluster: ClusterId;
  readonly keys: ClusterKeys;
  readonly spec: ClusterSpec;
  readonly clock: VirtualClock;
  readonly random: Random;
  readonly trace: Trace;
  readonly network: Network;
  readonly machines: Machines;
  readonly store: StoreModel;
  /** The store as people's commands reach it: from a host that nothing happens to. */
  readonly office: MovableStore;
  /** Another client of the office, which knows no store yet. */
  openOffice(): Store;
  readonly servers: readonly SimServer[];
  readonly nodes: ReadonlyMap<string, SimNode>;
  readonly dataNodes: readonly SimNode[];
  /** Null: every client connects to nodes. */
  readonly proxy: SimProxy | null;
  /** Null: nobody asks for virtual addresses in this run. */
  readonly lan: Lan | null;
  /** As the store holds it now, by its own record; null before the first decision. */
  state(): ClusterState | null;
  /** Data nodes that the settings in the store name as full members; those of the beginning while there are none. */
  members(): readonly NodeId[];
  /** In the store; those of the beginning while there are none. */
  settings(): ClusterSpec;
}

/** Two sites are this far apart, one way. */
const BETWEEN_SITES_MS = 4;
const OFFICE = 'office';

export function createWorld(options: {
  readonly seed: bigint;
  readonly shape: Shape;
  readonly verbose: boolean;
  readonly restores: boolean;
  readonly proxy: boolean;
  readonly operations: boolean;
}): World {
  installLightAbort();
  const { shape } = options;
  const random = createRandom(options.seed).stream('world');
  const clock = createClock();
  const trace = createTrace(clock.now, options.verbose);
  const siteOf = (host: string): string => shape.sites[host] ?? '';
  const network = createNetwork(clock, random.stream('network'), {
    baseMs: (from, to) => (siteOf(from) === siteOf(to) ? 0.2 : BETWEEN_SITES_MS),
  });
  const machines = createMachines(clock, random.stream('machines'), trace, [...hostsOf(shape), OFFICE, ...(options.proxy ? [PROXY_HOST] : [])]);
  const streams = createStreamHub(clock, network);
  const store = createStoreModel({
    clock,
    network,
    streams,
    random: random.stream('store'),
    members: shape.store.map((host) => ({ host, scope: machines.of(host).scope() })),
  });
  const access = createStoreAccess(store, options.restores);
  const cluster = makeClusterId('sim');
  const keys = clusterKeys(cluster);
  const spec = buildSpec(shape);
  const nodes = new Map<string, SimNode>();
  const createDatabase = createDatabases({ clock, network, streams, trace, machines });
  const hosts = [...shape.nodes, ...shape.spare];
  const lan = options.operations ? createLan({ clock, network, machines, hosts: hosts.map((one) => one.name) }) : null;
  for (const one of hosts)
    nodes.set(
      one.name,
      createNode(
        {
          scheduler: clock,
          random: random.stream('nodes'),
          trace,
          network,
          access,
          machines,
          cluster,
          firewall: shape.firewall,
          peers: () => nodes,
          createDatabase,
          lan,
          trusted: shape.clients[0] ?? null,
        },
        one,
      ),
    );
  const fencer = options.operations ? createPowerSwitch(clock, machines, random.stream('power')) : null;
  const servers = shape.servers.map((name) => createServer({ name, machines, access, trace, cluster, fencer }));
  const members = new Set(shape.store);
  for (const machine of machines.all()) {
    if (!members.has(machine.name)) continue;
    machine.onPower((on) => {
      if (on) machine.scope().after(300, () => store.start(machine.name, machine.scope()));
      else store.kill(machine.name);
    });
    machine.onResume(() => store.review());
  }
  const openOffice = (): Store => store.open({ host: OFFICE, scope: machines.of(OFFICE).scope(), now: machines.of(OFFICE).clock.now });
  const present = createReader(store, keys.spec, clusterSpec);
  return {
    shape,
    cluster,
    keys,
    spec,
    clock,
    random,
    trace,
    network,
    machines,
    store,
    office: createMovableStore(openOffice()),
    openOffice,
    servers,
    nodes,
    proxy: options.proxy ? createProxy({ cluster, machines, network, access, trace, random: random.stream('proxy'), peers: () => nodes }) : null,
    lan,
    dataNodes: [...nodes.values()].filter((node) => node.kind === 'data'),
    state: createReader(store, keys.state, clusterState),
    settings: () => present() ?? spec,
    members: () => (present() ?? spec).nodes.filter((node) => node.kind === 'data' && node.membership === 'full').map((node) => node.id),
  };
}

/** Decodes a revision once, and looks again only when anything was written: it is asked at every event. */
function createReader<T>(store: StoreModel, key: string, decoder: Decoder<T>): () => T | null {
  let text: string | null = null;
  let value: T | null = null;
  let seen: { readonly keyspace: ReturnType<StoreModel['keyspace']>; readonly revision: number } | null = null;
  return () => {
    const keyspace = store.keyspace();
    const revision = keyspace.revision();
    if (seen !== null && seen.revision === revision && seen.keyspace === keyspace) return value;
    seen = { keyspace, revision };
    const found = keyspace.get(key)?.value ?? null;
    if (found === text) return value;
    text = found;
    const decoded = found === null ? null : decodeShared(decoder, found);
    if (decoded?.ok === false) throw new Error(`${key} in the store cannot be read: ${formatDecodeError(decoded.error)}`);
    value = decoded?.value ?? null;
    return value;
  };
}

function buildSpec(shape: Shape): ClusterSpec {
  const decoded = decodeJson(
    clusterSpec,
    JSON.stringify({
      name: 'sim',
      ...shape.spec,
      nodes: shape.nodes.map((node) => ({
        id: node.name,
        host: node.name,
        kind: node.kind,
        location: node.location,
        priority: node.priority,
        upstream: node.upstream ?? null,
        delayMs: node.delayMs ?? 0,
      })),
    }),
  );
  if (!decoded.ok) throw new Error(`the spec of the shape is wrong: ${formatDecodeError(decoded.error)}`);
  return decoded.value;
}

export function nodeOf(world: World, name: string): SimNode {
  const found = world.nodes.get(name);
  if (found === undefined) throw new Error(`no node ${name}`);
  return found;
}

/** Writes the spec and starts everything, but the agent of `late`. */
export function startWorld(world: World, late: string | null = null): void {
  const { office, keys, spec } = world;
  void office.store.txn([], [{ kind: 'put', key: keys.spec, value: encodeJson(spec) }]);
  for (const server of world.servers) server.start();
  for (const node of world.nodes.values()) if (node.name !== late) node.startAgent();
  world.proxy?.start();
}

export type { NodeId };
