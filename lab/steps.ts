/** Steps that several scenarios share. */
import { monoMs, realClock } from '../src/base/clock.ts';
import { waitUntil } from '../src/demo/children.ts';
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

/** Waits until each acknowledged commit is on one of `voters` standbys. Returns what is wrong, in words. */
export async function expectProtection(stage: Stage, options: { readonly voters: number; readonly limitMs: number }): Promise<readonly string[]> {
  let last: Awaited<ReturnType<typeof protection>> = null;
  const there = await waitUntil(
    async () => {
      last = await protection(stage);
      return last !== null && last.k >= 1 && last.voters.length >= options.voters;
    },
    options.limitMs,
    100,
  );
  return there ? [] : [`within ${options.limitMs} ms no ${options.voters} voters were promised: ${JSON.stringify(last)}`];
}
