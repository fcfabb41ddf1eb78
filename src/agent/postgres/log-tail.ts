/** The newest lines of PostgreSQL's own log. */
import { readdir, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { tailFile } from '../../base/recent-lines.ts';
import { errnoOf } from './failure.ts';
import type { Instance } from './instance.ts';

/** Lines of a crash or a refused start fit easily. */
const TAIL_BYTES = 16_384;

/** Enough to find the server's own words among those of busy clients. */
const MANY_LINES = 1000;
const MANY_BYTES = 262_144;

/**
 * The last `count` lines of the server's own processes (startup, walreceiver, postmaster). What sessions log is left out: clients' mistakes say nothing of
 * why the server does not start or stream, and their statements are nobody's business in a problem's text.
 */
export async function tailOwnLog(instance: Pick<Instance, 'stateDirectory'>, count: number): Promise<readonly string[]> {
  return withoutSessions(await tailLog(instance, MANY_LINES, MANY_BYTES)).slice(-count);
}

/** A session's lines name USER@DATABASE after the pid, as our log_line_prefix has it; lines that go on from one begin with a tab. Others are kept. */
export function withoutSessions(lines: readonly string[]): readonly string[] {
  let ofSession = false;
  return lines.filter((line) => {
    if (!line.startsWith('\t')) ofSession = /^\S+ \S+ \S+ \[\d+\] [^\s@]*@\S* /.test(line);
    return !ofSession;
  });
}

/** The last `count` lines, within the last `maxBytes`, of the newest PostgreSQL log file; empty when there is none. */
export async function tailLog(instance: Pick<Instance, 'stateDirectory'>, count: number, maxBytes = TAIL_BYTES): Promise<readonly string[]> {
  const directory = join(instance.stateDirectory, 'log');
  let newest: { readonly path: string; readonly at: number } | null = null;
  let names: string[];
  try {
    names = await readdir(directory);
  } catch (cause) {
    if (errnoOf(cause) === 'ENOENT') return [];
    throw cause;
  }
  for (const name of names.filter((candidate) => /^postgres.*\.log$/.test(candidate))) {
    const path = join(directory, name);
    const found = await stat(path);
    if (found.size > 0 && (newest === null || found.mtimeMs > newest.at)) newest = { path, at: found.mtimeMs };
  }
  return newest === null ? [] : tailFile(newest.path, { count, maxBytes });
}
