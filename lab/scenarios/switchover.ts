import { monoMs } from '../../src/base/clock.ts';
import type { Scenario } from '../scenario.ts';
import { calm, expectRejoin, expectTakeover } from '../steps.ts';

export const switchover: Scenario = {
  name: 'switchover',
  about: 'the primary is moved on request; plain clients, no proxy',
  // A plain client loses its one connection; the row under way then has no answer.
  expect: { outageMs: 300, clientErrors: 2, lostRows: 0, rejoinMs: 10_000 },
  run: async (stage) => {
    const [to] = stage.standbys;
    const faultMs = monoMs();
    const verb = await stage.herd.verb(['switchover', '--to', to, '--yes'], 60_000);
    const wrong = verb.code === 0 ? [] : [`switchover ended with ${verb.code}: ${verb.stderr.trim().slice(-500)}`];
    wrong.push(...(await expectTakeover(stage, { faultMs, victim: stage.primary })));
    const rejoin = await expectRejoin(stage, { node: stage.primary, fromMs: faultMs });
    await calm();
    return { faultMs, rejoinMs: rejoin.rejoinMs, wrong: [...wrong, ...rejoin.wrong], detail: `the verb took ${verb.durationMs} ms` };
  },
};
