/** One guard a state directory: a lock file that names its holder, taken over only from a holder that is provably gone. */
import { linkSync, readFileSync, renameSync, unlinkSync, writeFileSync } from 'node:fs';
import { isAlive, readProcess } from './kill-tree.ts';

interface Holder {
  readonly bootId: string;
  readonly pid: number;
  readonly startTime: number;
}

/** True when we hold the lock now; false when a living process holds it. Throws when the directory cannot be written. */
export function takeLock(path: string, bootId: string): boolean {
  const own = `${path}.${process.pid}`;
  const text = `${JSON.stringify({ bootId, pid: process.pid, startTime: readProcess(process.pid)?.startTime ?? 0 } satisfies Holder)}\n`;
  writeFileSync(own, text, { mode: 0o600 });
  try {
    for (let round = 0; round < 5; round++) {
      try {
        // link(2) is atomic and refuses an existing name; the file is complete before it has that name.
        linkSync(own, path);
        return true;
      } catch (cause) {
        if (!hasCode(cause, 'EEXIST')) throw cause;
      }
      const seen = readOrNull(path);
      if (seen !== null && isHeld(seen, bootId)) return false;
      breakStale(path, seen, `${own}.stale`);
    }
    return false;
  } finally {
    unlinkSync(own);
  }
}

/** Moves the stale lock away; if somebody else was faster and the name already stands for a new holder, it is put back. */
function breakStale(path: string, seen: string | null, aside: string): void {
  try {
    renameSync(path, aside);
  } catch (cause) {
    if (hasCode(cause, 'ENOENT')) return;
    throw cause;
  }
  if (readOrNull(aside) !== seen) {
    try {
      linkSync(aside, path);
    } catch (cause) {
      if (!hasCode(cause, 'EEXIST')) throw cause;
    }
  }
  unlinkSync(aside);
}

function isHeld(text: string, bootId: string): boolean {
  try {
    const holder = JSON.parse(text) as Partial<Holder>;
    return (
      holder.bootId === bootId &&
      typeof holder.pid === 'number' &&
      typeof holder.startTime === 'number' &&
      isAlive({ pid: holder.pid, startTime: holder.startTime })
    );
  } catch (cause) {
    // A damaged lock has no holder: a holder's file is complete before it gets its name.
    if (cause instanceof SyntaxError) return false;
    throw cause;
  }
}

function readOrNull(path: string): string | null {
  try {
    return readFileSync(path, 'utf8');
  } catch (cause) {
    if (hasCode(cause, 'ENOENT')) return null;
    throw cause;
  }
}

function hasCode(cause: unknown, code: string): boolean {
  return cause instanceof Error && 'code' in cause && cause.code === code;
}
