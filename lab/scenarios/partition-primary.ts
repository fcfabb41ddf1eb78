import { monoMs } from '../../src/base/clock.ts';
import type { Scenario } from '../scenario.ts';
import { calm, expectRejoin, expectTakeover } from '../steps.ts';
import type { Stage } from '../stage.ts';

export const partitionPrimary: Scenario = {
  name: 'partition-primary',
  about:
    'the primary is cut from the other nodes and from the store, its clients still reach it: it fences itself first; what only it had is reported',
  expect: { outageMs: 8000, clientErrors: null, lostRows: null, rejoinMs: 15_000 },
  run: async (stage) => {
    const faultMs = monoMs();
    stage.separate(stage.primary, [stage.serverHost, ...stage.standbys]);
    const cutMs = monoMs();
    const wrong = [...(await expectTakeover(stage, { faultMs, victim: stage.primary }))];
    await calm(5000);
    const healMs = monoMs();
    stage.network.heal();
    const rejoin = await expectRejoin(stage, { node: stage.primary, fromMs: healMs });
    const reported = await reportedLoss(stage);
    // Each row was a transaction of its own.
    const acked = stage.recording.events.filter((event) => event.kind === 'ack' && event.node === stage.primary && event.sentMs > cutMs).length;
    if (acked > 0 && (reported === null || reported.transactions < acked))
      wrong.push(`${acked} rows were acknowledged by ${stage.primary} alone, and the events say ${JSON.stringify(reported)}`);
    const detail = reported === null ? 'no loss was reported' : `reported: ${reported.bytes} bytes, ${reported.transactions} transactions`;
    return { faultMs, rejoinMs: rejoin.rejoinMs, wrong: [...wrong, ...rejoin.wrong], detail };
  },
};

/** What the event of the return says; null: nothing was lost. */
async function reportedLoss(stage: Stage): Promise<{ readonly bytes: number; readonly transactions: number } | null> {
  const events = await stage.herd.verb(['events', '--json'], 5000);
  const found = /(\d+) bytes of WAL, (\d+) committed transactions/.exec(events.stdout);
  return found === null ? null : { bytes: Number(found[1]), transactions: Number(found[2]) };
}
