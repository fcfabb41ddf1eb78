import { monoMs } from '../../src/base/clock.ts';
import type { Scenario } from '../scenario.ts';
import { bootHost, calm, expectTakeover, explain } from '../steps.ts';

/** Long enough that every automatic promotion would have happened. */
const WATCHED_MS = 15_000;

export const twoFailures: Scenario = {
  name: 'two-failures',
  about: 'a standby dies, then the primary: the last node alone is not promoted, explain says why, and it heals when one returns',
  expect: { outageMs: null, clientErrors: null, lostRows: null, rejoinMs: null },
  run: async (stage) => {
    const [first] = stage.standbys;
    stage.network.killAll(first);
    await calm(5000);
    const faultMs = monoMs();
    stage.network.killAll(stage.primary);
    const wrong: string[] = [];
    if (await stage.recording.waitServing({ afterMs: faultMs, limitMs: WATCHED_MS, otherThan: stage.primary }))
      wrong.push('a node was promoted that could not have known of all commits');
    const said = await explain(stage);
    if (said === null) wrong.push('explain gave no answer');
    else if (!/blocked|refused|votes|quorum/.test(said.rule)) wrong.push(`explain names ${said.rule}, which is no refusal`);
    bootHost(stage, first);
    wrong.push(...(await expectTakeover(stage, { faultMs, victim: stage.primary })));
    await calm();
    return { faultMs, rejoinMs: null, wrong, detail: said === null ? '' : `while refused: ${said.rule}: ${said.why}` };
  },
};
