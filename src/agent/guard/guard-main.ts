/**
 * The guard: a separate tiny process that fences when the agent is dead, frozen or stuck.
 * Started detached by the agent, one a state directory. It exits by itself only when it is told to, or when nothing is armed and no agent has been
 * connected for a while; never with its parent.
 */
import { appendFile, mkdirSync, readFileSync, unlinkSync, writeFileSync } from 'node:fs';
import { type Server, type Socket, createServer } from 'node:net';
import { join } from 'node:path';
import { formatWall, monoMs, now, wallMs } from '../../base/clock.ts';
import { raisePriority } from '../../base/priority.ts';
import { decodeJson, formatDecodeError } from '../../core/decode.ts';
import { addMono } from '../../core/ids.ts';
import { assertNever } from '../../core/result.ts';
import { bootMs } from '../lease/boot-clock.ts';
import { type TickClocks, pausedMs, readTogether } from '../lease/pause.ts';
import { type FenceOptions, fenceNow, readFenceFile, recordFence } from './guard-fence.ts';
import {
  type GuardReply,
  type GuardState,
  IDLE,
  acknowledge,
  arm,
  beginFence,
  disarm,
  isDue,
  mayQuit,
  noteFence,
  noteLostTime,
  shorten,
} from './guard-state.ts';
import { takeLock } from './lock.ts';
import { type Watchdog, createWatchdog } from './watchdog.ts';
import {
  type Armed,
  GUARD_PROTOCOL,
  type GuardAnswer,
  type GuardRequest,
  type GuardStatus,
  createLineReader,
  fenceRecord,
  guardRequest,
} from './protocol.ts';

/** Exit code when another guard serves this state directory. */
export const EXIT_ANOTHER_GUARD = 3;
/** An idle guard without an agent: long enough for any agent restart, short enough not to be forgotten on a host. */
const LONELY_MS = 600_000;
/** Rounds of killing what could not be killed at once. */
const AGAIN_MS = 250;
const MAX_CONNECTIONS = 16;
/** How often an armed guard compares its clocks: a paused machine is noticed this long after it goes on, with a dead agent too. */
const TICK_MS = 250;
/** The wall clock is believed above twice this (pause.ts); the renewal interval by default. */
const WALL_INTERVAL_MS = 500;

interface Guard {
  state: GuardState;
  /** At the last comparison. */
  clocks: TickClocks;
  readonly readClocks: () => TickClocks;
  readonly bootId: string;
  readonly stateDirectory: string;
  readonly fenceOptions: FenceOptions;
  timer: ReturnType<typeof setTimeout> | null;
  lonely: ReturnType<typeof setTimeout> | null;
  connections: number;
  /** The last line in guard.log: rounds of one fence say the same once. */
  lastNote: string;
  readonly watchdog: Watchdog;
  quit: () => void;
}

/** Runs until it may end; resolves with the exit code: 0, 2 (wrong arguments), or EXIT_ANOTHER_GUARD. `clocks` is for tests: no test can pause a machine. */
export async function runGuard(argv: readonly string[], clocks: () => TickClocks = readClocks): Promise<number> {
  const options = parseArguments(argv);
  if (options !== null) return serveUntilQuit(options, clocks);
  process.stderr.write('usage: guard --state DIRECTORY\n');
  return 2;
}

async function serveUntilQuit(options: FenceOptions, clocks: () => TickClocks): Promise<number> {
  const bootId = readFileSync('/proc/sys/kernel/random/boot_id', 'utf8').trim();
  const run = join(options.stateDirectory, 'run');
  mkdirSync(run, { recursive: true, mode: 0o700 });
  if (!takeLock(join(run, 'guard.lock'), bootId)) return EXIT_ANOTHER_GUARD;
  preferOurselves();
  // A closed terminal or a stopped service manager must not take the guard away from a living primary.
  for (const name of ['SIGHUP', 'SIGINT', 'SIGPIPE'] as const) process.on(name, () => undefined);
  const guard: Guard = {
    state: await restoredState(options.stateDirectory),
    clocks: clocks(),
    readClocks: clocks,
    bootId,
    stateDirectory: options.stateDirectory,
    fenceOptions: options,
    timer: null,
    lonely: null,
    connections: 0,
    lastNote: '',
    watchdog: createWatchdog(),
    quit: () => undefined,
  };
  const ended = new Promise<void>((resolve) => {
    guard.quit = resolve;
  });
  process.on('SIGTERM', () => {
    if (mayQuit(guard.state)) guard.quit();
  });
  const server = await listen(guard, join(run, 'guard.sock'));
  watchLoneliness(guard);
  await ended;
  server.close();
  return 0;
}

