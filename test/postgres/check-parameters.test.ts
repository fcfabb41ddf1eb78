import assert from 'node:assert/strict';
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { createParameterCheck } from '../../src/agent/postgres/check-parameters.ts';
import { createLab } from './harness.ts';

const lab = createLab();
after(() => lab.close());
const instance = await lab.node('n1');

test("PostgreSQL's own parser names every parameter that it would refuse, and no other", async () => {
  const { check } = createParameterCheck(instance);
  const checked = await check({
    work_mem: 'banana',
    no_such_parameter: '1',
    max_connections: 'many',
    server_version: '3',
    search_path: 'a b',
    // Right ones: a quote, a unit, a setting of an extension that is not loaded, upper case.
    log_line_prefix: "%m 'x' ",
    maintenance_work_mem: '64MB',
    'some.extension': 'on',
    Random_Page_Cost: '1.1',
  });
  assert.ok(checked.ok);
  assert.deepEqual(
    checked.value.map((one) => one.name),
    ['work_mem', 'no_such_parameter', 'max_connections', 'server_version', 'search_path'],
  );
  assert.equal(checked.value[0]?.why, 'invalid value for parameter "work_mem": "banana"');
  assert.equal(checked.value[1]?.why, 'unrecognized configuration parameter "no_such_parameter"');
  assert.equal(checked.value[4]?.why, 'invalid value for parameter "search_path": "a b"; List syntax is invalid');
});

test('what it takes is said in one look, questions at the same time do not disturb each other, and nothing is left behind', async () => {
  const { check } = createParameterCheck(instance);
  const answers = await Promise.all([check({ work_mem: '4MB' }), check({ work_mem: 'x' }), check({}), check({ work_mem: '4MB' })]);
  assert.deepEqual(
    answers.map((one) => (one.ok ? one.value.map((refused) => refused.name) : one.error)),
    [[], ['work_mem'], [], []],
  );
  assert.equal(existsSync(join(instance.socketDirectory, 'parameter-check')), false);
});

test('a program that cannot be run is no word on the parameters', async () => {
  const checked = await createParameterCheck({ ...instance, binDirectory: '/nonexistent' }).check({ work_mem: '4MB' });
  assert.equal(checked.ok, false);
});
