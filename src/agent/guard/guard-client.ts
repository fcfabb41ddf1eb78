/**
 * The agent's side of the guard: starts it detached, restarts it at once when it is gone, arms it, adopts from it after an agent restart.
 *
 * Invariant: `arm` resolves to true only when a living guard has confirmed the deadline within ACK_LIMIT_MS (`answerMs`).
 * Because: a renewal that no guard knows of does not count; then a frozen guard leads to the agent's own fence.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { closeSync, existsSync, mkdirSync, openSync, readFileSync } from 'node:fs';
import { type Socket, createConnection } from 'node:net';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { monoMs } from '../../base/clock.ts';
import { atNormalPriority } from '../../base/priority.ts';
import { decodeJson } from '../../core/decode.ts';
import { addMono } from '../../core/ids.ts';
import { type Failure, type Result, err, ok } from '../../core/result.ts';
import { isAlive } from './kill-tree.ts';
import {
  type Armed,
  GUARD_PROTOCOL,
  type GuardAnswer,
  type GuardRequest,
  type GuardStatus,
  NO_WATCHDOG,
  type WatchdogConfig,
  type WatchdogStatus,
  createLineReader,
  guardAnswer,
} from './protocol.ts';

export interface GuardClient {
  /** Connects to the guard of the state directory, starting one when none answers. Safe to call again and again. */
  ensure(): Promise<Result<GuardStatus, Failure>>;
  /** True only when the guard acknowledged in time. Brings a missing guard back. */
  arm(armed: Armed): Promise<boolean>;
  /** The deadline counts although it is earlier than the last one. True when the guard has it; one that is gone is told when it is back. */
  shorten(armed: Armed): Promise<boolean>;
  /** True when the guard forgot its deadline. Only called when nothing here can accept writes. */
  disarm(): Promise<boolean>;
  /** The fence record was read: a new lease may be armed. */
  acknowledge(): Promise<boolean>;
  /** Null when no guard answers in time. */
  status(): Promise<GuardStatus | null>;
  isConnected(): boolean;
  /** What the guard said last of the watchdog device. */
  watchdog(): WatchdogStatus;
  /** Asks for the device; what came of it is in `watchdog`. */
  openWatchdog(config: WatchdogConfig): Promise<void>;
  /** Ends the guard unless it is armed. */
  quit(): Promise<boolean>;
  /** Ends the connection; the guard goes on. */
  close(): void;
}

export interface GuardClientOptions {
  readonly stateDirectory: string;
  /** The guard's program; default: guard.mjs beside the bundle, or the source. */
  readonly entry?: string;
  /** More arguments, for tests. */
  readonly extraArguments?: readonly string[];
  /** The connection was lost (guard killed, or restarted). It is being brought back already. */
  readonly onGone?: () => void;
  readonly onStarted?: (pid: number) => void;
  /** How long an answer may take. Default: ACK_LIMIT_MS; tests of what the guard answers wait longer than a busy machine takes. */
  readonly answerMs?: number;
}

/** An answer takes under a millisecond; later than this the renewal had better not count. */
const ACK_LIMIT_MS = 200;
/** wdctl and the opening of a device: milliseconds with a sane driver. */
const WATCHDOG_LIMIT_MS = 1500;
/** A start takes 60 ms on an idle host; seconds on one that is out of processor. */
const START_LIMIT_MS = 5000;
/** sun_path holds 108 bytes. *Source:* unix(7). */
const MAX_SOCKET_PATH = 107;
/** One start at a time, unless the last one has had time enough even on a busy host. */
const START_AGAIN_MS = 1500;
const CONNECT_AGAIN_MS = 10;

/** Small heap: the guard keeps a few objects only. `--no-opt` and `--single-threaded` save compiler threads. */
export const GUARD_NODE_FLAGS: readonly string[] = [
  '--max-semi-space-size=1',
  '--max-old-space-size=24',
  '--single-threaded',
  '--no-opt',
  '--no-warnings',
];

/** guard.mjs beside the running bundle, else the source beside this file. */
export function guardEntry(): string {
  const here = fileURLToPath(import.meta.url);
  if (here.endsWith('.ts')) return join(dirname(here), 'guard-main.ts');
  for (const directory of [dirname(here), dirname(dirname(here))]) {
    const candidate = join(directory, 'guard.mjs');
    if (existsSync(candidate)) return candidate;
  }
  return join(dirname(here), 'guard.mjs');
}

