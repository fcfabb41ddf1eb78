/**
 * Those of PostgreSQL's processes that a cluster waits for come before everybody else on their host: the ones of a server that hands over, and the startup
 * process of one that is being promoted. All of them end with what they do, so that nothing has to be taken back.
 */
import { readFileSync } from 'node:fs';
import { hurryProcess } from '../../base/priority.ts';
import { errnoOf } from './failure.ts';
import { type ProcessInfo, isAlive, readProcess } from './postmaster.ts';

/** A server that stops: its postmaster, and every process that it has. */
export function hurryServer(postmaster: { readonly pid: number }): void {
  for (const pid of [postmaster.pid, ...childrenOf(postmaster.pid)]) hurryProcess(pid);
}

/**
 * The startup process of a standby, which replays, and ends when it has promoted; null when there is none, or its title cannot be read.
 * Source: PostgreSQL manual 28.1: the title begins with `postgres: `, the cluster_name if there is one, and the kind of process.
 */
export function findStartup(postmaster: { readonly pid: number }): ProcessInfo | null {
  for (const pid of childrenOf(postmaster.pid)) {
    const title = titleOf(pid);
    if (!/^postgres: (?:\S.*: )?startup( |$)/.test(title)) continue;
    const found = readProcess(pid);
    if (isAlive(found)) return found;
  }
  return null;
}

/** Empty also where the kernel does not list children. Source: proc(5), /proc/PID/task/TID/children. */
function childrenOf(pid: number): readonly number[] {
  return read(`/proc/${pid}/task/${pid}/children`)
    .split(' ')
    .filter((text) => text !== '')
    .map(Number);
}

/** Without the blanks that fill the room of a longer title before. */
function titleOf(pid: number): string {
  return read(`/proc/${pid}/cmdline`).replaceAll('\0', ' ').trimEnd();
}

/** Empty when the process is gone, or is not ours to look at. */
function read(path: string): string {
  try {
    return readFileSync(path, 'latin1');
  } catch (cause) {
    const code = errnoOf(cause);
    if (code === 'ENOENT' || code === 'ESRCH' || code === 'EACCES') return '';
    throw cause;
  }
}
