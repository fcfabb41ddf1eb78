/** The failures of a primary, with quorum replication: nothing acknowledged is lost, and nothing has to expire first. */
import { monoMs } from '../../src/base/clock.ts';
import type { Scenario } from '../scenario.ts';
import { bootHost, calm, expectProtection, expectRejoin, expectTakeover } from '../steps.ts';
import type { Stage } from '../stage.ts';
import { agentRestart } from './agent-restart.ts';
import { hostPause, vmPause } from './host-pause.ts';
import { storeLoss } from './store-loss.ts';
import { switchover } from './switchover.ts';

const spec = { durability: { mode: 'quorum', k: 1 } };
/** Until both standbys of a fresh cluster count. */
const PROTECTION_MS = 20_000;

/** From a protected cluster by the loss of its primary to a protected cluster. `voters`: so many are promised; default: both standbys. */
export async function lose(
  stage: Stage,
  options: { readonly fault: () => void; readonly before: number; readonly back: () => number; readonly voters?: number },
): ReturnType<Scenario['run']> {
  const { voters = 2 } = options;
  const early = await expectProtection(stage, { voters, limitMs: PROTECTION_MS });
  // The bounds are those of a store that is well; `host-loss-etcd-leader` loses its leader with the host.
  await stage.etcd?.moveLeader(stage.standbys[0]);
  const faultMs = monoMs();
  options.fault();
  const wrong = await expectTakeover(stage, { faultMs, victim: stage.primary });
  await calm(options.before);
  const rejoin = await expectRejoin(stage, { node: stage.primary, fromMs: options.back() });
  const late = await expectProtection(stage, { voters, limitMs: PROTECTION_MS });
  return { faultMs, rejoinMs: rejoin.rejoinMs, wrong: [...early, ...wrong, ...rejoin.wrong, ...late], detail: '' };
}

export const hostLossQuorum: Scenario = {
  name: 'host-loss-quorum',
  about: "quorum mode: the cable of the primary's host is pulled, and put back later",
  expect: { outageMs: 2000, clientErrors: null, lostRows: 0, rejoinMs: 8000 },
  spec,
  run: (stage) =>
    lose(stage, {
      fault: () => stage.network.unplug(stage.primary),
      before: 1500,
      back: () => {
        stage.network.plug(stage.primary);
        return monoMs();
      },
    }),
};

export const hostKillQuorum: Scenario = {
  name: 'host-kill-quorum',
  about: "quorum mode: everything on the primary's host is killed at once; later its agent is started again",
  expect: { outageMs: 2000, clientErrors: null, lostRows: 0, rejoinMs: 8000 },
  spec,
  run: (stage) => lose(stage, { fault: () => void stage.network.killAll(stage.primary), before: 1500, back: () => bootHost(stage, stage.primary) }),
};

export const partitionPrimaryQuorum: Scenario = {
  name: 'partition-primary-quorum',
  about: 'quorum mode: the primary is cut from the other nodes and from the store, its clients still reach it: it can acknowledge nothing',
  expect: { outageMs: 2500, clientErrors: null, lostRows: 0, rejoinMs: 15_000 },
  spec,
  run: (stage) =>
    lose(stage, {
      fault: () => stage.separate(stage.primary, [stage.serverHost, ...stage.standbys]),
      before: 5000,
      back: () => {
        stage.network.heal();
        return monoMs();
      },
    }),
};

export const postgresCrashQuorum: Scenario = {
  name: 'postgres-crash-quorum',
  about: 'quorum mode: PostgreSQL of the primary is killed on a living host: another node is promoted without waiting for it',
  expect: { outageMs: 1000, clientErrors: null, lostRows: 0, rejoinMs: 10_000 },
  spec,
  run: (stage) => lose(stage, { fault: () => void stage.signalPostgres(stage.primary, 'SIGKILL'), before: 1000, back: monoMs }),
};

export const postgresHangQuorum: Scenario = {
  name: 'postgres-hang-quorum',
  about: 'quorum mode: PostgreSQL of the primary is stopped by SIGSTOP and continued later: it acknowledges nothing after the new one opened',
  expect: { outageMs: 4000, clientErrors: null, lostRows: 0, rejoinMs: 15_000 },
  spec,
  run: (stage) =>
    lose(stage, {
      fault: () => void stage.signalPostgres(stage.primary, 'SIGSTOP'),
      before: 2000,
      back: () => {
        stage.signalPostgres(stage.primary, 'SIGCONT');
        return monoMs();
      },
    }),
};

/** Another scenario in quorum mode, from a protected cluster to a protected cluster. */
function inQuorumMode(other: Scenario, expect: Partial<Scenario['expect']>): Scenario {
  return {
    ...other,
    name: `${other.name}-quorum`,
    about: `quorum mode: ${other.about}`,
    spec: { ...other.spec, ...spec },
    expect: { ...withoutWindow(other.expect), lostRows: 0, ...expect },
    run: async (stage) => {
      const early = await expectProtection(stage, { voters: 2, limitMs: PROTECTION_MS });
      const seen = await other.run(stage);
      const late = await expectProtection(stage, { voters: 2, limitMs: PROTECTION_MS });
      return { ...seen, wrong: [...early, ...seen.wrong, ...late] };
    },
  };
}

/** What is acknowledged by a quorum of voters is acknowledged by one primary only. */
function withoutWindow({ windowMs: _, ...expect }: Scenario['expect']): Scenario['expect'] {
  return expect;
}

/** The first write of the new primary waits until a standby follows. */
export const switchoverQuorum = inQuorumMode(switchover, { outageMs: 1000 });
export const hostPauseQuorum = inQuorumMode(hostPause, { outageMs: 4000 });
export const vmPauseQuorum = inQuorumMode(vmPause, { outageMs: 4000 });
export const storeLossQuorum = inQuorumMode(storeLoss, {});
export const agentRestartQuorum = inQuorumMode(agentRestart, {});
