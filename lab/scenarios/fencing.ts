/** The fencing command: faster than the lease when it works, and never believed when it does not. */
import { monoMs } from '../../src/base/clock.ts';
import type { Scenario } from '../scenario.ts';
import { bootHost, calm, expectRejoin, expectServing, expectTakeover, explain } from '../steps.ts';

/** Long enough that the lease is gone, and an automatic promotion would have happened. */
const WATCHED_MS = 10_000;

export const hostLossFenced: Scenario = {
  name: 'host-loss-fenced',
  about:
    "the cable of the primary's host is pulled: the fencing command turns the host off, and nobody waits for its lease; later it is started again",
  expect: { outageMs: 3500, clientErrors: null, lostRows: null, rejoinMs: 10_000 },
  spec: { fencing: 'required' },
  fencing: 'works',
  run: async (stage) => {
    const faultMs = monoMs();
    stage.network.unplug(stage.primary);
    const wrong = [...(await expectTakeover(stage, { faultMs, victim: stage.primary }))];
    const left = stage.network.pids(stage.primary);
    if (left.length > 0) wrong.push(`another node serves, and ${left.length} processes of ${stage.primary} still run`);
    await calm();
    stage.network.plug(stage.primary);
    const rejoin = await expectRejoin(stage, { node: stage.primary, fromMs: bootHost(stage, stage.primary) });
    return { faultMs, rejoinMs: rejoin.rejoinMs, wrong: [...wrong, ...rejoin.wrong], detail: '' };
  },
};

export const fencingFails: Scenario = {
  name: 'fencing-fails',
  about:
    'fencing is required, and its command fails: nothing is promoted while the primary is silent, explain says why, and writes go on when its agent can be heard again',
  expect: { outageMs: null, clientErrors: null, lostRows: 0, rejoinMs: null },
  spec: { fencing: 'required' },
  fencing: 'fails',
  run: async (stage) => {
    const faultMs = monoMs();
    stage.network.unplug(stage.primary);
    const wrong: string[] = [];
    if (await stage.recording.waitServing({ afterMs: faultMs, limitMs: WATCHED_MS, otherThan: stage.primary }))
      wrong.push('a node was promoted although the fencing command had failed');
    const said = await explain(stage);
    if (said?.rule !== 'failover.blocked-fence' || !said.why.includes('Unable to establish IPMI session'))
      wrong.push(`explain says ${said === null ? 'nothing' : `${said.rule}: ${said.why}`}`);
    stage.network.plug(stage.primary);
    wrong.push(...(await expectServing(stage, { afterMs: monoMs() })));
    await calm();
    return { faultMs, rejoinMs: null, wrong, detail: said?.why ?? '' };
  },
};
