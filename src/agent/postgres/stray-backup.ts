/** A base backup outlives the agent that began it, and would write into the directory of the next one. */
import { readFileSync } from 'node:fs';
import { basename, resolve } from 'node:path';
import { realClock } from '../../base/clock.ts';
import { errnoOf } from './failure.ts';
import { isSameProcessAlive, listProcesses } from './postmaster.ts';

/** SIGKILL works within milliseconds, unless the disk hangs; then the next copy fails by itself and says so. */
const GONE_LIMIT_MS = 2000;
const LOOK_EVERY_MS = 20;

/** Kills every pg_basebackup whose target is exactly this directory, and waits until they are gone. Answers how many there were. */
export async function endStrayBackups(dataDirectory: string): Promise<number> {
  const target = resolve(dataDirectory);
  const found = listProcesses().filter(({ pid }) => isBackupInto(argvOf(pid), target));
  for (const { pid } of found) kill(pid);
  for (let waited = 0; waited < GONE_LIMIT_MS && found.some((one) => isSameProcessAlive(one)); waited += LOOK_EVERY_MS)
    await realClock.sleep(LOOK_EVERY_MS);
  return found.length;
}

/** `pg_basebackup … -D TARGET …`; the process that it forks for the WAL has the same arguments. */
export function isBackupInto(argv: readonly string[], target: string): boolean {
  if (basename(argv[0] ?? '') !== 'pg_basebackup') return false;
  const directory = argv[argv.indexOf('-D') + 1];
  return argv.includes('-D') && directory !== undefined && resolve(directory) === target;
}

function argvOf(pid: number): readonly string[] {
  try {
    return readFileSync(`/proc/${pid}/cmdline`, 'utf8').split('\0').slice(0, -1);
  } catch (cause) {
    if (['ENOENT', 'ESRCH', 'EACCES'].includes(errnoOf(cause) ?? '')) return [];
    throw cause;
  }
}

function kill(pid: number): void {
  try {
    process.kill(pid, 'SIGKILL');
  } catch (cause) {
    if (errnoOf(cause) !== 'ESRCH') throw cause;
  }
}
