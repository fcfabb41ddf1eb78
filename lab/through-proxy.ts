/** Clients of a proxy for a scenario: started on the client host, stopped, and judged. */
import { spawn } from 'node:child_process';
import { join } from 'node:path';
import type { Login } from '../src/demo/history.ts';
import { findProxy } from '../src/demo/herd.ts';
import { quote } from '../src/demo/recorder.ts';
import { ROOT, type Stage } from './stage.ts';

export interface ClientsConfig {
  readonly run: string;
  /** Tried one after the other, as a driver does with several hosts in its connection string. */
  readonly proxies: readonly { readonly host: string; readonly write: number; readonly read: number }[];
  readonly writers: number;
  readonly readers: number;
  readonly login: Login;
}

export interface LongWait {
  readonly ms: number;
  /** CLOCK_MONOTONIC of this machine. */
  readonly atMs: number;
}

interface Side {
  readonly statements: number;
  readonly reconnects: number;
  readonly errorCount: number;
  /** The first twenty. */
  readonly errors: readonly string[];
  /** From the first try of a statement to its answer. */
  readonly longest: LongWait;
  /** The longest one of each client, the longest first. */
  readonly waits: readonly LongWait[];
}

export interface ClientsReport {
  readonly writes: Side;
  readonly reads: Side;
  /** Numbers of the rows whose INSERT was answered. */
  readonly acknowledged: readonly number[];
}

export interface ProxyClients {
  readonly run: string;
  /** Ends them, and tells what they saw; null when they did not say it. */
  stop(): Promise<ClientsReport | null>;
}

/** Half of them write, half of them read. */
export const CLIENTS = 32;

/** They know these proxies, and begin with the first. */
export function startProxyClients(stage: Stage, ...ids: readonly string[]): ProxyClients {
  const { herd, recording } = stage;
  const run = `${recording.run}-proxy`;
  const config: ClientsConfig = {
    run,
    proxies: ids.map((id) => {
      const { address, writePort, readPort } = findProxy(herd.plan, id);
      return { host: address, write: writePort, read: readPort };
    }),
    writers: CLIENTS / 2,
    readers: CLIENTS / 2,
    login: herd.login,
  };
  const child = startOnClient(stage, 'proxy-clients.ts', config);
  return {
    run,
    stop: async () => {
      child.end();
      const output = await child.output;
      return output === '' ? null : (JSON.parse(output) as ClientsReport);
    },
  };
}

/** Runs a program of this folder on the client host to its end; null when it said nothing. */
export async function runOnClient<T>(stage: Stage, entry: string, config: unknown): Promise<T | null> {
  const output = await startOnClient(stage, entry, config).output;
  return output === '' ? null : (JSON.parse(output) as T);
}

export interface OnClient {
  /** Everything that it wrote; empty when it could not run. */
  readonly output: Promise<string>;
  /** Closes its standard input: it is to end. */
  readonly end: () => void;
}

/** It gets `config` as one line, so that a password is in no argument list. */
export function startOnClient({ network, clientHost }: Stage, entry: string, config: unknown): OnClient {
  const [program = '', ...rest] = [...network.inside(clientHost), process.execPath, join(ROOT, 'lab', entry)];
  const child = spawn(program, rest, { stdio: ['pipe', 'pipe', 'inherit'] });
  let text = '';
  child.stdout.on('data', (chunk: Buffer) => {
    text += chunk.toString();
  });
  child.stdin.on('error', () => undefined);
  child.stdin.write(`${JSON.stringify(config)}\n`);
  const output = new Promise<string>((resolve) => {
    child.once('close', () => resolve(text));
    child.once('error', () => resolve(''));
  });
  return { output, end: () => void child.stdin.end() };
}

export interface ClientLimits {
  readonly writeErrors: number | null;
  readonly readErrors: number | null;
  readonly writeWaitMs: number | null;
  readonly readWaitMs: number | null;
}

/** What is wrong, and the figures. Rows are compared with the present primary. */
export async function judgeClients(
  stage: Stage,
  clients: ProxyClients,
  limits: ClientLimits & { readonly faultMs: number },
): Promise<{ readonly wrong: readonly string[]; readonly detail: string }> {
  const report = await clients.stop();
  if (report === null) return { wrong: ['the clients of the proxy ended without a report'], detail: '' };
  const wrong: string[] = [];
  const bound = (what: string, value: number, limit: number | null, more = ''): void => {
    if (limit !== null && value > limit) wrong.push(`${what} ${value} is more than ${limit}${more}`);
  };
  const first = (side: Side): string => (side.errors[0] === undefined ? '' : ` (${side.errors[0]})`);
  bound('errors of writers', report.writes.errorCount, limits.writeErrors, first(report.writes));
  bound('errors of readers', report.reads.errorCount, limits.readErrors, first(report.reads));
  bound('longest wait of a writer, ms:', report.writes.longest.ms, limits.writeWaitMs);
  bound('longest wait of a reader, ms:', report.reads.longest.ms, limits.readWaitMs);
  if (report.writes.statements === 0 || report.reads.statements === 0) wrong.push('the clients of the proxy got no answers');
  const lost = await countLost(stage, clients.run, report.acknowledged);
  if (lost === null) wrong.push('the rows of the proxy’s clients could not be compared');
  else if (lost > 0) wrong.push(`${lost} rows that were acknowledged through the proxy are missing`);
  const { writes, reads } = report;
  const told = (side: Side): string =>
    `${side.errorCount} errors, longest wait ${side.longest.ms} ms from ${Math.round(side.longest.atMs - limits.faultMs)} ms on, median of the clients' longest ${median(side.waits)} ms`;
  const detail = `through the proxy: ${writes.statements} writes, ${told(writes)}; ${reads.statements} reads, ${told(reads)}`;
  return { wrong, detail };
}

/** `waits` is sorted. */
function median(waits: readonly LongWait[]): number {
  return waits[Math.floor(waits.length / 2)]?.ms ?? 0;
}

async function countLost(stage: Stage, run: string, acknowledged: readonly number[]): Promise<number | null> {
  const primary = await stage.writableNode();
  if (primary === null) return null;
  const rows = await stage.herd.sql(primary, `select n::int as n from recorder where run = ${quote(run)}`, stage.herd.login.database);
  const present = new Set(rows.map((row) => Number(row['n'])));
  return acknowledged.filter((n) => !present.has(n)).length;
}
