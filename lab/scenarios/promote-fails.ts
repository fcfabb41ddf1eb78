import { execFileSync } from 'node:child_process';
import { monoMs } from '../../src/base/clock.ts';
import type { Scenario } from '../scenario.ts';
import { calm, expectTakeover } from '../steps.ts';

export const promoteFails: Scenario = {
  name: 'promote-fails',
  about: 'the preferred candidate cannot write its new timeline (immutable pg_wal): another one is promoted',
  expect: { outageMs: 20_000, clientErrors: null, lostRows: null, rejoinMs: null },
  priorities: { n1: 200, n2: 150, n3: 100 },
  run: async (stage) => {
    const [preferred] = stage.standbys;
    const wal = `${stage.herd.places.data(preferred)}/pg_wal`;
    execFileSync('chattr', ['+i', wal]);
    try {
      const faultMs = monoMs();
      stage.network.killAll(stage.primary);
      const wrong = await expectTakeover(stage, { faultMs, victim: stage.primary });
      await calm();
      const now = await stage.writableNode();
      return { faultMs, rejoinMs: null, wrong, detail: `${preferred} could not be promoted, ${now ?? 'nobody'} was` };
    } finally {
      execFileSync('chattr', ['-i', wal]);
    }
  },
};
