import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { existsSync, readFileSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { findBinDirectory } from '../../src/agent/postgres/instance.ts';
import { findUser } from '../../src/agent/postgres/os-user.ts';
import { waitHealthy } from '../../src/demo/processes.ts';
import { eventually } from '../server/harness.ts';
import { startSmallHerd } from './small-herd.ts';

test('a standby that somebody promotes with pg_ctl is fenced and quarantined, the primary goes on, and a rejoin takes it back with what it held set aside (H20, I1, Q9, Z52)', async (t) => {
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
  const problem = await eventually(
    'the timeline that nobody ordered is told',
    async () => (await herd.show())?.nodes.find((node) => node.id === standby)?.problems.find((one) => one.code === 'node.diverged') ?? null,
    20_000,
  );
  assert.match(`${problem.text} ${problem.remedy}`, new RegExp(`node (rejoin|rebuild) ${standby}`));
  assert.match((await herd.verb(['events', '--json'])).stdout, /standby\.quarantined/);
  assert.equal(herd.postmaster(standby), null, 'it is never started again by itself');

  // What `show` says is done, and takes it back, whichever rung it needs: a rewind, or a copy where pg_rewind would not see the new timeline.
  assert.match(problem.remedy, new RegExp(`"pgherd node rejoin ${standby}"`));
  const back = await herd.verb(['node', 'rejoin', standby, '--yes'], 90_000);
  assert.equal(back.code, 0, back.stderr);
  assert.ok(await waitHealthy(herd, 30_000), JSON.stringify(await herd.show()));
  const kept = ['saved', 'diverged'].flatMap((name) => filesIn(join(herd.places.state(standby), name)));
  assert.ok(kept.length > 0, 'what it held is kept');
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

function filesIn(directory: string): readonly string[] {
  return existsSync(directory) ? readdirSync(directory) : [];
}
