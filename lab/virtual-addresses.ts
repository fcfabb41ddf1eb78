/** Virtual addresses on a stage: the cluster's settings, clients that know nothing else, and a look at every host's interface all the time. */
import { execFile, execFileSync } from 'node:child_process';
import { monoMs, realClock } from '../src/base/clock.ts';
import { waitUntil } from '../src/demo/children.ts';
import type { Login } from '../src/demo/history.ts';
import { quote } from '../src/demo/recorder.ts';
import { explanation } from './steps.ts';
import type { Stage } from './stage.ts';
import { type OnClient, startOnClient } from './through-proxy.ts';

export const WRITE_VIP = '10.99.0.100';
export const READ_VIP = '10.99.0.101';
export const VIPS = { write: { address: WRITE_VIP }, read: { address: READ_VIP } };
/** Clients use one port on both; on each host it leads to the port of its PostgreSQL, since the lab's nodes share a socket directory. */
const PORT = 5432;
const LOOK_EVERY_MS = 50;

export interface VipClientConfig {
  readonly run: string;
  readonly write: string;
  readonly read: string;
  readonly port: number;
  readonly login: Login;
}

export interface VipSide {
  readonly answers: number;
  readonly errorCount: number;
  readonly errors: readonly string[];
  /** The longest time between two answers, and when it began. */
  readonly gap: { readonly ms: number; readonly atMs: number };
  /** Which servers answered, by their own port, in order. */
  readonly servers: readonly { readonly port: string; readonly firstMs: number; readonly lastMs: number; readonly answers: number }[];
}

export interface VipClientReport {
  readonly writes: VipSide;
  readonly reads: VipSide;
  readonly acknowledged: readonly number[];
}

export interface VipStage {
  /** What `show` says. */
  shown(): Promise<{ readonly write: string | null; readonly read: string | null } | null>;
  /** Waits until the interface of exactly this host has the address; the time that it took, or null. */
  waitHeld(address: string, node: string, limitMs: number): Promise<number | null>;
  /** Hosts whose interface has the address now. */
  holders(address: string): readonly string[];
  /** Times in which the host's interface had the address, from the looks. */
  times(address: string, node: string): readonly { readonly fromMs: number; readonly toMs: number }[];
  /** Ends the looks and the clients; null when the clients did not say what they saw. */
  stop(): Promise<VipClientReport | null>;
  readonly run: string;
}

/** Waits until both addresses are where they belong, and starts the clients. Throws in words when they do not come. */
export async function openVips(stage: Stage): Promise<VipStage> {
  for (const place of stage.herd.plan.nodes) redirect(place.inside, place.port);
  const looks = startLooks(stage);
  const shown = async (): ReturnType<VipStage['shown']> => {
    const result = await stage.herd.verb(['show', '--json'], 5000);
    if (result.code !== 0) return null;
    const { vips } = JSON.parse(result.stdout) as { vips: Record<'write' | 'read', { node: string | null } | null> };
    return { write: vips.write?.node ?? null, read: vips.read?.node ?? null };
  };
  const there = await waitUntil(
    async () => {
      const vips = await shown();
      return vips?.write === stage.primary && vips.read !== null && (stage.standbys as readonly string[]).includes(vips.read);
    },
    20_000,
    100,
  );
  if (!there) {
    await looks.stop();
    throw new Error(`the addresses are not where they belong: ${JSON.stringify(await shown())}; ${(await explanation(stage)).join(' ')}`);
  }
  const run = `${stage.recording.run}-vip`;
  const config: VipClientConfig = { run, write: WRITE_VIP, read: READ_VIP, port: PORT, login: stage.herd.login };
  const clients: OnClient = startOnClient(stage, 'vip-client.ts', config);
  return {
    run,
    shown,
    ...looks,
    waitHeld: async (address, node, limitMs) => {
      const fromMs = monoMs();
      const held = await waitUntil(async () => looks.holders(address).includes(node), limitMs, 20);
      return held ? Math.round(monoMs() - fromMs) : null;
    },
    stop: async () => {
      clients.end();
      const output = await clients.output;
      await looks.stop();
      return output === '' ? null : (JSON.parse(output) as VipClientReport);
    },
  };
}

