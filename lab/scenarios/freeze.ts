import { monoMs } from '../../src/base/clock.ts';
import type { Scenario } from '../scenario.ts';
import { bootHost, calm, expectProtection, expectRejoin, expectTakeover, explain } from '../steps.ts';

/** Long enough that every automatic promotion would have happened. */
const WATCHED_MS = 10_000;

export const freeze: Scenario = {
  name: 'freeze',
  about:
    "quorum mode, frozen: everything on the primary's host is killed: nothing is promoted, explain says why, and unfreeze is followed by the failover",
  expect: { outageMs: null, clientErrors: null, lostRows: 0, rejoinMs: 8000 },
  spec: { durability: { mode: 'quorum', k: 1 } },
  run: async (stage) => {
    const { herd } = stage;
    const wrong = [...(await expectProtection(stage, { voters: 2, limitMs: 20_000 }))];
    const frozen = await herd.verb(['freeze', '--reason', 'lab']);
    if (frozen.code !== 0) wrong.push(`freeze ended with ${frozen.code}: ${frozen.stderr.trim()}`);
    const faultMs = monoMs();
    stage.network.killAll(stage.primary);
    if (await stage.recording.waitServing({ afterMs: faultMs, limitMs: WATCHED_MS, otherThan: stage.primary }))
      wrong.push('a node was promoted while the cluster was frozen');
    const said = await explain(stage);
    if (said?.rule !== 'failover.blocked-frozen' || !said.why.includes('pgherd unfreeze'))
      wrong.push(`explain says ${said === null ? 'nothing' : `${said.rule}: ${said.why}`}`);
    const thawMs = monoMs();
    const thawed = await herd.verb(['unfreeze']);
    if (thawed.code !== 0) wrong.push(`unfreeze ended with ${thawed.code}: ${thawed.stderr.trim()}`);
    wrong.push(...(await expectTakeover(stage, { faultMs: thawMs, victim: stage.primary })));
    const servedMs = stage.recording.events.find((event) => event.kind === 'ack' && event.atMs > thawMs)?.atMs ?? null;
    await calm();
    const rejoin = await expectRejoin(stage, { node: stage.primary, fromMs: bootHost(stage, stage.primary) });
    wrong.push(...rejoin.wrong, ...(await expectProtection(stage, { voters: 2, limitMs: 20_000 })));
    const after = servedMs === null ? 'never' : `${Math.round(servedMs - thawMs)} ms`;
    return { faultMs, rejoinMs: rejoin.rejoinMs, wrong, detail: `writes went on ${after} after unfreeze was asked; while frozen: ${said?.why}` };
  },
};
