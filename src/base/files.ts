/** Small files that must never be found half written: identities, promises, keys, configuration. */
import { closeSync, fchmodSync, fchownSync, fsyncSync, openSync, readFileSync, renameSync, unlinkSync, writeSync } from 'node:fs';
import { mkdir, open, rename, unlink } from 'node:fs/promises';
import { basename, dirname, join } from 'node:path';

export interface AtomicWriteOptions {
  /** Permission bits; 0o600 unless told, because most of these files are keys or secrets. */
  readonly mode?: number;
  /** Owner of the new file; the writing process unless told. */
  readonly owner?: { readonly uid: number; readonly gid: number };
}

let written = 0;

/**
 * Replaces `path` by `data`: a reader, also one after a power loss, finds the old content or the new one, nothing between.
 * Rejects with Node's own error (ENOSPC, EACCES, …) and leaves the old file and no temporary one.
 *
 * Invariant: when this resolves, the new content and the directory entry that names it are on disk (Q26).
 * Because: the data is fsynced before the rename, and the directory after it.
 * Broken if: the rename comes first; then a power loss can leave an empty file under the right name.
 * Source: rename(2), fsync(2) ("calling fsync() does not necessarily ensure that the entry in the directory … has also reached disk").
 */
export async function writeFileAtomic(path: string, data: string | Uint8Array, options: AtomicWriteOptions = {}): Promise<void> {
  const mode = options.mode ?? 0o600;
  const temporary = temporaryName(path);
  try {
    const file = await open(temporary, 'wx', mode);
    try {
      // The mode of open(2) is cut by the umask; this one is exact.
      await file.chmod(mode);
      if (options.owner !== undefined) await file.chown(options.owner.uid, options.owner.gid);
      await file.writeFile(data);
      await file.sync();
    } finally {
      await file.close();
    }
    await rename(temporary, path);
  } catch (cause) {
    await unlink(temporary).catch(ignoreMissing);
    throw cause;
  }
  const directory = await open(dirname(path), 'r');
  try {
    await directory.sync();
  } finally {
    await directory.close();
  }
}

/** As writeFileAtomic, blocking: for a vote or a fence record that must be durable before the very next statement. */
export function writeFileAtomicSync(path: string, data: string | Uint8Array, options: AtomicWriteOptions = {}): void {
  const mode = options.mode ?? 0o600;
  const temporary = temporaryName(path);
  try {
    const file = openSync(temporary, 'wx', mode);
    try {
      fchmodSync(file, mode);
      if (options.owner !== undefined) fchownSync(file, options.owner.uid, options.owner.gid);
      writeAll(file, typeof data === 'string' ? Buffer.from(data) : data);
      fsyncSync(file);
    } finally {
      closeSync(file);
    }
    renameSync(temporary, path);
  } catch (cause) {
    try {
      unlinkSync(temporary);
    } catch (missing) {
      ignoreMissing(missing);
    }
    throw cause;
  }
  const directory = openSync(dirname(path), 'r');
  try {
    fsyncSync(directory);
  } finally {
    closeSync(directory);
  }
}

/** One small text that outlives its process. `write` resolves when it is durable, and rejects (an error with a `code`) when the disk refuses. */
export interface TextStorage {
  /** Null when nothing was ever written. */
  read(): string | null;
  write(text: string): Promise<void>;
}

/** The text of a file; null when it does not exist. Throws every other error. */
export function readTextIfThere(path: string): string | null {
  try {
    return readFileSync(path, 'utf8');
  } catch (cause) {
    if (errorCode(cause) === 'ENOENT') return null;
    throw cause;
  }
}

/** Makes the directory and its parents; one that exists keeps its mode. */
export async function makeDirectory(path: string, mode = 0o700): Promise<void> {
  await mkdir(path, { recursive: true, mode });
}

/** `ENOENT`, `EACCES`, …; null for what is not a system error. */
export function errorCode(cause: unknown): string | null {
  if (!(cause instanceof Error) || !('code' in cause)) return null;
  return typeof cause.code === 'string' ? cause.code : null;
}

/** In the same directory, since rename(2) cannot cross file systems; hidden, and unlike any name that is looked for. */
function temporaryName(path: string): string {
  written += 1;
  return join(dirname(path), `.${basename(path)}.${process.pid}.${written}.tmp`);
}

function writeAll(file: number, data: Uint8Array): void {
  let offset = 0;
  while (offset < data.length) offset += writeSync(file, data, offset);
}

/** Cleaning up after a failed write: a temporary file that was never made is no second error. */
function ignoreMissing(cause: unknown): void {
  if (errorCode(cause) !== 'ENOENT') throw cause;
}
