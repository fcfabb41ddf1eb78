import { monoMs } from '../../src/base/clock.ts';
import type { Scenario } from '../scenario.ts';
import { calm, explanation, waitShowHealthy } from '../steps.ts';
import { NODES, type Stage } from '../stage.ts';
import { CLIENTS, judgeClients, startProxyClients } from '../through-proxy.ts';

/** Everybody is logged in, and every connection of the proxy is warm. */
const WARM_MS = 3000;
const HEALTHY_MS = 30_000;

/** Sets the parameters, waits until every node knows that it needs a restart, and restarts all of them. Returns what is wrong. */
async function change(stage: Stage, parameters: Readonly<Record<string, string>>): Promise<readonly string[]> {
  const wrong: string[] = [];
  const set = await stage.herd.verb(['settings', 'set', ...Object.entries(parameters).map(([name, value]) => `${name}=${value}`)]);
  if (set.code !== 0) return [`settings set ended with ${set.code}: ${set.stderr.trim().slice(-500)}`];
  const before = await startTimes(stage);
  const verb = await stage.herd.verb(['cluster', 'restart', '--rolling'], 90_000);
  if (verb.code !== 0)
    wrong.push(`cluster restart --rolling ended with ${verb.code}: ${verb.stderr.trim().slice(-500)}`, ...(await explanation(stage)));
  if (!(await waitShowHealthy(stage, HEALTHY_MS))) wrong.push('the cluster is not healthy after the rolling restart');
  const after = await startTimes(stage);
  for (const node of NODES) {
    if (before[node] === after[node]) wrong.push(`${node} was not restarted`);
    for (const [name, value] of Object.entries(parameters)) {
      const [row] = await stage.herd.sql(node, `select current_setting('${name}') as value`);
      if (row?.['value'] !== value) wrong.push(`${name} is ${String(row?.['value'])} on ${node}, not ${value}`);
    }
  }
  return wrong;
}

async function startTimes(stage: Stage): Promise<Readonly<Record<string, string>>> {
  const times: Record<string, string> = {};
  for (const node of NODES) {
    const [row] = await stage.herd.sql(node, 'select pg_postmaster_start_time()::text as started');
    times[node] = String(row?.['started']);
  }
  return times;
}

const RAISED = { max_connections: '160', max_prepared_transactions: '20' } as const;
/** Below what PostgreSQL has when nobody sets them. */
const LOWERED = { max_connections: '80', max_locks_per_transaction: '48' } as const;

function rolling(name: string, about: string, options: { readonly parameters: Readonly<Record<string, string>>; readonly waitMs: number }): Scenario {
  return {
    name,
    about: `${about}, while ${CLIENTS} clients work through a proxy`,
    // The direct recorder loses its connections; what counts here are the clients of the proxy.
    expect: { outageMs: null, clientErrors: null, lostRows: 0, rejoinMs: null },
    proxies: 1,
    run: async (stage) => {
      const clients = startProxyClients(stage, 'p1');
      await calm(WARM_MS);
      const faultMs = monoMs();
      const wrong = await change(stage, options.parameters);
      const tookMs = Math.round(monoMs() - faultMs);
      await calm();
      const seen = await judgeClients(stage, clients, {
        faultMs,
        writeErrors: 0,
        readErrors: 0,
        writeWaitMs: options.waitMs,
        readWaitMs: options.waitMs,
      });
      return { faultMs, rejoinMs: null, wrong: [...wrong, ...seen.wrong], detail: `took ${tookMs} ms; ${seen.detail}` };
    },
  };
}

export const rollingRestart = rolling('rolling-restart', 'settings that need a restart are raised by a rolling restart', {
  parameters: RAISED,
  waitMs: 1000,
});

/** The primary is restarted in place: its clients wait for a stop and a start, and their connections are made anew afterwards. */
export const rollingRestartLower = rolling('rolling-restart-lower', 'settings that no standby may have lower than its primary are lowered', {
  parameters: LOWERED,
  waitMs: 2000,
});