async function restoredState(stateDirectory: string): Promise<GuardState> {
  const text = await readFenceFile(stateDirectory);
  if (text === null) return IDLE;
  const record = decodeJson(fenceRecord, text);
  // An unreadable record still says that a fence happened; the agent deletes the file when it acknowledges.
  return record.ok && record.value.complete ? { phase: 'fenced', armed: null, fenced: record.value } : IDLE;
}

function listen(guard: Guard, path: string): Promise<Server> {
  try {
    // We hold the lock: a socket that is left here belongs to a guard that is gone.
    unlinkSync(path);
  } catch (cause) {
    if (!(cause instanceof Error && 'code' in cause && cause.code === 'ENOENT')) throw cause;
  }
  const server = createServer((socket) => serve(guard, socket));
  server.maxConnections = MAX_CONNECTIONS;
  return new Promise((resolve, reject) => {
    server.once('error', reject);
    server.listen(path, () => resolve(server));
  });
}

function serve(guard: Guard, socket: Socket): void {
  guard.connections += 1;
  watchLoneliness(guard);
  socket.setEncoding('utf8');
  const read = createLineReader(
    (line) => answer(guard, socket, line),
    () => socket.destroy(),
  );
  socket.on('data', (chunk: string) => read(chunk));
  socket.on('error', () => socket.destroy());
  socket.on('close', () => {
    guard.connections -= 1;
    watchLoneliness(guard);
  });
}

function answer(guard: Guard, socket: Socket, line: string): void {
  const request = decodeJson(guardRequest, line);
  if (!request.ok) {
    send(socket, { id: 0, ok: false, why: formatDecodeError(request.error), status: status(guard) });
    return;
  }
  noteClocks(guard);
  if (request.value.kind === 'watchdog') {
    void openWatchdog(guard, socket, request.value);
    return;
  }
  const reply = handle(guard, request.value);
  guard.state = reply.state;
  schedule(guard);
  keepWatchdog(guard);
  send(socket, { id: request.value.id, ok: reply.ok, why: reply.why, status: status(guard) });
  if (request.value.kind === 'quit' && reply.ok) socket.end(() => guard.quit());
}

async function openWatchdog(guard: Guard, socket: Socket, request: Extract<GuardRequest, { kind: 'watchdog' }>): Promise<void> {
  const armed = guard.state.phase === 'armed';
  if (armed) await guard.watchdog.open(request.watchdog);
  keepWatchdog(guard);
  send(socket, { id: request.id, ok: armed, why: armed ? '' : `the guard is ${guard.state.phase}`, status: status(guard) });
}

/** Fed while the deadline lies ahead, let go when nothing is left to fence; between the two the fence has the device's time to end. */
function keepWatchdog(guard: Guard): void {
  const { armed } = guard.state;
  const at = monoMs();
  if (guard.state.phase === 'armed' && armed !== null && !isDue(guard.state, at)) guard.watchdog.feed(armed, at);
  else if (mayQuit(guard.state)) void guard.watchdog.release();
}

function handle(guard: Guard, request: Exclude<GuardRequest, { kind: 'watchdog' }>): GuardReply {
  const { state } = guard;
  switch (request.kind) {
    case 'status':
      return { state, ok: true, why: '' };
    case 'arm':
      // A guard that was itself frozen past the deadline fences first, and takes no later deadline then.
      if (isDue(state, monoMs())) {
        fence(guard);
        return { state: guard.state, ok: false, why: 'the deadline has passed' };
      }
      return request.shorten ? shorten(state, sinceSent(guard, request.arm)) : arm(state, sinceSent(guard, request.arm), monoMs());
    case 'disarm':
      return disarm(state);
    case 'acknowledge': {
      const reply = acknowledge(state);
      if (reply.ok) forgetFence(guard.stateDirectory);
      return reply;
    }
    case 'quit':
      return mayQuit(state) ? { state, ok: true, why: '' } : { state, ok: false, why: `the guard is ${state.phase}` };
    default:
      return assertNever(request, 'guard request');
  }
}

function schedule(guard: Guard): void {
  if (guard.timer !== null) clearTimeout(guard.timer);
  guard.timer = null;
  const { armed, phase } = guard.state;
  if (phase !== 'armed' || armed === null) return;
  const tick = (): void => {
    noteClocks(guard);
    if (isDue(guard.state, monoMs())) fence(guard);
    else {
      keepWatchdog(guard);
      schedule(guard);
    }
  };
  guard.timer = setTimeout(tick, Math.min(TICK_MS, Math.max(0, armed.deadline - monoMs())));
}

