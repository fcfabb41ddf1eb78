import assert from 'node:assert/strict';
import { test } from 'node:test';
import { startSmallHerd } from './small-herd.ts';

test('settings that PostgreSQL does not know or take are refused in its own words, and nothing is written', async (t) => {
  const herd = await startSmallHerd(t, ['n1']);
  const before = await herd.verb(['settings', 'show', '--json']);
  const refused = await herd.verb(['settings', 'set', 'work_mem=banana', 'no_such_parameter=1', 'maintenance_work_mem=64MB', '--json']);
  assert.equal(refused.code, 3, refused.stderr);
  const { error } = JSON.parse(refused.stderr) as { error: { code: string; now: string; problems: { text: string }[] } };
  assert.equal(error.code, 'settings.refused');
  assert.deepEqual(
    error.problems.map((problem) => problem.text),
    ['work_mem: invalid value for parameter "work_mem": "banana"', 'no_such_parameter: unrecognized configuration parameter "no_such_parameter"'],
  );
  assert.equal((await herd.verb(['settings', 'show', '--json'])).stdout, before.stdout);
  const dry = await herd.verb(['settings', 'set', 'work_mem=banana', '--dry-run']);
  assert.equal(dry.code, 3, 'a dry run says it too');
  const right = await herd.verb(['settings', 'set', 'maintenance_work_mem=64MB', 'some.extension=on']);
  assert.equal(right.code, 0, right.stderr);
});
