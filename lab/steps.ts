/** Steps that several scenarios share. */
import { monoMs, realClock } from '../src/base/clock.ts';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { runOnce, waitUntil } from '../src/demo/children.ts';
import { serverUrl } from '../src/demo/herd.ts';
import { killPid } from './network.ts';
import type { Stage } from './stage.ts';

/** Beyond every target: a run that reaches it has failed, and says so. */
export const FAILOVER_LIMIT_MS = 40_000;
export const REJOIN_LIMIT_MS = 60_000;
/** After everything is well again the clients go on for this long, so that late damage is seen. */
export const CALM_MS = 1500;

/** Another node than `victim` serves writes that were sent after `faultMs`. Returns what is wrong, in words. */
export async function expectTakeover(stage: Stage, options: { readonly faultMs: number; readonly victim: string }): Promise<readonly string[]> {
  const { faultMs, victim } = options;
  const served = await stage.recording.waitServing({ afterMs: faultMs, limitMs: FAILOVER_LIMIT_MS, otherThan: victim });
  return served ? [] : [`no other node than ${victim} served writes within ${FAILOVER_LIMIT_MS} ms`, ...(await explanation(stage))];
}

/** The same primary goes on, or serves again. */
export async function expectServing(stage: Stage, options: { readonly afterMs: number; readonly limitMs?: number }): Promise<readonly string[]> {
  const limitMs = options.limitMs ?? FAILOVER_LIMIT_MS;
  const served = await stage.recording.waitServing({ afterMs: options.afterMs, limitMs });
  return served ? [] : [`no node served writes within ${limitMs} ms`, ...(await explanation(stage))];
}

/** Waits until `node` streams, counted from `fromMs`, and stays calm for a while. */
export async function expectRejoin(
  stage: Stage,
  options: { readonly node: string; readonly fromMs: number },
): Promise<{ readonly rejoinMs: number | null; readonly wrong: readonly string[] }> {
  const { node, fromMs } = options;
  const rejoinMs = await stage.waitStreaming(node, { fromMs, limitMs: REJOIN_LIMIT_MS });
  await calm();
  return { rejoinMs, wrong: rejoinMs === null ? [`${node} did not stream again within ${REJOIN_LIMIT_MS} ms`, ...(await explanation(stage))] : [] };
}

export function calm(ms: number = CALM_MS): Promise<void> {
  return realClock.sleep(ms);
}

/** What `explain` says, for the detail of a run; empty when the server does not answer. */
export async function explanation(stage: Stage): Promise<readonly string[]> {
  const answer = await explain(stage);
  return answer === null ? [] : [`explain says ${answer.rule}: ${answer.why}`];
}

export async function explain(stage: Stage): Promise<{ readonly rule: string; readonly why: string } | null> {
  const result = await stage.herd.verb(['explain', '--json'], 5000);
  if (result.code !== 0) return null;
  try {
    const parsed: unknown = JSON.parse(result.stdout);
    if (typeof parsed !== 'object' || parsed === null || !('rule' in parsed) || !('why' in parsed)) return null;
    return { rule: String(parsed.rule), why: String(parsed.why) };
  } catch {
    // Cut off by its limit: as good as no answer.
    return null;
  }
}

/** Everything of the cluster on a host is killed; a member of etcd there lives on, as if it had a host of its own. */
export function killNode(stage: Stage, node: string): void {
  if (stage.etcd === null) {
    stage.network.killAll(node);
    return;
  }
  // Agent first: it would start its guard again, and the guard would end what it guards by itself.
  for (let round = 0; round < 50; round++) {
    const left = stage.network.pids(node).filter((pid) => commandOf(pid) !== 'etcd');
    if (left.length === 0) return;
    for (const pid of left) killPid(pid, 'SIGKILL');
  }
  throw new Error(`processes on ${node} cannot be killed`);
}