export function readBootId(): string {
  return readFileSync('/proc/sys/kernel/random/boot_id', 'utf8').trim();
}

/** What a restarted agent may take over from a living guard: same boot, armed, its postmaster still the same process. Null: nothing. */
export function adoptable(status: GuardStatus, bootId: string): Armed | null {
  const { armed } = status;
  if (status.bootId !== bootId || status.phase !== 'armed' || armed === null) return null;
  if (armed.postmaster !== null && !isAlive(armed.postmaster)) return null;
  return armed.deadline > monoMs() ? armed : null;
}

interface Pending {
  readonly resolve: (answer: GuardAnswer | null) => void;
  readonly timer: ReturnType<typeof setTimeout>;
}

interface Connection {
  readonly socket: Socket;
  readonly pending: Map<number, Pending>;
}

type RequestBody = GuardRequest extends infer R ? (R extends GuardRequest ? Omit<R, 'id'> : never) : never;

export function createGuardClient(options: GuardClientOptions): GuardClient {
  const path = join(options.stateDirectory, 'run', 'guard.sock');
  const answerMs = options.answerMs ?? ACK_LIMIT_MS;
  let connection: Connection | null = null;
  let ensuring: Promise<Result<GuardStatus, Failure>> | null = null;
  let lastArmed: Armed | null = null;
  /** How often it was disarmed: what was asked for before the last time is not to arm it again. */
  let disarms = 0;
  let nextId = 1;
  let watchdog: WatchdogStatus = NO_WATCHDOG;
  let closed = false;

  const ask = (to: Connection, body: RequestBody, limitMs: number = answerMs): Promise<GuardAnswer | null> =>
    new Promise((resolve) => {
      const id = nextId++;
      const timer = setTimeout(() => {
        to.pending.delete(id);
        resolve(null);
      }, limitMs);
      to.pending.set(id, { resolve, timer });
      to.socket.write(`${JSON.stringify({ ...body, id })}\n`);
    });

  const attach = (socket: Socket): Connection => {
    const made: Connection = { socket, pending: new Map() };
    socket.setEncoding('utf8');
    const read = createLineReader(
      (line) => {
        const decoded = decodeJson(guardAnswer, line);
        const waiting = decoded.ok ? made.pending.get(decoded.value.id) : undefined;
        if (!decoded.ok || waiting === undefined) return;
        watchdog = decoded.value.status.watchdog;
        made.pending.delete(decoded.value.id);
        clearTimeout(waiting.timer);
        waiting.resolve(decoded.value);
      },
      () => socket.destroy(),
    );
    socket.on('data', (chunk: string) => read(chunk));
    socket.on('error', () => socket.destroy());
    socket.on('close', () => {
      for (const waiting of made.pending.values()) {
        clearTimeout(waiting.timer);
        waiting.resolve(null);
      }
      made.pending.clear();
      if (connection !== made) return;
      connection = null;
      if (closed) return;
      options.onGone?.();
      void restore();
    });
    return made;
  };

  /** Brings a lost guard back at once, and tells it the deadline that it guarded: that one was confirmed and still holds. */
  const restore = async (): Promise<void> => {
    const back = await ensure();
    if (!back.ok || closed || lastArmed === null || connection === null) return;
    if (back.value.phase === 'idle' && lastArmed.deadline > monoMs()) await ask(connection, { kind: 'arm', arm: lastArmed, shorten: false });
  };

  const ensure = (): Promise<Result<GuardStatus, Failure>> => {
    ensuring ??= connectOrStart().finally(() => {
      ensuring = null;
    });
    return ensuring;
  };

  const connectOrStart = async (): Promise<Result<GuardStatus, Failure>> => {
    if (Buffer.byteLength(path) > MAX_SOCKET_PATH) return err(failed(`the socket path ${path} is longer than ${MAX_SOCKET_PATH} bytes`, false));
    const deadline = monoMs() + START_LIMIT_MS;
    let nextStart = monoMs();
    let cause = 'no answer';
    while (monoMs() < deadline && !closed) {
      if (connection === null) {
        const socket = await connect(path);
        if (socket !== null) connection = attach(socket);
      }
      if (connection !== null) {
        const answered = await ask(connection, { kind: 'status' });
        if (answered !== null && (await isUsable(answered))) return ok(answered.status);
        cause = 'it does not answer (stopped, or of another version)';
        connection?.socket.destroy();
        connection = null;
      } else if (monoMs() >= nextStart) {
        nextStart = addMono(monoMs(), START_AGAIN_MS);
        cause = (await start(options)) ?? cause;
      }
      await new Promise((resolve) => setTimeout(resolve, CONNECT_AGAIN_MS));
    }
    return err(failed(cause, true));
  };

  /** An older guard is replaced when it is free to go. */
  const isUsable = async (answered: GuardAnswer): Promise<boolean> => {
    if (answered.status.protocol === GUARD_PROTOCOL) return true;
    if (connection !== null) await ask(connection, { kind: 'quit' });
    return false;
  };

  const command = async (body: RequestBody, isWanted: () => boolean = () => true): Promise<GuardAnswer | null> => {
    if (connection === null) {
      const back = await ensure();
      if (!back.ok || !isWanted()) return null;
    }
    return connection === null ? null : ask(connection, body);
  };

  return {
    ensure,
    arm: async (armed) => {
      const before = disarms;
      const isWanted = (): boolean => disarms === before;
      const answered = await command({ kind: 'arm', arm: armed, shorten: false }, isWanted);
      if (answered?.ok !== true || !isWanted()) return false;
      lastArmed = armed;
      return true;
    },
    shorten: async (armed) => {
      // What a lost guard is told when it is back must not be the longer deadline.
      if (lastArmed !== null && lastArmed.leaseId === armed.leaseId) lastArmed = armed;
      return connection !== null && (await ask(connection, { kind: 'arm', arm: armed, shorten: true }))?.ok === true;
    },
    disarm: async () => {
      lastArmed = null;
      disarms++;
      return (await command({ kind: 'disarm' }))?.ok === true;
    },
    acknowledge: async () => (await command({ kind: 'acknowledge' }))?.ok === true,
    status: async () => (await command({ kind: 'status' }))?.status ?? null,
    isConnected: () => connection !== null,
    watchdog: () => watchdog,
    openWatchdog: async (config) => {
      if (connection === null) return;
      const answered = await ask(connection, { kind: 'watchdog', watchdog: config }, WATCHDOG_LIMIT_MS);
      if (answered === null) watchdog = { state: 'failed', detail: 'the guard did not answer in time', late: false };
    },
    quit: async () => {
      closed = true;
      return connection !== null && (await ask(connection, { kind: 'quit' }))?.ok === true;
    },
    close: () => {
      closed = true;
      connection?.socket.destroy();
    },
  };
}

