/** Time that the monotonic clock did not count. Pure; the lease keeper and the guard judge by the same rule. */
import type { MonoMs, Now } from '../../core/ids.ts';

/** Clocks at one moment. `boot` goes on while the machine is suspended; `wall` jumps when a paused VM gets its time back. */
export interface TickClocks {
  readonly mono: MonoMs;
  readonly boot: number;
  readonly wall: number;
}

/**
 * Time that passed between two ticks and that the monotonic clock did not count: the machine was paused or suspended. 0 when none.
 * The boot clock is believed above a small noise; the wall clock, which people and NTP step too, only above two intervals. A plain stall of the process is no gap:
 * the monotonic clock counted it, and the deadline stands by itself. Taking a step of the wall clock for a pause costs clients a reconnect; the other error risks two writable nodes.
 */
export function pausedMs(before: TickClocks, after: TickClocks, intervalMs: number): number {
  const counted = after.mono - before.mono;
  const boot = after.boot - before.boot - counted;
  const wall = after.wall - before.wall - counted;
  const byBoot = boot > BOOT_NOISE_MS ? boot : 0;
  const byWall = wall > 2 * intervalMs ? wall : 0;
  return Math.max(byBoot, byWall);
}

/** /proc/uptime counts in hundredths of a second. */
const BOOT_NOISE_MS = 50;

/** Readings further apart than this are thrown away: a process that was held up between them would take its own stall for a pause. */
const APART_MS = 10;
const READINGS = 5;

/** All three clocks at one moment; on a host so busy that no reading of five is undisturbed, the last one. */
export function readTogether(now: () => Now, boot: () => number): TickClocks {
  for (let reading = 1; ; reading++) {
    const before = now();
    const at = boot();
    const after = now();
    if (after.mono - before.mono <= APART_MS || reading === READINGS) return { mono: after.mono, boot: at, wall: after.wall };
  }
}