function redirect(inside: readonly string[], port: number): void {
  const [program = '', ...rest] = [...inside, 'nft', '-f', '-'];
  const rules = [WRITE_VIP, READ_VIP].map((vip) => `add rule ip lab to ip daddr ${vip} tcp dport ${PORT} dnat to ${vip}:${port}`);
  const script = ['add table ip lab', 'add chain ip lab to { type nat hook prerouting priority -100; }', ...rules].join('\n');
  execFileSync(program, rest, { input: script, timeout: 10_000, stdio: ['pipe', 'pipe', 'pipe'] });
}

type Looks = Pick<VipStage, 'holders' | 'times'> & { readonly stop: () => Promise<void> };

/** Looks at the interface of every node, a few times in each life of an address. */
function startLooks(stage: Stage): Looks {
  const stopping = new AbortController();
  const times = new Map<string, { fromMs: number; toMs: number }[]>();
  const now = new Map<string, ReadonlySet<string>>();
  const look = async (node: string): Promise<void> => {
    while (!stopping.signal.aborted) {
      const atMs = monoMs();
      const addresses = await addressesOf([...stage.network.inside(node), 'ip', '-4', '-o', 'addr', 'show', 'dev', 'eth0']);
      for (const vip of [WRITE_VIP, READ_VIP]) {
        const key = `${vip} ${node}`;
        const seen = times.get(key) ?? [];
        const last = seen.at(-1);
        const before = now.get(node)?.has(vip) === true;
        if (addresses.has(vip) && before && last !== undefined) last.toMs = atMs;
        else if (addresses.has(vip)) times.set(key, [...seen, { fromMs: atMs, toMs: atMs }]);
      }
      now.set(node, addresses);
      await realClock.sleep(LOOK_EVERY_MS, stopping.signal);
    }
  };
  const all = stage.herd.plan.nodes.map(({ node }) => look(node));
  return {
    holders: (address) => [...now].filter(([, addresses]) => addresses.has(address)).map(([node]) => node),
    times: (address, node) => times.get(`${address} ${node}`) ?? [],
    stop: async () => {
      stopping.abort();
      await Promise.all(all);
    },
  };
}

function addressesOf(argv: readonly string[]): Promise<ReadonlySet<string>> {
  const [program = '', ...rest] = argv;
  return new Promise((resolve) => {
    execFile(program, rest, { timeout: 5000, encoding: 'utf8' }, (error, stdout) => {
      // A host that is gone has no addresses.
      resolve(error === null ? new Set([...stdout.matchAll(/inet ([\d.]+)\//g)].map((match) => match[1] ?? '')) : new Set());
    });
  });
}

/** When the host's interface had the address after `fromMs`, as text for the detail of a run; null when it never had. */
export function heldAfter(vips: VipStage, address: string, node: string, fromMs: number): number | null {
  const late = vips.times(address, node).filter((one) => one.toMs >= fromMs);
  return late.length === 0 ? null : Math.round(Math.max(...late.map((one) => one.toMs)) - fromMs);
}

/** Rows that the write address acknowledged and the present primary lacks; null when they could not be compared. */
export async function lostRows(stage: Stage, vips: VipStage, acknowledged: readonly number[]): Promise<number | null> {
  const primary = await stage.writableNode();
  if (primary === null) return null;
  const rows = await stage.herd.sql(primary, `select n::int as n from recorder where run = ${quote(vips.run)}`, stage.herd.login.database);
  const present = new Set(rows.map((row) => Number(row['n'])));
  return acknowledged.filter((n) => !present.has(n)).length;
}

/** Texts of the events of one rule. */
export async function eventsOf(stage: Stage, rule: string): Promise<readonly string[]> {
  const result = await stage.herd.verb(['events', '--json', '--limit', '200'], 5000);
  if (result.code !== 0) return [];
  const rows = JSON.parse(result.stdout) as readonly { rule: string; text: string }[];
  return rows.filter((row) => row.rule === rule).map((row) => row.text);
}
