import { monoMs } from '../../src/base/clock.ts';
import { quote } from '../../src/demo/recorder.ts';
import type { RowReaderConfig, RowReaderReport } from '../row-reader.ts';
import type { Scenario } from '../scenario.ts';
import { calm, expectProtection, expectServing } from '../steps.ts';
import type { Stage } from '../stage.ts';
import { startOnClient } from '../through-proxy.ts';

/** The rows that are sent meanwhile wait for a standby. */
const CUT_MS = 1500;
/** Crash recovery of a small cluster takes less than one second. */
const CLOSED_MS = 8000;

/** Null: the node does not answer. */
async function highestRow(stage: Stage, node: string): Promise<number | null> {
  try {
    const text = `select coalesce(max(n), 0)::int as n from recorder where run = ${quote(stage.recording.run)}`;
    const [row] = await stage.herd.sql(node, text, stage.herd.login.database);
    return Number(row?.['n']);
  } catch {
    // Starting, or gone: that is the answer.
    return null;
  }
}

/**
 * A crash ends the waiting of commits that no standby has, and recovery shows them: nobody may read them before enough voters hold them (I8).
 * Every process is killed at once: a session that outlives its postmaster for a moment could show a row that PostgreSQL itself gave up waiting for.
 */
export const crashInPlaceQuorum: Scenario = {
  name: 'crash-in-place-quorum',
  about:
    "quorum mode, strict, `onCrash: restart`: the primary's link to its standbys is cut, and its PostgreSQL killed: what the crash released is shown to nobody before a standby has it",
  expect: { outageMs: null, clientErrors: null, lostRows: 0, rejoinMs: null },
  spec: { durability: { mode: 'quorum', k: 1, strict: true }, onCrash: 'restart' },
  run: async (stage) => {
    const { herd, primary, standbys } = stage;
    const wrong = [...(await expectProtection(stage, { voters: 2, limitMs: 20_000 }))];
    const target = herd.targets.find((one) => one.node === primary);
    if (target === undefined) throw new Error(`${primary} is no target`);
    const config: RowReaderConfig = { run: stage.recording.run, target, login: herd.login };
    const reader = startOnClient(stage, 'row-reader.ts', config);
    await calm();
    stage.separate(primary, standbys);
    await calm(CUT_MS);
    const held = Math.max(...(await Promise.all(standbys.map((node) => highestRow(stage, node)))).map((n) => n ?? 0));
    const faultMs = monoMs();
    stage.signalPostgres(primary, 'SIGKILL');
    await calm(CLOSED_MS);
    const recovered = await highestRow(stage, primary);
    const said = (await herd.show())?.problems.find((one) => one.code === 'cluster.no-primary');
    if (said === undefined) wrong.push('show does not say that the primary is closed');
    const healMs = monoMs();
    stage.network.heal();
    wrong.push(...(await expectServing(stage, { afterMs: healMs })));
    const now = await herd.show();
    if (now?.primary !== primary || now.term !== 1) wrong.push(`term ${now?.term} of ${now?.primary} instead of term 1 of ${primary}`);
    await calm();
    reader.end();
    const output = await reader.output;
    const { seen } = output === '' ? { seen: [] } : (JSON.parse(output) as RowReaderReport);
    const early = seen.filter((one) => one.atMs < healMs && one.highest > held);
    if (early.length > 0)
      wrong.push(`a reader saw row ${early[0]?.highest} ${Math.round((early[0]?.atMs ?? 0) - faultMs)} ms after the crash, standbys had ${held}`);
    // Else nothing was proved.
    if (recovered === null || recovered <= held)
      wrong.push(`the crash released no row: the primary has ${recovered ?? 'not answered'}, its standbys ${held}`);
    if (!seen.some((one) => one.atMs < faultMs && one.highest > 0) || !seen.some((one) => one.atMs > healMs && one.highest > held))
      wrong.push('the reader did not read before and after');
    const opened = seen.find((one) => one.atMs > healMs)?.atMs ?? null;
    const detail = `${(recovered ?? held) - held} rows were released by the crash; ${opened === null ? 'it never opened' : `it opened ${Math.round(opened - healMs)} ms after the link was back`}; meanwhile: ${said?.text ?? 'nothing was said'}`;
    return { faultMs, rejoinMs: null, wrong, detail };
  },
};
