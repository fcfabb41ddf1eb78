/** The small durable files of a host (votes, promises, what was known of the cluster, the guard's record), with a disk that can be slow or refuse. */
import type { TextStorage } from '../../src/base/files.ts';
import type { Scheduler } from '../clock.ts';
import type { Random } from '../random.ts';

export interface Disk {
  file(name: string): TextStorage;
  /** Durable at once; for what the model itself keeps. */
  set(name: string, text: string | null): void;
  /** Writes fail with ENOSPC. */
  full: boolean;
  /** Added to each fsync. */
  slowMs: number;
}

const FSYNC_MS = 1.5;

/** A write that is interrupted by a power loss leaves the old text: files are replaced by renaming. */
export function createDisk(scheduler: Scheduler, random: Random): Disk {
  const files = new Map<string, string>();
  const disk: Disk = {
    full: false,
    slowMs: 0,
    set: (name, text) => {
      if (text === null) files.delete(name);
      else files.set(name, text);
    },
    file: (name) => ({
      read: () => files.get(name) ?? null,
      write: async (text) => {
        await scheduler.sleep(FSYNC_MS * (0.5 + random.next()) + (disk.slowMs === 0 ? 0 : disk.slowMs * (0.5 + random.next())));
        if (disk.full) throw Object.assign(new Error('ENOSPC: no space left on device'), { code: 'ENOSPC' });
        files.set(name, text);
      },
    }),
  };
  return disk;
}
