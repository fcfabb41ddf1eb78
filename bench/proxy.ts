/**
 * What a proxy costs: pgbench -S through each way, interleaved, on this machine. Client, PostgreSQL and proxy share the processors, so a ratio is a bill for
 * CPU. HAProxy and PgBouncer run beside ours where they are installed.
 */
import { execFileSync } from 'node:child_process';
import { chmodSync, mkdtempSync, readFileSync, readdirSync, realpathSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { describeFailure } from '../src/core/result.ts';
import { Client } from 'pg';
import { sendSignal, waitUntil } from '../src/demo/children.ts';
import { type Herd, openHerd } from '../src/demo/herd.ts';
import { findFreePorts } from '../src/demo/ports.ts';
import { startHerd, stopHerd } from '../src/demo/processes.ts';
import type { Measure, Mode, ProxyBench } from './proxy-table.ts';
import { startRivals } from './rivals.ts';

const ROOT = join(dirname(fileURLToPath(import.meta.url)), '..');
const ADDRESS = '127.0.0.1';
const SCALE = 10;
const CONNECT_CLIENTS = 8;
/** Fewer than the most clients of a cell: in transaction mode they take turns. */
const POOL_SIZE = 16;
/** Source: proc(5), sysconf(_SC_CLK_TCK) is 100 on every Linux of this kind. */
const TICK_US = 10_000;

const POOLS = [
  ['p2', 'session pool'],
  ['p3', 'transaction pool'],
] as const;

interface Way {
  readonly name: string;
  readonly port: number;
  /** Whose CPU is counted; null: nobody's. */
  readonly pid: number | null;
}

interface Options {
  readonly seconds: number;
  readonly runs: number;
  readonly clients: readonly number[];
  readonly modes: readonly Mode[];
  readonly say: (line: string) => void;
  /** Ends the measurement between two runs; everything is removed then, too. */
  readonly signal: AbortSignal;
}

/** Throws when the herd does not come up; everything is removed in every case. */
export async function benchProxy(options: Options): Promise<ProxyBench> {
  const herd = openHerd(await planOf());
  const others: number[] = [];
  try {
    const failure = await startHerd(herd, { say: options.say, signal: new AbortController().signal });
    if (failure !== null) throw new Error(describeFailure(failure));
    const primary = (await herd.show())?.primary ?? '';
    const direct = herd.targets.find((target) => target.node === primary)?.port ?? 0;
    pgbench(herd, direct, ['-i', '-q', '-s', String(SCALE)]);
    const proxy = herd.plan.proxies?.[0];
    const pid = herd.proxy('p1')?.pid ?? null;
    const ways: Way[] = [
      { name: 'direct', port: direct, pid: null },
      { name: 'write port', port: proxy?.writePort ?? 0, pid },
      { name: 'split port', port: proxy?.splitPort ?? 0, pid },
      ...POOLS.map(([id, name]) => ({
        name,
        port: herd.plan.proxies?.find((one) => one.id === id)?.writePort ?? 0,
        pid: herd.proxy(id)?.pid ?? null,
      })),
    ];
    const standby = herd.targets.find((target) => target.node !== primary)?.port ?? 0;
    const { rivals, missing } = await startRivals(
      { directory: herd.plan.directory, address: ADDRESS, primary: direct, standby, login: herd.login },
      others,
    );
    const silent: string[] = [];
    for (const rival of rivals)
      if (await answers(herd, rival.port)) ways.push(rival);
      else silent.push(`${rival.name} (it does not answer)`);
    const measures: Measure[] = [];
    for (const mode of options.modes)
      for (const clients of mode === 'connect' ? [CONNECT_CLIENTS] : options.clients)
        measures.push(...(await measureWays(herd, ways, { ...options, mode, clients })));
    return { measures, missing: [...missing, ...silent] };
  } finally {
    for (const pid of others) sendSignal(pid, 'SIGTERM');
    await stopHerd(herd, { keep: false });
  }
}

async function measureWays(
  herd: Herd,
  ways: readonly Way[],
  options: Omit<Options, 'clients' | 'modes'> & { readonly mode: Mode; readonly clients: number },
): Promise<readonly Measure[]> {
  const { mode, clients } = options;
  const runs = ways.map(() => ({ tps: [] as number[], cpu: [] as number[] }));
  for (let run = 0; run < options.runs; run++) {
    for (const [index, way] of ways.entries()) {
      // pgbench is waited for without the event loop: a signal is seen here.
      await new Promise((resolve) => setImmediate(resolve));
      options.signal.throwIfAborted();
      const before = cpuTicks(way.pid);
      const kind = mode === 'connect' ? ['-C', '-M', 'simple'] : ['-M', mode];
      const output = pgbench(herd, way.port, ['-S', '-n', '-c', String(clients), '-j', '2', '-T', String(options.seconds), ...kind]);
      const tps = Number(/^tps = ([\d.]+)/m.exec(output)?.[1] ?? 0);
      const count = Number(/actually processed: (\d+)/.exec(output)?.[1] ?? 0);
      const after = cpuTicks(way.pid);
      runs[index]?.tps.push(tps);
      if (before !== null && after !== null && count > 0) runs[index]?.cpu.push(((after - before) * TICK_US) / count);
      options.say(`${mode} ${clients} clients, ${way.name}: ${Math.round(tps)} tps`);
    }
  }
  return ways.map((way, index) => ({ way: way.name, mode, clients, tps: runs[index]?.tps ?? [], cpuUs: runs[index]?.cpu ?? [] }));
}

function pgbench(herd: Herd, port: number, args: readonly string[]): string {
  const { user, password, database } = herd.login;
  return execFileSync('pgbench', ['-h', ADDRESS, '-p', String(port), '-U', user, ...args, database], {
    env: { ...process.env, PGPASSWORD: password, PGSSLMODE: 'disable' },
    encoding: 'utf8',
    stdio: ['ignore', 'pipe', 'pipe'],
  });
}

/** Of the process, its threads and its children that live, since their start. Source: proc_pid_stat(5), fields 4, 14 and 15. */
function cpuTicks(pid: number | null): number | null {
  if (pid === null) return null;
  let sum = 0;
  for (const entry of readdirSync('/proc')) {
    if (!/^\d+$/.test(entry)) continue;
    const fields = statOf(Number(entry));
    if (Number(entry) === pid || Number(fields?.[1]) === pid) sum += Number(fields?.[11] ?? 0) + Number(fields?.[12] ?? 0);
  }
  return sum;
}

/** From the third field on; null when the process is gone. */
function statOf(pid: number): readonly string[] | null {
  try {
    const text = readFileSync(`/proc/${pid}/stat`, 'utf8');
    return text.slice(text.lastIndexOf(')') + 2).split(' ');
  } catch {
    // Gone between the listing and the look.
    return null;
  }
}

/** Answers by now, or it is not measured; pgpool-II starts its forty processes first. */
const READY_MS = 10_000;

async function answers(herd: Herd, port: number): Promise<boolean> {
  const { user, password, database } = herd.login;
  return waitUntil(
    async () => {
      const db = new Client({ host: ADDRESS, port, user, password, database, connectionTimeoutMillis: 1000 });
      db.on('error', () => undefined);
      try {
        await db.connect();
        await db.query('select 1');
        return true;
      } catch {
        // Not yet: it is tried again until the limit, and then said to be missing.
        return false;
      } finally {
        await db.end().catch(() => undefined);
      }
    },
    READY_MS,
    200,
  );
}

async function planOf(): Promise<Parameters<typeof openHerd>[0]> {
  const directory = realpathSync(mkdtempSync(join(tmpdir(), 'pgherd-bench-')));
  chmodSync(directory, 0o755);
  const [api = 0, store = 0, pg1 = 0, pg2 = 0, agent1 = 0, agent2 = 0, ...ports] = await findFreePorts(ADDRESS, { preferred: 19_433, count: 15 });
  const proxyOf = (index: number, mode: 'off' | 'session' | 'transaction') => {
    const [writePort = 0, readPort = 0, splitPort = 0] = ports.slice(index * 3);
    return { id: `p${index + 1}`, address: ADDRESS, writePort, readPort, splitPort, pooling: { rules: [{ mode, size: POOL_SIZE }] }, inside: [] };
  };
  return {
    directory,
    program: [process.execPath, join(ROOT, 'dist', 'pgherd.mjs')],
    cluster: 'bench',
    server: { address: ADDRESS, apiPort: api, storePort: store, inside: [] },
    nodes: [
      { node: 'n1', address: ADDRESS, port: pg1, agentPort: agent1, inside: [] },
      { node: 'n2', address: ADDRESS, port: pg2, agentPort: agent2, inside: [] },
    ],
    proxies: [proxyOf(0, 'off'), proxyOf(1, 'session'), proxyOf(2, 'transaction')],
    firewall: 'off',
    clientNetwork: `${ADDRESS}/32`,
    // The pools of PgBouncer and pgpool-II keep their connections while the others are measured.
    spec: { postgres: { parameters: { max_connections: '300' }, hba: [`host all all ${ADDRESS}/32 scram-sha-256`] } },
  };
}
