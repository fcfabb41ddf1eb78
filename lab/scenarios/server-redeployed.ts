/** The only server's host is gone for good. The server is deployed on another host, from a copy of its directory and a backup of its store. */
import { cpSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { parse, stringify } from 'yaml';
import { monoMs } from '../../src/base/clock.ts';
import { startRole, waitUntil } from '../../src/demo/children.ts';
import type { Scenario } from '../scenario.ts';
import { embeddedStore } from '../stage.ts';
import { backUpStore, calm, expectProtection, expectServing, expectTakeover } from '../steps.ts';

const START_MS = 20_000;
const HEALTHY_MS = 30_000;
const GONE_MS = 8000;

export const serverRedeployed: Scenario = {
  name: 'server-redeployed',
  about:
    "the only server's host is lost for good; a new server elsewhere gets its directory and a backup of its store: no error, no failover, then one that is due",
  expect: { outageMs: 2500, clientErrors: null, lostRows: 0, rejoinMs: null },
  spec: { durability: { mode: 'quorum', k: 1 } },
  spareServer: true,
  run: async (stage) => {
    const { herd, network } = stage;
    const wrong = [...(await expectProtection(stage, { voters: 2, limitMs: 20_000 }))];
    const backup = await backUpStore(stage);
    const before = await herd.show();
    // What a nightly copy of the directory holds; the store itself comes from its backup.
    const directory = join(herd.plan.directory, 'server-b');
    cpSync(herd.places.server, directory, { recursive: true, filter: (source) => !/store\.db/.test(source) });

    const lostMs = monoMs();
    network.killAll(stage.serverHost);
    network.unplug(stage.serverHost);
    await calm(GONE_MS);
    const address = network.address(stage.proxyHost);
    const config = join(herd.plan.directory, 'server-b.yaml');
    const old = parse(readFileSync(herd.places.serverConfig, 'utf8')) as Record<string, unknown>;
    const listen = { host: address, port: 8433 };
    writeFileSync(config, stringify({ ...old, listen, dataDirectory: directory, store: embeddedStore(address, []) }));
    const inside = network.inside(stage.proxyHost);
    const logFile = join(herd.places.logs, 'server-b.log');
    startRole({ inside, argv: [...herd.plan.program, 'server', '--config', config], cwd: herd.plan.directory, logFile });
    const verb = (args: readonly string[], limitMs = 10_000): ReturnType<typeof herd.verbOn> =>
      herd.verbOn(
        { inside },
        [...args, '--server', `https://${address}:8433`, '--token-file', herd.places.adminToken, '--ca-file', herd.places.ca],
        limitMs,
      );
    if (!(await waitUntil(async () => (await verb(['clusters', '--json'])).code === 0, START_MS, 200))) wrong.push('the new server did not answer');
    const restored = await verb(['store', 'restore', backup, '--yes'], 30_000);
    if (restored.code !== 0) wrong.push(`store restore: exit code ${restored.code}: ${restored.stderr.trim()}`);
    let last = '';
    const healthy = await waitUntil(
      async () => {
        last = (await verb(['show', '--json', '-c', herd.plan.cluster])).stdout;
        return /"state":\s*"healthy"/.test(last);
      },
      HEALTHY_MS,
      200,
    );
    if (!healthy) wrong.push(`the cluster was not healthy ${HEALTHY_MS} ms after the restore: ${last.slice(0, 600)}`);
    const shown = JSON.parse(last === '' ? '{}' : last) as { term?: number; primary?: string };
    if (shown.term !== before?.term || shown.primary !== before?.primary)
      wrong.push(`term ${before?.term} of ${before?.primary} became term ${shown.term} of ${shown.primary}`);
    wrong.push(...(await expectServing(stage, { afterMs: monoMs(), limitMs: 5000 })));
    const failed = stage.recording.events.filter(
      (event) => (event.kind === 'failed' || event.kind === 'unknown') && event.client === 'recorder' && event.atMs > lostMs,
    );
    if (failed.length > 0) wrong.push(`${failed.length} rows failed while the server was away`);
    await calm(2000);
    const faultMs = monoMs();
    network.unplug(stage.primary);
    wrong.push(...(await expectTakeover(stage, { faultMs, victim: stage.primary })));
    return { faultMs, rejoinMs: null, wrong, detail: "the outage is that of the loss of the primary's host under the new server" };
  },
};
