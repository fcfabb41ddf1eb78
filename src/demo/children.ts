/** Child processes of the demo and the lab: started, found again below a directory, and ended without leftovers. */
import { type ChildProcess, spawn } from 'node:child_process';
import { openSync, closeSync, readFileSync, readdirSync, readlinkSync } from 'node:fs';
import { monoMs, realClock } from '../base/clock.ts';

export interface RoleProcess {
  readonly pid: number;
  readonly logFile: string;
  /** Null while it runs. */
  exit(): { readonly code: number | null; readonly signal: string | null } | null;
  readonly gone: Promise<void>;
}

export interface SpawnOptions {
  /** Put before the program, e.g. `ip netns exec NAME`. */
  readonly inside: readonly string[];
  readonly argv: readonly string[];
  readonly cwd: string;
  readonly logFile: string;
  readonly env?: Readonly<Record<string, string>>;
}

/**
 * Starts a long-lived role; both outputs go to `logFile` (0600: the first start of a server prints a token).
 * It gets a process group of its own, so that Ctrl+C at the terminal reaches only us and everything is stopped in order.
 */
export function startRole(options: SpawnOptions): RoleProcess {
  const log = openSync(options.logFile, 'a', 0o600);
  try {
    const [program = '', ...rest] = [...options.inside, ...options.argv];
    const child = spawn(program, rest, { cwd: options.cwd, detached: true, stdio: ['ignore', log, log], env: { ...process.env, ...options.env } });
    const gone = new Promise<void>((resolve) => {
      child.once('exit', () => resolve());
      child.once('error', () => resolve());
    });
    return {
      pid: child.pid ?? -1,
      logFile: options.logFile,
      exit: () =>
        child.exitCode === null && child.signalCode === null && child.pid !== undefined ? null : { code: child.exitCode, signal: child.signalCode },
      gone,
    };
  } finally {
    closeSync(log);
  }
}

export interface VerbResult {
  /** 127 when the program could not be started, 124 when the limit passed. */
  readonly code: number;
  readonly stdout: string;
  readonly stderr: string;
  readonly durationMs: number;
}

/** Longer output of a verb than this is cut: nothing we ask for is near it. */
const OUTPUT_LIMIT = 1_000_000;

/** Runs a short program to its end; killed (whole group) when `limitMs` passes. */
export async function runOnce(options: Omit<SpawnOptions, 'logFile'> & { readonly limitMs: number }): Promise<VerbResult> {
  const startedMs = monoMs();
  const [program = '', ...rest] = [...options.inside, ...options.argv];
  const child = spawn(program, rest, {
    cwd: options.cwd,
    detached: true,
    stdio: ['ignore', 'pipe', 'pipe'],
    env: { ...process.env, ...options.env },
  });
  const stdout = collect(child, 'stdout');
  const stderr = collect(child, 'stderr');
  let timedOut = false;
  const timer = setTimeout(() => {
    timedOut = true;
    if (child.pid !== undefined) sendSignal(-child.pid, 'SIGKILL');
  }, options.limitMs);
  const code = await new Promise<number>((resolve) => {
    child.once('error', () => resolve(127));
    child.once('close', (exitCode) => resolve(timedOut ? 124 : (exitCode ?? 1)));
  });
  clearTimeout(timer);
  return { code, stdout: stdout(), stderr: stderr(), durationMs: Math.round(monoMs() - startedMs) };
}

function collect(child: ChildProcess, name: 'stdout' | 'stderr'): () => string {
  let text = '';
  child[name]?.setEncoding('utf8').on('data', (chunk: string) => {
    if (text.length < OUTPUT_LIMIT) text += chunk;
  });
  return () => text;
}

/** Sends a signal; false when there is no such process (any more). */
export function sendSignal(pid: number, signal: NodeJS.Signals | 0): boolean {
  try {
    process.kill(pid, signal);
    return true;
  } catch (error) {
    if (error instanceof Error && 'code' in error && error.code === 'ESRCH') return false;
    throw error;
  }
}

/**
 * Processes that belong to a directory: their working directory lies in it, or their command line names it. Never ourselves.
 * Zombies are left out: they hold nothing, and only their parent can remove them.
 */
export function processesBelow(directory: string): readonly number[] {
  const found: number[] = [];
  for (const entry of readdirSync('/proc')) {
    const pid = Number(entry);
    if (!Number.isInteger(pid) || pid === process.pid) continue;
    try {
      if (/\) [ZX] /.test(readFileSync(`/proc/${pid}/stat`, 'utf8'))) continue;
      const cwd = readlinkSync(`/proc/${pid}/cwd`);
      const line = readFileSync(`/proc/${pid}/cmdline`, 'utf8');
      if (`${cwd}/`.startsWith(`${directory}/`) || line.split('\0').some((word) => word === directory || word.includes(`${directory}/`)))
        found.push(pid);
    } catch {
      // Gone meanwhile, or another user's: not ours in both cases.
    }
  }
  return found;
}

/** SIGKILL until nothing of the directory lives; the pids that remain after `limitMs`, normally none. */
export async function killBelow(directory: string, limitMs = 5000): Promise<readonly number[]> {
  const end = monoMs() + limitMs;
  let left = processesBelow(directory);
  while (left.length > 0 && monoMs() < end) {
    for (const pid of left) sendSignal(pid, 'SIGKILL');
    await realClock.sleep(10);
    left = processesBelow(directory);
  }
  return left;
}

/** Polls until `condition` holds; false after `limitMs`. */
export async function waitUntil(condition: () => boolean | Promise<boolean>, limitMs: number, pauseMs = 50): Promise<boolean> {
  const end = monoMs() + limitMs;
  while (!(await condition())) {
    if (monoMs() > end) return false;
    await realClock.sleep(pauseMs);
  }
  return true;
}

/** Pid of a data directory's postmaster; null when there is no pid file or the process is gone. */
export function postmasterOf(dataDirectory: string): number | null {
  try {
    const pid = Number(readFileSync(`${dataDirectory}/postmaster.pid`, 'utf8').split('\n')[0]);
    return Number.isInteger(pid) && pid > 0 && sendSignal(pid, 0) ? pid : null;
  } catch {
    // No pid file: not running.
    return null;
  }
}

/** The process and all its descendants, parents first. */
export function processTree(root: number): readonly number[] {
  const children = new Map<number, number[]>();
  for (const entry of readdirSync('/proc')) {
    const pid = Number(entry);
    if (!Number.isInteger(pid)) continue;
    try {
      const stat = readFileSync(`/proc/${pid}/stat`, 'utf8');
      const parent = Number(stat.slice(stat.lastIndexOf(')') + 2).split(' ')[1]);
      children.set(parent, [...(children.get(parent) ?? []), pid]);
    } catch {
      // Gone meanwhile.
    }
  }
  const all = [root];
  for (let i = 0; i < all.length; i++) all.push(...(children.get(all[i] ?? -1) ?? []));
  return all;
}
