/** Runs virtual time in the background of a test: whenever the test waits for something, the next event comes. */
import { makeMonoMs, makeWallMs, type Now } from '../../../src/core/ids.ts';
import type { VirtualClock } from '../../../sim/clock.ts';

export interface VirtualTime {
  readonly now: () => Now;
  /** Ends the run of time. */
  stop(): Promise<void>;
}

/** Events that break fail the test that waits, by an unhandled rejection. */
export function startVirtualTime(clock: VirtualClock): VirtualTime {
  let stopped = false;
  const run = async (): Promise<void> => {
    while (!stopped) await clock.run(clock.nextAt() ?? clock.now());
  };
  const running = run();
  return {
    now: () => ({ mono: makeMonoMs(clock.now()), wall: makeWallMs(Math.round(1_700_000_000_000 + clock.now())) }),
    stop: async () => {
      stopped = true;
      await running;
    },
  };
}
