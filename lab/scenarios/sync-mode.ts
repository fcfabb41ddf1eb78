import type { Scenario } from '../scenario.ts';
import { bootHost } from '../steps.ts';
import { lose } from './quorum-mode.ts';

/** FIRST 1: one named standby has each acknowledged row, and it alone has to be detached before another node opens. */
export const syncMode: Scenario = {
  name: 'sync-mode',
  about: "sync mode (FIRST 1): everything on the primary's host is killed at once; later its agent is started again",
  expect: { outageMs: 2000, clientErrors: null, lostRows: 0, rejoinMs: 10_000 },
  spec: { durability: { mode: 'sync', k: 1 } },
  run: (stage) =>
    lose(stage, {
      voters: 1,
      fault: () => void stage.network.killAll(stage.primary),
      before: 1500,
      back: () => bootHost(stage, stage.primary),
    }),
};
