/**
 * Those of PostgreSQL's processes that a cluster waits for come before everybody else on their host: the ones that end a server that hands over, and the
 * startup process of one that was ordered to promote. All of them end with what they do, so that nothing has to be taken back.
 */
import { readFileSync } from 'node:fs';
import { hurryProcess } from '../../base/priority.ts';
import { errnoOf } from './failure.ts';
import type { Instance } from './instance.ts';
import { type ProcessInfo, findPostmaster, isAlive, readProcess, readTitle } from './postmaster.ts';

/**
 * A server that stops: its postmaster, the shutdown checkpoint, and who sends it. Not its archiver, whose command may leave processes behind, and not the
 * sessions of clients, which may be many.
 */
export function hurryServer(postmaster: { readonly pid: number }): void {
  hurryProcess(postmaster.pid);
  for (const pid of childrenOf(postmaster.pid)) if (/^(checkpointer|walsender)$/.test(kindOf(pid))) hurryProcess(pid);
}

/** The startup process of a server that was ordered to promote. Null: it is not known, and nobody is hurried. */
export function hurryStartup(instance: Pick<Instance, 'dataDirectory'>): ProcessInfo | null {
  const postmaster = findPostmaster(instance.dataDirectory);
  const startup = postmaster === null ? null : findStartup(postmaster);
  if (startup !== null) hurryProcess(startup.pid);
  return startup;
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

/** Empty when there are none, the process is gone, or this kernel does not list children. Source: proc(5), /proc/PID/task/TID/children. */
function childrenOf(pid: number): readonly number[] {
  try {
    return readFileSync(`/proc/${pid}/task/${pid}/children`, 'latin1')
      .split(' ')
      .filter((text) => text !== '')
      .map(Number);
  } catch (cause) {
    if (errnoOf(cause) === null) throw cause;
    return [];
  }
}

/** Empty when it cannot be told. Source: PostgreSQL manual 28.1: the title begins with `postgres: `, the cluster_name if there is one, and the kind of process. */
function kindOf(pid: number): string {
  return /^postgres: (?:\S+: )?(\S+)/.exec(readTitle(pid) ?? '')?.[1] ?? '';
}
