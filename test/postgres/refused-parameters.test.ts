import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { createLogger } from '../../src/base/log.ts';
import { createPostgresPort } from '../../src/agent/postgres-port.ts';
import { createParameterCheck } from '../../src/agent/postgres/check-parameters.ts';
import { makeSpec } from '../core/cluster/picture.ts';
import { createLab, must, sql, until } from './harness.ts';

const lab = createLab();
const instance = await lab.node('n1');
const port = createPostgresPort({
  instance,
  parameters: createParameterCheck(instance),
  log: createLogger({ role: 'agent', level: 'error', stream: { write: () => undefined } }),
  spec: () => null,
  closeFirewall: () => Promise.resolve(),
  dropAddresses: () => Promise.resolve(),
});
after(async () => {
  port.close();
  await lab.close();
});

const spec = (parameters: Readonly<Record<string, string>>, hba: readonly string[] = []): ReturnType<typeof makeSpec> =>
  makeSpec([{ id: 'n1', host: '127.0.0.1' }], { postgres: { parameters: { shared_buffers: '16MB', fsync: 'off', ...parameters }, hba } });
const conf = (): string => readFileSync(join(instance.dataDirectory, 'pgherd.conf'), 'utf8');
const setting = async (name: string): Promise<unknown> =>
  (await sql(instance, (db) => db.query(`SELECT current_setting('${name}') AS value`)))[0]?.['value'];

test('a parameter that PostgreSQL refuses keeps it neither from being made nor from starting; the others hold, and the report names it', async () => {
  const wanted = spec({ no_such_parameter: '1', work_mem: 'banana', maintenance_work_mem: '33MB' });
  const { signal } = new AbortController();
  must(await port.initdb(wanted, signal));
  must(await port.startPrimary(wanted, () => true, signal));
  assert.equal(await setting('maintenance_work_mem'), '33MB');
  assert.match(conf(), /^# no_such_parameter is left out: PostgreSQL refuses it\.$/m);
  assert.doesNotMatch(conf(), /^(no_such_parameter|work_mem)/m);
  assert.deepEqual(
    port.problems().map((problem) => `${problem.code} ${problem.text}`),
    [
      'settings.refused PostgreSQL refuses no_such_parameter: unrecognized configuration parameter "no_such_parameter"; it is left out',
      'settings.refused PostgreSQL refuses work_mem: invalid value for parameter "work_mem": "banana"; it is left out',
    ],
  );
});

test('a running server goes on taking over what is right, and the problem ends with its cause', async () => {
  must(await port.observe().then((report) => (report.state === 'running' ? { ok: true as const, value: null } : assert.fail(report.state))));
  must(await port.applySettings(spec({ work_mem: '5MB', statement_timeout: 'soon' })));
  await until('a reload with a refused value beside it', async () => (await setting('work_mem')) === '5MB');
  assert.match(port.problems()[0]?.text ?? '', /^PostgreSQL refuses statement_timeout: invalid value/);
  must(await port.applySettings(spec({ work_mem: '6MB' })));
  await until('the next reload', async () => (await setting('work_mem')) === '6MB');
  assert.deepEqual(port.problems(), []);
});

test('a line of pg_hba.conf that PostgreSQL refuses is left out, whether we see it or only the server does, and a restart finds a file that is right', async () => {
  const seen = 'host all all 10.0.0.0/8 trst';
  const unseen = 'host all all 10.0.0.0/8 scram-sha-256 no_such_option=1';
  const right = 'host app app 10.0.0.0/8 scram-sha-256';
  // Without SSL it matches nobody, and yet is no error: the server starts with it.
  const idle = 'hostssl app app 10.0.0.0/8 scram-sha-256';
  const wanted = spec({}, [seen, unseen, right, idle]);
  must(await port.applySettings(wanted));
  const hba = (): readonly string[] => readFileSync(join(instance.dataDirectory, 'pg_hba.conf'), 'utf8').split('\n');
  assert.ok(hba().includes(right) && hba().includes(idle));
  assert.ok(!hba().includes(seen) && !hba().includes(unseen));
  assert.deepEqual(
    port
      .problems()
      .filter((problem) => problem.text.includes('left out'))
      .map((problem) => problem.text.replace(/^(.*?): .*; it is left out: /, '$1 … ')),
    [`PostgreSQL refuses a line of postgres.hba … ${seen}`, `PostgreSQL refuses a line of postgres.hba … ${unseen}`],
  );
  const { signal } = new AbortController();
  must(await port.stop(wanted, signal));
  must(await port.startPrimary(wanted, () => true, signal));
  assert.deepEqual(
    await sql(instance, (db) => db.query("SELECT error FROM pg_hba_file_rules WHERE error IS NOT NULL AND error NOT LIKE '%cannot match%'")),
    [],
  );
  must(await port.applySettings(spec({}, [right])));
  assert.deepEqual(port.problems(), []);
});
