/**
 * Probe writes that got no answer. A server whose disk is stuck keeps a process for each of them that nothing can end, so they are left open, counted and
 * bounded: a prober that gave up on each and tried anew would use up every connection within seconds, and then take "too many clients" for a sign of life.
 */
import type { Clock } from '../../base/clock.ts';
import type { MonoMs } from '../../core/ids.ts';
import type { Sql } from '../postgres/sql.ts';

/** Two at once: one over a kept connection and the fresh one beside it. */
const MOST_PENDING = 2;
/** A connection whose other end is gone without a word; a new write then tells whether the server is well. */
const GIVE_UP_MS = 60_000;

export interface PendingWrites {
  /** May another write be sent? While not, the answer is known: none came to the others. */
  mayWrite(): boolean;
  count(): number;
  /** Null when each write was answered; else since when the oldest waits. */
  since(): MonoMs | null;
  /** `answer` came too late for its look. When it comes after all, the connection is closed. */
  leave(sql: Sql, sentAt: MonoMs, answer: Promise<unknown>): void;
  /** Lets all of them go. */
  close(): void;
}

export function createPendingWrites(clock: Pick<Clock, 'now'>): PendingWrites {
  const pending = new Map<Sql, MonoMs>();
  const expire = (): void => {
    const now = clock.now().mono;
    for (const [sql, sentAt] of pending) {
      if (sql.isOpen() && now - sentAt < GIVE_UP_MS) continue;
      pending.delete(sql);
      sql.destroy();
    }
  };
  return {
    mayWrite: () => {
      expire();
      return pending.size < MOST_PENDING;
    },
    count: () => pending.size,
    since: () => {
      expire();
      return pending.size === 0 ? null : (Math.min(...pending.values()) as MonoMs);
    },
    leave: (sql, sentAt, answer) => {
      pending.set(sql, sentAt);
      const done = (): void => {
        if (pending.delete(sql)) sql.close();
      };
      answer.then(done, done);
    },
    close: () => {
      for (const sql of pending.keys()) sql.destroy();
      pending.clear();
    },
  };
}
