/** The newest lines of PostgreSQL's own log. */
import { open, readdir, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { errnoOf } from './failure.ts';
import type { Instance } from './instance.ts';

/** Lines of a crash or a refused start fit easily. */
const TAIL_BYTES = 16_384;

/** The last `count` lines of the newest PostgreSQL log file; empty when there is none. */
export async function tailLog(instance: Pick<Instance, 'stateDirectory'>, count: number): Promise<readonly string[]> {
  const directory = join(instance.stateDirectory, 'log');
  let newest: { readonly path: string; readonly at: number; readonly size: number } | null = null;
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
    if (found.size > 0 && (newest === null || found.mtimeMs > newest.at)) newest = { path, at: found.mtimeMs, size: found.size };
  }
  if (newest === null) return [];
  const handle = await open(newest.path, 'r');
  try {
    const length = Math.min(TAIL_BYTES, newest.size);
    const buffer = Buffer.alloc(length);
    const { bytesRead } = await handle.read(buffer, 0, length, newest.size - length);
    return buffer
      .toString('utf8', 0, bytesRead)
      .split('\n')
      .filter((line) => line.trim() !== '')
      .slice(-count);
  } finally {
    await handle.close();
  }
}
