/** The clocks of one host: monotonic (stands still while suspended), boot (does not) and wall (jumps, drifts). */
import { type MonoMs, type Now, makeMonoMs, makeWallMs } from '../../src/core/ids.ts';
import type { Clock } from '../../src/base/clock.ts';
import type { Scheduler, Scope } from '../clock.ts';

export interface HostClock {
  now(): Now;
  monoMs(): MonoMs;
  bootMs(): number;
  /** A clock for a process of this host: its sleeps end only while the process runs. */
  of(scope: Scope): Clock;
  /** People or NTP step the wall clock. */
  jumpWall(ms: number): void;
  /** From now until `resume` the monotonic clock stands still; with `frozen`, the boot clock too (a hypervisor's pause). */
  suspend(kind: 'suspended' | 'frozen'): void;
  resume(): void;
  /** The host starts anew: its monotonic clock begins at zero. */
  reboot(): void;
}

/** The wall clock of a run at its beginning: 2026-01-01. */
export const WALL_START_MS = 1_767_225_600_000;

/** Timers of Node fire after at least a millisecond, and a little late; by the host's clock never early. */
const LATE_MS = 0.02;

/** `rate`: seconds of this host in one second of the world, e.g. 1.0002. */
export function createHostClock(scheduler: Scheduler, options: { readonly rate: number; readonly wallOffsetMs: number }): HostClock {
  let bootedAt = -100_000 * options.rate;
  let lostMono = 0;
  let lostBoot = 0;
  let wallOffset = options.wallOffsetMs;
  let suspended: { readonly since: number; readonly kind: 'suspended' | 'frozen' } | null = null;

  const world = (): number => (suspended === null ? scheduler.now() : suspended.since) * options.rate;
  const monoMs = (): MonoMs => makeMonoMs(world() - bootedAt - lostMono);

  function now(): Now {
    const wall = WALL_START_MS + scheduler.now() * options.rate + wallOffset;
    return { mono: monoMs(), wall: makeWallMs(Math.round(wall)) };
  }

  return {
    now,
    monoMs,
    bootMs: () => Math.floor((world() - bootedAt - lostBoot) / 10) * 10,
    of: (scope) => ({ now, sleep: (ms, signal) => scope.sleep(ms <= 0 ? 0 : Math.max(1, ms) / options.rate + LATE_MS, signal) }),
    jumpWall: (ms) => {
      wallOffset += ms;
    },
    suspend: (kind) => {
      suspended ??= { since: scheduler.now(), kind };
    },
    resume: () => {
      if (suspended === null) return;
      const gap = (scheduler.now() - suspended.since) * options.rate;
      const { kind } = suspended;
      suspended = null;
      lostMono += gap;
      // A hypervisor's pause stops the boot clock too; the time comes back through the wall clock (NTP, guest tools).
      if (kind === 'frozen') lostBoot += gap;
    },
    reboot: () => {
      bootedAt = scheduler.now() * options.rate;
      lostMono = 0;
      lostBoot = 0;
    },
  };
}
