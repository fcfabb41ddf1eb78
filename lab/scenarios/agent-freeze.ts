import { monoMs } from '../../src/base/clock.ts';
import { sendSignal } from '../../src/demo/children.ts';
import type { Scenario } from '../scenario.ts';
import { calm, expectRejoin, expectTakeover } from '../steps.ts';

export const agentFreeze: Scenario = {
  name: 'agent-freeze',
  about: "SIGSTOP of the primary's agent, SIGCONT after another node serves: the guard fences, the thawed agent joins",
  expect: { outageMs: 8000, clientErrors: null, lostRows: null, rejoinMs: 15_000 },
  run: async (stage) => {
    const agent = stage.herd.agent(stage.primary);
    if (agent === null) throw new Error(`${stage.primary} has no agent`);
    const faultMs = monoMs();
    sendSignal(agent.pid, 'SIGSTOP');
    const wrong = await expectTakeover(stage, { faultMs, victim: stage.primary });
    await calm();
    const thawMs = monoMs();
    sendSignal(agent.pid, 'SIGCONT');
    const rejoin = await expectRejoin(stage, { node: stage.primary, fromMs: thawMs });
    return { faultMs, rejoinMs: rejoin.rejoinMs, wrong: [...wrong, ...rejoin.wrong], detail: '' };
  },
};
