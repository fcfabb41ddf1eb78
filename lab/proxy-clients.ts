/**
 * Clients that know one address only, as a process of their own on the client host: writers on the write port, readers on the read port.
 * Reads one JSON line from standard input (with the password, so that it is in no argument list), and ends when standard input closes; then it writes
 * one JSON line with what it saw.
 */
import { createInterface } from 'node:readline';
import { Client } from 'pg';
import { monoMs, realClock } from '../src/base/clock.ts';
import type { ClientsConfig, ClientsReport, LongWait } from './through-proxy.ts';

/** Between two statements of one client. */
const PAUSE_MS = 10;
/** Longer than any wait that is good: what reaches it is an error. */
const STATEMENT_LIMIT_MS = 30_000;
const RECONNECT_MS = 20;

interface Tally {
  statements: number;
  reconnects: number;
  readonly errors: string[];
  /** The longest waits of each client. */
  readonly waits: LongWait[];
}

async function main(): Promise<void> {
  const lines = createInterface({ input: process.stdin });
  const config = JSON.parse(await new Promise<string>((resolve) => lines.once('line', resolve))) as ClientsConfig;
  const stopping = new AbortController();
  lines.once('close', () => stopping.abort());
  const acknowledged: number[][] = [];
  const writes = newTally();
  const reads = newTally();
  const all = Array.from({ length: config.writers }, (_, client) => {
    const own: number[] = [];
    acknowledged.push(own);
    // Half of the writers prepare their statement by name, as drivers do.
    return loop(config, { port: 'write', tally: writes, signal: stopping.signal }, async (db, n) => {
      const values = [config.run, client * 1_000_000 + n, 'proxy'];
      const text = 'insert into recorder (run, n, node) values ($1, $2, $3)';
      await db.query(client % 2 === 0 ? { text, values } : { name: 'write', text, values });
      own.push(client * 1_000_000 + n);
    });
  });
  for (let client = 0; client < config.readers; client++)
    all.push(
      loop(config, { port: 'read', tally: reads, signal: stopping.signal }, async (db) => {
        await db.query('select count(*) from recorder where run = $1 and n < 1000', [config.run]);
      }),
    );
  await Promise.all(all);
  const report: ClientsReport = { writes: summary(writes), reads: summary(reads), acknowledged: acknowledged.flat() };
  process.stdout.write(`${JSON.stringify(report)}\n`);
}

function newTally(): Tally {
  return { statements: 0, reconnects: 0, errors: [], waits: [] };
}

function summary(tally: Tally): ClientsReport['writes'] {
  const { statements, reconnects, errors } = tally;
  const waits = [...tally.waits].sort((a, b) => b.ms - a.ms).map(({ ms, atMs }) => ({ ms: Math.round(ms), atMs }));
  return {
    statements,
    reconnects,
    errors: errors.slice(0, 20),
    errorCount: errors.length,
    longest: waits[0] ?? { ms: 0, atMs: 0 },
    waits: waits.slice(0, 20),
  };
}

interface LoopOptions {
  readonly port: 'write' | 'read';
  readonly tally: Tally;
  readonly signal: AbortSignal;
}

/** One statement after the other on one connection; after an error that ended it, on a new one. Waiting counts from the first try of a statement. */
async function loop(config: ClientsConfig, { port, tally, signal }: LoopOptions, work: (db: Client, n: number) => Promise<void>): Promise<void> {
  // Everybody comes at once; how long that takes is not what is measured. Who fails tries again below, where it counts.
  let db: Client | null = await open(config, port).catch(() => null);
  let longest: LongWait = { ms: 0, atMs: 0 };
  for (let n = 1; !signal.aborted; n++) {
    const sentMs = monoMs();
    try {
      db ??= await open(config, port);
      await work(db, n);
      tally.statements += 1;
      const ms = monoMs() - sentMs;
      if (ms > longest.ms) longest = { ms, atMs: sentMs };
    } catch (error) {
      tally.errors.push(error instanceof Error ? `${'code' in error ? `${String(error.code)} ` : ''}${error.message}` : String(error));
      if (db === null || !usable(db)) {
        db = null;
        tally.reconnects += 1;
        await realClock.sleep(RECONNECT_MS, signal);
      }
    }
    await realClock.sleep(PAUSE_MS, signal);
  }
  tally.waits.push(longest);
  await db?.end();
}

const broken = new WeakSet<Client>();

function usable(db: Client): boolean {
  return !broken.has(db);
}

/** At the first of the proxies that lets it in; rejects with the last one's error. */
async function open(config: ClientsConfig, port: 'write' | 'read'): Promise<Client> {
  let last: unknown = new Error('no proxy is named');
  for (const proxy of config.proxies) {
    const db = new Client({
      host: proxy.host,
      port: proxy[port],
      ...config.login,
      connectionTimeoutMillis: STATEMENT_LIMIT_MS,
      query_timeout: STATEMENT_LIMIT_MS,
    });
    db.on('error', () => void broken.add(db));
    db.on('end', () => void broken.add(db));
    try {
      await db.connect();
      return db;
    } catch (error) {
      last = error;
    }
  }
  throw last;
}

await main();
