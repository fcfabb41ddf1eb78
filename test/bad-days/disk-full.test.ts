import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { chownSync, mkdirSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { cloneFrom } from '../../src/agent/postgres/clone.ts';
import { incompleteReason } from '../../src/agent/postgres/data-directory.ts';
import { createObserver } from '../../src/agent/postgres/observe.ts';
import { startPostgres } from '../../src/agent/postgres/start.ts';
import { createLab, createPrimary, must, settings, sql, until } from '../postgres/harness.ts';

test('a disk that fills up during a clone: the error says so, the half copy is never started, and with space the clone goes through (Q23, Z48)', async () => {
  assert.equal(process.getuid?.(), 0, 'needs root to mount a small file system');
  const lab = createLab();
  const disk = join(lab.root, 'disk');
  mkdirSync(disk);
  let mounted = false;
  try {
    const primary = await lab.node('n1');
    await createPrimary(primary);
    const dataBytes = await sql(primary, async (run) =>
      Number((await run.query('SELECT sum(pg_tablespace_size(oid))::float8 AS n FROM pg_tablespace'))[0]?.['n']),
    );
    // Enough for what the check counts (the tables), not for the WAL that comes with them.
    const size = Math.ceil(dataBytes * 1.05) + 6 * 1_048_576;
    execFileSync('mount', ['-t', 'tmpfs', '-o', `size=${size}`, 'tmpfs', disk]);
    mounted = true;
    const node = await lab.node('n2');
    if (node.os !== null) chownSync(disk, node.os.uid, node.os.gid);
    const standby = { ...node, dataDirectory: join(disk, 'data') };
    const upstream = { node: primary.node, host: '127.0.0.1', port: primary.port };
    const clone = () => cloneFrom(standby, { upstream, settings, systemIdentifier: null, keepSaved: 1 });
    const observer = createObserver(standby, { members: () => [], busy: () => null });
    try {
      const full = await clone();
      assert.ok(!full.ok);
      assert.equal(full.error.code, 'clone.failed');
      assert.match(full.error.cause, /No space left on device/);
      assert.equal(full.error.retryable, true);
      assert.equal(await incompleteReason(standby), 'clone');
      assert.equal((await observer.observe()).state, 'incomplete');
      const started = await startPostgres(standby, { mode: 'standby' });
      assert.ok(!started.ok, 'a half copy must not be started');

      execFileSync('mount', ['-o', `remount,size=${size + 256 * 1_048_576}`, disk]);
      must(await clone());
      assert.equal(await incompleteReason(standby), null);
      must(await startPostgres(standby, { mode: 'standby' }));
      await until('n2 streams', () =>
        sql(primary, async (run) => (await run.query("SELECT 1 FROM pg_stat_replication WHERE state = 'streaming'")).length === 1),
      );
      assert.ok(!readdirSync(disk).includes('data.saved'), 'a half copy is not kept as if it were data');
    } finally {
      observer.close();
      const { killAll } = await import('../../src/agent/postgres/kill-all.ts');
      assert.deepEqual((await killAll(standby.dataDirectory)).survivors, []);
    }
  } finally {
    if (mounted) execFileSync('umount', [disk]);
    await lab.close();
  }
});

test('a disk that is too small for a clone from the start is refused before anything is moved', async () => {
  const lab = createLab();
  const disk = join(lab.root, 'disk');
  mkdirSync(disk);
  let mounted = false;
  try {
    const primary = await lab.node('n1');
    await createPrimary(primary);
    execFileSync('mount', ['-t', 'tmpfs', '-o', 'size=4m', 'tmpfs', disk]);
    mounted = true;
    const standby = { ...(await lab.node('n2')), dataDirectory: join(disk, 'data') };
    const upstream = { node: primary.node, host: '127.0.0.1', port: primary.port };
    const refused = await cloneFrom(standby, { upstream, settings, systemIdentifier: null, keepSaved: 1 });
    assert.ok(!refused.ok);
    assert.equal(refused.error.code, 'clone.no-space');
    assert.match(refused.error.cause, /\d+ MiB are needed .* \d+ MiB are free/);
    assert.deepEqual(readdirSync(disk), []);
  } finally {
    if (mounted) execFileSync('umount', [disk]);
    await lab.close();
  }
});
