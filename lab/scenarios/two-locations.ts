/** Two places: what is promoted when the one of the primary is lost, and who is preferred while it is not. */
import { monoMs } from '../../src/base/clock.ts';
import { sendSignal } from '../../src/demo/children.ts';
import type { Scenario } from '../scenario.ts';
import { bootHost, calm, expectProtection, expectRejoin, expectTakeover, explain } from '../steps.ts';

/** Long enough that every automatic promotion would have happened. */
const WATCHED_MS = 10_000;
const quorum = { durability: { mode: 'quorum', k: 1 } };
const apart = { n1: 'east', n2: 'west', n3: 'west' };

export const locationLost: Scenario = {
  name: 'location-lost',
  about: "quorum mode, two locations: everything in the primary's is killed: a node of the other one is promoted",
  expect: { outageMs: 2000, clientErrors: null, lostRows: 0, rejoinMs: 8000 },
  priorities: { n1: 200 },
  locations: apart,
  spec: quorum,
  run: async (stage) => {
    const early = await expectProtection(stage, { voters: 2, limitMs: 20_000 });
    const faultMs = monoMs();
    stage.network.killAll(stage.primary);
    const wrong = await expectTakeover(stage, { faultMs, victim: stage.primary });
    await calm();
    const rejoin = await expectRejoin(stage, { node: stage.primary, fromMs: bootHost(stage, stage.primary) });
    return { faultMs, rejoinMs: rejoin.rejoinMs, wrong: [...early, ...wrong, ...rejoin.wrong], detail: '' };
  },
};

export const locationLostManual: Scenario = {
  name: 'location-lost-manual',
  about:
    "two locations, `crossLocation: manual`: everything in the primary's is killed: nothing is promoted, explain says why, and a person promotes a node of the other one",
  expect: { outageMs: null, clientErrors: null, lostRows: 0, rejoinMs: 8000 },
  priorities: { n1: 200 },
  locations: apart,
  spec: { ...quorum, crossLocation: 'manual' },
  run: async (stage) => {
    const wrong = [...(await expectProtection(stage, { voters: 1, limitMs: 20_000 }))];
    const [to] = stage.standbys;
    const faultMs = monoMs();
    stage.network.killAll(stage.primary);
    if (await stage.recording.waitServing({ afterMs: faultMs, limitMs: WATCHED_MS, otherThan: stage.primary }))
      wrong.push('a node of the other location was promoted by itself');
    const said = await explain(stage);
    if (
      said === null ||
      !said.rule.startsWith('failover.blocked-') ||
      !said.why.includes('crossLocation') ||
      !said.why.includes('pgherd failover --to')
    )
      wrong.push(`explain says ${said === null ? 'nothing' : `${said.rule}: ${said.why}`}`);
    const askedMs = monoMs();
    const verb = await stage.herd.verb(['failover', '--to', to, '--yes'], 60_000);
    if (verb.code !== 0) wrong.push(`failover --to ${to} ended with ${verb.code}: ${verb.stderr.trim().slice(-500)}`);
    wrong.push(...(await expectTakeover(stage, { faultMs: askedMs, victim: stage.primary })));
    if ((await stage.writableNode()) !== to) wrong.push(`${to} was asked for and does not accept writes`);
    await calm();
    const rejoin = await expectRejoin(stage, { node: stage.primary, fromMs: bootHost(stage, stage.primary) });
    return { faultMs, rejoinMs: rejoin.rejoinMs, wrong: [...wrong, ...rejoin.wrong], detail: `while refused: ${said?.rule}: ${said?.why}` };
  },
};

/** Positions come before locations: nobody writes for a moment, so that both standbys have the same. */
export const locationPreferred: Scenario = {
  name: 'location-preferred',
  about:
    'quorum mode, two locations: the primary is lost, and the standby of its own location is promoted, not the one of a higher priority elsewhere',
  expect: { outageMs: 3000, clientErrors: null, lostRows: 0, rejoinMs: 8000 },
  priorities: { n1: 300, n2: 200, n3: 100 },
  locations: { n1: 'east', n2: 'west', n3: 'east' },
  spec: quorum,
  run: async (stage) => {
    const early = await expectProtection(stage, { voters: 2, limitMs: 20_000 });
    const [, near] = stage.standbys;
    const clients = stage.network.pids(stage.clientHost);
    for (const pid of clients) sendSignal(pid, 'SIGSTOP');
    await calm(200);
    const faultMs = monoMs();
    stage.network.killAll(stage.primary);
    for (const pid of clients) sendSignal(pid, 'SIGCONT');
    const wrong = [...(await expectTakeover(stage, { faultMs, victim: stage.primary }))];
    const now = await stage.writableNode();
    if (now !== near) wrong.push(`${now ?? 'nobody'} was promoted, ${near} is in the location of ${stage.primary}`);
    await calm();
    const rejoin = await expectRejoin(stage, { node: stage.primary, fromMs: bootHost(stage, stage.primary) });
    return { faultMs, rejoinMs: rejoin.rejoinMs, wrong: [...early, ...wrong, ...rejoin.wrong], detail: 'clients stood still for 200 ms before' };
  },
};
