/**
 * A client that reads one node directly all the time, as a process of its own on the client host: what could anybody see there, and when?
 * Reads one JSON line from standard input (with the password, so that it is in no argument list), and ends when standard input closes; then it writes one
 * JSON line with what it saw.
 */
import { createInterface } from 'node:readline';
import { Client } from 'pg';
import { monoMs, realClock } from '../src/base/clock.ts';
import type { Login, Target } from '../src/demo/history.ts';

export interface RowReaderConfig {
  readonly run: string;
  readonly target: Target;
  readonly login: Login;
}

export interface RowReaderReport {
  /** One answer each: the highest row of the run that was visible. */
  readonly seen: readonly { readonly atMs: number; readonly highest: number }[];
}

const PAUSE_MS = 10;
const LIMIT_MS = 500;

const lines = createInterface({ input: process.stdin });
const config = JSON.parse(await new Promise<string>((resolve) => lines.once('line', resolve))) as RowReaderConfig;
const stopping = new AbortController();
lines.once('close', () => stopping.abort());
const seen: { atMs: number; highest: number }[] = [];
let db: Client | null = null;
while (!stopping.signal.aborted) {
  try {
    db ??= await open();
    const answer = await db.query<{ n: number }>('select coalesce(max(n), 0)::int as n from recorder where run = $1', [config.run]);
    seen.push({ atMs: monoMs(), highest: answer.rows[0]?.n ?? 0 });
  } catch {
    // Refused, reset or too late: nothing was seen. The other end may be gone, so a goodbye would wait for it.
    db?.end().catch(() => undefined);
    db = null;
  }
  await realClock.sleep(PAUSE_MS, stopping.signal);
}
const report: RowReaderReport = { seen };
process.stdout.write(`${JSON.stringify(report)}\n`, () => process.exit(0));

async function open(): Promise<Client> {
  const { host, port } = config.target;
  const client = new Client({ host, port, ...config.login, connectionTimeoutMillis: LIMIT_MS, query_timeout: LIMIT_MS });
  client.on('error', () => undefined);
  await client.connect();
  return client;
}
