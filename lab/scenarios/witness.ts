import { monoMs } from '../../src/base/clock.ts';
import type { Scenario } from '../scenario.ts';
import { bootHost, calm, expectRejoin, expectServing, expectTakeover } from '../steps.ts';

const WITNESS = 'n3';

/** `stage.standbys` holds the standby and the witness, in this order: nodes are named in the order of the spec. */
export const witnessFailover: Scenario = {
  name: 'witness-failover',
  about: "two data nodes and a witness: the witness's host is killed and changes nothing; it returns, and the primary's host is killed",
  expect: { outageMs: 5000, clientErrors: null, lostRows: null, rejoinMs: 10_000 },
  witness: WITNESS,
  priorities: { n1: 200 },
  run: async (stage) => {
    const lossMs = monoMs();
    stage.network.killAll(WITNESS);
    await calm(5000);
    const wrong = [...(await expectServing(stage, { afterMs: monoMs(), limitMs: 2000 }))];
    if ((await stage.writableNode()) !== stage.primary) wrong.push('the primary changed with the witness');
    const longest = longestGap(
      stage.recording.events.flatMap((event) => (event.kind === 'ack' && event.client === 'recorder' ? [event.atMs] : [])),
      lossMs,
    );
    if (longest > 500) wrong.push(`writes stood still for ${longest} ms when the witness was lost`);
    bootHost(stage, WITNESS);
    await calm(3000);
    const faultMs = monoMs();
    stage.network.killAll(stage.primary);
    wrong.push(...(await expectTakeover(stage, { faultMs, victim: stage.primary })));
    await calm();
    const rejoin = await expectRejoin(stage, { node: stage.primary, fromMs: bootHost(stage, stage.primary) });
    return { faultMs, rejoinMs: rejoin.rejoinMs, wrong: [...wrong, ...rejoin.wrong], detail: `longest gap without the witness ${longest} ms` };
  },
};

/** The longest time between two acknowledgements after `fromMs`. */
function longestGap(atMs: readonly number[], fromMs: number): number {
  const late = atMs.filter((at) => at >= fromMs);
  return Math.round(late.reduce((most, at, index) => Math.max(most, at - (late[index - 1] ?? fromMs)), 0));
}
