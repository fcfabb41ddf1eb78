/** Moves a data directory out of the way before it is replaced; nothing is deleted that was not kept first (architecture §4.9, H22, Q25). */
import { readdir, rename, rm, stat, statfs } from 'node:fs/promises';
import { basename, dirname, join } from 'node:path';
import { formatWall, wallMs } from '../../base/clock.ts';
import { type Failure, type Result, err, ok } from '../../core/result.ts';
import { alienNames, directoryState } from './data-directory.ts';
import { errnoOf, failure, messageOf } from './failure.ts';
import { ensureDirectory, isThere, syncDirectory } from './files.ts';
import type { Instance } from './instance.ts';
import { findProcesses } from './postmaster.ts';

export interface SetAside {
  /** Where the old directory lies now; null when there was nothing to keep. */
  readonly path: string | null;
  /** Older copies that were removed by the retention. */
  readonly pruned: readonly string[];
}

/**
 * Renames the data directory into `<stateDirectory>/saved/`, or beside itself when that is another file system.
 * `keep` counts copies, the new one included; with 0 the retention still keeps the newest until the next call.
 * What never was PostgreSQL's is left where it is: behind a mistyped path lies something else that somebody needs.
 * Errors: `set-aside.running`, `set-aside.foreign`, `set-aside.mount-point`, `set-aside.failed`.
 */
export async function setAside(instance: Instance, options: { readonly keep: number }): Promise<Result<SetAside, Failure>> {
  const { dataDirectory } = instance;
  if (findProcesses(dataDirectory).length > 0)
    return err(
      failure('set-aside.running', `${dataDirectory} cannot be moved`, 'a process works in it', 'nothing was changed', 'stop PostgreSQL first', true),
    );
  try {
    const alien = await alienNames(instance);
    if (alien.length > 0)
      return err(
        failure(
          'set-aside.foreign',
          `${dataDirectory} is not moved aside`,
          `it is not empty, and holds no PostgreSQL: ${alien.join(', ')}`,
          'nothing was changed',
          'compare `dataDirectory` in agent.yaml; move what lies there away by hand',
          true,
        ),
      );
    if ((await directoryState(instance)) === 'absent' || !(await isThere(dataDirectory))) return ok({ path: null, pruned: [] });
    const name = `${basename(dataDirectory)}-${formatWall(wallMs()).replaceAll(':', '').replace('.', '-')}`;
    const saved = join(instance.stateDirectory, 'saved');
    await ensureDirectory(saved, { owner: null, mode: 0o711 });
    const place =
      (await stat(saved)).dev === (await stat(dataDirectory)).dev
        ? join(saved, name)
        : join(dirname(dataDirectory), `${basename(dataDirectory)}.saved`, name);
    await ensureDirectory(dirname(place), { owner: null, mode: 0o711 });
    await rename(dataDirectory, place);
    await syncDirectory(dirname(place));
    await syncDirectory(dirname(dataDirectory));
    return ok({ path: place, pruned: await prune(dirname(place), Math.max(1, options.keep)) });
  } catch (cause) {
    if (errnoOf(cause) === 'EBUSY' || errnoOf(cause) === 'EXDEV') {
      return err(
        failure(
          'set-aside.mount-point',
          `${dataDirectory} cannot be moved`,
          'it is a mount point',
          'nothing was changed',
          'use a directory below the mount point as dataDirectory, or empty it by hand',
          false,
        ),
      );
    }
    return err(
      failure(
        'set-aside.failed',
        `${dataDirectory} cannot be moved`,
        messageOf(cause),
        'nothing was removed',
        'check the disk and the permissions',
        true,
      ),
    );
  }
}

/** Names hold the time, so text order is age. Only names of our own making are removed. */
async function prune(directory: string, keep: number): Promise<readonly string[]> {
  const names = (await readdir(directory)).filter((name) => /-\d{4}-\d\d-\d\dT\d{6}-\d{3}Z$/.test(name)).sort();
  const old = names.slice(0, Math.max(0, names.length - keep)).map((name) => join(directory, name));
  for (const path of old) await rm(path, { recursive: true, force: true });
  return old;
}

/** Bytes that are free on the file system of `path` (for an ordinary user); null when it cannot be known. */
export async function freeBytes(path: string): Promise<number | null> {
  for (let at = path; ; at = dirname(at)) {
    try {
      const found = await statfs(at);
      return found.bavail * found.bsize;
    } catch (cause) {
      if (errnoOf(cause) !== 'ENOENT' || at === dirname(at)) return null;
    }
  }
}
