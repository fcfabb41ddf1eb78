import { monoMs } from '../../src/base/clock.ts';
import { sendSignal } from '../../src/demo/children.ts';
import type { Scenario } from '../scenario.ts';
import { calm, expectRejoin, expectTakeover } from '../steps.ts';

export const postgresHang: Scenario = {
  name: 'postgres-hang',
  about: "SIGSTOP of all processes of the primary's PostgreSQL, SIGCONT later: the frozen one never acknowledges again",
  expect: { outageMs: 6000, clientErrors: null, lostRows: null, rejoinMs: null },
  run: async (stage) => {
    const faultMs = monoMs();
    const frozen = stage.signalPostgres(stage.primary, 'SIGSTOP');
    const wrong = await expectTakeover(stage, { faultMs, victim: stage.primary });
    await calm();
    const thawMs = monoMs();
    const left = frozen.filter((pid) => sendSignal(pid, 'SIGCONT'));
    const rejoin = await expectRejoin(stage, { node: stage.primary, fromMs: thawMs });
    const detail = `${frozen.length} processes frozen, ${left.length} of them still there at SIGCONT`;
    return { faultMs, rejoinMs: rejoin.rejoinMs, wrong: [...wrong, ...rejoin.wrong], detail };
  },
};
