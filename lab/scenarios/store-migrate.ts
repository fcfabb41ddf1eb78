/** The store moves from the server to etcd and back while clients write; then the primary is lost, to see that what was moved still decides. */
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { monoMs } from '../../src/base/clock.ts';
import type { Scenario } from '../scenario.ts';
import { calm, expectProtection, expectServing, expectTakeover, waitShowHealthy } from '../steps.ts';
import type { Stage } from '../stage.ts';

const VERB_MS = 70_000;
const HEALTHY_MS = 30_000;

async function migrate(stage: Stage, args: readonly string[]): Promise<readonly string[]> {
  const before = await stage.herd.show();
  const done = await stage.herd.verb(['store', 'migrate', ...args, '--yes'], VERB_MS);
  if (done.code !== 0) return [`store migrate ${args[0]}: exit code ${done.code}: ${done.stderr.trim()}`];
  stage.say(`${done.stdout.trim()} (${done.durationMs} ms)`);
  await calm(5000);
  const wrong = [...(await expectServing(stage, { afterMs: monoMs(), limitMs: 5000 }))];
  if (!(await waitShowHealthy(stage, HEALTHY_MS))) wrong.push(`after the move to ${args[0]} the cluster was not healthy within ${HEALTHY_MS} ms`);
  const after = await stage.herd.show();
  if (after?.term !== before?.term || after?.primary !== before?.primary)
    wrong.push(`the move to ${args[0]} changed term ${before?.term} of ${before?.primary} to term ${after?.term} of ${after?.primary}`);
  return wrong;
}

export const storeMigrate: Scenario = {
  name: 'store-migrate',
  about: 'the store moves from the server to etcd, and back, under load and with a proxy: no error, no failover; then a host is lost',
  expect: { outageMs: 5000, clientErrors: null, lostRows: 0, rejoinMs: null },
  spec: { durability: { mode: 'quorum', k: 1 } },
  proxies: 1,
  spareEtcd: true,
  run: async (stage) => {
    const { etcd } = stage;
    if (etcd === null) throw new Error('no etcd runs');
    const wrong = [...(await expectProtection(stage, { voters: 2, limitMs: 20_000 }))];
    const beganMs = monoMs();
    const { endpoints, ca, username, passwordFile } = etcd.store;
    const loginFile = join(stage.herd.plan.directory, 'etcd.login');
    writeFileSync(loginFile, `${username}:${readFileSync(passwordFile, 'utf8')}`, { mode: 0o600 });
    const target = ['--endpoints', endpoints.join(','), '--ca', ca, '--login-file', loginFile];
    const rehearsal = await stage.herd.verb(['store', 'migrate', 'etcd', ...target, '--dry-run'], VERB_MS);
    if (rehearsal.code !== 0) wrong.push(`the dry run: exit code ${rehearsal.code}: ${rehearsal.stdout.trim()} ${rehearsal.stderr.trim()}`);
    wrong.push(...(await migrate(stage, ['etcd', ...target])));
    wrong.push(...(await migrate(stage, ['embedded'])));
    const failed = stage.recording.events.filter(
      (event) => event.atMs > beganMs && event.client === 'recorder' && (event.kind === 'failed' || event.kind === 'unknown'),
    );
    if (failed.length > 0) wrong.push(`${failed.length} rows failed while the store moved`);
    const gaps = longestGapMs(stage, beganMs);
    if (gaps > 500) wrong.push(`for ${Math.round(gaps)} ms nothing was acknowledged while the store moved`);
    wrong.push(...(await migrate(stage, ['etcd', ...target])));
    const faultMs = monoMs();
    stage.network.killAll(stage.serverHost);
    stage.network.unplug(stage.primary);
    wrong.push(...(await expectTakeover(stage, { faultMs, victim: stage.primary })));
    return {
      faultMs,
      rejoinMs: null,
      wrong,
      detail: `longest wait of a write while the store moved: ${Math.round(gaps)} ms; the outage is that of the loss of the server's and the primary's hosts, on etcd`,
    };
  },
};

function longestGapMs(stage: Stage, fromMs: number): number {
  let last = fromMs;
  let longest = 0;
  for (const event of stage.recording.events) {
    if (event.client !== 'recorder' || event.kind !== 'ack' || event.atMs < fromMs) continue;
    longest = Math.max(longest, event.atMs - last);
    last = event.atMs;
  }
  return Math.max(longest, monoMs() - last);
}
