import { monoMs } from '../../src/base/clock.ts';
import { sendSignal } from '../../src/demo/children.ts';
import type { Scenario } from '../scenario.ts';
import { calm, expectServing, waitShowHealthy } from '../steps.ts';

const GONE_MS = 60_000;

export const storeLoss: Scenario = {
  name: 'store-loss',
  about: 'the host of server, controller and store is killed for 60 s (--seconds): the primary goes on serving',
  expect: { outageMs: 1000, clientErrors: 0, lostRows: 0, rejoinMs: null },
  run: async (stage) => {
    const goneMs = stage.lengthMs ?? GONE_MS;
    const faultMs = monoMs();
    stage.network.killAll(stage.serverHost);
    await calm(goneMs);
    const wrong = [...(await expectServing(stage, { afterMs: monoMs(), limitMs: 5000 }))];
    stage.herd.startServer();
    if (!(await waitShowHealthy(stage, 30_000))) wrong.push('the cluster was not healthy 30 s after the store came back');
    await calm(5000);
    wrong.push(...(await expectServing(stage, { afterMs: monoMs(), limitMs: 5000 })));
    if ((await stage.writableNode()) !== stage.primary) wrong.push('the primary changed');
    return { faultMs, rejoinMs: null, wrong, detail: `the store was gone for ${goneMs / 1000} s` };
  },
};

/** Nobody else can be promoted, so its own promise is enough, also for an agent that is started anew meanwhile. */
export const storeLossSingle: Scenario = {
  name: 'store-loss-single',
  about:
    'a cluster of one node: the host of server, controller and store is killed for 30 s (--seconds), and its agent is restarted meanwhile: it goes on serving',
  expect: { outageMs: 1000, clientErrors: 0, lostRows: 0, rejoinMs: null },
  nodes: 1,
  run: async (stage) => {
    const goneMs = stage.lengthMs ?? 30_000;
    const faultMs = monoMs();
    stage.network.killAll(stage.serverHost);
    await calm(goneMs / 2);
    const agent = stage.herd.agent(stage.primary);
    if (agent === null) throw new Error('no agent runs');
    sendSignal(agent.pid, 'SIGTERM');
    await agent.gone;
    stage.herd.startAgent(stage.primary);
    await calm(goneMs / 2);
    const wrong = [...(await expectServing(stage, { afterMs: monoMs(), limitMs: 5000 }))];
    stage.herd.startServer();
    if (!(await waitShowHealthy(stage, 30_000))) wrong.push('the cluster was not healthy 30 s after the store came back');
    await calm(5000);
    wrong.push(...(await expectServing(stage, { afterMs: monoMs(), limitMs: 5000 })));
    return { faultMs, rejoinMs: null, wrong, detail: `the store was gone for ${goneMs / 1000} s` };
  },
};
