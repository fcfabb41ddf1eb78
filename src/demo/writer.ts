/** One plain connection of a measuring client: bounded connect, bounded statements, and an honest reading of each answer. */
import { Client } from 'pg';
import { monoMs } from '../base/clock.ts';
import type { Login, Target } from './history.ts';

/** Connecting, logging in and learning the server's role. The measured systems are compared at this limit. */
export const CONNECT_LIMIT_MS = 250;
/** One statement. Longer hides a hang in a long outage; shorter calls a checkpoint an error. */
export const STATEMENT_LIMIT_MS = 500;

export type Answer =
  | { readonly kind: 'ack'; readonly timeline: number; readonly sentMs: number; readonly atMs: number }
  | { readonly kind: 'failed' | 'unknown'; readonly message: string; readonly sentMs: number; readonly atMs: number };

export interface Writer {
  readonly target: Target;
  /** False once the connection has ended or a statement got no answer. */
  readonly usable: () => boolean;
  /** Runs one autocommitted INSERT that returns `timeline`. Never rejects. Call it only when no other write is running. */
  readonly write: (sql: string) => Promise<Answer>;
  /** Drops the connection at once, without waiting for the server. */
  readonly drop: () => void;
}

export interface OpenOptions {
  readonly login: Login;
  readonly connectLimitMs?: number;
  readonly statementLimitMs?: number;
  /** `read-write`: resolve only to a server that accepts writes (libpq's target_session_attrs); `any`: also a standby. */
  readonly session: 'read-write' | 'any';
  readonly onEnd?: (message: string) => void;
}

/**
 * Opens a connection. Resolves to the reason as text when the server cannot be reached within the limit, refuses, or is
 * a standby while `read-write` was asked for. Never rejects.
 * Source: PostgreSQL manual 34.1.2 (target_session_attrs), 55.2.7 (in_hot_standby is reported at start since 14; older servers are asked).
 */
export async function openWriter(target: Target, options: OpenOptions): Promise<Writer | string> {
  const limitMs = options.connectLimitMs ?? CONNECT_LIMIT_MS;
  const client = new Client({
    host: target.host,
    port: target.port,
    ...options.login,
    connectionTimeoutMillis: limitMs,
    query_timeout: options.statementLimitMs ?? STATEMENT_LIMIT_MS,
    application_name: 'pgherd_recorder',
  });
  const parameters = watchParameters(client);
  let usable = true;
  const drop = (): void => {
    usable = false;
    streamOf(client)?.destroy();
  };
  // The limit covers the whole of connect, login and the question, so an own timer stands beside the driver's.
  const timer = setTimeout(drop, limitMs);
  client.on('error', (error: Error) => {
    const first = usable;
    drop();
    if (first) options.onEnd?.(error.message);
  });
  client.on('end', () => {
    const first = usable;
    usable = false;
    if (first) options.onEnd?.('the server closed the connection');
  });
  try {
    await client.connect();
    if (options.session === 'read-write' && (await isReadOnly(client, parameters))) {
      clearTimeout(timer);
      drop();
      return 'a standby';
    }
  } catch (error) {
    drop();
    return error instanceof Error ? error.message : String(error);
  } finally {
    clearTimeout(timer);
  }
  if (!usable) return 'the connection ended';
  return { target, usable: () => usable, drop, write: (sql) => writeOnce(client, sql, drop) };
}

async function isReadOnly(client: Client, parameters: ReadonlyMap<string, string>): Promise<boolean> {
  const standby = parameters.get('in_hot_standby');
  const readOnly = parameters.get('default_transaction_read_only');
  if (standby !== undefined && readOnly !== undefined) return standby === 'on' || readOnly === 'on';
  const result = await client.query<{ ro: string; standby: boolean }>(
    `select current_setting('transaction_read_only') as ro, pg_is_in_recovery() as standby`,
  );
  const row = result.rows[0];
  return row === undefined || row.standby || row.ro === 'on';
}

/**
 * Invariant: `ack` means that the server said the commit is durable in the way it was configured.
 * Because: ReadyForQuery came after CommandComplete without an error, and no WARNING came with it ("might not have been
 * replicated" is one, in the server's language, so every warning counts).
 * Broken if: an ERROR that leaves the row behind were called `failed`: only a plain ERROR proves that the transaction was
 * rolled back; FATAL may strike after the local commit while it waits for a standby.
 */
async function writeOnce(client: Client, sql: string, drop: () => void): Promise<Answer> {
  let warning: string | null = null;
  const onNotice = (notice: { severity?: string | undefined; message?: string | undefined }): void => {
    if (notice.severity !== 'NOTICE' && notice.severity !== 'INFO') warning = notice.message ?? 'a warning';
  };
  client.on('notice', onNotice);
  const sentMs = monoMs();
  try {
    const result = await client.query<{ timeline: string }>(sql);
    const atMs = monoMs();
    if (warning !== null) return { kind: 'unknown', message: warning, sentMs, atMs };
    return { kind: 'ack', timeline: Number.parseInt(result.rows[0]?.timeline ?? '0', 16), sentMs, atMs };
  } catch (error) {
    const atMs = monoMs();
    const message = error instanceof Error ? error.message : String(error);
    if (warning === null && severityOf(error) === 'ERROR') return { kind: 'failed', message, sentMs, atMs };
    drop();
    return { kind: 'unknown', message: warning ?? message, sentMs, atMs };
  } finally {
    client.off('notice', onNotice);
  }
}

function severityOf(error: unknown): string | null {
  if (typeof error !== 'object' || error === null || !('severity' in error)) return null;
  return typeof error.severity === 'string' ? error.severity : null;
}

interface DriverConnection {
  readonly stream: { destroy(): void };
  on(event: 'parameterStatus', listener: (message: { parameterName: string; parameterValue: string }) => void): void;
}

/** The driver's protocol connection; its types leave it out, so it is looked up and checked here once. */
function connectionOf(client: Client): DriverConnection | null {
  const connection = (client as unknown as { connection?: unknown }).connection;
  return typeof connection === 'object' && connection !== null ? (connection as DriverConnection) : null;
}

function streamOf(client: Client): { destroy(): void } | null {
  return connectionOf(client)?.stream ?? null;
}

function watchParameters(client: Client): ReadonlyMap<string, string> {
  const seen = new Map<string, string>();
  connectionOf(client)?.on('parameterStatus', (message) => seen.set(message.parameterName, message.parameterValue));
  return seen;
}
