/**
 * Leases of the embedded engine: deadlines in memory (monotonic), existence in the file.
 *
 * Invariant: a lease never expires before its TTL passed since the last answered renewal.
 * Because: deadlines are set when the renewal is handled, which is before its answer; a restart, and a pause of this process (SIGSTOP, a stuck disk),
 * give every lease a full TTL again, since renewals may have waited unread meanwhile.
 * Broken if: deadlines were kept in the file, or in wall time.
 */
import type { Clock } from '../../base/clock.ts';
import type { Database } from './database.ts';
import type { CommitQueue } from './commit-queue.ts';
import { faults } from './fault.ts';
import type { Mvcc } from './mvcc.ts';

/** Longest distance between the expiry of a lease and the deletion of its keys, and the resolution of the pause check. Smaller costs wake-ups for nothing. */
const TICK_MS = 20;
/** A tick that comes this late means that the process stood still. Too small extends leases on a busy machine for nothing; too large expires leases whose renewals wait unread. */
const PAUSE_MS = 500;
/** A year: longer is a mistake. */
const MAX_TTL_SECONDS = 31_536_000;
/** After a failed deletion (disk full) the keys stay; try again after this time. Shorter would fill the log and the queue while the disk is full. */
const RETRY_MS = 500;

interface Lease {
  readonly ttlSeconds: number;
  deadline: number;
  /** True from expiry or revocation on: renewals are refused although the keys may still be there. */
  over: boolean;
}

export interface Leases {
  /** `id` null: one is chosen. Throws `leaseExists`, `leaseTtlTooLarge`. TTL at least 1 s. */
  grant(id: string | null, ttlSeconds: number): Promise<{ readonly id: string; readonly ttlSeconds: number }>;
  /** Whole seconds granted; null when the lease does not exist or is over. */
  keepAlive(id: string): number | null;
  revoke(id: string): Promise<void>;
  /** Null when it does not exist. */
  timeToLive(id: string): { readonly grantedSeconds: number; readonly remainingSeconds: number } | null;
  list(): string[];
  close(): void;
}

export interface LeasesOptions {
  readonly db: Database;
  readonly mvcc: Mvcc;
  readonly queue: CommitQueue;
  readonly clock: Clock;
  readonly randomId: () => string;
}

export function createLeases({ db, mvcc, queue, clock, randomId }: LeasesOptions): Leases {
  const leases = new Map<string, Lease>();
  const nowMs = (): number => clock.now().mono;
  let lastTick = nowMs();
  for (const raw of db.prepare('SELECT id, ttl_seconds FROM lease').all()) {
    const ttlSeconds = Number(raw['ttl_seconds']);
    leases.set(String(raw['id']), { ttlSeconds, deadline: lastTick + ttlSeconds * 1000, over: false });
  }

  /** Deletes the lease and its keys in one revision. */
  const end = async (id: string): Promise<void> => {
    await queue.submit(() => {
      mvcc.transaction((writer) => {
        for (const key of mvcc.keysOfLease(id)) writer.delete({ key, rangeEnd: new Uint8Array(0) });
      });
      db.prepare('DELETE FROM lease WHERE id = ?').run(id);
    });
    leases.delete(id);
  };

  const endOrRetry = (id: string, lease: Lease): void => {
    lease.over = true;
    end(id).catch(() => {
      // The disk refused, so nobody saw the keys vanish: the lease stands on, may be renewed, and a later tick tries again.
      lease.over = false;
      lease.deadline = Math.max(lease.deadline, nowMs() + RETRY_MS);
    });
  };

  const tick = (): void => {
    const now = nowMs();
    const paused = now - lastTick > PAUSE_MS;
    lastTick = now;
    for (const [id, lease] of leases) {
      if (lease.over) continue;
      if (paused) lease.deadline = now + lease.ttlSeconds * 1000;
      else if (now >= lease.deadline) endOrRetry(id, lease);
    }
  };
  const timer = setInterval(tick, TICK_MS);
  timer.unref();

  return {
    grant: async (wanted, ttl) => {
      if (ttl > MAX_TTL_SECONDS) throw faults.leaseTtlTooLarge();
      const ttlSeconds = Math.max(1, Math.ceil(ttl));
      const id = wanted ?? randomId();
      await queue.submit(() => {
        if (mvcc.hasLease(id)) throw faults.leaseExists();
        db.prepare('INSERT INTO lease (id, ttl_seconds) VALUES (?, ?)').run(id, ttlSeconds);
      });
      leases.set(id, { ttlSeconds, deadline: nowMs() + ttlSeconds * 1000, over: false });
      return { id, ttlSeconds };
    },
    keepAlive: (id) => {
      const lease = leases.get(id);
      if (lease === undefined || lease.over) return null;
      lease.deadline = nowMs() + lease.ttlSeconds * 1000;
      return lease.ttlSeconds;
    },
    revoke: async (id) => {
      const lease = leases.get(id);
      if (lease === undefined || lease.over) throw faults.leaseNotFound();
      lease.over = true;
      try {
        await end(id);
      } catch (cause) {
        lease.over = false;
        throw cause;
      }
    },
    timeToLive: (id) => {
      const lease = leases.get(id);
      if (lease === undefined || lease.over) return null;
      return { grantedSeconds: lease.ttlSeconds, remainingSeconds: Math.max(0, Math.floor((lease.deadline - nowMs()) / 1000)) };
    },
    list: () => [...leases.keys()],
    close: () => clearInterval(timer),
  };
}