/** The program's name; `etcd` too for what is gone or a zombie, since neither is to be killed. */
function commandOf(pid: number): string {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, 'utf8');
    return stat.includes(') Z ') ? 'etcd' : stat.slice(stat.indexOf('(') + 1, stat.lastIndexOf(')'));
  } catch {
    // Gone between the listing and the look: as good as left alone.
    return 'etcd';
  }
}

/** Into the working directory; answers the file. */
export async function backUpStore({ herd }: Stage): Promise<string> {
  const file = join(herd.plan.directory, 'store.backup');
  const saved = await herd.verb(['store', 'backup', file]);
  if (saved.code !== 0) throw new Error(`store backup: ${saved.stderr.trim()}`);
  return file;
}

/** The whole host returns: its agent is started as an init system would. */
export function bootHost(stage: Stage, node: string): number {
  const fromMs = monoMs();
  if (stage.etcd?.running(node) === false) stage.etcd.start(node);
  stage.herd.startAgent(node);
  return fromMs;
}

/** A new primary is known to the server too: `show` is healthy. */
export function waitShowHealthy(stage: Stage, limitMs: number): Promise<boolean> {
  return waitUntil(async () => (await stage.herd.show())?.state === 'healthy', limitMs, 200);
}

/** What `show` says of synchronous replication; null when it does not answer. */
export async function protection(
  stage: Stage,
): Promise<{ readonly k: number; readonly voters: readonly string[]; readonly lowered: string | null } | null> {
  const result = await stage.herd.verb(['show', '--json'], 5000);
  if (result.code !== 0) return null;
  try {
    const shown = JSON.parse(result.stdout) as { sync?: { k?: unknown; voters?: unknown; lowered?: { reason?: unknown } | null } };
    const { sync } = shown;
    if (typeof sync?.k !== 'number' || !Array.isArray(sync.voters)) return null;
    return { k: sync.k, voters: sync.voters.map(String), lowered: sync.lowered == null ? null : String(sync.lowered.reason) };
  } catch {
    // Cut off by its limit: as good as no answer.
    return null;
  }
}

/** Waits until each acknowledged commit is on `k` (default: one) of `voters` standbys. Returns what is wrong, in words. */
export async function expectProtection(
  stage: Stage,
  options: { readonly voters: number; readonly k?: number; readonly limitMs: number },
): Promise<readonly string[]> {
  let last: Awaited<ReturnType<typeof protection>> = null;
  const there = await waitUntil(
    async () => {
      last = await protection(stage);
      return last !== null && last.k >= (options.k ?? 1) && last.voters.length >= options.voters;
    },
    options.limitMs,
    100,
  );
  return there ? [] : [`within ${options.limitMs} ms ${options.k ?? 1} of ${options.voters} voters were not promised: ${JSON.stringify(last)}`];
}

const GET = `const [url] = process.argv.slice(1);
const { LAB_TOKEN, LAB_CA } = process.env;
require('node:https').get(url, { ca: LAB_CA, headers: { authorization: 'Bearer ' + LAB_TOKEN } }, (answer) => answer.pipe(process.stdout)).on('error', (error) => {
  console.error(error.message);
  process.exitCode = 1;
});`;

/** One sample of the server's /metrics, by its name and the beginning of its labels; null when it is not there. */
export async function metric(stage: Stage, sample: string): Promise<number | null> {
  const { plan, places } = stage.herd;
  const env = { LAB_TOKEN: readFileSync(places.adminToken, 'utf8').trim(), LAB_CA: readFileSync(places.ca, 'utf8') };
  const argv = [process.execPath, '-e', GET, `${serverUrl(plan)}/metrics`];
  const answer = await runOnce({ inside: plan.server.inside, argv, cwd: plan.directory, env, limitMs: 5000 });
  const line = answer.stdout.split('\n').find((one) => one.startsWith(sample));
  return line === undefined ? null : Number(line.slice(line.lastIndexOf(' ') + 1));
}
