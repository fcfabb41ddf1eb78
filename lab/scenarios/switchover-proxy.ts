import { monoMs } from '../../src/base/clock.ts';
import type { Scenario } from '../scenario.ts';
import { calm, expectRejoin, expectTakeover } from '../steps.ts';
import { CLIENTS, judgeClients, startProxyClients } from '../through-proxy.ts';

/** Everybody is logged in, and every connection of the proxy is warm. */
const WARM_MS = 3000;

export const switchoverProxy: Scenario = {
  name: 'switchover-proxy',
  about: `the primary is moved on request while ${CLIENTS} clients write and read through a proxy`,
  // The direct recorder is one of the clients that lose their connection; what counts here are the clients of the proxy.
  expect: { outageMs: null, clientErrors: null, lostRows: 0, rejoinMs: 10_000 },
  proxies: 1,
  run: async (stage) => {
    const clients = startProxyClients(stage, 'p1');
    await calm(WARM_MS);
    const [to] = stage.standbys;
    const faultMs = monoMs();
    const verb = await stage.herd.verb(['switchover', '--to', to, '--yes'], 60_000);
    const wrong = verb.code === 0 ? [] : [`switchover ended with ${verb.code}: ${verb.stderr.trim().slice(-500)}`];
    wrong.push(...(await expectTakeover(stage, { faultMs, victim: stage.primary })));
    const rejoin = await expectRejoin(stage, { node: stage.primary, fromMs: faultMs });
    await calm();
    const seen = await judgeClients(stage, clients, { faultMs, writeErrors: 0, readErrors: 0, writeWaitMs: 300, readWaitMs: 300 });
    return { faultMs, rejoinMs: rejoin.rejoinMs, wrong: [...wrong, ...rejoin.wrong, ...seen.wrong], detail: seen.detail };
  },
};

/** They take turns all the time, before the move and after it. */
export const switchoverPool: Scenario = {
  ...switchoverProxy,
  name: 'switchover-pool',
  about: `as switchover-proxy, and the ${CLIENTS} clients share four connections on each node`,
  pooling: { rules: [{ mode: 'transaction', size: 4 }] },
};
