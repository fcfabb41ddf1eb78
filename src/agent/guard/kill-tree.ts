/**
 * The complete kill: no process of a data directory is left, or the ones that cannot be killed are said.
 * Depends on node:fs and process.kill only, and touches nothing but /proc before the kill, so that a stuck disk cannot stop a fence.
 *
 * Invariant: after `killTree` answers `complete`, no process that could write to the data directory's cluster lives.
 * Because: everything found is stopped first (SIGSTOP), until a whole look finds nothing new, so that nothing can fork away from the list; then all is
 *   killed, and the look is repeated until it is empty. Backends are recognised without their postmaster too: PostgreSQL's processes have the data
 *   directory as working directory. What was found once is remembered by pid and start time: a child (an archive command) that outlives its dead parent
 *   is not found by descent any more.
 * Broken if: a server process changes its working directory and its postmaster is gone before the first look.
 * *Source:* PostgreSQL, utils/init/miscinit.c (ChangeToDataDir); proc(5), proc_pid_stat(5).
 */
import { closeSync, openSync, readSync, readdirSync, readlinkSync } from 'node:fs';
import { basename } from 'node:path';
import { monoMs, realClock } from '../../base/clock.ts';

export interface ProcessId {
  readonly pid: number;
  /** Clock ticks since boot: tells a process from a later one with the same pid. */
  readonly startTime: number;
}

export interface ProcessInfo extends ProcessId {
  readonly ppid: number;
  /** One letter of proc_pid_stat(5); Z and X are dead. */
  readonly state: string;
  readonly command: string;
}

export interface KillTarget {
  /** With symbolic links resolved (as /proc shows it). */
  readonly dataDirectory: string;
  readonly postmaster: ProcessId | null;
  /** Names of executables that count as the server's when only the working directory tells; default: postgres, postmaster. */
  readonly executables?: readonly string[];
}

export interface KillOutcome {
  readonly complete: boolean;
  readonly killed: readonly number[];
  /** Still alive at the limit, e.g. in state D (uninterruptible sleep on a stuck disk). */
  readonly survivors: readonly ProcessInfo[];
  readonly durationMs: number;
}

const SERVER_EXECUTABLES = ['postgres', 'postmaster'] as const;
/** Looks for a fixed point of "stopped"; each look finds at least one new process or ends, and a stopped process forks no more. */
const MAX_FREEZE_LOOKS = 20;
/** Death after SIGKILL takes about a millisecond; large shared buffers a few tens. */
const LOOK_AGAIN_MS = 3;
/** What is left after a while waits in the kernel, perhaps for as long as its disk is away. A look reads all of /proc: without a growing pause it would take a core. */
const LONGEST_PAUSE_MS = 250;

/** Until the next look: a quarter of the time that passed, so that a death is seen that much later at most. */
export function pauseAfter(elapsedMs: number): number {
  return Math.min(LONGEST_PAUSE_MS, Math.max(LOOK_AGAIN_MS, elapsedMs / 4));
}

/** Null when there is no such process (or it vanished while being read). A zombie is returned with state Z. */
export function readProcess(pid: number): ProcessInfo | null {
  let stat: string;
  try {
    stat = readStat(pid);
  } catch (cause) {
    if (isGone(cause)) return null;
    throw cause;
  }
  return parseStat(stat);
}

/** A line has at most about 400 characters; a look at all processes reads hundreds, so that each costs three system calls and no buffer. */
const statBuffer = Buffer.alloc(1024);

function readStat(pid: number): string {
  const descriptor = openSync(`/proc/${pid}/stat`, 'r');
  try {
    return statBuffer.toString('latin1', 0, readSync(descriptor, statBuffer, 0, statBuffer.length, 0));
  } finally {
    closeSync(descriptor);
  }
}

/** Parses one line of proc_pid_stat(5); the command may hold blanks and parentheses. Null when it is not one. */
export function parseStat(stat: string): ProcessInfo | null {
  const open = stat.indexOf('(');
  const close = stat.lastIndexOf(')');
  if (open < 0 || close < open) return null;
  const fields = stat.slice(close + 2).split(' ');
  const [state, ppid, startTime] = [fields[0], Number(fields[1]), Number(fields[19])];
  const pid = Number(stat.slice(0, open));
  if (state === undefined || !Number.isInteger(pid) || !Number.isInteger(ppid) || !Number.isFinite(startTime)) return null;
  return { pid, ppid, state, startTime, command: stat.slice(open + 1, close) };
}

/** The same process as then, and not a zombie (Q16, Z26). */
export function isAlive(id: ProcessId): boolean {
  const info = readProcess(id.pid);
  return info !== null && info.startTime === id.startTime && !isDead(info);
}

/**
 * Every living process of the data directory: the postmaster, its descendants, and server processes whose working directory it is. Without ourselves.
 * `known`: more to begin from, found in an earlier look.
 */
