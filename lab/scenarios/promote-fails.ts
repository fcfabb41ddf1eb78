import { execFileSync } from 'node:child_process';
import { monoMs } from '../../src/base/clock.ts';
import type { Scenario } from '../scenario.ts';
import { bootHost, calm, expectProtection, expectRejoin, expectTakeover } from '../steps.ts';
import type { Stage } from '../stage.ts';

/** `after` runs when the candidate can write again. */
async function promoteElsewhere(
  stage: Stage,
  after: (stage: Stage) => Promise<{ readonly rejoinMs: number | null; readonly wrong: readonly string[] }>,
): ReturnType<Scenario['run']> {
  const [preferred] = stage.standbys;
  const wal = `${stage.herd.places.data(preferred)}/pg_wal`;
  let faultMs: number;
  let wrong: readonly string[];
  let now: string | null;
  execFileSync('chattr', ['+i', wal]);
  try {
    faultMs = monoMs();
    stage.network.killAll(stage.primary);
    wrong = await expectTakeover(stage, { faultMs, victim: stage.primary });
    await calm();
    now = await stage.writableNode();
  } finally {
    execFileSync('chattr', ['-i', wal]);
  }
  const events = await stage.herd.verb(['events', '--json'], 5000);
  const refused = events.stdout.includes('attempt.refused') ? 'tried and refused' : 'was not asked';
  const late = await after(stage);
  const detail = `${preferred} ${refused}, ${now ?? 'nobody'} was promoted`;
  return { faultMs, rejoinMs: late.rejoinMs, wrong: [...wrong, ...late.wrong], detail };
}

export const promoteFails: Scenario = {
  name: 'promote-fails',
  about: 'the preferred candidate cannot write its new timeline (immutable pg_wal): another one is promoted',
  expect: { outageMs: 20_000, clientErrors: null, lostRows: null, rejoinMs: null },
  priorities: { n1: 200, n2: 150, n3: 100 },
  run: (stage) => promoteElsewhere(stage, () => Promise.resolve({ rejoinMs: null, wrong: [] })),
};

export const promoteFailsQuorum: Scenario = {
  ...promoteFails,
  name: 'promote-fails-quorum',
  about: `quorum mode: ${promoteFails.about}, with every acknowledged row`,
  expect: { outageMs: 20_000, clientErrors: null, lostRows: 0, rejoinMs: 15_000 },
  spec: { durability: { mode: 'quorum', k: 1 } },
  run: async (stage) => {
    const early = await expectProtection(stage, { voters: 2, limitMs: 20_000 });
    const seen = await promoteElsewhere(stage, async () => {
      const rejoin = await expectRejoin(stage, { node: stage.primary, fromMs: bootHost(stage, stage.primary) });
      return { ...rejoin, wrong: [...rejoin.wrong, ...(await expectProtection(stage, { voters: 2, limitMs: 30_000 }))] };
    });
    return { ...seen, wrong: [...early, ...seen.wrong] };
  },
};
