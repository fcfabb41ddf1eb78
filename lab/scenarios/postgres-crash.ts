import { monoMs } from '../../src/base/clock.ts';
import { sendSignal } from '../../src/demo/children.ts';
import type { Scenario } from '../scenario.ts';
import { expectRejoin, expectServing } from '../steps.ts';

export const postgresCrash: Scenario = {
  name: 'postgres-crash',
  about: "kill -9 of the primary's postmaster, its agent lives: the next acknowledged write within a second",
  expect: { outageMs: 1000, clientErrors: null, lostRows: 0, rejoinMs: 15_000 },
  run: async (stage) => {
    const postmaster = stage.herd.postmaster(stage.primary);
    if (postmaster === null) throw new Error(`${stage.primary} has no postmaster`);
    const faultMs = monoMs();
    sendSignal(postmaster, 'SIGKILL');
    const served = await expectServing(stage, { afterMs: faultMs });
    const now = await stage.writableNode();
    // What the standbys had not received yet is only there: the rules start it again rather than lose it.
    if (now === stage.primary || served.length > 0)
      return { faultMs, rejoinMs: null, stayed: now === stage.primary, wrong: served, detail: 'restarted in place: no standby had all of its WAL' };
    const rejoin = await expectRejoin(stage, { node: stage.primary, fromMs: faultMs });
    return { faultMs, rejoinMs: rejoin.rejoinMs, wrong: rejoin.wrong, detail: 'failed over' };
  },
};
