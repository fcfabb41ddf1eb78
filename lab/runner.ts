/** Runs one scenario once, from nothing to nothing. */
import { join } from 'node:path';
import { monoMs } from '../src/base/clock.ts';
import { checkHistory } from '../src/demo/check.ts';
import { waitUntil } from '../src/demo/children.ts';
import { readRows } from '../src/demo/recording.ts';
import { type ResultLine, type Scenario, type StoreKind, brokenRun, judgeRun } from './scenario.ts';
import { ROOT, type Stage, openStage } from './stage.ts';
import { renderRun } from './table.ts';
import { saveRun } from './timeline.ts';

/** The final primary answers by now, or it is part of the verdict that there is none. */
const FINAL_PRIMARY_MS = 10_000;

export async function runScenario(
  scenario: Scenario,
  options: {
    readonly keep: boolean;
    readonly store?: StoreKind | undefined;
    readonly lengthMs?: number | undefined;
    readonly say: (line: string) => void;
  },
): Promise<ResultLine> {
  const { keep, say } = options;
  let stage: Stage;
  try {
    stage = await openStage({
      spec: scenario.spec ?? {},
      nodes: scenario.nodes ?? 3,
      priorities: scenario.priorities ?? {},
      locations: scenario.locations ?? {},
      witness: scenario.witness ?? null,
      proxies: scenario.proxies ?? 0,
      pooling: scenario.pooling ?? {},
      store: options.store ?? scenario.store ?? 'embedded',
      spareEtcd: scenario.spareEtcd ?? false,
      spareServer: scenario.spareServer ?? false,
      fencing: scenario.fencing ?? null,
      disks: scenario.disks ?? null,
      storeDisks: scenario.storeDisks ?? null,
      clocks: scenario.clocks ?? null,
      firewall: scenario.firewall ?? 'auto',
      lengthMs: options.lengthMs ?? null,
      keep,
      say,
    });
  } catch (error) {
    return brokenRun(scenario, messageOf(error));
  }
  let line: ResultLine;
  try {
    say(`${scenario.name}: ${scenario.about}`);
    line = await measure(scenario, stage);
  } catch (error) {
    line = brokenRun(scenario, messageOf(error));
  }
  if (!line.ok) keepLogs(stage, line, say);
  try {
    await stage.close();
    return line;
  } catch (error) {
    return { ...line, ok: false, detail: `${line.detail}; ${messageOf(error)}` };
  }
}

async function measure(scenario: Scenario, stage: Stage): Promise<ResultLine> {
  const seen = await scenario.run(stage);
  await stage.recording.stop();
  const endMs = monoMs();
  let final: string | null = null;
  await waitUntil(async () => {
    final = await stage.writableNode();
    return final !== null;
  }, FINAL_PRIMARY_MS);
  const present = final === null ? null : await readRows(stage.herd, final, stage.recording.run);
  const verdict = checkHistory(stage.recording.events, { faultMs: seen.faultMs, endMs, present });
  return judgeRun(scenario, verdict, { ...seen, detail: [`final primary ${final ?? 'none'}`, seen.detail].filter((text) => text !== '').join('; ') });
}

/** Below the folder that git ignores; the next bad run of the same name replaces it. */
function keepLogs(stage: Stage, line: ResultLine, say: (text: string) => void): void {
  const target = join(ROOT, '.pgherd', 'lab', line.scenario);
  saveRun({ target, logs: stage.herd.places.logs, events: stage.recording.events, summary: renderRun(line) });
  say(`what happened in this run is kept in ${target}`);
}

function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
