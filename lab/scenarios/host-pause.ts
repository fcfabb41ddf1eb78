/**
 * A host whose processes all stand still and go on later, as those of a virtual machine that is paused do. Its kernel goes on here, and with it the time-outs of the
 * firewall; a machine whose own clocks stop is the simulator's matter (`suspend`).
 */
import { monoMs } from '../../src/base/clock.ts';
import { sendSignal } from '../../src/demo/children.ts';
import type { Scenario } from '../scenario.ts';
import { calm, expectRejoin, expectTakeover } from '../steps.ts';

/** Ten times a lease. */
const PAUSE_MS = 30_000;

export const hostPause: Scenario = {
  name: 'host-pause',
  about: "every process of the primary's host stands still for 30 s and goes on: what wakes up acknowledges nothing beside the new primary",
  expect: { outageMs: 5000, clientErrors: null, lostRows: null, rejoinMs: 15_000 },
  run: async (stage) => {
    const faultMs = monoMs();
    const frozen = stage.network.pids(stage.primary).filter((pid) => sendSignal(pid, 'SIGSTOP'));
    const wrong = await expectTakeover(stage, { faultMs, victim: stage.primary });
    await calm(Math.max(0, faultMs + PAUSE_MS - monoMs()));
    const wokenMs = monoMs();
    for (const pid of frozen) sendSignal(pid, 'SIGCONT');
    const rejoin = await expectRejoin(stage, { node: stage.primary, fromMs: wokenMs });
    return { faultMs, rejoinMs: rejoin.rejoinMs, wrong: [...wrong, ...rejoin.wrong], detail: `${frozen.length} processes stood still` };
  },
};
