/** What a data directory is, before anything is done to it. */
import { readdir } from 'node:fs/promises';
import { join } from 'node:path';
import type { OsUser } from './instance.ts';
import { errnoOf } from './failure.ts';
import { isThere, readIfThere, removeIfThere, syncDirectory, writeAtomic } from './files.ts';

interface Place {
  readonly dataDirectory: string;
  readonly os: OsUser | null;
}

/**
 * `absent`: missing or empty (`lost+found` of a fresh volume does not count). `incomplete`: a clone or a rewind was interrupted.
 * `data`: PG_VERSION and pg_control are there. `foreign`: something else; never touched.
 */
export type DirectoryState = 'absent' | 'incomplete' | 'data' | 'foreign';

export async function directoryState(instance: Pick<Place, 'dataDirectory'>): Promise<DirectoryState> {
  let names: string[];
  try {
    names = await readdir(instance.dataDirectory);
  } catch (cause) {
    if (errnoOf(cause) === 'ENOENT') return 'absent';
    throw cause;
  }
  if (names.includes(MARKER) || (await isThere(outsideMarker(instance)))) return 'incomplete';
  if (names.every((name) => name === 'lost+found')) return 'absent';
  return names.includes('PG_VERSION') && (await isThere(join(instance.dataDirectory, 'global', 'pg_control'))) ? 'data' : 'foreign';
}

/**
 * Some names of what lies in a directory that is not empty and never was PostgreSQL's: a mistyped path, or somebody else's files. Empty for every other
 * directory, also for a damaged or interrupted one of PostgreSQL. Throws errors of system calls.
 */
export async function alienNames(instance: Pick<Place, 'dataDirectory'>): Promise<readonly string[]> {
  if ((await directoryState(instance)) !== 'foreign') return [];
  const names = await readdir(instance.dataDirectory);
  return POSTGRES_NAMES.some((name) => names.includes(name)) ? [] : names.sort().slice(0, 5);
}

/** Each data directory has them from its first moment. *Source:* PostgreSQL, src/bin/initdb/initdb.c, subdirs; pg_basebackup copies them. */
const POSTGRES_NAMES: readonly string[] = ['PG_VERSION', 'base', 'global', 'pg_wal'];

const MARKER = 'pgherd.incomplete';

/** Beside the directory: pg_basebackup wants an empty one, and pg_rewind may remove files that the source has not (Z48, Q23). */
function outsideMarker(instance: Pick<Place, 'dataDirectory'>): string {
  return `${instance.dataDirectory.replace(/\/+$/, '')}.${MARKER}`;
}

/** From here until `clearIncomplete` the directory is never started. Throws errors of system calls. */
export async function markIncomplete(instance: Place, why: 'clone' | 'rewind'): Promise<void> {
  await writeAtomic(outsideMarker(instance), `${why}\n`, { owner: null });
}

/** What was interrupted; null: nothing was. A marker that is not understood counts as a rewind, whose remains are kept. */
export async function incompleteReason(instance: Pick<Place, 'dataDirectory'>): Promise<'clone' | 'rewind' | null> {
  const text = (await readIfThere(outsideMarker(instance))) ?? (await readIfThere(join(instance.dataDirectory, MARKER)));
  return text === null ? null : text.trim() === 'clone' ? 'clone' : 'rewind';
}

/** The directory itself may be gone by then. */
export async function clearIncomplete(instance: Place): Promise<void> {
  if (await isThere(instance.dataDirectory)) await syncDirectory(instance.dataDirectory);
  await removeIfThere(join(instance.dataDirectory, MARKER));
  await removeIfThere(outsideMarker(instance));
}

/** A primary's directory keeps it too, so that PostgreSQL never starts writable by itself (architecture §4.3). */
export async function ensureStandbySignal(instance: Place): Promise<void> {
  const path = join(instance.dataDirectory, 'standby.signal');
  if (!(await isThere(path))) await writeAtomic(path, '', { owner: instance.os });
}

export async function removeStandbySignal(instance: Place): Promise<void> {
  const removed = [
    await removeIfThere(join(instance.dataDirectory, 'standby.signal')),
    await removeIfThere(join(instance.dataDirectory, 'recovery.signal')),
  ];
  if (removed.includes(true)) await syncDirectory(instance.dataDirectory);
}
