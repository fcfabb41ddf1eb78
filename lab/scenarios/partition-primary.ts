import { monoMs } from '../../src/base/clock.ts';
import type { Scenario } from '../scenario.ts';
import { calm, expectRejoin, expectTakeover } from '../steps.ts';

export const partitionPrimary: Scenario = {
  name: 'partition-primary',
  about: 'the primary is cut from the other nodes and from the store, its clients still reach it: it fences itself first',
  expect: { outageMs: 8000, clientErrors: null, lostRows: null, rejoinMs: 15_000 },
  run: async (stage) => {
    const faultMs = monoMs();
    stage.separate(stage.primary, [stage.serverHost, ...stage.standbys]);
    const wrong = await expectTakeover(stage, { faultMs, victim: stage.primary });
    await calm(5000);
    const healMs = monoMs();
    stage.network.heal();
    const rejoin = await expectRejoin(stage, { node: stage.primary, fromMs: healMs });
    return { faultMs, rejoinMs: rejoin.rejoinMs, wrong: [...wrong, ...rejoin.wrong], detail: '' };
  },
};
