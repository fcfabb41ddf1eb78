/** One run's stage: seven hosts, a healthy cluster of three nodes, and clients that write all the time. */
import { chmodSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { monoMs } from '../src/base/clock.ts';
import { describeFailure } from '../src/core/result.ts';
import { processTree, sendSignal } from '../src/demo/children.ts';
import { type Herd, type HerdPlan, openHerd } from '../src/demo/herd.ts';
import { waitStreaming, writableNode } from '../src/demo/look.ts';
import { startHerd, stopHerd } from '../src/demo/processes.ts';
import { type Recording, recordFrom } from '../src/demo/recording.ts';
import { type LabClocks, createClocks } from './clocks.ts';
import { type DiskKind, type LabDisks, createDisks, diskFolder } from './disks.ts';
import { type LabEtcd, startEtcd } from './etcd.ts';
import { type LabNetwork, createNetwork } from './network.ts';
import type { StoreKind } from './scenario.ts';

export const ROOT = join(dirname(fileURLToPath(import.meta.url)), '..');
export const PROGRAM = join(ROOT, 'dist', 'pgherd.mjs');
export const NODES = ['n1', 'n2', 'n3'] as const;
/** A host that is no node at the start, unless the scenario has four. */
export const SPARE = 'n4';
const SERVER = 's';
const CLIENT = 'c';
const PROXY = 'p';
/** Writes before the fault, so that caches are warm and the slots have moved. */
const WARM_ROWS = 200;

export interface Stage {
  readonly network: LabNetwork;
  readonly herd: Herd;
  readonly recording: Recording;
  /** Null where none runs. */
  readonly etcd: LabEtcd | null;
  /** Of the nodes' data directories; null where these lie on the machine's own file system. */
  readonly disks: LabDisks | null;
  /** Of the members of etcd; null where these have none of their own. */
  readonly storeDisks: LabDisks | null;
  /** Null: no clock of a host can be stopped. */
  readonly clocks: LabClocks | null;
  /** How long a scenario that takes minutes is to last; null: as long as it says itself. */
  readonly lengthMs: number | null;
  /** At the start of the scenario. */
  readonly primary: string;
  readonly standbys: readonly [string, string];
  readonly serverHost: string;
  readonly clientHost: string;
  readonly proxyHost: string;
  say(line: string): void;
  /** The node whose PostgreSQL accepts writes by its own word, over its private socket; null when none or several. */
  writableNode(): Promise<string | null>;
  /** Milliseconds from `fromMs` until the present primary sees the node streaming; null after `limitMs`. */
  waitStreaming(node: string, options: { readonly fromMs: number; readonly limitMs: number }): Promise<number | null>;
  /** A signal to all processes of the node's PostgreSQL, the postmaster first. Returns the pids. */
  signalPostgres(node: string, signal: NodeJS.Signals): readonly number[];
  /** Both directions between a host and each of the others. */
  separate(host: string, others: readonly string[]): void;
  close(): Promise<void>;
}

export interface StageOptions {
  readonly spec: Readonly<Record<string, unknown>>;
  readonly nodes: 1 | 3 | 4;
  readonly priorities: Readonly<Record<string, number>>;
  readonly locations: Readonly<Record<string, string>>;
  readonly witness: string | null;
  readonly proxies: number;
  readonly pooling: Readonly<Record<string, unknown>>;
  readonly store: StoreKind;
  readonly spareEtcd: boolean;
  readonly spareServer: boolean;
  readonly fencing: 'works' | 'fails' | null;
  /** Null: the data lies on the machine's own file system. */
  readonly disks: DiskKind | null;
  readonly storeDisks: DiskKind | null;
  readonly clocks: 'own' | null;
  readonly firewall: 'auto' | 'off';
  /** See `Stage`. */
  readonly lengthMs: number | null;
  readonly keep: boolean;
  readonly say: (line: string) => void;
}

/** Throws with the reason in words when the cluster does not come up; everything is removed by then. */
export async function openStage(options: StageOptions): Promise<Stage> {
  const directory = mkdtempSync(join(tmpdir(), 'pgherd-lab-'));
  chmodSync(directory, 0o755);
  const network = createNetwork([SERVER, ...NODES, SPARE, CLIENT, PROXY]);
  const parts = partsOf(network, directory, options);
  const etcd = options.store === 'etcd' || options.spareEtcd ? await etcdOn(network, directory, parts.storeDisks) : null;
  const allDisks = [parts.disks, parts.storeDisks].filter((disks) => disks !== null);
  const herd = openHerd(planOf(directory, network, { ...options, clocks: parts.clocks, etcd: options.store === 'etcd' ? etcd : null }));
  const close = (recording: Recording | null) => async (): Promise<void> => {
    network.heal();
    for (const disks of allDisks) for (const node of NODES) disks.thaw(node);
    await recording?.stop();
    const left = await stopHerd(herd, { keep: options.keep || allDisks.length > 0 });
    network.remove();
    if (allDisks.length > 0 && left.length === 0) {
      for (const disks of allDisks) disks.remove();
      if (!options.keep) rmSync(directory, { recursive: true, force: true });
    }
    if (left.length > 0) throw new Error(`these processes could not be ended: ${left.join(', ')}`);
    if (options.keep) options.say(`kept: ${directory}`);
  };
  try {
    const failure = await startHerd(herd, { say: options.say, signal: new AbortController().signal });
    if (failure !== null) throw new Error(describeFailure(failure));
    const primary = (await herd.show())?.primary ?? null;
    if (primary === null) throw new Error('the cluster is up but show names no primary');
    const recording = recordFrom(network.inside(CLIENT), herd, {
      run: `run-${process.pid}-${Math.round(monoMs())}`,
      entry: join(ROOT, 'src', 'demo', 'recorder-main.ts'),
    });
    const stage = makeStage({
      ...parts,
      network,
      herd,
      recording,
      etcd,
      lengthMs: options.lengthMs,
      primary,
      say: options.say,
      close: close(recording),
    });
    if (!(await recording.waitServing({ afterMs: 0, limitMs: 20_000, rows: WARM_ROWS }))) {
      await recording.stop();
      throw new Error('the recorder got no acknowledgements from the healthy cluster');
    }
    return stage;
  } catch (error) {
    await close(null)();
    throw error;
  }
}

/** What the hosts have of their own. A part that fails leaves nothing behind. */
function partsOf(network: LabNetwork, directory: string, options: StageOptions): Pick<Stage, 'disks' | 'storeDisks' | 'clocks'> {
  try {
    const clocks = options.clocks === null ? null : createClocks(ROOT, directory, [...NODES, SPARE]);
    const disks = options.disks === null ? null : createDisks(directory, NODES, options.disks);
    return { clocks, disks, storeDisks: options.storeDisks === null ? null : createDisks(join(directory, 'etcd'), NODES, options.storeDisks) };
  } catch (error) {
    network.remove();
    throw error;
  }
}

/** The part `store` of a server's server.yaml that listens on `host`. */
export function embeddedStore(host: string, spares: readonly string[]): Readonly<Record<string, unknown>> {
  return { engine: 'embedded', listen: { host, port: 2379 }, spares: spares.map((spare) => `https://${spare}:2379`) };
}

/** A program that does to a host what a power controller does, with its usual way of speaking. */
function powerSwitch(directory: string, network: LabNetwork, fencing: 'works' | 'fails'): readonly string[] {
  const path = join(directory, 'power-switch');
  const space = network.namespace('"$1"').replaceAll('"', '');
  const works = `for round in 1 2 3 4 5 6 7 8 9 10; do
  pids=$(ip netns pids ${space}) || exit 2
  [ -z "$pids" ] && { echo "Chassis Power Control: Down/Off"; exit 0; }
  kill -9 $pids 2>/dev/null
  sleep 0.05
done
echo "processes are left: $pids" >&2
exit 1`;
  writeFileSync(path, `#!/bin/sh\n${fencing === 'works' ? works : 'echo "Unable to establish IPMI session" >&2\nexit 1'}\n`, { mode: 0o755 });
  return [path, '{node}'];
}

/** A start that fails leaves nothing behind. */
async function etcdOn(network: LabNetwork, directory: string, disks: LabDisks | null): Promise<LabEtcd> {
  try {
    return await startEtcd(
      join(directory, 'etcd'),
      NODES.map((node) => ({
        name: node,
        address: network.address(node),
        inside: network.inside(node),
        ...(disks === null ? {} : { data: join(directory, 'etcd', node, diskFolder(), 'data') }),
      })),
    );
  } catch (error) {
    network.remove();
    throw error;
  }
}

function planOf(
  directory: string,
  network: LabNetwork,
  {
    spec,
    nodes,
    priorities,
    locations,
    witness,
    proxies,
    pooling,
    spareServer,
    fencing,
    disks,
    clocks,
    firewall,
    etcd,
  }: Omit<StageOptions, 'clocks'> & { readonly etcd: LabEtcd | null; readonly clocks: LabClocks | null },
): HerdPlan {
  // The distribution's socket directory is shared by all hosts of the lab, so each node has a port of its own.
  const hosts = [...NODES, SPARE].map((node, index) => {
    const priority = priorities[node];
    const location = locations[node];
    return {
      node,
      address: network.address(node),
      port: 26_432 + index,
      agentPort: 8432,
      inside: [...network.inside(node), ...(clocks?.prefix(node) ?? [])],
      ...(priority === undefined ? {} : { priority }),
      ...(location === undefined ? {} : { location }),
      ...(node === witness ? { kind: 'witness' as const } : {}),
    };
  });
  return {
    directory,
    ...(disks === null ? {} : { dataFolder: diskFolder() }),
    program: [process.execPath, PROGRAM],
    cluster: 'lab',
    server: { address: network.address(SERVER), apiPort: 8433, storePort: 2379, inside: network.inside(SERVER) },
    ...(etcd === null ? {} : { store: etcd.store }),
    ...(spareServer ? { store: embeddedStore(network.address(SERVER), [network.address(PROXY)]) } : {}),
    ...(fencing === null ? {} : { fencing: { command: powerSwitch(directory, network, fencing), timeoutMs: 10_000 } }),
    nodes: hosts.slice(0, nodes),
    spares: hosts.slice(Math.max(NODES.length, nodes)),
    proxies: Array.from({ length: proxies }, (_, index) => ({
      id: `p${index + 1}`,
      address: network.address(PROXY),
      writePort: 5433 + index * 10,
      readPort: 5434 + index * 10,
      splitPort: 5435 + index * 10,
      pooling,
      inside: network.inside(PROXY),
    })),
    firewall,
    clientNetwork: '10.99.0.0/24',
    // The scenarios measure asynchronous replication unless they say otherwise.
    spec: { durability: { mode: 'async' }, ...spec },
  };
}

type StageParts = Pick<
  Stage,
  'network' | 'herd' | 'recording' | 'etcd' | 'disks' | 'storeDisks' | 'clocks' | 'lengthMs' | 'primary' | 'say' | 'close'
>;

function makeStage(parts: StageParts): Stage {
  const { network, herd, primary } = parts;
  const [first = '', second = ''] = NODES.filter((node) => node !== primary);
  return {
    ...parts,
    standbys: [first, second],
    serverHost: SERVER,
    clientHost: CLIENT,
    proxyHost: PROXY,
    writableNode: () => writableNode(herd),
    waitStreaming: (node, options) => waitStreaming(herd, { node, ...options }),
    signalPostgres: (node, signal) => {
      const postmaster = herd.postmaster(node);
      if (postmaster === null) return [];
      const pids = processTree(postmaster);
      for (const pid of pids) sendSignal(pid, signal);
      return pids;
    },
    separate: (host, others) => {
      for (const other of others) {
        network.block(host, other);
        network.block(other, host);
      }
    },
  };
}