function readClocks(): TickClocks {
  return readTogether(now, bootMs);
}

/** Time that passed uncounted since the last comparison is taken off the deadline: the store did count it. */
function noteClocks(guard: Guard): void {
  const before = guard.clocks;
  guard.clocks = guard.readClocks();
  guard.state = noteLostTime(guard.state, pausedMs(before, guard.clocks, WALL_INTERVAL_MS));
}

/** The deadline was right when the agent sent it; the machine may have been paused on the way. */
function sinceSent(guard: Guard, request: Armed): Armed {
  return request.at === null ? request : { ...request, deadline: addMono(request.deadline, -pausedMs(request.at, guard.clocks, WALL_INTERVAL_MS)) };
}

function fence(guard: Guard): void {
  const { armed } = guard.state;
  if (armed === null || guard.state.phase !== 'armed') return;
  guard.state = beginFence(guard.state);
  void fenceUntilDone(guard, armed);
}

async function fenceUntilDone(guard: Guard, armed: Armed): Promise<void> {
  const why = `the write lease of term ${armed.term} was not renewed before its deadline`;
  for (;;) {
    const record = await fenceNow(armed, why, guard.fenceOptions);
    noteInLog(
      guard,
      record.complete ? 'warn' : 'error',
      record.complete ? `fenced: ${why}` : `fencing again, processes are left: ${why}`,
      armed.term,
    );
    if (record.complete) {
      // Served from memory before the disk has it: the kill is done, the record is for people.
      const recorded = await recordFence(armed, record, guard.fenceOptions);
      guard.state = noteFence(guard.state, recorded);
      keepWatchdog(guard);
      return;
    }
    guard.state = noteFence(guard.state, record);
    await new Promise((resolve) => setTimeout(resolve, AGAIN_MS));
  }
}

/** A line for people, after the kill. Not waited for: a stuck disk must not hold the guard. */
function noteInLog(guard: Guard, level: 'warn' | 'error', message: string, term: number): void {
  if (guard.lastNote === message) return;
  guard.lastNote = message;
  const line = JSON.stringify({ level, time: formatWall(wallMs()), role: 'guard', pid: process.pid, term, message });
  appendFile(join(guard.stateDirectory, 'guard.log'), `${line}\n`, (cause) => {
    // The record in fenced.json and the agent's own line say the same; a full disk costs this copy only.
    guard.lastNote = cause === null ? message : '';
  });
}

function status(guard: Guard): GuardStatus {
  return {
    protocol: GUARD_PROTOCOL,
    bootId: guard.bootId,
    pid: process.pid,
    phase: guard.state.phase,
    armed: guard.state.armed,
    fenced: guard.state.fenced,
    watchdog: guard.watchdog.status(),
  };
}

function send(socket: Socket, answered: GuardAnswer): void {
  if (!socket.destroyed) socket.write(`${JSON.stringify(answered)}\n`);
}

function watchLoneliness(guard: Guard): void {
  if (guard.lonely !== null) clearTimeout(guard.lonely);
  guard.lonely = null;
  if (guard.connections > 0) return;
  guard.lonely = setTimeout(() => (mayQuit(guard.state) ? guard.quit() : watchLoneliness(guard)), LONELY_MS);
}

function forgetFence(stateDirectory: string): void {
  try {
    unlinkSync(join(stateDirectory, 'fenced.json'));
  } catch (cause) {
    if (!(cause instanceof Error && 'code' in cause && cause.code === 'ENOENT')) throw cause;
  }
}

/** The last to be killed when memory is short, the first to run when the processor is; both need root and are not vital. */
function preferOurselves(): void {
  raisePriority('vital');
  try {
    writeFileSync('/proc/self/oom_score_adj', '-900');
  } catch (cause) {
    if (!(cause instanceof Error && 'code' in cause)) throw cause;
  }
}

/** `--state DIRECTORY [--executable NAME]…` */
function parseArguments(argv: readonly string[]): FenceOptions | null {
  let stateDirectory: string | null = null;
  const executables: string[] = [];
  for (let index = 0; index < argv.length; index += 2) {
    const value = argv[index + 1];
    if (value === undefined) return null;
    if (argv[index] === '--state') stateDirectory = value;
    else if (argv[index] === '--executable') executables.push(value);
    else return null;
  }
  if (stateDirectory === null) return null;
  return executables.length === 0 ? { stateDirectory } : { stateDirectory, executables };
}

// The entry of dist/guard.mjs; `pgherd guard` calls runGuard instead. An open connection does not hold the process.
if (import.meta.main) process.exit(await runGuard(process.argv.slice(2)));
