/** Finds, verifies and watches the processes of a data directory by /proc; never by a pid file alone (Z26, Q16, Z27). */
import { closeSync, openSync, readFileSync, readSync, readdirSync, readlinkSync, realpathSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { errnoOf } from './failure.ts';

export interface ProcessInfo {
  readonly pid: number;
  readonly parent: number;
  /** One letter of proc(5): R, S, D, T (stopped), Z (zombie), … */
  readonly state: string;
  /** Start time in clock ticks since boot; with the pid it identifies a process. */
  readonly startTicks: number;
  readonly command: string;
}

export interface Postmaster extends ProcessInfo {
  /** Line 8 of postmaster.pid: `starting`, `ready`, `standby`, `stopping`; null when the file is gone or has no such line yet. */
  readonly status: string | null;
  /** Seconds since 1970, from the pid file. */
  readonly startedAtSeconds: number | null;
}

/** Null when there is no such process. Source: proc(5); the command may hold blanks and parentheses, so the last `)` counts. */
export function readProcess(pid: number): ProcessInfo | null {
  try {
    return parseStat(readStat(pid));
  } catch (cause) {
    if (isGone(cause)) return null;
    throw cause;
  }
}

/** A line of proc_pid_stat(5) has at most about 400 characters; a look at all processes reads hundreds, so that each costs three system calls and no buffer. */
const statBuffer = Buffer.alloc(1024);

function readStat(pid: number): string {
  const descriptor = openSync(`/proc/${pid}/stat`, 'r');
  try {
    return statBuffer.toString('latin1', 0, readSync(descriptor, statBuffer, 0, statBuffer.length, 0));
  } finally {
    closeSync(descriptor);
  }
}

function parseStat(text: string): ProcessInfo | null {
  const open = text.indexOf('(');
  const close = text.lastIndexOf(')');
  if (open < 0 || close < 0) return null;
  const rest = text.slice(close + 2).split(' ');
  return {
    pid: Number.parseInt(text, 10),
    command: text.slice(open + 1, close),
    state: rest[0] ?? '?',
    parent: Number(rest[1]),
    startTicks: Number(rest[19]),
  };
}

function isGone(cause: unknown): boolean {
  const code = errnoOf(cause);
  return code === 'ENOENT' || code === 'ESRCH';
}

/** Zombies have ended: nothing of theirs can write. */
export function isAlive(process: ProcessInfo | null): process is ProcessInfo {
  return process !== null && process.state !== 'Z' && process.state !== 'X';
}

/** Working directory; null when unknown (gone, or another user's and we are not root). A removed directory keeps its old path. */
function workingDirectory(pid: number): string | null {
  try {
    return readlinkSync(`/proc/${pid}/cwd`).replace(/ \(deleted\)$/, '');
  } catch (cause) {
    if (isGone(cause) || errnoOf(cause) === 'EACCES') return null;
    throw cause;
  }
}

/** The path as /proc shows it; the given path when it does not exist (any more). */
export function canonicalDirectory(path: string): string {
  try {
    return realpathSync(path);
  } catch (cause) {
    if (errnoOf(cause) === 'ENOENT') return path;
    throw cause;
  }
}

/**
 * The living postmaster of a data directory; null when there is none. A pid file whose process works in another directory,
 * is a zombie, or is no PostgreSQL is not believed. When the file is missing or wrong, /proc is searched for a postmaster
 * that works in the directory (its data directory may have been deleted under it, Z27).
 */
export function findPostmaster(dataDirectory: string): Postmaster | null {
  return findServer(dataDirectory).postmaster;
}

/** The postmaster, and without one every process that it left behind, by one look at /proc (which costs a millisecond for a hundred processes). */
export function findServer(dataDirectory: string): { readonly postmaster: Postmaster | null; readonly orphans: readonly ProcessInfo[] } {
  const directory = canonicalDirectory(dataDirectory);
  const file = readPidFile(dataDirectory);
  if (file !== null) {
    const process = readProcess(file.pid);
    if (isAlive(process) && workingDirectory(file.pid) === directory && isPostgres(process))
      return { postmaster: { ...process, status: file.status, startedAtSeconds: file.startedAtSeconds }, orphans: [] };
  }
  const group = findProcesses(dataDirectory);
  const pids = new Set(group.map((member) => member.pid));
  // The postmaster is the one whose parent is not of the group.
  const top = group.find((member) => isPostgres(member) && !pids.has(member.parent) && isPostmasterTitle(member.pid));
  if (top === undefined) return { postmaster: null, orphans: group };
  return { postmaster: { ...top, status: file?.pid === top.pid ? file.status : null, startedAtSeconds: null }, orphans: [] };
}

/**
 * `findServer` for one directory, again and again: as long as the pid file is the same file with the same content, and exactly the process that was
 * found by it lives, that process is the postmaster. A directory that was replaced has another pid file, a pid that is used again another start time.
 */
export function createServerFinder(dataDirectory: string): () => ReturnType<typeof findServer> {
  let known: { readonly stamp: string; readonly postmaster: Postmaster } | null = null;
  const path = join(dataDirectory, 'postmaster.pid');
  const stamp = (): string => {
    const found = statSync(path, { bigint: true, throwIfNoEntry: false });
    return found === undefined ? '' : `${found.dev}/${found.ino}/${found.mtimeNs}/${found.size}`;
  };
  return () => {
    const before = stamp();
    if (known !== null && known.stamp === before) {
      const process = readProcess(known.postmaster.pid);
      if (isAlive(process) && process.startTicks === known.postmaster.startTicks)
        return { postmaster: { ...known.postmaster, ...process }, orphans: [] };
    }
    const found = findServer(dataDirectory);
    // A file that changed while it was read is read again the next time.
    known = found.postmaster !== null && before !== '' && stamp() === before ? { stamp: before, postmaster: found.postmaster } : null;
    return found;
  };
}

function isPostgres(process: ProcessInfo): boolean {
  return process.command.startsWith('postgres') || process.command === 'postmaster';
}

/** Children overwrite their title with `postgres: …`; the postmaster keeps its argv. */
function isPostmasterTitle(pid: number): boolean {
  return readTitle(pid)?.startsWith('postgres: ') === false;
}

/** The command line, words parted by blanks, without those that fill the room of a longer one before; empty for a zombie. Null when the process is gone. */
export function readTitle(pid: number): string | null {
  try {
    return readFileSync(`/proc/${pid}/cmdline`, 'latin1').replaceAll('\0', ' ').trim();
  } catch (cause) {
    if (isGone(cause)) return null;
    throw cause;
  }
}

export interface PidFile {
  readonly pid: number;
  readonly startedAtSeconds: number | null;
  readonly status: string | null;
}

/** postmaster.pid; null when missing or without a pid. Source: PostgreSQL, src/include/utils/pidfile.h. */
export function readPidFile(dataDirectory: string): PidFile | null {
  let text: string;
  try {
    text = readFileSync(join(dataDirectory, 'postmaster.pid'), 'latin1');
  } catch (cause) {
    if (errnoOf(cause) === 'ENOENT' || errnoOf(cause) === 'ENOTDIR') return null;
    throw cause;
  }
  const lines = text.split('\n');
  const pid = Math.abs(Number.parseInt(lines[0] ?? '', 10));
  const started = Number.parseInt(lines[2] ?? '', 10);
  const status = (lines[7] ?? '').trim();
  if (!Number.isInteger(pid) || pid <= 1) return null;
  return { pid, startedAtSeconds: Number.isInteger(started) ? started : null, status: status === '' ? null : status };
}

/** Every process of this machine that we may see; processes that end meanwhile are left out. */
export function listProcesses(): readonly ProcessInfo[] {
  const all: ProcessInfo[] = [];
  for (const name of readdirSync('/proc')) {
    const first = name.charCodeAt(0);
    if (first < 48 || first > 57) continue;
    const process = readProcess(Number(name));
    if (process !== null) all.push(process);
  }
  return all;
}

/**
 * Living processes of the data directory: those that work in it and are PostgreSQL or began from it, and all their descendants
 * (archive commands, shells). A shell of a person who stands in the directory is not among them.
 */
export function findProcesses(dataDirectory: string, also: readonly number[] = []): readonly ProcessInfo[] {
  const directory = canonicalDirectory(dataDirectory);
  const all = listProcesses().filter(isAlive);
  const members = new Map<number, ProcessInfo>();
  const wanted = new Set(also);
  for (const process of all) {
    if (process.pid === globalThis.process.pid) continue;
    if (wanted.has(process.pid) || (isPostgres(process) && workingDirectory(process.pid) === directory)) members.set(process.pid, process);
  }
  for (let grew = true; grew; ) {
    grew = false;
    for (const process of all) {
      if (members.has(process.pid) || !members.has(process.parent)) continue;
      members.set(process.pid, process);
      grew = true;
    }
  }
  return [...members.values()];
}

/** Living descendants of `pid`, without itself. */
export function listDescendants(pid: number): readonly ProcessInfo[] {
  const all = listProcesses().filter(isAlive);
  const members = new Set([pid]);
  const found: ProcessInfo[] = [];
  for (let grew = true; grew; ) {
    grew = false;
    for (const process of all) {
      if (members.has(process.pid) || !members.has(process.parent)) continue;
      members.add(process.pid);
      found.push(process);
      grew = true;
    }
  }
  return found;
}

/** True while exactly this process (pid and start time) lives. */
export function isSameProcessAlive({ pid, startTicks }: { readonly pid: number; readonly startTicks: number }): boolean {
  const process = readProcess(pid);
  return isAlive(process) && process.startTicks === startTicks;
}

/**
 * 250 ms: the agent's own connection ends with the postmaster and leads to a close look at once; this is for a server that lets nobody in.
 * Shorter costs the host wake-ups for nothing (20 a second are 0.3 % of a core), longer adds to the outage of a crash while it starts.
 */
const WATCH_INTERVAL_MS = 250;
const CLOSE_LOOK_MS = 3;
/** 300 ms: a backend that ends for another reason (an administrator's command) is no hint for longer. */
const CLOSE_LOOKS = 100;

export interface PostmasterWatch {
  stop(): void;
  lookClosely(): void;
}

/**
 * Calls `onGone` once when the process has ended (or is a zombie), within 250 ms; at once (asynchronously) when it is gone already.
 * Works for children and for processes of an earlier agent. `lookClosely`: something hints at its end (a lost connection); it is noticed within milliseconds then.
 * The open descriptor of /proc/PID/stat belongs to that one process: after its end a read fails, even if the pid is used again.
 */
export function watchPostmaster({ pid, startTicks }: { readonly pid: number; readonly startTicks: number }, onGone: () => void): PostmasterWatch {
  let descriptor: number | null = null;
  let timer: NodeJS.Timeout | null = null;
  let closeTimer: NodeJS.Timeout | null = null;
  let ended = false;
  let round = 0;
  const buffer = Buffer.alloc(512);
  const stop = (): void => {
    ended = true;
    if (timer !== null) clearInterval(timer);
    if (closeTimer !== null) clearInterval(closeTimer);
    if (descriptor !== null) closeSync(descriptor);
    descriptor = null;
  };
  const look = (): void => {
    if (ended || stillThere()) return;
    stop();
    onGone();
  };
  const stillThere = (): boolean => {
    if (descriptor === null) return false;
    try {
      // Signal 0 costs a microsecond; the full look, which also sees zombies and a pid that is used again, every fifth time.
      if (round++ % 5 !== 0) return process.kill(pid, 0);
      const found = parseStat(buffer.toString('latin1', 0, readSync(descriptor, buffer, 0, buffer.length, 0)));
      return isAlive(found) && found.startTicks === startTicks;
    } catch (cause) {
      if (isGone(cause)) return false;
      if (errnoOf(cause) === 'EPERM') return true;
      throw cause;
    }
  };
  try {
    descriptor = openSync(`/proc/${pid}/stat`, 'r');
  } catch (cause) {
    if (!isGone(cause)) throw cause;
  }
  timer = setInterval(look, WATCH_INTERVAL_MS);
  timer.unref();
  setImmediate(look);
  return {
    stop,
    lookClosely: () => {
      if (ended || closeTimer !== null) return;
      let left = CLOSE_LOOKS;
      closeTimer = setInterval(() => {
        look();
        if (--left > 0 || closeTimer === null) return;
        clearInterval(closeTimer);
        closeTimer = null;
      }, CLOSE_LOOK_MS);
      closeTimer.unref();
    },
  };
}
