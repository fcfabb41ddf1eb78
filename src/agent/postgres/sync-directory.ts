/**
 * How a whole data directory gets to the disk: by one question to each filesystem instead of one to each file, of which there may be hundreds of thousands.
 * Both PostgreSQL before a recovery and pg_rewind at its end do it file by file by themselves, while a node is missing.
 */
import { readFileSync } from 'node:fs';
import { release } from 'node:os';
import { join } from 'node:path';
import { runProcess } from '../../base/process.ts';
import { type Instance, asOsUser } from './instance.ts';
import { processTrouble } from './failure.ts';
import { tablespaceLinks } from './tablespaces.ts';

/** A disk that takes longer is in trouble of its own. */
const SYNC_LIMIT_MS = 600_000;

/** syncfs(2) tells of pages that could not be written since Linux 5.8; before, a failed disk would look like a good one. Source: its manual page. */
export function syncsByFilesystem(kernel: string = release()): boolean {
  const [major = 0, minor = 0] = kernel.split('.').map(Number);
  return major > 5 || (major === 5 && minor >= 8);
}

/**
 * Arguments that let a start sync by filesystem; empty where PostgreSQL is below 14 or people have chosen a way themselves.
 * Source: PostgreSQL manual 20.13, recovery_init_sync_method.
 */
export function syncArguments(dataDirectory: string): readonly string[] {
  const read = (name: string): string => {
    try {
      return readFileSync(join(dataDirectory, name), 'latin1');
    } catch {
      // PostgreSQL itself will say what is wrong with it.
      return '';
    }
  };
  const isChosen = ['postgresql.conf', 'postgresql.auto.conf'].some((name) => /^\s*recovery_init_sync_method\b/im.test(read(name)));
  return Number.parseInt(read('PG_VERSION'), 10) >= 14 && !isChosen && syncsByFilesystem() ? ['-c', 'recovery_init_sync_method=syncfs'] : [];
}

/** Null when everything below the data directory, its WAL and its tablespaces is on the disk; else why not. */
export async function syncDirectory(instance: Pick<Instance, 'dataDirectory' | 'os'>): Promise<string | null> {
  const links = await tablespaceLinks(instance.dataDirectory);
  // pg_wal may lie on a filesystem of its own.
  const places = [instance.dataDirectory, join(instance.dataDirectory, 'pg_wal'), ...links.values()];
  return processTrouble(await runProcess(['sync', '--file-system', ...places], { ...asOsUser(instance), timeoutMs: SYNC_LIMIT_MS }));
}
