import assert from 'node:assert/strict';
import { chmodSync, mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { createLab, must, settings } from '../postgres/harness.ts';
import { runInitdb } from '../../src/agent/postgres/initdb.ts';
import { checkInstallation } from '../../src/agent/postgres/instance.ts';
import { startPostgres } from '../../src/agent/postgres/start.ts';
import { startAgentProcess, temporaryDirectory, writeAgentYaml } from './agent-process.ts';

/** A folder with programs of that name that say that they are this version and do nothing else. */
function fakeInstallation(directory: string, says: string, programs = ['postgres', 'initdb']): string {
  const bin = join(directory, 'bin');
  mkdirSync(bin);
  for (const program of programs) {
    writeFileSync(join(bin, program), `#!/bin/sh\necho '${says}'\n`);
    chmodSync(join(bin, program), 0o755);
  }
  return bin;
}

async function check(t: TestContext, says: string, programs?: string[]) {
  const lab = createLab();
  t.after(() => lab.close());
  const instance = await lab.node('n1');
  const result = await checkInstallation({ ...instance, binDirectory: fakeInstallation(lab.root, says, programs) });
  return result.ok ? result.value : result.error;
}

test('an agent on a host without PostgreSQL ends with 1, the missing programs and what to install', async (t) => {
  const directory = temporaryDirectory(t);
  const agent = startAgentProcess(t, await writeAgentYaml(directory, { kind: 'data', binDirectory: join(directory, 'nothing') }));
  assert.equal(await agent.end(), 1);
  assert.match(agent.log(), /not complete in .*nothing.*missing: postgres, initdb.*install the PostgreSQL server package/s);
});

test('client programs alone are no installation', async (t) => {
  const found = await check(t, 'postgres (PostgreSQL) 15.1', ['psql', 'pg_basebackup']);
  assert.ok('code' in found && found.code === 'postgres.not-installed');
});

test('a PostgreSQL that is too old, and a program that is none, are refused; old minor versions are not', async (t) => {
  const old = await check(t, 'postgres (PostgreSQL) 12.22 (Debian 12.22-1)');
  assert.ok('code' in old && old.code === 'postgres.version');
  assert.match(`${old.what} ${old.remedy}`, /12 is not supported.*13 to 18/);
  const tooNew = await check(t, 'postgres (PostgreSQL) 19beta1');
  assert.ok('code' in tooNew && tooNew.code === 'postgres.version');
  assert.match(
    `${tooNew.what}; ${tooNew.cause}; ${tooNew.remedy}`,
    /19 is not supported; this version of pgherd was tested with 13 to 18.*binDirectory/,
  );
  const strange = await check(t, 'hello');
  assert.ok('code' in strange && strange.code === 'postgres.not-installed');
  assert.match(strange.cause, /unexpected answer "hello"/);
  assert.deepEqual(await check(t, 'postgres (PostgreSQL) 13.0'), { version: 130_000, missing: ['pg_basebackup', 'pg_rewind', 'pg_waldump'] });
});

test('a data directory of another major version is not started, and the error names both versions', async (t) => {
  const lab = createLab();
  t.after(() => lab.close());
  const instance = await lab.node('n1');
  must(await runInitdb(instance, { checksums: false, settings }));
  writeFileSync(join(instance.dataDirectory, 'PG_VERSION'), '13\n');
  const started = await startPostgres(instance, { mode: 'primary', mayStart: () => true });
  assert.ok(!started.ok);
  assert.equal(started.error.code, 'start.failed');
  assert.match(started.error.cause, /initialized by PostgreSQL version 13.*not compatible with this version/);
});
