import { monoMs } from '../../src/base/clock.ts';
import type { Scenario } from '../scenario.ts';
import { calm, expectRejoin, expectTakeover } from '../steps.ts';

export const hostLoss: Scenario = {
  name: 'host-loss',
  about: "the cable of the primary's host is pulled, and put back later",
  expect: { outageMs: 5000, clientErrors: null, lostRows: null, rejoinMs: 5000 },
  run: async (stage) => {
    const faultMs = monoMs();
    stage.network.unplug(stage.primary);
    const wrong = await expectTakeover(stage, { faultMs, victim: stage.primary });
    await calm();
    const backMs = monoMs();
    stage.network.plug(stage.primary);
    const rejoin = await expectRejoin(stage, { node: stage.primary, fromMs: backMs });
    return { faultMs, rejoinMs: rejoin.rejoinMs, wrong: [...wrong, ...rejoin.wrong], detail: '' };
  },
};
