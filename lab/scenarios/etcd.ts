/** etcd as the store, one member on each node's host: members lost, the host of its leader lost, every server lost, all of it lost. */
import { monoMs, realClock } from '../../src/base/clock.ts';
import type { LabEtcd } from '../etcd.ts';
import type { Scenario } from '../scenario.ts';
import { calm, expectProtection, expectRejoin, expectServing, expectTakeover, waitShowHealthy } from '../steps.ts';
import type { Stage } from '../stage.ts';

const spec = { durability: { mode: 'quorum', k: 1 } };
const PROTECTION_MS = 20_000;
const HEALTHY_MS = 30_000;
/** As the goals say it: five minutes of members that die, ten minutes without any store. */
const MEMBERS_MS = 300_000;
const LOST_MS = 600_000;
/** One round of `etcd-member-loss`; a killed member is away for a quarter of it. */
const ROUND_MS = 20_000;

function etcdOf(stage: Stage): LabEtcd {
  if (stage.etcd === null) throw new Error('this scenario needs --store etcd');
  return stage.etcd;
}

/** What became of the cluster while nothing should have happened to it. */
async function expectUntouched(stage: Stage, before: { readonly term: number; readonly primary: string | null }): Promise<readonly string[]> {
  const now = await stage.herd.show();
  if (now === null) return ['show did not answer'];
  const same = now.term === before.term && now.primary === before.primary;
  return same ? [] : [`term ${before.term} of ${before.primary} became term ${now.term} of ${now.primary}`];
}

export const etcdMemberLoss: Scenario = {
  name: 'etcd-member-loss',
  about: 'etcd: a member is killed and comes back, then its leader, every 20 s: no failover, no client error',
  expect: { outageMs: 1000, clientErrors: 0, lostRows: 0, rejoinMs: null },
  store: 'etcd',
  spec,
  run: async (stage) => {
    const etcd = etcdOf(stage);
    const wrong = [...(await expectProtection(stage, { voters: 2, limitMs: PROTECTION_MS }))];
    const before = await stage.herd.show();
    if (before === null) throw new Error('show does not answer before the fault');
    const faultMs = monoMs();
    const lengthMs = stage.lengthMs ?? MEMBERS_MS;
    let killed = 0;
    for (let round = 0; monoMs() - faultMs < lengthMs; round++) {
      const leader = await etcd.leader();
      const followers = etcd.names.filter((name) => name !== leader);
      for (const victim of [followers[round % followers.length], leader]) {
        if (victim === undefined || victim === null) {
          wrong.push(`etcd had no leader ${Math.round((monoMs() - faultMs) / 1000)} s after the beginning`);
          continue;
        }
        const atMs = monoMs();
        await etcd.kill(victim);
        killed++;
        await realClock.sleep(ROUND_MS / 4);
        etcd.start(victim);
        if (!(await etcd.waitHealthy(HEALTHY_MS))) wrong.push(`etcd was not whole ${HEALTHY_MS} ms after ${victim} came back`);
        await realClock.sleep(Math.max(0, ROUND_MS / 2 - (monoMs() - atMs)));
      }
    }
    wrong.push(...(await expectServing(stage, { afterMs: monoMs(), limitMs: 5000 })), ...(await expectUntouched(stage, before)));
    return { faultMs, rejoinMs: null, wrong, detail: `${killed} members were killed in ${Math.round((monoMs() - faultMs) / 1000)} s` };
  },
};

/** Longer than any lease, any limit of a call and any election. */
const STUCK_MS = 15_000;

export const etcdStuckDisk: Scenario = {
  name: 'etcd-stuck-disk',
  about: 'etcd: the disk of its leader takes no write for 15 s, then that of another member: no failover, no client error',
  expect: { outageMs: 1000, clientErrors: 0, lostRows: 0, rejoinMs: null },
  store: 'etcd',
  storeDisks: 'ext4',
  spec,
  run: async (stage) => {
    const etcd = etcdOf(stage);
    const { storeDisks } = stage;
    if (storeDisks === null) throw new Error('this scenario needs disks of the store');
    const wrong = [...(await expectProtection(stage, { voters: 2, limitMs: PROTECTION_MS }))];
    const before = await stage.herd.show();
    const leader = await etcd.leader();
    if (before === null || leader === null) throw new Error('show does not answer, or etcd has no leader, before the fault');
    const other = etcd.names.find((name) => name !== leader) ?? leader;
    const faultMs = monoMs();
    for (const member of [leader, other]) {
      storeDisks.freeze(member);
      await calm(STUCK_MS);
      storeDisks.thaw(member);
      if (!(await etcd.waitHealthy(HEALTHY_MS))) wrong.push(`etcd was not whole ${HEALTHY_MS} ms after the disk of ${member} went on`);
    }
    if (!(await waitShowHealthy(stage, HEALTHY_MS))) wrong.push(`the cluster was not healthy ${HEALTHY_MS} ms after the disks went on`);
    wrong.push(...(await expectServing(stage, { afterMs: monoMs(), limitMs: 5000 })), ...(await expectUntouched(stage, before)));
    return { faultMs, rejoinMs: null, wrong, detail: `${leader} led; then the disk of ${other}` };
  },
};

interface HostLoss {
  readonly name: string;
  readonly about: string;
  readonly outageMs: number;
  readonly rejoinMs: number;
  readonly lostRows: number | null;
  readonly spec: Readonly<Record<string, unknown>>;
  readonly leader: 'elsewhere' | 'on the lost host';
  readonly server: 'lives' | 'dies with it';
}

