/**
 * Those of PostgreSQL's processes that a cluster waits for come before everybody else on their host: the ones that end a server that hands over, and the
 * startup process of one that was ordered to promote. All of them end with what they do, so that nothing has to be taken back.
 */
import { readFileSync } from 'node:fs';
import { hurryProcess } from '../../base/priority.ts';
import { type ProcessInfo, isAlive, readProcess } from './postmaster.ts';

/**
 * A server that stops: its postmaster, the shutdown checkpoint, and who sends it. Not its archiver, whose command may leave processes behind, and not the
 * sessions of clients, which may be many.
 */
export function hurryServer(postmaster: { readonly pid: number }): void {
  hurryProcess(postmaster.pid);
  for (const pid of childrenOf(postmaster.pid)) if (/^(checkpointer|walsender)$/.test(kindOf(pid))) hurryProcess(pid);
}

/** The startup process of a standby, which replays, and ends when it has promoted; null when there is none, or this kernel does not tell. */
export function findStartup(postmaster: { readonly pid: number }): ProcessInfo | null {
  for (const pid of childrenOf(postmaster.pid)) {
    if (kindOf(pid) !== 'startup') continue;
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

/**
 * Empty when it cannot be told. Source: PostgreSQL manual 28.1: the title begins with `postgres: `, the cluster_name if there is one, and the kind of process;
 * blanks fill the room of a longer title before.
 */
function kindOf(pid: number): string {
  const title = read(`/proc/${pid}/cmdline`).replaceAll('\0', ' ');
  return /^postgres: (?:\S+: )?(\S+)/.exec(title)?.[1] ?? '';
}

/** Empty when it cannot be read, for whatever reason: nobody is hurried then. */
function read(path: string): string {
  try {
    return readFileSync(path, 'latin1');
  } catch {
    return '';
  }
}
