import { monoMs } from '../../src/base/clock.ts';
import { sendSignal, waitUntil } from '../../src/demo/children.ts';
import type { Scenario } from '../scenario.ts';
import { bootHost, calm, expectServing } from '../steps.ts';

export const agentRestart: Scenario = {
  name: 'agent-restart',
  about: "kill -9 of the primary's agent, started again at once as an init system does: PostgreSQL goes on, no client notices",
  expect: { outageMs: 250, clientErrors: 0, lostRows: 0, rejoinMs: null },
  run: async (stage) => {
    const agent = stage.herd.agent(stage.primary);
    const postmaster = stage.herd.postmaster(stage.primary);
    if (agent === null) throw new Error(`${stage.primary} has no agent`);
    const faultMs = monoMs();
    sendSignal(agent.pid, 'SIGKILL');
    await waitUntil(() => agent.exit() !== null, 2000, 2);
    bootHost(stage, stage.primary);
    // Longer than a lease: an agent that did not take over would have been fenced by then.
    await calm(8000);
    const wrong = [...(await expectServing(stage, { afterMs: monoMs(), limitMs: 5000 }))];
    if (stage.herd.postmaster(stage.primary) !== postmaster) wrong.push('PostgreSQL was restarted');
    return { faultMs, rejoinMs: null, wrong, detail: '' };
  },
};
