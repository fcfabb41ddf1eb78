/** SQL connections of the agent: every one has limits for connecting and for each statement, and is always closed. */
import type { Socket } from 'node:net';
import pg from 'pg';
import { type Failure, type Result, err, ok } from '../../core/result.ts';
import { failure, messageOf } from './failure.ts';
import { type Instance, ROLES } from './instance.ts';

export interface SqlTarget {
  /** Host name, address, or directory of a UNIX socket. */
  readonly host: string;
  readonly port: number;
  readonly user: string;
  readonly database: string;
  /** Null: none is sent (peer authentication). */
  readonly password: string | null;
  readonly tls?: { readonly ca: string | null };
}

export interface SqlLimits {
  readonly connectMs: number;
  readonly statementMs: number;
}

export type Row = Readonly<Record<string, unknown>>;

export interface Sql {
  /** Rows of one statement. Rejects with the driver's error. */
  query(text: string, values?: readonly unknown[]): Promise<readonly Row[]>;
  /** False once the connection broke; it is not opened again. */
  isOpen(): boolean;
  /** Says goodbye (one message without an answer) and lets the socket go; never waits. */
  close(): void;
  /** At once, whatever the server does. */
  destroy(): void;
}

export const LOCAL_LIMITS: SqlLimits = { connectMs: 2000, statementMs: 5000 };

/** Our own superuser over the private socket. */
export function localTarget(instance: Pick<Instance, 'socketDirectory' | 'port'>, database = 'postgres'): SqlTarget {
  return { host: instance.socketDirectory, port: instance.port, user: ROLES.agent, database, password: null };
}

/**
 * Settings that each of our sessions has: `search_path` pinned so that no object of a tenant is found first (Q43);
 * `synchronous_commit=local`, because our own statements must not wait for a standby (Z61); no compilation, which takes longer than any of them.
 */
const SESSION =
  '-c search_path=pg_catalog -c synchronous_commit=local -c lock_timeout=0 -c idle_in_transaction_session_timeout=0 -c row_security=off -c jit=off';

/** A server that does not take the goodbye within this loses the socket. */
const GOODBYE_MS = 500;

/** Opens a connection. Rejects with the driver's error, or with one that has code `connect-timeout`. */
export async function openSql(
  target: SqlTarget,
  limits: SqlLimits,
  options: { replication?: boolean; applicationName?: string; onEnd?: () => void } = {},
): Promise<Sql> {
  const client = new pg.Client(clientConfig(target, limits, options));
  let open = true;
  // Without a listener a lost connection would end the agent.
  client.on('error', () => {
    open = false;
  });
  client.on('end', () => {
    open = false;
    options.onEnd?.();
  });
  const destroy = (): void => {
    open = false;
    streamOf(client)?.destroy();
  };
  let timer: NodeJS.Timeout | null = null;
  const late = new Promise<never>((_, reject) => {
    timer = setTimeout(
      () => reject(Object.assign(new Error(`no answer within ${limits.connectMs} ms`), { code: 'connect-timeout' })),
      limits.connectMs,
    );
  });
  const connecting = client.connect();
  try {
    await Promise.race([connecting, late]);
  } catch (cause) {
    // The loser of the race must not become an unhandled rejection.
    connecting.catch(() => undefined);
    destroy();
    throw cause;
  } finally {
    if (timer !== null) clearTimeout(timer);
  }
  return {
    isOpen: () => open,
    close: () => {
      if (!open) return destroy();
      open = false;
      client.end().catch(() => undefined);
      setTimeout(destroy, GOODBYE_MS).unref();
    },
    destroy,
    query: async (text, values) => {
      try {
        const result = await (values === undefined ? client.query(text) : client.query(text, [...values]));
        return result.rows as readonly Row[];
      } catch (cause) {
        // A statement that got no answer leaves the connection in an unknown state.
        if (sqlStateOf(cause) === null) destroy();
        throw cause;
      }
    },
  };
}

function clientConfig(target: SqlTarget, limits: SqlLimits, options: { replication?: boolean; applicationName?: string }): pg.ClientConfig {
  const base = {
    host: target.host,
    port: target.port,
    user: target.user,
    database: target.database,
    application_name: options.applicationName ?? 'pgherd_agent',
    keepAlive: true,
    keepAliveInitialDelayMillis: 1000,
    query_timeout: limits.statementMs + 500,
    connectionTimeoutMillis: limits.connectMs,
    ssl:
      target.tls === undefined
        ? false
        : target.tls.ca === null
          ? { rejectUnauthorized: false }
          : { ca: target.tls.ca, checkServerIdentity: () => undefined },
    // Never the environment's PGPASSWORD or a home directory's pgpass: only what was given.
    password: target.password ?? (() => ''),
  };
  return (
    options.replication === true ? { ...base, replication: 'true' } : { ...base, options: `${SESSION} -c statement_timeout=${limits.statementMs}` }
  ) as pg.ClientConfig;
}

