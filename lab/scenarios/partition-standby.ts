import { monoMs } from '../../src/base/clock.ts';
import type { Scenario } from '../scenario.ts';
import { calm, expectRejoin, expectServing } from '../steps.ts';

export const partitionStandby: Scenario = {
  name: 'partition-standby',
  about: 'a standby is cut from the other nodes and from the store: writes go on, it streams again afterwards',
  expect: { outageMs: 250, clientErrors: 0, lostRows: 0, rejoinMs: 15_000 },
  run: async (stage) => {
    const [cut, other] = stage.standbys;
    const faultMs = monoMs();
    stage.separate(cut, [stage.serverHost, stage.primary, other]);
    await calm(10_000);
    const wrong = [...(await expectServing(stage, { afterMs: monoMs(), limitMs: 5000 }))];
    if ((await stage.writableNode()) !== stage.primary) wrong.push('the primary changed');
    const healMs = monoMs();
    stage.network.heal();
    const rejoin = await expectRejoin(stage, { node: cut, fromMs: healMs });
    return { faultMs, rejoinMs: rejoin.rejoinMs, wrong: [...wrong, ...rejoin.wrong], detail: `${cut} was cut off for 10 s` };
  },
};
