/**
 * Hosts on one machine: each is a network namespace with one veth cable to a bridge, which stands in a namespace of its
 * own, so that the machine's own network is untouched. Names begin with `pgl<pid>-`; everything is removed at the end.
 */
import { execFileSync } from 'node:child_process';
import { readFileSync, readdirSync } from 'node:fs';

export const NAMESPACE_PATTERN = /^pgl(\d+)-/;

export interface LabNetwork {
  readonly hosts: readonly string[];
  address(host: string): string;
  /** Put before an argv, this runs it on the host. */
  inside(host: string): readonly string[];
  /** The host's namespace, by name. */
  namespace(host: string): string;
  /** Pulls the host's cable, or puts it back. Both ends lose the carrier, as with a real one. */
  unplug(host: string): void;
  plug(host: string): void;
  /** Drops every frame from one host to another, ARP included; one direction. */
  block(from: string, to: string): void;
  /** Takes back all blocks and puts all cables back. */
  heal(): void;
  /** Processes that run on the host now. */
  pids(host: string): readonly number[];
  /** SIGKILL to every process of the host until none is left. */
  killAll(host: string): void;
  /** Ends all processes of all hosts and removes the namespaces. Safe to call twice. */
  remove(): void;
}

const SUBNET = '10.99.0';
const FIRST_HOST = 11;
/** A killed process is gone within milliseconds; a round more often than this means one that cannot be killed. */
const KILL_ROUNDS = 200;

/** Why the lab cannot run here, in words; null when it can. */
export function cannotRunHere(): string | null {
  if (process.getuid?.() !== 0) return 'the lab makes network namespaces and therefore needs root: run it with sudo, or in a privileged container';
  for (const [program, name] of [
    ['ip', 'iproute2'],
    ['nft', 'nftables'],
  ] as const) {
    try {
      execFileSync(program, ['-V'], { stdio: 'ignore' });
    } catch (cause) {
      return `the lab needs "${program}" (${cause instanceof Error ? cause.message : String(cause)}): apt-get install ${name}`;
    }
  }
  return null;
}

export function createNetwork(hosts: readonly string[]): LabNetwork {
  removeAbandoned();
  const prefix = `pgl${process.pid}-`;
  const space = (name: string): string => `${prefix}${name}`;
  const addresses = new Map(hosts.map((host, index) => [host, `${SUBNET}.${FIRST_HOST + index}`]));
  const blocks = new Set<string>();
  const unplugged = new Set<string>();
  const known = (host: string): string => {
    if (!addresses.has(host)) throw new Error(`the lab has no host "${host}": ${hosts.join(', ')}`);
    return host;
  };
  const applyBlocks = (): void => {
    const rules = [...blocks].map((pair) => {
      const [from = '', to = ''] = pair.split('>');
      return `add rule bridge lab cut iifname "v-${from}" oifname "v-${to}" drop`;
    });
    const script = [
      'add table bridge lab',
      'delete table bridge lab',
      'add table bridge lab',
      'add chain bridge lab cut { type filter hook forward priority 0; }',
      ...rules,
    ];
    run(['ip', 'netns', 'exec', space('sw'), 'nft', '-f', '-'], script.join('\n'));
  };
  const setCable = (host: string, state: 'up' | 'down'): void => void run(['ip', '-n', space('sw'), 'link', 'set', `v-${known(host)}`, state]);
  const network: LabNetwork = {
    hosts,
    address: (host) => addresses.get(known(host)) ?? '',
    namespace: space,
    inside: (host) => ['ip', 'netns', 'exec', space(known(host))],
    unplug: (host) => {
      setCable(host, 'down');
      unplugged.add(host);
    },
    plug: (host) => {
      setCable(host, 'up');
      unplugged.delete(host);
    },
    block: (from, to) => {
      blocks.add(`${known(from)}>${known(to)}`);
      applyBlocks();
    },
    heal: () => {
      blocks.clear();
      applyBlocks();
      for (const host of [...unplugged]) network.plug(host);
    },
    pids: (host) => pidsIn(space(known(host))),
    killAll: (host) => killNamespace(space(known(host))),
    remove: () => {
      for (const name of ['sw', ...hosts]) removeNamespace(space(name));
    },
  };
  try {
    run(['ip', 'netns', 'add', space('sw')]);
    run(['ip', '-n', space('sw'), 'link', 'add', 'br0', 'type', 'bridge', 'forward_delay', '0']);
    run(['ip', '-n', space('sw'), 'link', 'set', 'br0', 'up']);
    for (const host of hosts) addHost({ host, space, address: network.address(host) });
    applyBlocks();
  } catch (error) {
    network.remove();
    throw error;
  }
  return network;
}

