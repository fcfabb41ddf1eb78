import { monoMs } from '../../src/base/clock.ts';
import type { Scenario } from '../scenario.ts';
import { calm, waitShowHealthy } from '../steps.ts';
import { CLIENTS, judgeClients, startProxyClients } from '../through-proxy.ts';

const WARM_MS = 3000;
const RESTART_MS = 120_000;

export const rollingRestartProxy: Scenario = {
  name: 'rolling-restart-proxy',
  about: `every PostgreSQL is restarted, one after the other, while ${CLIENTS} clients write and read through a proxy: none of them gets an error`,
  // The direct recorder is one of the clients that lose their connection; what counts here are the clients of the proxy.
  expect: { outageMs: null, clientErrors: null, lostRows: 0, rejoinMs: null },
  proxies: 1,
  run: async (stage) => {
    const clients = startProxyClients(stage, 'p1');
    const before = new Map(stage.herd.targets.map(({ node }) => [node, stage.herd.postmaster(node)]));
    await calm(WARM_MS);
    const faultMs = monoMs();
    const verb = await stage.herd.verb(['cluster', 'restart', '--rolling', '--yes'], RESTART_MS);
    const wrong = verb.code === 0 ? [] : [`the restart ended with ${verb.code}: ${verb.stderr.trim().slice(-500)}`];
    for (const [node, postmaster] of before) if (stage.herd.postmaster(node) === postmaster) wrong.push(`${node} was not restarted`);
    if (!(await waitShowHealthy(stage, 20_000))) wrong.push('the cluster is not healthy after the restart');
    await calm();
    const seen = await judgeClients(stage, clients, { faultMs, writeErrors: 0, readErrors: 0, writeWaitMs: 1000, readWaitMs: 1000 });
    return { faultMs, rejoinMs: null, wrong: [...wrong, ...seen.wrong], detail: seen.detail };
  },
};
