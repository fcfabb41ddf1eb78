/** The newest lines of a role's own log, kept in memory so that `pgherd log` can show them; the rest is in the journal. */
import { StringDecoder } from 'node:string_decoder';
import { open } from 'node:fs/promises';

export interface RecentLines {
  add(line: string): void;
  /** The last `count` lines, oldest first. */
  tail(count: number): readonly string[];
}

/** About a day of a quiet agent, some minutes of a busy one. More costs memory on a database host. */
const MAX_LINES = 2000;
const MAX_CHARACTERS = 1024 * 1024;

export function keepRecentLines(): RecentLines {
  let lines: string[] = [];
  let characters = 0;
  return {
    add: (line) => {
      lines.push(line);
      characters += line.length;
      if (lines.length <= MAX_LINES && characters <= MAX_CHARACTERS) return;
      // A quarter at once: not one copy of the list for each line.
      lines = lines.slice(Math.max(Math.ceil(MAX_LINES / 4), 1));
      characters = lines.reduce((sum, kept) => sum + kept.length, 0);
      while (characters > MAX_CHARACTERS && lines.length > 0) characters -= lines.shift()?.length ?? 0;
    },
    tail: (count) => lines.slice(-count),
  };
}

/** The last `count` lines of a file within its last `maxBytes`; a line that begins before them is left out. Empty when there is no such file. */
export async function tailFile(path: string, { count, maxBytes }: { readonly count: number; readonly maxBytes: number }): Promise<readonly string[]> {
  let handle: Awaited<ReturnType<typeof open>>;
  try {
    handle = await open(path, 'r');
  } catch (cause) {
    if (cause instanceof Error && 'code' in cause && cause.code === 'ENOENT') return [];
    throw cause;
  }
  try {
    const { size } = await handle.stat();
    const length = Math.min(maxBytes, size);
    const buffer = Buffer.alloc(length);
    const { bytesRead } = await handle.read(buffer, 0, length, size - length);
    const lines = new StringDecoder('utf8').write(buffer.subarray(0, bytesRead)).split('\n');
    if (length < size) lines.shift();
    return lines.filter((line) => line.trim() !== '').slice(-count);
  } finally {
    await handle.close();
  }
}
