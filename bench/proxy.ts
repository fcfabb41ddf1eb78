/**
 * What a proxy costs: pgbench -S through each way, interleaved, on this machine. Client, PostgreSQL and proxy share the processors, so a ratio is a bill for
 * CPU. HAProxy and PgBouncer run beside ours where they are installed.
 */
import { execFileSync, spawn } from 'node:child_process';
import { chmodSync, existsSync, mkdtempSync, readFileSync, realpathSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { describeFailure } from '../src/core/result.ts';
import { sendSignal } from '../src/demo/children.ts';
import { type Herd, openHerd } from '../src/demo/herd.ts';
import { findFreePorts } from '../src/demo/ports.ts';
import { startHerd, stopHerd } from '../src/demo/processes.ts';

const ROOT = join(dirname(fileURLToPath(import.meta.url)), '..');
const ADDRESS = '127.0.0.1';
const SCALE = 10;
const MODES = ['simple', 'prepared'] as const;
/** Source: proc(5), sysconf(_SC_CLK_TCK) is 100 on every Linux of this kind. */
const TICK_US = 10_000;

interface Way {
  readonly name: string;
  readonly port: number;
  /** Whose CPU is counted; null: nobody's. */
  readonly pid: number | null;
}

export interface Measure {
  readonly way: string;
  readonly mode: (typeof MODES)[number] | 'connect';
  readonly clients: number;
  readonly tps: number;
  /** To `direct` of the same run. */
  readonly ratio: number;
  readonly cpuUsPerTransaction: number | null;
}

export interface ProxyBench {
  readonly measures: readonly Measure[];
  readonly missing: readonly string[];
}

interface Options {
  readonly seconds: number;
  readonly runs: number;
  readonly clients: readonly number[];
  readonly say: (line: string) => void;
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
    ];
    const rivals = await startRivals(herd, direct, others);
    ways.push(...rivals.ways);
    const measures = [
      ...MODES.flatMap((mode) => options.clients.map((clients) => measureWays(herd, ways, { ...options, mode, clients }))).flat(),
      ...measureWays(herd, ways, { ...options, mode: 'connect', clients: 8 }),
    ];
    return { measures, missing: rivals.missing };
  } finally {
    for (const pid of others) sendSignal(pid, 'SIGTERM');
    await stopHerd(herd, { keep: false });
  }
}

function measureWays(
  herd: Herd,
  ways: readonly Way[],
  options: Omit<Options, 'clients'> & { readonly mode: Measure['mode']; readonly clients: number },
): readonly Measure[] {
  const { mode, clients } = options;
  const runs = ways.map(() => ({ tps: [] as number[], ratio: [] as number[], cpu: [] as number[] }));
  for (let run = 0; run < options.runs; run++) {
    let reference = 0;
    for (const [index, way] of ways.entries()) {
      const before = cpuTicks(way.pid);
      const kind = mode === 'connect' ? ['-C', '-M', 'simple'] : ['-M', mode];
      const output = pgbench(herd, way.port, ['-S', '-n', '-c', String(clients), '-j', '2', '-T', String(options.seconds), ...kind]);
      const tps = Number(/^tps = ([\d.]+)/m.exec(output)?.[1] ?? 0);
      const count = Number(/actually processed: (\d+)/.exec(output)?.[1] ?? 0);
      const after = cpuTicks(way.pid);
      if (index === 0) reference = tps;
      runs[index]?.tps.push(tps);
      runs[index]?.ratio.push(reference === 0 ? 0 : tps / reference);
      if (before !== null && after !== null && count > 0) runs[index]?.cpu.push(((after - before) * TICK_US) / count);
      options.say(`${mode} ${clients} clients, ${way.name}: ${Math.round(tps)} tps`);
    }
  }
  return ways.map((way, index) => {
    const { tps = [], ratio = [], cpu = [] } = runs[index] ?? {};
    return { way: way.name, mode, clients, tps: median(tps), ratio: median(ratio), cpuUsPerTransaction: cpu.length === 0 ? null : median(cpu) };
  });
}

function median(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b);
  return sorted[Math.floor((sorted.length - 1) / 2)] ?? 0;
}

function pgbench(herd: Herd, port: number, args: readonly string[]): string {
  const { user, password, database } = herd.login;
  return execFileSync('pgbench', ['-h', ADDRESS, '-p', String(port), '-U', user, ...args, database], {
    env: { ...process.env, PGPASSWORD: password, PGSSLMODE: 'disable' },
    encoding: 'utf8',
    stdio: ['ignore', 'pipe', 'pipe'],
  });
}