function addHost({ host, space, address }: { host: string; space: (name: string) => string; address: string }): void {
  run(['ip', 'netns', 'add', space(host)]);
  run(['ip', 'link', 'add', `v-${host}`, 'netns', space('sw'), 'type', 'veth', 'peer', 'name', 'eth0', 'netns', space(host)]);
  run(['ip', '-n', space('sw'), 'link', 'set', `v-${host}`, 'master', 'br0', 'up']);
  run(['ip', '-n', space(host), 'link', 'set', 'lo', 'up']);
  run(['ip', '-n', space(host), 'addr', 'add', `${address}/24`, 'dev', 'eth0']);
  run(['ip', '-n', space(host), 'link', 'set', 'eth0', 'up']);
}

/** Names of all namespaces of labs on this machine, also of other runs. */
export function labNamespaces(): readonly string[] {
  try {
    return readdirSync('/run/netns').filter((name) => NAMESPACE_PATTERN.test(name));
  } catch {
    // The folder appears with the first namespace.
    return [];
  }
}

/** A lab that was killed with SIGKILL could not clean up: whatever belongs to a process that is no more is removed here. */
function removeAbandoned(): void {
  for (const name of labNamespaces()) {
    const owner = Number(NAMESPACE_PATTERN.exec(name)?.[1]);
    if (owner === process.pid || !isAlive(owner)) removeNamespace(name);
  }
}

function removeNamespace(name: string): void {
  if (!labNamespaces().includes(name)) return;
  killNamespace(name);
  run(['ip', 'netns', 'del', name]);
}

function pidsIn(namespace: string): readonly number[] {
  return run(['ip', 'netns', 'pids', namespace])
    .split('\n')
    .filter((line) => line !== '')
    .map(Number);
}

function killNamespace(namespace: string): void {
  for (let round = 0; round < KILL_ROUNDS; round++) {
    const pids = pidsIn(namespace).filter((pid) => !isZombie(pid));
    if (pids.length === 0) return;
    for (const pid of pids) killPid(pid, 'SIGKILL');
  }
  throw new Error(`processes of ${namespace} cannot be killed: ${pidsIn(namespace).join(', ')}`);
}

/** Sends a signal; a process that is already gone is no error. */
export function killPid(pid: number, signal: NodeJS.Signals): void {
  try {
    process.kill(pid, signal);
  } catch (error) {
    if (!(error instanceof Error && 'code' in error && error.code === 'ESRCH')) throw error;
  }
}

function isZombie(pid: number): boolean {
  try {
    return readFileSync(`/proc/${pid}/stat`, 'utf8').includes(') Z ');
  } catch {
    // Gone between the listing and the look.
    return true;
  }
}

/** True also for a process of somebody else. */
export function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    return error instanceof Error && 'code' in error && error.code === 'EPERM';
  }
}

function run(argv: readonly string[], input = ''): string {
  const [program = '', ...rest] = argv;
  return execFileSync(program, rest, { input, encoding: 'utf8', timeout: 10_000, stdio: ['pipe', 'pipe', 'pipe'] });
}