/** The driver's socket: the only way to leave a server that does not answer. */
function streamOf(client: pg.Client): Socket | null {
  return (client as unknown as { readonly connection?: { readonly stream?: Socket } }).connection?.stream ?? null;
}

/** Five characters, e.g. 57P03; null when the error did not come from the server. */
export function sqlStateOf(cause: unknown): string | null {
  const code = typeof cause === 'object' && cause !== null && 'code' in cause ? cause.code : null;
  return typeof code === 'string' && /^[0-9A-Z]{5}$/.test(code) && cause instanceof pg.DatabaseError ? code : null;
}

export function describeSqlError(cause: unknown): string {
  const state = sqlStateOf(cause);
  return state === null ? messageOf(cause) : `${messageOf(cause)} (SQLSTATE ${state})`;
}

export interface SqlOptions {
  readonly limits?: SqlLimits;
  readonly signal?: AbortSignal;
  readonly replication?: boolean;
  readonly applicationName?: string;
}

/**
 * One connection for the time of `run`, closed in every case.
 * Errors: `postgres.connect` (retryable), `postgres.query`, `postgres.cancelled`.
 */
export function withSql<T>(target: SqlTarget, options: SqlOptions, run: (sql: Sql) => Promise<T>): Promise<Result<T, Failure>> {
  return runOn(() => openSql(target, options.limits ?? LOCAL_LIMITS, options), target, options, run);
}

/** How an operation gets its connection to the own server: `withLocalSql`, or one that was opened ahead. */
export type RunSql = <T>(
  instance: Pick<Instance, 'socketDirectory' | 'port'>,
  options: SqlOptions,
  run: (sql: Sql) => Promise<T>,
) => Promise<Result<T, Failure>>;

/** `withSql` on whatever connection `open` answers with. */
export async function runOn<T>(
  open: () => Promise<Sql>,
  target: SqlTarget,
  options: SqlOptions,
  run: (sql: Sql) => Promise<T>,
): Promise<Result<T, Failure>> {
  const where = `${target.user}@${target.host}:${target.port}/${target.database}`;
  if (options.signal?.aborted === true) return err(failure('postgres.cancelled', where, 'the operation was cancelled', 'nothing was sent', '', true));
  let sql: Sql;
  try {
    sql = await open();
  } catch (cause) {
    return err(
      failure(
        'postgres.connect',
        `cannot connect to ${where}`,
        describeSqlError(cause),
        'it is tried again',
        'is PostgreSQL running, and does pg_hba.conf hold the managed block?',
        true,
      ),
    );
  }
  const onAbort = (): void => sql.destroy();
  options.signal?.addEventListener('abort', onAbort, { once: true });
  try {
    return ok(await run(sql));
  } catch (cause) {
    if (options.signal?.aborted)
      return err(failure('postgres.cancelled', where, 'the operation was cancelled', 'the statement may have taken effect', '', true));
    return err(
      failure(
        'postgres.query',
        `a statement on ${where} failed`,
        describeSqlError(cause),
        'it is tried again',
        'see the PostgreSQL log of that node',
        true,
      ),
    );
  } finally {
    options.signal?.removeEventListener('abort', onAbort);
    sql.close();
  }
}

/** `withSql` as our superuser over the private socket. */
export function withLocalSql<T>(
  instance: Pick<Instance, 'socketDirectory' | 'port'>,
  options: SqlOptions & { readonly database?: string },
  run: (sql: Sql) => Promise<T>,
): Promise<Result<T, Failure>> {
  return withSql(localTarget(instance, options.database), options, run);
}

/** `"…"` with inner quotes doubled. */
export function quoteIdentifier(name: string): string {
  return `"${name.replaceAll('"', '""')}"`;
}

/** `'…'` for standard_conforming_strings = on; backslashes get the E form. */
export function quoteLiteral(value: string): string {
  const quoted = `'${value.replaceAll("'", "''").replaceAll('\\', '\\\\')}'`;
  return value.includes('\\') ? `E${quoted}` : quoted;
}
