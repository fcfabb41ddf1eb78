import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';
import { findBinDirectory } from '../../src/agent/postgres/instance.ts';
import { findUser } from '../../src/agent/postgres/os-user.ts';
import { waitHealthy } from '../../src/demo/processes.ts';
import { eventually } from '../server/harness.ts';
import { startSmallHerd } from './small-herd.ts';

test('a standby that somebody promotes with pg_ctl is fenced by its agent, loses what it took, and streams again; the primary goes on (H20, I1)', async (t) => {
  const herd = await startSmallHerd(t, ['n1', 'n2']);
  const before = await herd.show();
  const primary = before?.primary ?? '';
  const standby = primary === 'n1' ? 'n2' : 'n1';
  await herd.sql(primary, 'CREATE TABLE kept (n int); INSERT INTO kept VALUES (1)');
  const postmaster = herd.postmaster(standby);
  const user = process.getuid?.() === 0 ? findUser('postgres') : null;
  const promoted = spawnSync(`${findBinDirectory()}/pg_ctl`, ['promote', '-W', '-D', herd.places.data(standby)], {
    cwd: '/',
    ...(user === null ? {} : { uid: user.uid, gid: user.gid }),
  });
  assert.equal(promoted.status, 0, promoted.stderr.toString());

  await eventually('the promoted postmaster is gone', () => (herd.postmaster(standby) === postmaster ? null : true), 10_000);
  assert.match(readFileSync(`${herd.places.logs}/${standby}.log`, 'utf8'), /"action":"fence".*no write lease is held/);
  await herd.sql(primary, 'INSERT INTO kept VALUES (2)');
  assert.ok(await waitHealthy(herd, 60_000), JSON.stringify(await herd.show()));
  const after = await herd.show();
  assert.deepEqual([after?.primary, after?.term, after?.timeline], [primary, before?.term, before?.timeline]);
  const rows = await eventually(
    'the standby has both rows',
    async () => {
      const found = await herd.sql(standby, 'SELECT n, pg_is_in_recovery() AS standby FROM kept ORDER BY n');
      return found.length === 2 ? found : null;
    },
    10_000,
  );
  assert.deepEqual(rows, [
    { n: 1, standby: true },
    { n: 2, standby: true },
  ]);
});
