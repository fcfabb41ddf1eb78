/** The end of a data directory whose node leaves the cluster (architecture §4.9, H44). */
import { readdir, rm, rmdir } from 'node:fs/promises';
import { dirname, join, resolve } from 'node:path';
import { type Failure, type Result, err, ok } from '../../core/result.ts';
import { clearIncomplete, directoryState, incompleteReason, markIncomplete } from './data-directory.ts';
import { errnoOf, failure, messageOf } from './failure.ts';
import { syncDirectory } from './files.ts';
import type { Instance } from './instance.ts';
import { findProcesses } from './postmaster.ts';
import { endStrayBackups } from './stray-backup.ts';
import { isInBase, sweepTablespaces, tablespaceLinks } from './tablespaces.ts';

/**
 * Deletes the data directory; copies that were set aside stay where they are. A directory that is there no more is no error.
 *
 * *Invariant:* nothing but a data directory of PostgreSQL, or the half of a copy that this agent made, is ever deleted. *Because:* its files and our own
 * marker are looked for right before. From the first deletion on the directory is marked, so that an interrupted one is never started and is ended later.
 * *Broken if:* the path alone decides.
 *
 * Errors: `drop-data.running`, `drop-data.not-postgres`, `drop-data.tablespaces`, `drop-data.failed`.
 */
export async function dropDataDirectory(instance: Instance): Promise<Result<null, Failure>> {
  const { dataDirectory } = instance;
  await endStrayBackups(dataDirectory);
  if (findProcesses(dataDirectory).length > 0)
    return err(refused('drop-data.running', dataDirectory, 'a process works in it', 'stop PostgreSQL first', true));
  try {
    const state = await directoryState(instance);
    if (state === 'absent') {
      await finishDrop(instance);
      return ok(null);
    }
    const ours = state === 'data' || (state === 'incomplete' && (await incompleteReason(instance)) !== null);
    if (!ours || dirname(resolve(dataDirectory)) === '/')
      return err(
        refused('drop-data.not-postgres', dataDirectory, 'it does not look like a data directory', 'look at it, and remove it by hand', false),
      );
    const outside = [...(await tablespaceLinks(dataDirectory)).values()].filter((target) => !isInBase(instance, target));
    if (outside.length > 0)
      return err(
        refused(
          'drop-data.tablespaces',
          dataDirectory,
          `it has tablespaces in ${outside.join(', ')}`,
          'remove it and its tablespaces by hand',
          false,
        ),
      );
    await markIncomplete(instance, 'clone');
    for (const name of await readdir(dataDirectory)) if (name !== 'lost+found') await rm(join(dataDirectory, name), { recursive: true, force: true });
    await removeEmpty(dataDirectory);
    await sweepTablespaces(instance);
    await finishDrop(instance);
    return ok(null);
  } catch (cause) {
    return err(refused('drop-data.failed', dataDirectory, messageOf(cause), 'check the disk and the permissions', true));
  }
}

/** A mount point stays, empty; so does one whose parent belongs to somebody else. */
async function removeEmpty(dataDirectory: string): Promise<void> {
  try {
    await rmdir(dataDirectory);
  } catch (cause) {
    if (!['EBUSY', 'EACCES', 'EPERM', 'ENOTEMPTY'].includes(errnoOf(cause) ?? '')) throw cause;
  }
}

/** The marker goes last, when the deletion is on disk. */
async function finishDrop(instance: Instance): Promise<void> {
  await syncDirectory(dirname(instance.dataDirectory));
  await clearIncomplete(instance);
}

function refused(code: string, directory: string, cause: string, remedy: string, retryable: boolean): Failure {
  return failure(code, `${directory} was not removed`, cause, retryable ? 'it is tried again' : 'nothing was changed', remedy, retryable);
}
