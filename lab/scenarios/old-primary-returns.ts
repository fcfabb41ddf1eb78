import { monoMs } from '../../src/base/clock.ts';
import type { Scenario } from '../scenario.ts';
import { bootHost, calm, expectRejoin, expectTakeover } from '../steps.ts';

export const oldPrimaryReturns: Scenario = {
  name: 'old-primary-returns',
  about: 'the primary dies with rows that no standby has, and returns: what it alone has is set aside, and it streams again',
  expect: { outageMs: 6000, clientErrors: null, lostRows: null, rejoinMs: 5000 },
  run: async (stage) => {
    // A moment alone with its clients, far shorter than a lease: those rows exist nowhere else.
    stage.separate(stage.primary, stage.standbys);
    await calm(300);
    const faultMs = monoMs();
    stage.network.killAll(stage.primary);
    stage.network.heal();
    const wrong = await expectTakeover(stage, { faultMs, victim: stage.primary });
    await calm(5000);
    const rejoin = await expectRejoin(stage, { node: stage.primary, fromMs: bootHost(stage, stage.primary) });
    return { faultMs, rejoinMs: rejoin.rejoinMs, wrong: [...wrong, ...rejoin.wrong], detail: 'diverged by 300 ms of writes' };
  },
};
