import { monoMs } from '../../src/base/clock.ts';
import { sendSignal } from '../../src/demo/children.ts';
import type { Scenario } from '../scenario.ts';
import { calm, expectRejoin, expectServing } from '../steps.ts';

export const postgresHang: Scenario = {
  name: 'postgres-hang',
  about: "SIGSTOP of all processes of the primary's PostgreSQL, SIGCONT later: the frozen one never acknowledges again",
  expect: { outageMs: 6000, clientErrors: null, lostRows: null, rejoinMs: null },
  run: async (stage) => {
    const faultMs = monoMs();
    const frozen = stage.signalPostgres(stage.primary, 'SIGSTOP');
    // Its host is well: once fenced and started anew, it may be elected itself. What counts is that no frozen process acknowledges.
    const wrong = await expectServing(stage, { afterMs: faultMs });
    const now = await stage.writableNode();
    await calm();
    const thawMs = monoMs();
    const left = frozen.filter((pid) => sendSignal(pid, 'SIGCONT'));
    const detail = `${now ?? 'nobody'} serves; ${frozen.length} processes frozen, ${left.length} of them still there at SIGCONT`;
    await calm();
    if (now === stage.primary || wrong.length > 0) return { faultMs, rejoinMs: null, wrong, detail };
    const rejoin = await expectRejoin(stage, { node: stage.primary, fromMs: thawMs });
    return { faultMs, rejoinMs: rejoin.rejoinMs, wrong: [...wrong, ...rejoin.wrong], detail };
  },
};
