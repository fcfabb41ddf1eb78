import { monoMs } from '../../src/base/clock.ts';
import type { Scenario } from '../scenario.ts';
import { bootHost, calm, expectRejoin, expectTakeover } from '../steps.ts';
import { CLIENTS, judgeClients, startProxyClients } from '../through-proxy.ts';

const WARM_MS = 3000;

export const failoverProxy: Scenario = {
  name: 'failover-proxy',
  about: `everything on the primary's host is killed while ${CLIENTS} clients write and read through a proxy`,
  expect: { outageMs: 5000, clientErrors: null, lostRows: null, rejoinMs: 10_000 },
  proxies: 1,
  run: async (stage) => {
    const clients = startProxyClients(stage, 'p1');
    await calm(WARM_MS);
    const faultMs = monoMs();
    stage.network.killAll(stage.primary);
    const wrong = [...(await expectTakeover(stage, { faultMs, victim: stage.primary }))];
    const rejoin = await expectRejoin(stage, { node: stage.primary, fromMs: bootHost(stage, stage.primary) });
    await calm();
    // A writer whose answer was under way is told once that the outcome is unknown; nobody is told twice, and reads go on.
    const seen = await judgeClients(stage, clients, { faultMs, writeErrors: CLIENTS / 2, readErrors: 0, writeWaitMs: 6000, readWaitMs: 1000 });
    // Asynchronous replication may lose the last rows.
    const judged = seen.wrong.filter((text) => !/^\d+ rows that were acknowledged through the proxy are missing$/.test(text));
    const lost = seen.wrong.filter((text) => !judged.includes(text));
    return { faultMs, rejoinMs: rejoin.rejoinMs, wrong: [...wrong, ...rejoin.wrong, ...judged], detail: [seen.detail, ...lost].join('; ') };
  },
};

export const failoverPool: Scenario = {
  ...failoverProxy,
  name: 'failover-pool',
  about: `as failover-proxy, and the ${CLIENTS} clients share four connections on each node`,
  pooling: { rules: [{ mode: 'transaction', size: 4 }] },
};
