/**
 * Two clients that know the virtual addresses only, as a process of their own on the client host: one writes on the write address, one reads on the read
 * address. Reads one JSON line from standard input (with the password, so that it is in no argument list), and ends when standard input closes;
 * then it writes one JSON line with what it saw.
 */
import { createInterface } from 'node:readline';
import { Client } from 'pg';
import { monoMs, realClock } from '../src/base/clock.ts';
import type { VipClientConfig, VipClientReport, VipSide } from './virtual-addresses.ts';

/** Between two statements of one client. */
const PAUSE_MS = 10;
/** As an application that wants to fail over sets them: a packet to a host that is gone has no answer. */
const CONNECT_LIMIT_MS = 500;
const STATEMENT_LIMIT_MS = 1000;

async function main(): Promise<void> {
  const lines = createInterface({ input: process.stdin });
  const config = JSON.parse(await new Promise<string>((resolve) => lines.once('line', resolve))) as VipClientConfig;
  const stopping = new AbortController();
  lines.once('close', () => stopping.abort());
  const acknowledged: number[] = [];
  let n = 0;
  const [writes, reads] = await Promise.all([
    follow(config, config.write, stopping.signal, async (db) => {
      n += 1;
      const own = n;
      const text = "insert into recorder (run, n, node) values ($1, $2, 'vip') returning current_setting('port') as port";
      const answer = await db.query<{ port: string }>(text, [config.run, own]);
      acknowledged.push(own);
      return answer.rows[0]?.port ?? '';
    }),
    follow(config, config.read, stopping.signal, async (db) => {
      const answer = await db.query<{ port: string }>("select current_setting('port') as port, count(*) from recorder where n < 100");
      return answer.rows[0]?.port ?? '';
    }),
  ]);
  const report: VipClientReport = { writes, reads, acknowledged };
  process.stdout.write(`${JSON.stringify(report)}\n`);
}

/** One statement after the other; after an error on a new connection. A gap is the time between two answers. */
async function follow(config: VipClientConfig, host: string, signal: AbortSignal, work: (db: Client) => Promise<string>): Promise<VipSide> {
  const servers: { port: string; firstMs: number; lastMs: number; answers: number }[] = [];
  const errors: string[] = [];
  let gap = { ms: 0, atMs: 0 };
  let lastMs: number | null = null;
  let answers = 0;
  let db: Client | null = null;
  while (!signal.aborted) {
    try {
      db ??= await open(config, host);
      const port = await work(db);
      const atMs = monoMs();
      if (lastMs !== null && atMs - lastMs > gap.ms) gap = { ms: Math.round(atMs - lastMs), atMs: lastMs };
      lastMs = atMs;
      answers += 1;
      const server = servers.at(-1);
      if (server?.port === port) Object.assign(server, { lastMs: atMs, answers: server.answers + 1 });
      else servers.push({ port, firstMs: atMs, lastMs: atMs, answers: 1 });
    } catch (error) {
      errors.push(error instanceof Error ? error.message : String(error));
      // The other end may be gone: a goodbye would wait for it.
      db?.end().catch(() => undefined);
      db = null;
    }
    await realClock.sleep(PAUSE_MS, signal);
  }
  await db?.end();
  return { answers, errorCount: errors.length, errors: [...new Set(errors)].slice(0, 10), gap, servers };
}

async function open(config: VipClientConfig, host: string): Promise<Client> {
  const limits = { connectionTimeoutMillis: CONNECT_LIMIT_MS, query_timeout: STATEMENT_LIMIT_MS };
  const db = new Client({ host, port: config.port, ...config.login, ...limits });
  db.on('error', () => undefined);
  await db.connect();
  return db;
}

await main();
// A connection to a host that is gone must not hold the process.
process.exit(0);