export function findProcesses(target: KillTarget, known: Iterable<ProcessId> = []): readonly ProcessInfo[] {
  const all = listProcesses();
  const found = new Map<number, ProcessInfo>();
  const children = new Map<number, ProcessInfo[]>();
  for (const info of all.values()) {
    const siblings = children.get(info.ppid);
    if (siblings === undefined) children.set(info.ppid, [info]);
    else siblings.push(info);
  }
  const queue: ProcessInfo[] = [];
  const postmaster = target.postmaster === null ? undefined : all.get(target.postmaster.pid);
  if (postmaster !== undefined && postmaster.startTime === target.postmaster?.startTime) queue.push(postmaster);
  for (const id of known) {
    const info = all.get(id.pid);
    if (info !== undefined && info.startTime === id.startTime) queue.push(info);
  }
  const executables = target.executables ?? SERVER_EXECUTABLES;
  for (const info of all.values()) if (isServerProcess(info, target.dataDirectory, executables)) queue.push(info);
  for (let info = queue.pop(); info !== undefined; info = queue.pop()) {
    if (found.has(info.pid) || info.pid === process.pid) continue;
    found.set(info.pid, info);
    queue.push(...(children.get(info.pid) ?? []));
  }
  return [...found.values()].filter((info) => !isDead(info));
}

/** Stops, lists, kills and looks again until nothing is left or `limitMs` has passed. Never throws for a process that vanished. */
export async function killTree(target: KillTarget, options: { readonly limitMs: number }): Promise<KillOutcome> {
  const begin = monoMs();
  const killed = new Set<number>();
  const known = new Map<number, ProcessId>();
  for (;;) {
    const found = freeze(target, known);
    for (const info of found) if (signal(info, 'SIGKILL')) killed.add(info.pid);
    if (found.length === 0) return { complete: true, killed: [...killed], survivors: [], durationMs: monoMs() - begin };
    if (monoMs() - begin >= options.limitMs) {
      const survivors = findProcesses(target, known.values());
      return { complete: survivors.length === 0, killed: [...killed], survivors, durationMs: monoMs() - begin };
    }
    await realClock.sleep(pauseAfter(monoMs() - begin));
  }
}

/** Stops everything of the target until a look finds nothing that is not stopped yet. Adds what it finds to `known`. */
function freeze(target: KillTarget, known: Map<number, ProcessId>): readonly ProcessInfo[] {
  const stopped = new Set<number>();
  let found: readonly ProcessInfo[] = [];
  for (let look = 0; look < MAX_FREEZE_LOOKS; look++) {
    found = findProcesses(target, known.values());
    for (const info of found) known.set(info.pid, info);
    const fresh = found.filter((info) => !stopped.has(info.pid));
    if (fresh.length === 0) break;
    // The postmaster first: a stopped postmaster starts no new children.
    fresh.sort((a, b) => Number(b.pid === target.postmaster?.pid) - Number(a.pid === target.postmaster?.pid));
    for (const info of fresh) {
      signal(info, 'SIGSTOP');
      stopped.add(info.pid);
    }
  }
  return found;
}

/** False when the process is gone, or is another one by now. */
function signal(info: ProcessInfo, name: 'SIGSTOP' | 'SIGKILL'): boolean {
  if (!isAlive(info)) return false;
  try {
    process.kill(info.pid, name);
    return true;
  } catch (cause) {
    // ESRCH: it died in between. EPERM: it stays in the list and is reported as a survivor.
    if (isErrno(cause, 'ESRCH') || isErrno(cause, 'EPERM')) return false;
    throw cause;
  }
}

function listProcesses(): ReadonlyMap<number, ProcessInfo> {
  const all = new Map<number, ProcessInfo>();
  for (const name of readdirSync('/proc')) {
    const first = name.charCodeAt(0);
    if (first < 48 || first > 57) continue;
    const info = readProcess(Number(name));
    if (info !== null) all.set(info.pid, info);
  }
  return all;
}

function isServerProcess(info: ProcessInfo, dataDirectory: string, executables: readonly string[]): boolean {
  if (isDead(info)) return false;
  const cwd = readLink(info.pid, 'cwd');
  // A removed directory keeps its name with this suffix (Z27).
  if (cwd !== dataDirectory && cwd !== `${dataDirectory} (deleted)`) return false;
  const executable = readLink(info.pid, 'exe');
  return executable !== null && executables.includes(basename(executable.replace(/ \(deleted\)$/, '')));
}

function readLink(pid: number, name: 'cwd' | 'exe'): string | null {
  try {
    return readlinkSync(`/proc/${pid}/${name}`);
  } catch (cause) {
    // EACCES: another user's process, which is not our server's. ENOENT, ESRCH: gone, or a kernel thread.
    if (isGone(cause) || isErrno(cause, 'EACCES') || isErrno(cause, 'EPERM')) return null;
    throw cause;
  }
}

function isDead(info: ProcessInfo): boolean {
  return info.state === 'Z' || info.state === 'X' || info.state === 'x';
}

function isGone(cause: unknown): boolean {
  return isErrno(cause, 'ENOENT') || isErrno(cause, 'ESRCH');
}

function isErrno(cause: unknown, code: string): boolean {
  return cause instanceof Error && 'code' in cause && cause.code === code;
}
