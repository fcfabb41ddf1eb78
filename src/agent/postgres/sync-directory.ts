/**
 * How a whole data directory gets to the disk before a recovery: by one question to each filesystem instead of one to each file, of which there may be hundreds
 * of thousands, while a node is missing.
 */
import { readFileSync } from 'node:fs';
import { release } from 'node:os';
import { join } from 'node:path';

/** syncfs(2) tells of pages that could not be written since Linux 5.8; before, a failed disk would look like a good one. Source: its manual page. */
export function syncsByFilesystem(kernel: string = release()): boolean {
  const [major = 0, minor = 0] = kernel.split('.').map(Number);
  return major > 5 || (major === 5 && minor >= 8);
}

const FILES = ['postgresql.conf', 'postgresql.auto.conf', 'pgherd.conf'];

/**
 * Arguments that let the start of a standby sync by filesystem; empty where PostgreSQL is below 14 or people have chosen a way themselves. Not for a primary: the
 * one question also waits for what others have written to the filesystem, and shows no progress meanwhile, by which a start that does not get on is told.
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
  const isChosen = FILES.some((name) => /^\s*recovery_init_sync_method\b/im.test(read(name)));
  return Number.parseInt(read('PG_VERSION'), 10) >= 14 && !isChosen && syncsByFilesystem() ? ['-c', 'recovery_init_sync_method=syncfs'] : [];
}
