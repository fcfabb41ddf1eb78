/** What was made of a file that is looked at twice a second and hardly ever changes. */
import { type BigIntStats, statSync } from 'node:fs';
import { wallMs } from '../../base/clock.ts';
import { readIfThere } from './files.ts';

/**
 * A file that was changed so shortly before it was read may change again without looking newer: the kernel stamps with the time of its last tick
 * (up to 10 ms old). *Source:* the same rule as git's for its index, Documentation/technical/racy-git.
 */
const SETTLED_MS = 1000;

interface Kept<T> {
  readonly stat: BigIntStats;
  readonly value: T;
}

/**
 * The answer reads the file when it is another one than last time, or may be. `parse` is given null when there is no file. Throws errors of system calls other
 * than ENOENT, and what `parse` throws.
 *
 * *Invariant:* the answer is that of the file as it is. *Because:* a replaced file has another inode or another time of change (which nobody can set back), and one
 * that was written within SETTLED_MS of the read is not kept. *Broken if:* the wall clock is set back by a second or more between two writes.
 */
export function parseUnlessUnchanged<T>(path: string, parse: (text: string | null) => T): () => Promise<T> {
  let kept: Kept<T> | null = null;
  return async () => {
    const stat = statSync(path, { bigint: true, throwIfNoEntry: false });
    if (kept !== null && stat !== undefined && isSame(kept.stat, stat)) return kept.value;
    const at = wallMs();
    const value = parse(await readIfThere(path));
    kept = stat !== undefined && at - Number(stat.ctimeMs) > SETTLED_MS ? { stat, value } : null;
    return value;
  };
}

function isSame(a: BigIntStats, b: BigIntStats): boolean {
  return a.ino === b.ino && a.dev === b.dev && a.size === b.size && a.ctimeNs === b.ctimeNs && a.mtimeNs === b.mtimeNs;
}
