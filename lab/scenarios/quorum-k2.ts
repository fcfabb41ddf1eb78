import { monoMs } from '../../src/base/clock.ts';
import type { Scenario } from '../scenario.ts';
import { SPARE } from '../stage.ts';
import { bootHost, calm, expectProtection, expectRejoin, expectServing, expectTakeover, killNode } from '../steps.ts';

const PROTECTION_MS = 30_000;

export const quorumK2: Scenario = {
  name: 'quorum-k2',
  about: "quorum mode, 2 of 3 standbys: everything on one standby is killed, the set follows, and everything on the primary's host is killed",
  expect: { outageMs: 2000, clientErrors: null, lostRows: 0, rejoinMs: 15_000 },
  nodes: 4,
  spec: { durability: { mode: 'quorum', k: 2 } },
  run: async (stage) => {
    const wrong = [...(await expectProtection(stage, { k: 2, voters: 3, limitMs: PROTECTION_MS }))];
    const lossMs = monoMs();
    killNode(stage, SPARE);
    await calm(3000);
    wrong.push(
      ...(await expectServing(stage, { afterMs: monoMs() })),
      ...(await expectProtection(stage, { k: 2, voters: 2, limitMs: PROTECTION_MS })),
    );
    const failed = stage.recording.events.filter(
      (event) => (event.kind === 'failed' || event.kind === 'unknown') && event.client === 'recorder' && event.atMs > lossMs,
    );
    if (failed.length > 0) wrong.push(`${failed.length} rows failed when one of three standbys was lost`);
    const faultMs = monoMs();
    killNode(stage, stage.primary);
    wrong.push(...(await expectTakeover(stage, { faultMs, victim: stage.primary })));
    await calm();
    const fromMs = bootHost(stage, stage.primary);
    bootHost(stage, SPARE);
    const rejoin = await expectRejoin(stage, { node: stage.primary, fromMs });
    wrong.push(...rejoin.wrong, ...(await expectProtection(stage, { k: 2, voters: 3, limitMs: PROTECTION_MS })));
    return { faultMs, rejoinMs: rejoin.rejoinMs, wrong, detail: '' };
  },
};
