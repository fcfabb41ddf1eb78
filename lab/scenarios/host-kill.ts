import { monoMs } from '../../src/base/clock.ts';
import type { Scenario } from '../scenario.ts';
import { bootHost, calm, expectRejoin, expectTakeover } from '../steps.ts';

export const hostKill: Scenario = {
  name: 'host-kill',
  about: "everything on the primary's host is killed at once: PostgreSQL, agent, guard; later its agent is started again",
  expect: { outageMs: 5000, clientErrors: null, lostRows: null, rejoinMs: 5000 },
  run: async (stage) => {
    const faultMs = monoMs();
    stage.network.killAll(stage.primary);
    const wrong = await expectTakeover(stage, { faultMs, victim: stage.primary });
    await calm();
    const rejoin = await expectRejoin(stage, { node: stage.primary, fromMs: bootHost(stage, stage.primary) });
    return { faultMs, rejoinMs: rejoin.rejoinMs, wrong: [...wrong, ...rejoin.wrong], detail: '' };
  },
};
