/**
 * The disk of the data directory, whatever runs on it: full, read-only, stuck. The own writes of a primary (own-writes.ts) tell it sooner; this look is
 * also for standbys, and for a server that is gone because of its disk.
 */
import { statfs } from 'node:fs/promises';
import { join } from 'node:path';
import type { Clock } from '../../base/clock.ts';
import type { Logger } from '../../base/log.ts';
import { PLAIN_ENV, runProcess } from '../../base/process.ts';
import type { MonoMs } from '../../core/ids.ts';
import type { DiskProblem, NodeProblem } from '../../core/report.ts';
import type { Instance } from '../postgres/instance.ts';
import { describeDiskProblem } from './disk-problems.ts';

/** A process is started for it; a primary learns of its disk sooner by its own writes. */
const EVERY_MS = 30_000;
const UNWELL_EVERY_MS = 1000;
/** A flush of eight KiB takes milliseconds; a disk that is only slow is told by others. */
const LIMIT_MS = 5000;
/** Four WAL segments of the usual size: with less, the next checkpoint of a busy server can be the one that finds no room. */
const FULL_BELOW_BYTES = 67_108_864;

export interface DiskWatch {
  /** Begins a look when one is due; never waits. Sooner where the server is gone: its disk may be why. */
  look(server: 'running' | 'not-running'): void;
  /** When the newest look that has ended was begun; null: none has since the start. */
  lookedAt(): MonoMs | null;
  problems(): readonly NodeProblem[];
}

export interface DiskWatchOptions {
  readonly instance: Pick<Instance, 'dataDirectory'>;
  readonly clock: Pick<Clock, 'now'>;
  readonly log: Logger;
  readonly onChange: () => void;
  readonly doors?: DiskDoors;
}

export interface DiskDoors {
  /** Bytes that PostgreSQL may still take. Rejects when nobody knows. */
  readonly free: () => Promise<number>;
  /** Writes a few KiB durably, over those of the look before. Null: it went well. Never rejects; answers within its limit. */
  readonly write: () => Promise<{ readonly kind: 'late' | 'refused'; readonly detail: string } | null>;
}

type Finding = { readonly code: DiskProblem; readonly detail: string };

/** How long a look may be without any answer: its write is bounded by itself, and the rest takes a millisecond on a disk that answers. */
const LATE_MS = LIMIT_MS + 2000;

export function createDiskWatch(options: DiskWatchOptions): DiskWatch {
  const { clock } = options;
  const doors = options.doors ?? openDoors(options);
  let finding: Finding | null = null;
  let lookedAt: MonoMs | null = null;
  let lookingSince: MonoMs | null = null;
  let lastAt = -Infinity;

  const settle = (next: Finding | null): void => {
    const before = finding;
    finding = next;
    lookedAt = lookingSince;
    if (before?.code === next?.code) return;
    if (next !== null) options.log.error({ code: next.code }, describeDiskProblem(next.code, next.detail).text);
    else options.log.info({ code: before?.code }, 'the disk of the data directory takes writes again');
    options.onChange();
  };

  async function lookOnce(): Promise<Finding | null> {
    const refused = await doors.write();
    if (refused?.kind === 'late') return { code: 'disk.stuck', detail: `a small write was not done within ${LIMIT_MS} ms` };
    if (refused !== null && /read-only file system/i.test(refused.detail)) return { code: 'disk.read-only', detail: refused.detail };
    if (refused !== null && /input\/output error/i.test(refused.detail)) return { code: 'disk.error', detail: refused.detail };
    const free = await doors.free();
    const left = `${Math.floor(free / 1_048_576)} MiB are free`;
    if (free < FULL_BELOW_BYTES || (refused !== null && /no space left/i.test(refused.detail))) return { code: 'disk.full', detail: left };
    // Anything else (no directory yet, no right to write there) is not of the disk.
    return null;
  }

  return {
    look: (server) => {
      const now = clock.now().mono;
      if (lookingSince !== null) {
        // *Invariant:* never two looks at once: each would hold a thread of the few that there are for files.
        if (now - lookingSince > LATE_MS)
          settle({ code: 'disk.stuck', detail: `a look at it has not ended for ${Math.round(now - lookingSince)} ms` });
        return;
      }
      if (now - lastAt < (finding === null && server === 'running' ? EVERY_MS : UNWELL_EVERY_MS)) return;
      lastAt = now;
      lookingSince = now;
      lookOnce()
        .then(settle, (cause: unknown) => options.log.debug({ cause: String(cause) }, 'a look at the disk broke'))
        .finally(() => {
          lookingSince = null;
        });
    },
    lookedAt: () => lookedAt,
    problems: () => (finding === null ? [] : [describeDiskProblem(finding.code, finding.detail)]),
  };
}

/**
 * The file lies where PostgreSQL keeps nothing of worth and base backups, pg_rewind and initdb look at nothing; where that folder is missing, there is
 * no complete data directory to speak of. *Source:* PostgreSQL manual 55.4, BASE_BACKUP (pg_stat_tmp is left out).
 *
 * The write is made by a process of its own: one that waits for a stuck disk cannot be ended, and would hold a thread of the agent.
 * *Source:* dd(1): `conv=fsync` flushes the file before it ends.
 */
function openDoors({ instance }: DiskWatchOptions): DiskDoors {
  const path = join(instance.dataDirectory, 'pg_stat_tmp', 'pgherd.write-test');
  return {
    // The WAL may have a volume of its own.
    free: async () => {
      const places = await Promise.all([instance.dataDirectory, join(instance.dataDirectory, 'pg_wal')].map((one) => statfs(one)));
      return Math.min(...places.map(({ bavail, bsize }) => bavail * bsize));
    },
    write: async () => {
      const wrote = await runProcess(['dd', 'if=/dev/zero', `of=${path}`, 'bs=8192', 'count=1', 'conv=fsync', 'status=none'], {
        timeoutMs: LIMIT_MS,
        env: PLAIN_ENV,
      });
      if (!wrote.ok) return wrote.error.kind === 'timeout' ? { kind: 'late', detail: wrote.error.message } : null;
      return wrote.value.exitCode === 0 ? null : { kind: 'refused', detail: wrote.value.stderr.trim() };
    },
  };
}