/** Of the process and its threads, since its start. Source: proc_pid_stat(5), fields 14 and 15. */
function cpuTicks(pid: number | null): number | null {
  if (pid === null) return null;
  const text = readFileSync(`/proc/${pid}/stat`, 'utf8');
  const fields = text.slice(text.lastIndexOf(')') + 2).split(' ');
  return Number(fields[11]) + Number(fields[12]);
}

async function startRivals(
  herd: Herd,
  direct: number,
  pids: number[],
): Promise<{ readonly ways: readonly Way[]; readonly missing: readonly string[] }> {
  const [haproxyPort, pgbouncerPort] = await findFreePorts(ADDRESS, { preferred: 17_433, count: 2 });
  const ways: Way[] = [];
  const missing: string[] = [];
  const start = (name: string, program: string, port: number | undefined, config: string, args: (file: string) => readonly string[]): void => {
    if (!existsSync(program) || port === undefined) {
      missing.push(name);
      return;
    }
    const file = join(herd.plan.directory, `${name}.conf`);
    writeFileSync(file, config, { mode: 0o644 });
    const child = spawn(program, [...args(file)], { stdio: 'ignore', ...(name === 'pgbouncer' && process.getuid?.() === 0 ? { uid: 65534 } : {}) });
    if (child.pid === undefined) return;
    pids.push(child.pid);
    ways.push({ name, port, pid: child.pid });
  };
  start(
    'haproxy',
    '/usr/sbin/haproxy',
    haproxyPort,
    `global\n nbthread 1\ndefaults\n mode tcp\n timeout connect 5s\n timeout client 1h\n timeout server 1h\nlisten pg\n bind ${ADDRESS}:${haproxyPort}\n server s ${ADDRESS}:${direct}\n`,
    (file) => ['-db', '-f', file],
  );
  const { user, password } = herd.login;
  const users = join(herd.plan.directory, 'pgbouncer.users');
  writeFileSync(users, `"${user}" "${password}"\n`, { mode: 0o644 });
  start(
    'pgbouncer',
    '/usr/sbin/pgbouncer',
    pgbouncerPort,
    `[databases]\n* = host=${ADDRESS} port=${direct}\n[pgbouncer]\nlisten_addr=${ADDRESS}\nlisten_port=${pgbouncerPort}\nauth_type=scram-sha-256\nauth_file=${users}\npool_mode=session\nmax_client_conn=200\ndefault_pool_size=100\nunix_socket_dir=\n`,
    (file) => [file],
  );
  return { ways, missing };
}

async function planOf(): Promise<Parameters<typeof openHerd>[0]> {
  const directory = realpathSync(mkdtempSync(join(tmpdir(), 'pgherd-bench-')));
  chmodSync(directory, 0o755);
  const [api = 0, store = 0, pg1 = 0, pg2 = 0, agent1 = 0, agent2 = 0, writePort = 0, readPort = 0, splitPort = 0] = await findFreePorts(ADDRESS, {
    preferred: 19_433,
    count: 9,
  });
  return {
    directory,
    program: [process.execPath, join(ROOT, 'dist', 'pgherd.mjs')],
    cluster: 'bench',
    server: { address: ADDRESS, apiPort: api, storePort: store, inside: [] },
    nodes: [
      { node: 'n1', address: ADDRESS, port: pg1, agentPort: agent1, inside: [] },
      { node: 'n2', address: ADDRESS, port: pg2, agentPort: agent2, inside: [] },
    ],
    proxies: [{ id: 'p1', address: ADDRESS, writePort, readPort, splitPort, inside: [] }],
    firewall: 'off',
    clientNetwork: `${ADDRESS}/32`,
  };
}

export function renderProxyBench({ measures, missing }: ProxyBench): string {
  const rows = measures.map((one) => {
    const cpu = one.cpuUsPerTransaction === null ? '' : one.cpuUsPerTransaction.toFixed(1);
    return `| ${one.way} | ${one.mode} | ${one.clients} | ${Math.round(one.tps)} | ${one.ratio.toFixed(2)} | ${cpu} |`;
  });
  const notes = missing.length === 0 ? [] : ['', `Not installed, so not measured: ${missing.join(', ')}.`];
  return ['| way | mode | clients | tps | to direct | proxy CPU us/tx |', '|---|---|---|---|---|---|', ...rows, ...notes].join('\n');
}
