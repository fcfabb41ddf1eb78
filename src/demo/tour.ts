/** The guided tour: each step breaks or changes something, waits until it is well again, and is measured by the recording client. */
import { monoMs, realClock } from '../base/clock.ts';
import type { Verdict } from './check.ts';
import { processesBelow, sendSignal, waitUntil } from './children.ts';
import type { Herd } from './herd.ts';
import { checkReadWriteSplit } from './read-write-split.ts';
import { waitStreaming, writableNode } from './look.ts';
import { joinNode, waitHealthy } from './processes.ts';
import { type Recording, judge, readRows } from './recording.ts';

export interface Step {
  readonly name: string;
  readonly ok: boolean;
  readonly outageMs: number | null;
  readonly clientErrors: number;
  readonly lostRows: number | null;
  readonly detail: string;
}

/** What still counts as held on a loaded small machine; the lab measures against the tight targets. */
const LIMITS = { calmMs: 1000, crashMs: 5000, failoverMs: 10_000, rejoinMs: 30_000, switchoverMs: 2000, healthyMs: 60_000 } as const;
/** Asynchronous replication: rows acknowledged in the last moment of a lost host may be on no standby. More than a tenth of a second of them is wrong. */
const ASYNC_LOSS_ROWS = 10;
/** Enough that each client meets each standby's lag many times. */
const SPLIT = { clients: 8, readsPerWrite: 4, durationMs: 3000 } as const;
/** Undisturbed writing before each fault. */
const CALM_MS = 1000;

interface Seen {
  readonly wrong: readonly string[];
  readonly detail: string;
}

interface TourStep {
  readonly name: string;
  readonly limitMs: number;
  readonly lostRows: number;
  readonly run: (herd: Herd, recording: Recording, primary: string) => Promise<Seen>;
}

/** Ends early after a step that did not hold: the later ones would measure the damage. */
export async function runTour(herd: Herd, recording: Recording, onStep: (step: Step) => void): Promise<readonly Step[]> {
  const steps: Step[] = [];
  let lost = '';
  const all: readonly TourStep[] = [
    { name: 'read-write-split', limitMs: LIMITS.calmMs, lostRows: 0, run: split },
    { name: 'crash', limitMs: LIMITS.crashMs, lostRows: 0, run: crash },
    {
      name: 'failover',
      limitMs: LIMITS.failoverMs,
      lostRows: ASYNC_LOSS_ROWS,
      run: (...args) => {
        lost = args[2];
        return loseNode(...args);
      },
    },
    { name: 'rejoin', limitMs: LIMITS.rejoinMs, lostRows: 0, run: (...args) => rejoin(...args, lost) },
    { name: 'switchover', limitMs: LIMITS.switchoverMs, lostRows: 0, run: switchover },
    { name: 'add-node', limitMs: LIMITS.calmMs, lostRows: 0, run: addNode },
  ];
  for (const step of all) {
    const done = await runStep(herd, recording, step);
    steps.push(done);
    onStep(done);
    if (!done.ok) break;
  }
  return steps;
}

async function runStep(herd: Herd, recording: Recording, step: TourStep): Promise<Step> {
  const fromMs = monoMs();
  await realClock.sleep(CALM_MS);
  const primary = await writableNode(herd);
  if (primary === null)
    return { name: step.name, ok: false, outageMs: null, clientErrors: 0, lostRows: null, detail: 'no single primary before the step' };
  const faultMs = monoMs();
  const seen = await step.run(herd, recording, primary);
  await realClock.sleep(CALM_MS);
  const final = await writableNode(herd);
  const untilMs = monoMs();
  const present = final === null ? null : await readRows(herd, final, recording.run);
  const verdict = judge(recording, { fromMs, untilMs, faultMs, present });
  const wrong = [...seen.wrong, ...judgeStep(step, verdict)];
  return {
    name: step.name,
    ok: wrong.length === 0,
    outageMs: verdict.outageMs,
    clientErrors: verdict.clientErrors,
    lostRows: verdict.lostRows,
    detail: [...wrong, seen.detail].filter((text) => text !== '').join('; '),
  };
}

function judgeStep(step: TourStep, verdict: Verdict): readonly string[] {
  const wrong: string[] = [];
  if (verdict.outageMs === null || verdict.outageMs > step.limitMs)
    wrong.push(`outage ${verdict.outageMs ?? 'unknown'} ms, at most ${step.limitMs} ms are good`);
  if (verdict.lostRows === null) wrong.push('the rows could not be compared with a primary');
  else if (verdict.lostRows > step.lostRows) wrong.push(`${verdict.lostRows} acknowledged rows were lost`);
  if (verdict.doubleWritableMs > 0) wrong.push(`two nodes were writable for ${verdict.doubleWritableMs} ms`);
  if (verdict.staleAckRows > 0) wrong.push(`${verdict.staleAckRows} rows were acknowledged by an old primary`);
  return wrong;
}

