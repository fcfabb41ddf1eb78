/** A standby behind a standby: moved online, back to the primary by itself when its upstream dies, and through a failover without a missing segment. */
import { monoMs } from '../../src/base/clock.ts';
import { waitUntil } from '../../src/demo/children.ts';
import type { Scenario } from '../scenario.ts';
import type { Stage } from '../stage.ts';
import { bootHost, calm, expectRejoin, expectServing, expectTakeover, waitShowHealthy } from '../steps.ts';

const FOLLOW_LIMIT_MS = 30_000;
/** The upstream is trusted again after five seconds of good order. */
const BACK_LIMIT_MS = 40_000;

interface Shown {
  readonly sync: { readonly voters: readonly string[] };
  readonly nodes: readonly { readonly id: string; readonly upstream: string | null; readonly streaming: boolean }[];
}

async function shown(stage: Stage): Promise<Shown | null> {
  const result = await stage.herd.verb(['show', '--json'], 5000);
  return result.code === 0 ? (JSON.parse(result.stdout) as Shown) : null;
}

async function upstreamOf(stage: Stage, node: string): Promise<string | null> {
  const found = (await shown(stage))?.nodes.find((one) => one.id === node);
  return found?.streaming === true ? found.upstream : null;
}

async function startOf(stage: Stage, node: string): Promise<string> {
  return String((await stage.herd.sql(node, 'select pg_postmaster_start_time()::text as at'))[0]?.['at']);
}

/** Asks for it and looks; returns what is wrong. */
async function follow(stage: Stage, node: string, upstream: string): Promise<readonly string[]> {
  const done = await stage.herd.verb(['node', 'follow', node, '--upstream', upstream, '--timeout', '60s'], 65_000);
  const wrong = done.code === 0 ? [] : [`node follow ended with exit code ${done.code}: ${done.stderr.trim().slice(-600)}`];
  const expected = upstream === 'primary' ? stage.primary : upstream;
  if ((await upstreamOf(stage, node)) !== expected) wrong.push(`${node} streams from ${await upstreamOf(stage, node)}, not from ${expected}`);
  return wrong;
}

export const cascade: Scenario = {
  name: 'cascade',
  about:
    'a standby goes behind another one under synchronous writes, without a restart; the upstream is killed, and it streams from the primary until that one is back',
  spec: { durability: { mode: 'quorum', k: 1 } },
  // The voter that is left dies in the middle: writes wait until protection is lowered.
  expect: { outageMs: 2500, clientErrors: null, lostRows: 0, rejoinMs: 20_000 },
  run: async (stage) => {
    const [upstream, node] = stage.standbys;
    const wrong: string[] = [];
    await waitUntil(async () => ((await shown(stage))?.sync.voters.length ?? 0) === 2, FOLLOW_LIMIT_MS, 100);
    const circle = await stage.herd.verb(['node', 'follow', node, '--upstream', node], 10_000);
    if (circle.code !== 3) wrong.push(`to stream from itself ended with exit code ${circle.code}`);
    const before = await startOf(stage, node);
    const askedMs = monoMs();
    wrong.push(...(await follow(stage, node, upstream)));
    const movedMs = Math.round(monoMs() - askedMs);
    if ((await startOf(stage, node)) !== before) wrong.push(`${node} was restarted`);
    const voters = (await shown(stage))?.sync.voters ?? [];
    if (voters.includes(node)) wrong.push(`commits may wait for ${node}: ${voters.join()}`);
    const senders = await stage.herd.sql(stage.primary, 'select count(*)::int as n from pg_stat_replication');
    if (senders[0]?.['n'] !== 1) wrong.push(`the primary has ${String(senders[0]?.['n'])} walsenders`);
    await calm();
    const faultMs = monoMs();
    stage.network.killAll(upstream);
    const fell = await waitUntil(async () => (await upstreamOf(stage, node)) === stage.primary, FOLLOW_LIMIT_MS, 100);
    const fellMs = Math.round(monoMs() - faultMs);
    if (!fell) wrong.push(`${node} did not fall back to ${stage.primary}`);
    wrong.push(...(await expectServing(stage, { afterMs: faultMs + 500, limitMs: 10_000 })));
    const backMs = bootHost(stage, upstream);
    const rejoin = await expectRejoin(stage, { node: upstream, fromMs: backMs });
    const back = await waitUntil(async () => (await upstreamOf(stage, node)) === upstream, BACK_LIMIT_MS, 200);
    if (!back) wrong.push(`${node} did not go back behind ${upstream}`);
    wrong.push(...rejoin.wrong, ...(await follow(stage, node, 'primary')));
    if ((await startOf(stage, node)) !== before) wrong.push(`${node} was restarted`);
    if (!(await waitShowHealthy(stage, 20_000))) wrong.push('the cluster is not healthy at the end');
    await calm();
    return { faultMs, rejoinMs: rejoin.rejoinMs, wrong, detail: `moved in ${movedMs} ms, fell back after ${fellMs} ms` };
  },
};

export const cascadeFailover: Scenario = {
  name: 'cascade-failover',
  about: 'the primary of a chain dies: the direct standby is promoted and not the one behind it, which follows without a copy',
  spec: { durability: { mode: 'quorum', k: 1 } },
  expect: { outageMs: 4000, clientErrors: null, lostRows: 0, rejoinMs: 30_000 },
  run: async (stage) => {
    const [upstream, node] = stage.standbys;
    const wrong = [...(await follow(stage, node, upstream))];
    await calm();
    const before = await startOf(stage, node);
    const faultMs = monoMs();
    stage.network.killAll(stage.primary);
    wrong.push(...(await expectTakeover(stage, { faultMs, victim: stage.primary })));
    if ((await stage.writableNode()) !== upstream) wrong.push(`${await stage.writableNode()} was promoted, not ${upstream}`);
    if (!(await waitUntil(async () => (await upstreamOf(stage, node)) === upstream, FOLLOW_LIMIT_MS, 100)))
      wrong.push(`${node} does not follow ${upstream}`);
    if ((await startOf(stage, node)) !== before) wrong.push(`${node} was restarted`);
    const backMs = bootHost(stage, stage.primary);
    const rejoin = await expectRejoin(stage, { node: stage.primary, fromMs: backMs });
    wrong.push(...rejoin.wrong);
    if (!(await waitShowHealthy(stage, 20_000))) wrong.push('the cluster is not healthy at the end');
    return { faultMs, rejoinMs: rejoin.rejoinMs, wrong, detail: '' };
  },
};
