import { monoMs } from '../../src/base/clock.ts';
import { waitUntil } from '../../src/demo/children.ts';
import type { Scenario } from '../scenario.ts';
import { calm, expectServing } from '../steps.ts';

export const switchoverCandidateDies: Scenario = {
  name: 'switchover-candidate-dies',
  about: "the candidate's host dies when the old primary has just stopped: undone, or the other standby is taken; nothing is lost",
  expect: { outageMs: 10_000, clientErrors: null, lostRows: 0, rejoinMs: null },
  run: async (stage) => {
    const [to] = stage.standbys;
    const faultMs = monoMs();
    const verb = stage.herd.verb(['switchover', '--to', to, '--yes'], 60_000);
    const stopped = await waitUntil(() => stage.herd.postmaster(stage.primary) === null, 30_000, 1);
    stage.network.killAll(to);
    const wrong = stopped ? [] : ['the old primary never stopped'];
    const { code, stderr } = await verb;
    wrong.push(...(await expectServing(stage, { afterMs: monoMs() })));
    await calm();
    const said = stderr.trim().split('\n').slice(-3).join(' ');
    return { faultMs, rejoinMs: null, wrong, detail: `the verb ended with ${code}${code === 0 ? ' (it was faster than the fault)' : `: ${said}`}` };
  },
};
