import { monoMs } from '../../src/base/clock.ts';
import { sendSignal } from '../../src/demo/children.ts';
import type { Scenario } from '../scenario.ts';
import { bootHost, calm, expectRejoin, expectTakeover } from '../steps.ts';

export const agentKill: Scenario = {
  name: 'agent-kill',
  about: "kill -9 of the primary's agent, which is not started again until another node serves: the guard fences",
  expect: { outageMs: 8000, clientErrors: null, lostRows: null, rejoinMs: 15_000 },
  run: async (stage) => {
    const agent = stage.herd.agent(stage.primary);
    if (agent === null) throw new Error(`${stage.primary} has no agent`);
    const faultMs = monoMs();
    sendSignal(agent.pid, 'SIGKILL');
    const wrong = await expectTakeover(stage, { faultMs, victim: stage.primary });
    await calm();
    const rejoin = await expectRejoin(stage, { node: stage.primary, fromMs: bootHost(stage, stage.primary) });
    return { faultMs, rejoinMs: rejoin.rejoinMs, wrong: [...wrong, ...rejoin.wrong], detail: '' };
  },
};
