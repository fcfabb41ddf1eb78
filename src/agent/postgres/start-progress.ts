/** Does a start, or a crash recovery, get on? Judged by what moves, never by how long it takes (Q17, Z34). */
import { readFileSync } from 'node:fs';
import { stat } from 'node:fs/promises';
import { join } from 'node:path';
import type { MonoMs } from '../../core/ids.ts';
import { errnoOf } from './failure.ts';
import type { Instance } from './instance.ts';
import { findProcesses, readPidFile, readTitle } from './postmaster.ts';

export interface StartProgress {
  /** Milliseconds since anything moved in the server with this postmaster; 0 at the first look at it. Null pid: no server is known, 0. */
  stalledMs(pid: number | null): Promise<number>;
}

/**
 * Counts from the first look at a server, so that an agent that was restarted in the middle of a start begins anew: too late is one more
 * limit's wait, too early would end a good recovery.
 */
export function createStartProgress(ports: {
  readonly read: (pid: number) => Promise<{ readonly key: string }>;
  readonly now: () => MonoMs;
}): StartProgress {
  let seen: { readonly pid: number; readonly key: string; readonly at: MonoMs } | null = null;
  return {
    stalledMs: async (pid) => {
      if (pid === null) return 0;
      const { key } = await ports.read(pid);
      const now = ports.now();
      if (seen === null || seen.pid !== pid || seen.key !== key) seen = { pid, key, at: now };
      return Math.round(now - seen.at);
    },
  };
}

/** They wake up by themselves, whatever the startup process does: their time is no progress. */
const IDLERS = /: (?:[^:]*: )?(?:background writer|walwriter|logger|archiver|stats collector)\b/;

/** Redo moves the startup process's title, its CPU time and pg_control: any of them is progress. Never throws for a directory that vanished. */
export async function readStartProgress(
  instance: Pick<Instance, 'dataDirectory'>,
  pid: number,
): Promise<{ readonly key: string; readonly title: string }> {
  const parts: string[] = [await stampOrNothing(instance), readPidFile(instance.dataDirectory)?.status ?? ''];
  let title = '';
  for (const process of findProcesses(instance.dataDirectory, [pid])) {
    if (process.pid === pid) continue;
    try {
      const text = readTitle(process.pid);
      if (text === null || IDLERS.test(text)) continue;
      if (/startup/.test(text)) title = text;
      parts.push(`${process.pid} ${text} ${readFileSync(`/proc/${process.pid}/stat`, 'latin1').split(' ').slice(13, 15).join(' ')}`);
    } catch (cause) {
      if (errnoOf(cause) !== 'ENOENT' && errnoOf(cause) !== 'ESRCH') throw cause;
    }
  }
  return { key: parts.join('\n'), title };
}

async function stampOrNothing(instance: Pick<Instance, 'dataDirectory'>): Promise<string> {
  try {
    return await controlStamp(instance);
  } catch (cause) {
    if (errnoOf(cause) === null) throw cause;
    return '-';
  }
}

/** Changes whenever pg_control is written. Missing file: its error. */
export async function controlStamp(instance: Pick<Instance, 'dataDirectory'>): Promise<string> {
  const found = await stat(join(instance.dataDirectory, 'global', 'pg_control'), { bigint: true });
  return `${found.mtimeNs}/${found.ino}`;
}
