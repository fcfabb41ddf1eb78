import assert from 'node:assert/strict';
import { appendFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { realClock } from '../../src/base/clock.ts';
import { createLogger } from '../../src/base/log.ts';
import { findWeakCommits } from '../../src/agent/postgres/weak-commits.ts';
import { createWeakCommits } from '../../src/agent/weak-commits.ts';
import { createLab, createPrimary, must, sql, until } from './harness.ts';

const lab = createLab();
after(() => lab.close());

test('who commits without waiting for standbys is found: databases, roles, and the line that wins for everybody; not what our own sessions set', async () => {
  const node = await lab.node('n1');
  await createPrimary(node);
  const found = async (): Promise<readonly string[]> =>
    must(await findWeakCommits(node)).map((one) => [one.database ?? '*', one.role ?? '*', one.value, one.file ?? ''].join(' ').trim());
  assert.deepEqual(await found(), []);
  await sql(node, async (db) => {
    for (const text of [
      'CREATE DATABASE log',
      'CREATE ROLE app LOGIN',
      'CREATE ROLE strong LOGIN',
      'ALTER ROLE app SET Synchronous_Commit = OFF',
      'ALTER ROLE strong SET synchronous_commit = remote_apply',
      'ALTER ROLE strong SET work_mem = 64',
      'ALTER ROLE app IN DATABASE log SET synchronous_commit = remote_write',
      'ALTER DATABASE log SET synchronous_commit = local',
    ])
      await db.query(text);
  });
  const owned = ['* app off', 'log * local', 'log app remote_write'];
  assert.deepEqual(await found(), owned);
  // A value of pgherd's own file stands in the cluster's settings too.
  appendFileSync(join(node.dataDirectory, 'pgherd.conf'), 'synchronous_commit = off\n');
  assert.deepEqual(await found(), owned);
  await sql(node, (db) => db.query('ALTER SYSTEM SET synchronous_commit = 0'));
  assert.deepEqual(await found(), ['* * 0 postgresql.auto.conf', ...owned]);
  await sql(node, (db) => db.query('ALTER SYSTEM SET synchronous_commit = on'));
  assert.deepEqual(await found(), owned);

  const log = createLogger({ role: 'agent', level: 'error', stream: { write: () => undefined } });
  const watch = createWeakCommits(node, { clock: realClock, log });
  assert.deepEqual(watch.current('open'), [], 'before the first look');
  await until('the look is done', () => watch.current('open').length === owned.length);
  assert.deepEqual(watch.current('out'), [], 'a node that is no open primary names nobody');
});