/** Clients of the proxy write and read back: every read is as new as the client's own writes, and standbys serve most of them. */
async function split(herd: Herd, _recording: Recording, primary: string): Promise<Seen> {
  const [proxy] = herd.plan.proxies ?? [];
  if (proxy === undefined) return { wrong: ['there is no proxy'], detail: '' };
  const report = await checkReadWriteSplit({
    host: proxy.address,
    port: proxy.splitPort,
    login: herd.login,
    clients: SPLIT.clients,
    readsPerWrite: SPLIT.readsPerWrite,
    durationMs: SPLIT.durationMs,
  });
  const own = report.readsByPort[herd.targets.find((target) => target.node === primary)?.port ?? 0] ?? 0;
  const byStandbys = report.reads - own;
  const wrong = [
    ...(report.errorCount === 0 ? [] : [`${report.errorCount} clients got an error: ${report.errors[0] ?? ''}`]),
    ...(report.stale === 0 ? [] : [`${report.stale} reads were older than the client's own writes`]),
    ...(byStandbys > 0 ? [] : ['no read was served by a standby']),
  ];
  const share = report.reads === 0 ? 0 : Math.round((100 * byStandbys) / report.reads);
  return { wrong, detail: `${report.writes} writes, ${report.reads} reads, ${report.stale} of them stale, ${share} % on standbys` };
}

/** kill -9 of the primary's PostgreSQL; its agent lives. */
async function crash(herd: Herd, recording: Recording, primary: string): Promise<Seen> {
  const faultMs = monoMs();
  const postmaster = herd.postmaster(primary);
  if (postmaster !== null) sendSignal(postmaster, 'SIGKILL');
  const served = await recording.waitServing({ afterMs: faultMs, limitMs: LIMITS.failoverMs * 3 });
  const healthy = await waitHealthy(herd, LIMITS.healthyMs);
  const now = await writableNode(herd);
  const detail =
    now === primary
      ? `PostgreSQL of ${primary} was killed and restarted in place`
      : `PostgreSQL of ${primary} was killed, ${now ?? 'nobody'} took over, ${primary} came back as a standby`;
  return { wrong: [...(served ? [] : ['nobody served writes again']), ...(healthy ? [] : ['the cluster did not become healthy again'])], detail };
}

/** Agent, guard and PostgreSQL of the primary's node are killed at once. */
async function loseNode(herd: Herd, recording: Recording, primary: string): Promise<Seen> {
  const faultMs = monoMs();
  const directory = herd.places.node(primary);
  await waitUntil(
    () => {
      const left = processesBelow(directory);
      for (const pid of left) sendSignal(pid, 'SIGKILL');
      return left.length === 0;
    },
    5000,
    1,
  );
  const served = await recording.waitServing({ afterMs: faultMs, limitMs: LIMITS.failoverMs * 3, otherThan: primary });
  const now = await writableNode(herd);
  return { wrong: served ? [] : ['no other node took over'], detail: `everything of ${primary} was killed, ${now ?? 'nobody'} took over` };
}

/** Only the agent is started again; the rest is its work. */
async function rejoin(herd: Herd, _recording: Recording, _primary: string, lost: string): Promise<Seen> {
  const fromMs = monoMs();
  herd.startAgent(lost);
  const tookMs = await waitStreaming(herd, { node: lost, fromMs, limitMs: LIMITS.rejoinMs });
  const healthy = await waitHealthy(herd, LIMITS.healthyMs);
  return {
    wrong: [
      ...(tookMs === null ? [`${lost} did not stream again within ${LIMITS.rejoinMs} ms`] : []),
      ...(healthy ? [] : ['the cluster did not become healthy again']),
    ],
    detail: tookMs === null ? '' : `${lost} streamed again ${tookMs} ms after its agent was started`,
  };
}

/** A new host joins and is added while the clients write: nobody waits for it, nobody sees an error. */
async function addNode(herd: Herd, recording: Recording, primary: string): Promise<Seen> {
  const [spare] = herd.plan.spares ?? [];
  if (spare === undefined) return { wrong: ['there is no spare host'], detail: '' };
  const fromMs = monoMs();
  const refused = await joinNode(herd, spare);
  if (refused !== null) return { wrong: [`${spare.node} could not join: ${refused.cause}`], detail: '' };
  await waitUntil(async () => (await herd.verb(['node', 'add', spare.node, '--dry-run', '--json'], 5000)).code === 0, LIMITS.rejoinMs, 200);
  const verb = await herd.verb(['node', 'add', spare.node, '--timeout', `${LIMITS.healthyMs / 1000}s`], LIMITS.healthyMs + 5000);
  const tookMs = Math.round(monoMs() - fromMs);
  const wrong = verb.code === 0 ? [] : [`node add ended with exit code ${verb.code}: ${verb.stderr.trim().slice(-600)}`];
  if (!(await waitHealthy(herd, LIMITS.healthyMs))) wrong.push('the cluster did not become healthy with it');
  const errors = judge(recording, { fromMs, untilMs: monoMs(), faultMs: fromMs, present: null }).clientErrors;
  if (errors > 0) wrong.push(`${errors} client errors while it was added`);
  const [rows] = await herd.sql(spare.node, 'select count(*)::int as rows from pg_stat_wal_receiver').catch(() => []);
  if (rows?.['rows'] !== 1) wrong.push(`${spare.node} does not receive`);
  return { wrong, detail: `${spare.node} joined and was added in ${tookMs} ms while ${primary} took writes` };
}

async function switchover(herd: Herd, recording: Recording, primary: string): Promise<Seen> {
  const faultMs = monoMs();
  const verb = await herd.verb(['switchover', '--yes'], 60_000);
  const wrong = verb.code === 0 ? [] : [`the switchover ended with exit code ${verb.code}: ${verb.stderr.trim().slice(-400)}`];
  if (!(await recording.waitServing({ afterMs: faultMs, limitMs: LIMITS.failoverMs, otherThan: primary }))) wrong.push('no other node served writes');
  if (!(await waitHealthy(herd, LIMITS.healthyMs))) wrong.push('the cluster did not become healthy again');
  return { wrong, detail: `${primary} handed over to ${(await writableNode(herd)) ?? 'nobody'}` };
}
