/** The newest lines of PostgreSQL's own log. */
import { readdir, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { tailFile } from '../../base/recent-lines.ts';
import { errnoOf } from './failure.ts';
import type { Instance } from './instance.ts';

/** Lines of a crash or a refused start fit easily. */
const TAIL_BYTES = 16_384;

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
