/** Bounds of the API: tries with wrong tokens, and streams that stay open. */
import type { Clock } from '../base/clock.ts';

/** A person who mistypes does so a few times; a guesser gains nothing from ten a minute against 256 random bits. */
const MAX_FAILURES = 10;
const WINDOW_MS = 60_000;
/** Addresses remembered; the oldest are forgotten first, which helps only somebody who owns that many addresses. */
const MAX_ADDRESSES = 10_000;

export interface FailureLimit {
  /** Milliseconds to wait; 0: go on. */
  waitMs(address: string): number;
  failed(address: string): void;
}

export function createFailureLimit(clock: Clock): FailureLimit {
  const failures = new Map<string, { count: number; until: number }>();
  return {
    waitMs: (address) => {
      const entry = failures.get(address);
      if (entry === undefined || entry.count < MAX_FAILURES) return 0;
      return Math.max(0, entry.until - clock.now().mono);
    },
    failed: (address) => {
      const now = clock.now().mono;
      const entry = failures.get(address);
      const current = entry === undefined || entry.until <= now ? { count: 0, until: now + WINDOW_MS } : entry;
      failures.delete(address);
      failures.set(address, { count: current.count + 1, until: current.until });
      const [oldest] = failures.keys();
      if (failures.size > MAX_ADDRESSES && oldest !== undefined) failures.delete(oldest);
    },
  };
}