function hostLossWithEtcd(about: HostLoss): Scenario {
  return {
    name: about.name,
    about: about.about,
    expect: { outageMs: about.outageMs, clientErrors: null, lostRows: about.lostRows, rejoinMs: about.rejoinMs },
    store: 'etcd',
    spec: about.spec,
    run: async (stage) => {
      const etcd = etcdOf(stage);
      const quorum = about.lostRows === 0;
      const wrong = quorum ? [...(await expectProtection(stage, { voters: 2, limitMs: PROTECTION_MS }))] : [];
      await etcd.moveLeader(about.leader === 'elsewhere' ? stage.standbys[0] : stage.primary);
      const server = stage.herd.server();
      const faultMs = monoMs();
      if (about.server === 'dies with it') stage.network.killAll(stage.serverHost);
      stage.network.unplug(stage.primary);
      wrong.push(...(await expectTakeover(stage, { faultMs, victim: stage.primary })));
      await calm(3000);
      const backMs = monoMs();
      stage.network.plug(stage.primary);
      const rejoin = await expectRejoin(stage, { node: stage.primary, fromMs: backMs });
      if (about.server === 'dies with it') {
        await server?.gone;
        stage.herd.startServer();
      }
      if (!(await waitShowHealthy(stage, HEALTHY_MS))) wrong.push(`the cluster was not healthy ${HEALTHY_MS} ms after the return`);
      const late = quorum ? await expectProtection(stage, { voters: 2, limitMs: PROTECTION_MS }) : [];
      return { faultMs, rejoinMs: rejoin.rejoinMs, wrong: [...wrong, ...rejoin.wrong, ...late], detail: `etcd's leader was ${about.leader}` };
    },
  };
}

export const hostLossEtcd = hostLossWithEtcd({
  name: 'host-loss-etcd',
  about: "etcd, quorum mode: the cable of the primary's host is pulled; etcd's leader is elsewhere",
  outageMs: 2000,
  rejoinMs: 8000,
  lostRows: 0,
  spec,
  leader: 'elsewhere',
  server: 'lives',
});

export const hostLossEtcdLeader = hostLossWithEtcd({
  name: 'host-loss-etcd-leader',
  about: "etcd, quorum mode: the cable of the primary's host is pulled, and etcd's leader is on it",
  outageMs: 4000,
  rejoinMs: 8000,
  lostRows: 0,
  spec,
  leader: 'on the lost host',
  server: 'lives',
});

export const hostLossEtcdAsync = hostLossWithEtcd({
  name: 'host-loss-etcd-async',
  about: "etcd, asynchronous: the cable of the primary's host is pulled, and etcd's leader is on it",
  outageMs: 7000,
  rejoinMs: 10_000,
  lostRows: null,
  spec: {},
  leader: 'on the lost host',
  server: 'lives',
});

/** The bound of `host-loss-etcd`, the time that a controller's lease lives (2 s), and one more look at the primary (0.5 s). */
export const serverLossEtcd = hostLossWithEtcd({
  name: 'server-loss-etcd',
  about: "etcd, quorum mode: the only server and the primary's host are lost at the same moment; an agent decides",
  outageMs: 4500,
  rejoinMs: 8000,
  lostRows: 0,
  spec,
  leader: 'elsewhere',
  server: 'dies with it',
});

/** The bound of `host-loss-etcd-leader`, the time that a controller's lease lives (2 s), and one more look at the primary (0.5 s). */
export const serverLossEtcdLeader = hostLossWithEtcd({
  name: 'server-loss-etcd-leader',
  about: "etcd, quorum mode: the only server, the primary's host and with it etcd's leader are lost at the same moment; an agent decides",
  outageMs: 6500,
  rejoinMs: 8000,
  lostRows: 0,
  spec,
  leader: 'on the lost host',
  server: 'dies with it',
});

export const storeLost: Scenario = {
  name: 'store-lost',
  about: 'etcd: every member is killed for 10 minutes: the primary goes on serving, and nothing happens when they return',
  expect: { outageMs: 1000, clientErrors: 0, lostRows: 0, rejoinMs: null },
  store: 'etcd',
  spec,
  run: async (stage) => {
    const etcd = etcdOf(stage);
    const wrong = [...(await expectProtection(stage, { voters: 2, limitMs: PROTECTION_MS }))];
    const before = await stage.herd.show();
    if (before === null) throw new Error('show does not answer before the fault');
    const lengthMs = stage.lengthMs ?? LOST_MS;
    const faultMs = monoMs();
    await Promise.all(etcd.names.map((name) => etcd.kill(name)));
    await calm(lengthMs);
    wrong.push(...(await expectServing(stage, { afterMs: monoMs(), limitMs: 5000 })));
    for (const name of etcd.names) etcd.start(name);
    if (!(await etcd.waitHealthy(HEALTHY_MS))) wrong.push(`etcd was not healthy ${HEALTHY_MS} ms after its return`);
    if (!(await waitShowHealthy(stage, HEALTHY_MS))) wrong.push(`the cluster was not healthy ${HEALTHY_MS} ms after the store came back`);
    await calm(5000);
    wrong.push(...(await expectServing(stage, { afterMs: monoMs(), limitMs: 5000 })), ...(await expectUntouched(stage, before)));
    const short = lengthMs < LOST_MS ? `, shortened from ${LOST_MS / 1000} s` : '';
    return { faultMs, rejoinMs: null, wrong, detail: `the store was gone for ${lengthMs / 1000} s${short}` };
  },
};
