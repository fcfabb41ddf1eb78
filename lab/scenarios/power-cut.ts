import { monoMs } from '../../src/base/clock.ts';
import type { Scenario } from '../scenario.ts';
import { bootHost, calm, expectServing, explanation, waitShowHealthy } from '../steps.ts';
import { NODES, type Stage } from '../stage.ts';

const HEALTHY_MS = 60_000;
/** Longer than any limit after which a failover would begin. */
const BETWEEN_HOSTS_MS = 8000;

type Host = 'server' | 'primary' | 'first' | 'second';

/** The power of the whole room fails: server, store and every node, at the same moment. */
async function cutPower(stage: Stage): Promise<void> {
  stage.network.killAll(stage.serverHost);
  for (const node of NODES) stage.network.killAll(node);
  await calm(1000);
}

function bootAll(stage: Stage, order: readonly Host[]): Promise<void> {
  const nodes = { primary: stage.primary, first: stage.standbys[0], second: stage.standbys[1] };
  return order.reduce(async (before, host) => {
    await before;
    if (host === 'server') stage.herd.startServer();
    else bootHost(stage, nodes[host]);
    await calm(BETWEEN_HOSTS_MS);
  }, Promise.resolve());
}

function powerCut(name: string, about: string, order: readonly Host[], spec: Readonly<Record<string, unknown>> = {}): Scenario {
  return {
    name,
    about: `the power of everything fails at once; ${about}`,
    expect: { outageMs: null, clientErrors: null, lostRows: 0, rejoinMs: null },
    spec,
    run: async (stage) => {
      const faultMs = monoMs();
      await cutPower(stage);
      await bootAll(stage, order);
      const wrong = [...(await expectServing(stage, { afterMs: faultMs }))];
      const now = await stage.writableNode();
      if (spec['durability'] === undefined && now !== stage.primary) wrong.push(`${now ?? 'nobody'} accepts writes, not ${stage.primary}`);
      if (!(await waitShowHealthy(stage, HEALTHY_MS)))
        wrong.push('the cluster is not healthy after all hosts returned', ...(await explanation(stage)));
      await calm();
      return { faultMs, rejoinMs: null, wrong, detail: `returned in the order ${order.join(', ')}, ${BETWEEN_HOSTS_MS} ms apart` };
    },
  };
}

export const powerCutPrimaryFirst = powerCut('power-cut', 'the primary returns first, the server last', ['primary', 'first', 'second', 'server']);
/** A standby may take over before the primary is back: with quorum commit it has every acknowledged row, whoever returns last. */
export const powerCutPrimaryLast = powerCut(
  'power-cut-primary-last',
  'the server returns first, the primary last; quorum commit',
  ['server', 'first', 'second', 'primary'],
  { durability: { mode: 'quorum', k: 1 } },
);

/** Nobody but the primary surely has the newest rows: it is waited for. */
export const powerCutAsync = powerCut('power-cut-async', 'the server returns first, the primary last; asynchronous, so the primary is waited for', [
  'server',
  'first',
  'second',
  'primary',
]);
