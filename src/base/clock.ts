/** The only place that reads clocks. */
import { type MonoMs, type Now, type WallMs, makeMonoMs, makeWallMs } from '../core/ids.ts';

/**
 * CLOCK_MONOTONIC in milliseconds with fractions, the same for all processes of one boot (agent and guard compare them).
 * It stands still while the machine is suspended; `bootMs` does not.
 * Source: clock_gettime(2); Node's process.hrtime uses CLOCK_MONOTONIC (libuv uv_hrtime).
 */
export function monoMs(): MonoMs {
  return makeMonoMs(Number(process.hrtime.bigint()) / 1e6);
}

/** Wall clock in whole milliseconds since 1970; can jump. */
export function wallMs(): WallMs {
  return makeWallMs(Date.now());
}

export function now(): Now {
  return { mono: monoMs(), wall: wallMs() };
}

export interface Clock {
  now(): Now;
  /** Resolves after `ms`; at once when `ms` ≤ 0; early, without error, when `signal` aborts. */
  sleep(ms: number, signal?: AbortSignal): Promise<void>;
}

export const realClock: Clock = {
  now,
  sleep: (ms, signal) =>
    new Promise((resolve) => {
      if (signal?.aborted === true || ms <= 0) {
        resolve();
        return;
      }
      const done = (): void => {
        clearTimeout(timer);
        signal?.removeEventListener('abort', done);
        resolve();
      };
      const timer = setTimeout(done, ms);
      signal?.addEventListener('abort', done, { once: true });
    }),
};

/** Minutes that this host's time zone is ahead of UTC at that moment (summer time counts); 0 for UTC, 480 for Shanghai. */
export function localZoneMinutes(wall: WallMs): number {
  return -new Date(wall).getTimezoneOffset();
}

/**
 * Time until the next multiple of the interval, between 0.1 and 1.1 intervals: the periodic work of one process falls on the same instants, so that it is
 * woken once instead of five times, and its requests share packets. A wake-up costs an idle host more than the work (0.15 ms of processor, measured).
 */
export function untilTick(at: MonoMs, intervalMs: number): number {
  const left = intervalMs - (at % intervalMs);
  return left < intervalMs / 10 ? left + intervalMs : left;
}

/** ISO 8601 with milliseconds, UTC. */
export function formatWall(wall: WallMs): string {
  return new Date(wall).toISOString();
}
