/**
 * The name of one data directory's life: new with each initdb, clone and rewind. With the node's name it makes the voter that a synchronous set counts.
 *
 * *Invariant:* a directory that lost WAL it had acknowledged never answers under the name that acknowledged it. *Because:* every way in which pgherd makes
 * a directory anew renews the name, and a copy made by hand brings the file of its source, whose node or inode is not this directory's.
 * *Broken if:* the volume below the directory is set back to an older snapshot: nothing in the file can tell that; the node must be cloned then.
 */
import { randomBytes } from 'node:crypto';
import { readFileSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { decodeJson, encodeJson, object, text } from '../../core/decode.ts';
import { type Failure, type Result, err, ok } from '../../core/result.ts';
import { errnoOf, failure, messageOf } from './failure.ts';
import { writeAtomic } from './files.ts';
import type { Instance } from './instance.ts';

const FILE = 'pgherd.incarnation';
const record = object({ node: text, inode: text, incarnation: text });

type Place = Pick<Instance, 'dataDirectory' | 'node'>;

/** Eight hexadecimal digits; null when the directory has no name of its own yet, or is not there. Throws errors of system calls other than ENOENT. */
export function readIncarnation(instance: Place): string | null {
  try {
    const decoded = decodeJson(record, readFileSync(join(instance.dataDirectory, FILE), 'utf8'));
    if (!decoded.ok || decoded.value.node !== instance.node || decoded.value.inode !== inodeOf(instance)) return null;
    return /^[0-9a-f]{8}$/.test(decoded.value.incarnation) ? decoded.value.incarnation : null;
  } catch (cause) {
    if (errnoOf(cause) === 'ENOENT' || errnoOf(cause) === 'ENOTDIR') return null;
    throw cause;
  }
}

/** A new name, durable when this returns. Throws errors of system calls. */
export async function renewIncarnation(instance: Place & Pick<Instance, 'os'>): Promise<string> {
  const incarnation = randomBytes(4).toString('hex');
  const content = `${encodeJson({ node: instance.node, inode: inodeOf(instance), incarnation })}\n`;
  await writeAtomic(join(instance.dataDirectory, FILE), content, { owner: instance.os });
  return incarnation;
}

/** The name, made when there is none. Throws errors of system calls. */
export async function ensureIncarnation(instance: Place & Pick<Instance, 'os'>): Promise<string> {
  return readIncarnation(instance) ?? (await renewIncarnation(instance));
}

/** A new name after the directory was made anew. Error: `postgres.managed-files`. */
export async function renameDirectory(instance: Place & Pick<Instance, 'os'>): Promise<Result<null, Failure>> {
  try {
    await renewIncarnation(instance);
    return ok(null);
  } catch (cause) {
    const what = `cannot write ${join(instance.dataDirectory, FILE)}`;
    return err(failure('postgres.managed-files', what, messageOf(cause), 'the directory is not started', 'check the disk', true));
  }
}

function inodeOf(instance: Pick<Instance, 'dataDirectory'>): string {
  const found = statSync(instance.dataDirectory, { bigint: true });
  return `${found.dev}/${found.ino}`;
}
