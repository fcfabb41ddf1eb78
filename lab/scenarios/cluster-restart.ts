import { monoMs } from '../../src/base/clock.ts';
import type { Scenario } from '../scenario.ts';
import { bootHost, calm, expectServing, explanation, waitShowHealthy } from '../steps.ts';
import { NODES, type Stage } from '../stage.ts';

const HEALTHY_MS = 30_000;

async function verb(stage: Stage, args: readonly string[]): Promise<readonly string[]> {
  const done = await stage.herd.verb(args, 60_000);
  if (done.code === 0) return [];
  return [`${args.join(' ')} ended with ${done.code}: ${done.stderr.trim().slice(-500)}`, ...(await explanation(stage))];
}

export const clusterRestart: Scenario = {
  name: 'cluster-restart',
  about: 'everything is stopped on request, every agent is started anew, everything is started again; then a restart of everything; no row is lost',
  expect: { outageMs: null, clientErrors: null, lostRows: 0, rejoinMs: null },
  run: async (stage) => {
    const faultMs = monoMs();
    const wrong = [...(await verb(stage, ['cluster', 'stop', '--yes']))];
    for (const node of NODES) if (stage.herd.postmaster(node) !== null) wrong.push(`PostgreSQL of ${node} still runs after cluster stop`);
    // The hosts go down for maintenance, and their agents come back: nothing may start by itself.
    for (const node of NODES) stage.network.killAll(node);
    for (const node of NODES) bootHost(stage, node);
    await calm(4000);
    for (const node of NODES)
      if (stage.herd.postmaster(node) !== null) wrong.push(`PostgreSQL of ${node} was started although the cluster is stopped`);
    const startedMs = monoMs();
    wrong.push(...(await verb(stage, ['cluster', 'start'])));
    wrong.push(...(await expectServing(stage, { afterMs: startedMs })));
    if (!(await waitShowHealthy(stage, HEALTHY_MS))) wrong.push('the cluster is not healthy after cluster start');
    await calm();
    const restartMs = monoMs();
    wrong.push(...(await verb(stage, ['cluster', 'restart', '--yes'])));
    const restarted = Math.round(monoMs() - restartMs);
    wrong.push(...(await expectServing(stage, { afterMs: monoMs() })));
    if (!(await waitShowHealthy(stage, HEALTHY_MS))) wrong.push('the cluster is not healthy after cluster restart');
    await calm();
    return { faultMs, rejoinMs: null, wrong, detail: `the restart of everything took ${restarted} ms` };
  },
};
