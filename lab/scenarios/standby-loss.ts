import { monoMs } from '../../src/base/clock.ts';
import type { Scenario } from '../scenario.ts';
import { bootHost, calm, expectRejoin, expectServing } from '../steps.ts';

export const standbyLoss: Scenario = {
  name: 'standby-loss',
  about: "everything on a standby's host is killed: writes go on, and it streams again when its agent is started",
  expect: { outageMs: 250, clientErrors: 0, lostRows: 0, rejoinMs: 15_000 },
  run: async (stage) => {
    const [lost] = stage.standbys;
    const faultMs = monoMs();
    stage.network.killAll(lost);
    await calm(5000);
    const wrong = [...(await expectServing(stage, { afterMs: monoMs(), limitMs: 5000 }))];
    const rejoin = await expectRejoin(stage, { node: lost, fromMs: bootHost(stage, lost) });
    return { faultMs, rejoinMs: rejoin.rejoinMs, wrong: [...wrong, ...rejoin.wrong], detail: '' };
  },
};
