import { monoMs } from '../../src/base/clock.ts';
import type { Scenario } from '../scenario.ts';
import { bootHost, calm, expectProtection, expectRejoin, expectServing, killNode, protection } from '../steps.ts';

/** Long enough that an adaptive cluster would have lowered its protection many times. */
const WATCHED_MS = 10_000;
/** A row whose standby had it when the host was killed may be acknowledged this much later; nothing else may. */
const ON_ITS_WAY_MS = 250;

export const strict: Scenario = {
  name: 'strict',
  about:
    'quorum mode, strict: everything on both standbys is killed: writes wait and are never acknowledged, show says so, and one that returns is enough',
  expect: { outageMs: null, clientErrors: null, lostRows: 0, rejoinMs: 15_000 },
  spec: { durability: { mode: 'quorum', k: 1, strict: true } },
  run: async (stage) => {
    const wrong = [...(await expectProtection(stage, { voters: 2, limitMs: 20_000 }))];
    const [first, second] = stage.standbys;
    const faultMs = monoMs();
    for (const node of stage.standbys) killNode(stage, node);
    await calm(WATCHED_MS);
    const backMs = monoMs();
    const alone = stage.recording.events.filter((event) => event.kind === 'ack' && event.atMs > faultMs + ON_ITS_WAY_MS && event.atMs < backMs);
    if (alone.length > 0) wrong.push(`${alone.length} rows were acknowledged without a standby`);
    const left = await protection(stage);
    if (left === null || left.k !== 1 || left.lowered !== null) wrong.push(`protection was lowered: ${JSON.stringify(left)}`);
    const shown = await stage.herd.show();
    const said = shown?.problems.find((one) => one.code === 'cluster.writes-wait');
    if (said === undefined) wrong.push('show does not say that writes wait');
    if (shown?.primary !== stage.primary) wrong.push(`the primary is ${shown?.primary ?? 'unknown'}`);
    bootHost(stage, first);
    const served = await expectServing(stage, { afterMs: backMs });
    const goOnMs = stage.recording.events.find((event) => event.kind === 'ack' && event.atMs > backMs)?.atMs ?? backMs;
    const rejoin = await expectRejoin(stage, { node: first, fromMs: backMs });
    bootHost(stage, second);
    wrong.push(...served, ...rejoin.wrong, ...(await expectProtection(stage, { voters: 2, limitMs: 30_000 })));
    const after = await stage.herd.show();
    if (after?.problems.some((one) => one.code === 'cluster.writes-wait') !== false) wrong.push('show still says that writes wait');
    const detail = `${said?.text ?? 'show said nothing'} Writes went on ${Math.round(goOnMs - backMs)} ms after ${first} was started`;
    return { faultMs, rejoinMs: rejoin.rejoinMs, wrong, detail };
  },
};
