/** Two real servers with the same login, and the ports of a proxy in front of them whose route the test decides. */
import assert from 'node:assert/strict';
import { Client, type ClientConfig } from 'pg';
import { silentLogger } from '../../src/base/log.ts';
import { type NodeId, makeNodeId, makeTerm } from '../../src/core/ids.ts';
import type { ProxyConfig } from '../../src/core/proxy-config.ts';
import { NO_ROUTE, type Route, type RouteTarget } from '../../src/core/route/decide.ts';
import { type Doorman, openDoorman } from '../../src/proxy/doorman.ts';
import type { Io } from '../../src/proxy/io/door.ts';
import type { ClientTls } from '../../src/proxy/login/client-login.ts';
import { Port } from '../../src/proxy/port.ts';
import type { Positions } from '../../src/proxy/positions.ts';
import { openRules } from '../../src/proxy/rules.ts';
import { parseScramSecret } from '../../src/wire/scram.ts';
import { type PlainPostgres, login, startPlainPostgres } from '../lab/plain-postgres.ts';

export interface ProxyStage {
  readonly a: PlainPostgres;
  readonly b: PlainPostgres;
  readonly targets: { readonly a: RouteTarget; readonly b: RouteTarget };
  readonly port: number;
  readonly sessions: Port;
  /** Epochs whose hold was complete, in order. */
  readonly held: readonly number[];
  /** What is not named stays; the epoch rises. */
  route(change: Partial<Route>): void;
  connect(options?: ClientConfig): Promise<Client>;
  close(): void;
}

export interface Servers {
  readonly a: PlainPostgres;
  readonly b: PlainPostgres;
  remove(): Promise<void>;
}

/** Ports of tests: each file takes its own. */
export async function startServers(firstPort: number): Promise<Servers> {
  const [a, b] = await Promise.all([startPlainPostgres(firstPort), startPlainPostgres(firstPort + 1)]);
  const [row] = await a.query("select rolpassword from pg_authid where rolname = 'postgres'");
  // The salt differs otherwise, as it does not on standbys.
  await b.query(`alter role postgres password '${String(row?.['rolpassword'])}'`);
  for (const server of [a, b]) await server.query('create table seen (what text)');
  return {
    a,
    b,
    remove: async () => {
      await Promise.all([a.remove(), b.remove()]);
    },
  };
}

export async function openStage(
  { a, b }: Servers,
  options: {
    readonly io: Io;
    readonly kind?: 'write' | 'read' | 'split';
    readonly positions?: Positions;
    readonly tls?: ClientTls;
    /** PEM of the authority that the servers' certificates are checked against. */
    readonly ca?: string;
    readonly waitMs?: number;
    readonly maxClients?: number;
    readonly loginMs?: number;
    readonly pooling?: ProxyConfig['pooling'];
  },
): Promise<ProxyStage> {
  const held: number[] = [];
  const rules = openRules({ log: silentLogger });
  const target = (name: string, port: number): RouteTarget => ({ node: makeNodeId(name) satisfies NodeId, host: '127.0.0.1', port });
  const targets = { a: target('a', a.port), b: target('b', b.port) };
  const sessions = new Port({
    kind: options.kind ?? 'write',
    io: options.io,
    ca: options.ca ?? null,
    log: silentLogger,
    connectMs: 3000,
    waitMs: options.waitMs ?? 10_000,
    rules,
    positions: options.positions ?? null,
    onHeld: (epoch) => void held.push(epoch),
    pooling: options.pooling ?? null,
  });
  const opened = await openDoorman({
    port: sessions,
    host: '127.0.0.1',
    number: 0,
    io: options.io,
    tls: options.tls ?? null,
    ca: options.ca ?? null,
    rules,
    secrets: {
      find: async (user) => {
        const [row] = await b.query(`select rolpassword from pg_authid where rolname = '${user.replaceAll("'", "''")}' and rolcanlogin`);
        return parseScramSecret(String(row?.['rolpassword'] ?? ''));
      },
    },
    limits: { maxClients: options.maxClients ?? 100, loginMs: options.loginMs ?? 5000, connectMs: 3000 },
    log: silentLogger,
    everybody: () => [...sessions.sessions],
  });
  assert.ok(opened.ok);
  const doorman: Doorman = opened.value;
  const clients: Client[] = [];
  let route: Route = {
    ...NO_ROUTE,
    closed: null,
    term: makeTerm(1),
    writer: targets.a,
    readers: [targets.a, targets.b].map((one) => ({ ...one, weight: 1, lagBytes: 0 })),
  };
  const apply = (change: Partial<Route>): void => {
    route = { ...route, ...change, epoch: route.epoch + 1 };
    sessions.apply(route);
  };
  apply({});
  return {
    a,
    b,
    targets,
    port: doorman.port,
    sessions,
    held,
    route: apply,
    connect: async (more = {}) => {
      const client = new Client({ host: '127.0.0.1', port: doorman.port, ...login, connectionTimeoutMillis: 10_000, ...more });
      // An ended connection is told by the query that finds it.
      client.on('error', () => undefined);
      await client.connect();
      clients.push(client);
      return client;
    },
    close: () => {
      doorman.close();
      sessions.close();
      for (const client of clients) (client as unknown as { connection: { stream: { destroy(): void } } }).connection.stream.destroy();
    },
  };
}

/** SQLSTATE of the error that the promise ends with; null when it does not. */
export function sqlStateOf(promise: Promise<unknown>): Promise<string | null> {
  return promise.then(
    () => null,
    (error: unknown) => (error instanceof Error && 'code' in error ? String(error.code) : String(error)),
  );
}

/** The port of the server that answers. */
export async function portOf(client: Client): Promise<number> {
  const { rows } = await client.query<{ port: number }>('select inet_server_port() as port');
  return rows[0]?.port ?? 0;
}
