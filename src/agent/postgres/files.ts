/** Atomic writes into directories that belong to the database's OS user. */
import { randomBytes } from 'node:crypto';
import { type FileHandle, mkdir, open, readFile, rename, stat, unlink } from 'node:fs/promises';
import { basename, dirname, join } from 'node:path';
import { errnoOf } from './failure.ts';
import type { OsUser } from './instance.ts';

/**
 * Writes `path` so that after a power loss either the old or the new content is there, never a part (Q26).
 * The temporary file is made with O_EXCL and given to `owner` before it gets its name, so that a symbolic link left by
 * the directory's owner cannot redirect a write of root, and PostgreSQL never meets a file that it cannot read (H37).
 * Throws errors of system calls.
 */
export async function writeAtomic(path: string, content: string, { owner, mode = 0o600 }: { owner: OsUser | null; mode?: number }): Promise<void> {
  const temporary = join(dirname(path), `.${basename(path)}.${randomBytes(6).toString('hex')}.tmp`);
  const handle = await open(temporary, 'wx', mode);
  try {
    try {
      await handle.writeFile(content);
      await handle.chmod(mode);
      await giveTo(handle, owner);
      await handle.sync();
    } finally {
      await handle.close();
    }
    await rename(temporary, path);
  } catch (cause) {
    await removeIfThere(temporary);
    throw cause;
  }
  await syncDirectory(dirname(path));
}

/** Only root can, and needs to. */
export async function giveTo(handle: FileHandle, owner: OsUser | null): Promise<void> {
  if (owner !== null && process.getuid?.() === 0) await handle.chown(owner.uid, owner.gid);
}

/** Makes the removal or the renaming of an entry durable. */
export async function syncDirectory(path: string): Promise<void> {
  const handle = await open(path, 'r');
  try {
    await handle.sync();
  } finally {
    await handle.close();
  }
}

/** Null when there is no such file. Throws other errors. */
export async function readIfThere(path: string): Promise<string | null> {
  try {
    return await readFile(path, 'utf8');
  } catch (cause) {
    if (errnoOf(cause) === 'ENOENT') return null;
    throw cause;
  }
}

/** False when it was not there. */
export async function removeIfThere(path: string): Promise<boolean> {
  try {
    await unlink(path);
    return true;
  } catch (cause) {
    if (errnoOf(cause) === 'ENOENT') return false;
    throw cause;
  }
}

export async function isThere(path: string): Promise<boolean> {
  try {
    await stat(path);
    return true;
  } catch (cause) {
    if (errnoOf(cause) === 'ENOENT' || errnoOf(cause) === 'ENOTDIR') return false;
    throw cause;
  }
}

/** Makes `path` (its parents must exist or be creatable), owned by `owner`. */
export async function ensureDirectory(path: string, { owner, mode }: { owner: OsUser | null; mode: number }): Promise<void> {
  await mkdir(path, { recursive: true, mode });
  const handle = await open(path, 'r');
  try {
    const now = await handle.stat();
    if (owner !== null && process.getuid?.() === 0 && (now.uid !== owner.uid || now.gid !== owner.gid)) await handle.chown(owner.uid, owner.gid);
    if ((now.mode & 0o777) !== mode) await handle.chmod(mode);
  } finally {
    await handle.close();
  }
}
