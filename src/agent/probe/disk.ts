/** Both looks at the disk of the data directory, put together. */
import { realClock } from '../../base/clock.ts';
import type { Logger } from '../../base/log.ts';
import type { NodeId } from '../../core/ids.ts';
import type { NodeProblem } from '../../core/report.ts';
import type { Instance } from '../postgres/instance.ts';
import { type DiskWatch, createDiskWatch } from './disk-watch.ts';
import { type OwnWrites, createOwnWrites } from './own-writes.ts';

export interface DiskLooks {
  readonly watch: DiskWatch;
  readonly writes: OwnWrites;
}

export interface DiskLookOptions {
  readonly instance: Instance;
  readonly node: NodeId;
  readonly log: Logger;
  readonly onChange: () => void;
}

export function watchDisk(options: DiskLookOptions): DiskLooks {
  const common = { ...options, clock: realClock };
  return { watch: createDiskWatch(common), writes: createOwnWrites(common) };
}

/** Why nothing is to be written now, in words; null: nothing is known against it. */
export function diskTrouble({ writes }: DiskLooks): string | null {
  const seen = writes.current();
  return seen === null || seen.state === 'ok' ? null : `its disk: ${seen.detail}`;
}

/** What the server's own writes met comes first: the same finding of the files says nothing more. */
export function diskProblems(disk: DiskLooks | undefined): readonly NodeProblem[] {
  const writes = disk?.writes.problems(disk.watch.lookedAt()) ?? [];
  return [...writes, ...(disk?.watch.problems() ?? []).filter((one) => writes.every((other) => other.code !== one.code))];
}
