import { monoMs } from '../../src/base/clock.ts';
import type { Scenario } from '../scenario.ts';
import { backUpStore, bootHost, calm, expectProtection, expectRejoin, expectServing, expectTakeover, waitShowHealthy } from '../steps.ts';

const HEALTHY_MS = 30_000;

export const restoreOverFailover: Scenario = {
  name: 'restore-over-failover',
  about:
    'a backup of the store is put back after a failover that it knows nothing of: the newer term comes back, its primary goes on, and a failover that is due then works',
  expect: { outageMs: 2000, clientErrors: null, lostRows: 0, rejoinMs: null },
  spec: { durability: { mode: 'quorum', k: 1 }, antiFlappingMs: 0 },
  run: async (stage) => {
    const { herd, network } = stage;
    const wrong = [...(await expectProtection(stage, { voters: 2, limitMs: 20_000 }))];
    const backup = await backUpStore(stage);
    const firstMs = monoMs();
    network.killAll(stage.primary);
    wrong.push(...(await expectTakeover(stage, { faultMs: firstMs, victim: stage.primary })));
    const rejoin = await expectRejoin(stage, { node: stage.primary, fromMs: bootHost(stage, stage.primary) });
    wrong.push(...rejoin.wrong, ...(await expectProtection(stage, { voters: 2, limitMs: 20_000 })));
    const before = await herd.show();
    if (before?.primary == null) throw new Error('show names no primary after the failover');

    const restoreMs = monoMs();
    const restored = await herd.verb(['store', 'restore', backup, '--replace', '--yes'], 30_000);
    if (restored.code !== 0) wrong.push(`store restore: exit code ${restored.code}: ${restored.stderr.trim()}`);
    if (!(await waitShowHealthy(stage, HEALTHY_MS))) wrong.push(`the cluster was not healthy ${HEALTHY_MS} ms after the restore`);
    wrong.push(...(await expectProtection(stage, { voters: 2, limitMs: HEALTHY_MS })));
    const wellMs = Math.round(monoMs() - restoreMs);
    await calm(5000);
    wrong.push(...(await expectServing(stage, { afterMs: monoMs(), limitMs: 5000 })));
    const now = await herd.show();
    if (now?.term !== before.term || now.primary !== before.primary)
      wrong.push(`term ${before.term} of ${before.primary} became term ${now?.term} of ${now?.primary}`);
    const failed = stage.recording.events.filter(
      (event) => (event.kind === 'failed' || event.kind === 'unknown') && event.client === 'recorder' && event.atMs > restoreMs,
    );
    if (failed.length > 0) wrong.push(`${failed.length} rows failed because of the restore`);
    const faultMs = monoMs();
    network.killAll(before.primary);
    wrong.push(...(await expectTakeover(stage, { faultMs, victim: before.primary })));
    await calm();
    const last = await herd.show();
    if (last !== null && last.term <= before.term) wrong.push(`term ${last.term} after the next failover, it was ${before.term} before`);
    return {
      faultMs,
      rejoinMs: null,
      wrong,
      detail: `healthy and protected ${wellMs} ms after the restore; the outage is that of the failover after it`,
    };
  },
};
