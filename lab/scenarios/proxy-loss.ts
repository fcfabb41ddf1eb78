import { monoMs } from '../../src/base/clock.ts';
import { sendSignal, waitUntil } from '../../src/demo/children.ts';
import type { Scenario } from '../scenario.ts';
import { calm, expectRejoin, expectTakeover } from '../steps.ts';
import { CLIENTS, judgeClients, startProxyClients } from '../through-proxy.ts';

const WARM_MS = 3000;
/** The dead proxy's acknowledgement stands for 3 s, and a hold waits for it for 2 s at most: the first attempt may be undone. */
const ACK_GONE_MS = 3500;

export const proxyLoss: Scenario = {
  name: 'proxy-loss',
  about: `kill -9 of one of two proxies while ${CLIENTS} clients use it: they go on at the other one, and a switchover does not wait for the dead one`,
  expect: { outageMs: null, clientErrors: null, lostRows: 0, rejoinMs: 10_000 },
  proxies: 2,
  run: async (stage) => {
    const clients = startProxyClients(stage, 'p1', 'p2');
    await calm(WARM_MS);
    const proxy = stage.herd.proxy('p1');
    if (proxy === null) throw new Error('p1 does not run');
    const faultMs = monoMs();
    sendSignal(proxy.pid, 'SIGKILL');
    await waitUntil(() => proxy.exit() !== null, 2000, 2);
    await calm(ACK_GONE_MS);
    const [to] = stage.standbys;
    const movedMs = monoMs();
    const verb = await stage.herd.verb(['switchover', '--to', to, '--yes'], 60_000);
    const wrong = verb.code === 0 ? [] : [`switchover ended with ${verb.code}: ${verb.stderr.trim().slice(-500)}`];
    wrong.push(...(await expectTakeover(stage, { faultMs: movedMs, victim: stage.primary })));
    stage.herd.startProxy('p1');
    const rejoin = await expectRejoin(stage, { node: stage.primary, fromMs: movedMs });
    await calm();
    // Each client learns once that its connection is gone.
    const seen = await judgeClients(stage, clients, {
      faultMs,
      writeErrors: CLIENTS / 2,
      readErrors: CLIENTS / 2,
      writeWaitMs: 1000,
      readWaitMs: 1000,
    });
    return { faultMs, rejoinMs: rejoin.rejoinMs, wrong: [...wrong, ...rejoin.wrong, ...seen.wrong], detail: seen.detail };
  },
};
