import { monoMs } from '../../src/base/clock.ts';
import type { Scenario } from '../scenario.ts';
import { bootHost, calm, expectProtection, expectRejoin, expectServing, killNode, metric, protection } from '../steps.ts';

export const syncStandbyLoss: Scenario = {
  name: 'sync-standby-loss',
  about: 'quorum mode, adaptive: everything on both standbys is killed: writes wait a moment, then go on, and what protection is left is shown',
  expect: { outageMs: 2000, clientErrors: null, lostRows: 0, rejoinMs: 15_000 },
  spec: { durability: { mode: 'quorum', k: 1 } },
  run: async (stage) => {
    const wrong = [...(await expectProtection(stage, { voters: 2, limitMs: 20_000 }))];
    const [first, second] = stage.standbys;
    const faultMs = monoMs();
    for (const node of stage.standbys) killNode(stage, node);
    wrong.push(...(await expectServing(stage, { afterMs: faultMs + 500, limitMs: 10_000 })));
    await calm(1000);
    const left = await protection(stage);
    if (left?.lowered == null) wrong.push(`show does not say that protection is lower: ${JSON.stringify(left)}`);
    const events = await stage.herd.verb(['events', '--json'], 5000);
    if (!events.stdout.includes('sync.lowered')) wrong.push('no event says that protection was lowered');
    const shown = await stage.herd.verb(['show', '--json'], 5000);
    if (!shown.stdout.includes('cluster.protection-lowered')) wrong.push('no problem says that protection is lower');
    const promised = await metric(stage, 'pgherd_cluster_sync_promised{');
    const lowered = await metric(stage, 'pgherd_cluster_sync_lowered{');
    if (promised !== 0 || lowered !== 1) wrong.push(`the metrics say that ${promised} standbys are promised, and lowered is ${lowered}`);
    const backMs = bootHost(stage, first);
    bootHost(stage, second);
    const rejoin = await expectRejoin(stage, { node: first, fromMs: backMs });
    wrong.push(...rejoin.wrong, ...(await expectProtection(stage, { voters: 2, limitMs: 30_000 })));
    const after = await protection(stage);
    if (after === null || after.lowered !== null) wrong.push(`protection did not come back by itself: ${JSON.stringify(after)}`);
    const again = await metric(stage, 'pgherd_cluster_sync_lowered{');
    if (again !== 0) wrong.push(`the metric says that protection is still lower (${again})`);
    return { faultMs, rejoinMs: rejoin.rejoinMs, wrong, detail: left?.lowered ?? '' };
  },
};