function connect(path: string): Promise<Socket | null> {
  return new Promise((resolve) => {
    const socket = createConnection(path);
    socket.once('connect', () => resolve(socket));
    socket.once('error', () => resolve(null));
  });
}

/** Starts the guard detached; null when the process was made, else why not. It is ours no more: it outlives us. */
function start(options: GuardClientOptions): Promise<string | null> {
  const run = join(options.stateDirectory, 'run');
  mkdirSync(run, { recursive: true, mode: 0o700 });
  const log = openSync(join(options.stateDirectory, 'guard.log'), 'a', 0o600);
  try {
    // It raises its own priority.
    const child: ChildProcess = atNormalPriority(() =>
      spawn(
        process.execPath,
        [...GUARD_NODE_FLAGS, options.entry ?? guardEntry(), '--state', options.stateDirectory, ...(options.extraArguments ?? [])],
        {
          detached: true,
          stdio: ['ignore', log, log],
          cwd: '/',
          env: { PATH: process.env['PATH'] ?? '/usr/sbin:/usr/bin:/sbin:/bin', UV_THREADPOOL_SIZE: '2', MALLOC_ARENA_MAX: '1' },
        },
      ),
    );
    child.unref();
    return new Promise((resolve) => {
      child.once('error', (cause) => resolve(cause.message));
      child.once('spawn', () => {
        if (child.pid !== undefined) options.onStarted?.(child.pid);
        resolve(null);
      });
    });
  } finally {
    closeSync(log);
  }
}

function failed(cause: string, retryable: boolean): Failure {
  return {
    code: 'guard.missing',
    what: 'the guard of this node does not run',
    cause,
    now: 'the write lease is not renewed without a guard: a primary here fences itself',
    remedy: 'look at guard.log in the state directory of the agent',
    retryable,
  };
}
