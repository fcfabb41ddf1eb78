import assert from 'node:assert/strict';
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { monoMs } from '../../src/base/clock.ts';
import { parseLsn } from '../../src/core/lsn.ts';
import { readControlData } from '../../src/agent/postgres/control-data.ts';
import { runInitdb } from '../../src/agent/postgres/initdb.ts';
import { killAll } from '../../src/agent/postgres/kill-all.ts';
import { writeManagedFiles } from '../../src/agent/postgres/managed-files.ts';
import { findPostmaster, findProcesses, isSameProcessAlive, watchPostmaster } from '../../src/agent/postgres/postmaster.ts';
import { setupRoles } from '../../src/agent/postgres/setup-roles.ts';
import { startPostgres } from '../../src/agent/postgres/start.ts';
import { stopPostgres } from '../../src/agent/postgres/stop.ts';
import { readWalEnd } from '../../src/agent/postgres/wal-end.ts';
import { createLab, createPrimary, must, settings, signalServer, sql, until } from './harness.ts';

const lab = createLab();
after(() => lab.close());
const primary = await lab.node('n1');

test('initdb, start and roles make a primary that runs under its own superuser', async () => {
  await createPrimary(primary);
  const rows = await sql(primary, (db) =>
    db.query(
      "SELECT current_user AS me, pg_is_in_recovery() AS recovery, current_setting('restart_after_crash') AS restart, current_setting('cluster_name') AS name, (SELECT count(*)::int FROM pg_roles WHERE rolname IN ('postgres','pgherd_replicator','pgherd_probe')) AS roles",
    ),
  );
  assert.deepEqual(rows[0], { me: 'pgherd', recovery: false, restart: 'off', name: 'n1', roles: 3 });
  assert.equal(must(await setupRoles(primary)).changed, false, 'roles are idempotent');
});

test('standby.signal is there while a primary runs, and does no harm over a checkpoint and a reload', async () => {
  assert.ok(existsSync(join(primary.dataDirectory, 'standby.signal')));
  await sql(primary, async (db) => {
    await db.query('CHECKPOINT');
    await db.query('SELECT pg_reload_conf()');
    await db.query('CREATE TABLE IF NOT EXISTS public.t (id int)');
    const [row] = await db.query('SELECT pg_is_in_recovery() AS recovery');
    assert.equal(row?.['recovery'], false);
  });
  assert.ok(existsSync(join(primary.dataDirectory, 'standby.signal')));
});

test('initdb is refused where data lies (Q24, Q25, H44)', async () => {
  const again = await runInitdb(primary, { checksums: true, settings });
  assert.equal(again.ok ? '' : again.error.code, 'initdb.not-empty');
});

test("managed files are written once; people's lines are kept", async () => {
  assert.deepEqual(must(await writeManagedFiles(primary, settings)).changed, []);
});

test('a start while the server runs is refused', async () => {
  const second = await startPostgres(primary, { mode: 'standby' });
  assert.equal(second.ok ? '' : second.error.code, 'start.running');
});

test('a clean stop names the end of its shutdown checkpoint, which a restart replays nothing after', async () => {
  const stopped = must(await stopPostgres(primary));
  assert.equal(stopped.rung, 'fast');
  assert.equal(stopped.clean, true);
  assert.ok(stopped.shutdownLsn !== null);
  assert.equal(findProcesses(primary.dataDirectory).length, 0);
  const started = must(await startPostgres(primary, { mode: 'standby' }));
  assert.equal(started.role, 'standby');
  const [row] = await sql(primary, (db) => db.query('SELECT pg_last_wal_replay_lsn() AS at'));
  assert.equal(parseLsn(String(row?.['at'])), stopped.shutdownLsn);
  must(await stopPostgres(primary));
  must(await startPostgres(primary, { mode: 'primary', mayStart: () => true }));
});

test('an archiver that does not get on is waited for only so long, and nothing is lost by that (Q30)', async () => {
  await sql(primary, async (db) => {
    await db.query("ALTER SYSTEM SET archive_command = 'sleep 60'");
    await db.query("ALTER SYSTEM SET archive_mode = 'on'");
  });
  must(await stopPostgres(primary));
  must(await startPostgres(primary, { mode: 'primary', mayStart: () => true }));
  await sql(primary, (db) => db.query("SELECT pg_logical_emit_message(true, 'test', 'x'), pg_switch_wal()"));
  await until('the archiver works', () =>
    sql(primary, async (db) => (await db.query("SELECT 1 FROM pg_stat_activity WHERE backend_type = 'archiver'")).length === 1),
  );
  const startedAt = monoMs();
  const stopped = must(await stopPostgres(primary, { fastMs: 20_000 }));
  assert.ok(monoMs() - startedAt < 15_000, `${Math.round(monoMs() - startedAt)} ms`);
  assert.equal(stopped.clean, true);
  assert.ok(stopped.shutdownLsn !== null);
  must(await startPostgres(primary, { mode: 'primary', mayStart: () => true }));
  await sql(primary, async (db) => {
    await db.query('ALTER SYSTEM RESET archive_command');
    await db.query('ALTER SYSTEM RESET archive_mode');
  });
  must(await stopPostgres(primary));
  must(await startPostgres(primary, { mode: 'primary', mayStart: () => true }));
});

test('a primary start is refused without the lease, and standby.signal stays', async () => {
  must(await stopPostgres(primary));
  const refused = await startPostgres(primary, { mode: 'primary', mayStart: () => false });
  assert.equal(refused.ok ? '' : refused.error.code, 'start.refused');
  assert.ok(existsSync(join(primary.dataDirectory, 'standby.signal')));
  must(await startPostgres(primary, { mode: 'primary', mayStart: () => true }));
});

test('a crash is noticed, and the end of WAL is read from the files', async () => {
  const flushed = await sql(primary, async (db) => {
    await db.query('INSERT INTO public.t SELECT generate_series(1, 2000)');
    const [row] = await db.query('SELECT pg_current_wal_flush_lsn() AS at');
    return parseLsn(String(row?.['at']));
  });
  const postmaster = findPostmaster(primary.dataDirectory);
  assert.ok(postmaster !== null);
  const gone = new Promise<number>((resolve) => void watchPostmaster(postmaster, () => resolve(monoMs())));
  const at = monoMs();
  process.kill(postmaster.pid, 'SIGKILL');
  assert.ok((await gone) - at < 2000, 'noticed late');
  await killAll(primary.dataDirectory);
  const end = must(await readWalEnd(primary));
  assert.ok(flushed !== null && end.lsn >= flushed);
  assert.equal(must(await readControlData(primary)).state, 'in production');
  must(await startPostgres(primary, { mode: 'primary', mayStart: () => true }));
});

test('a stopped (SIGSTOP) server is ended completely, by the kill', async () => {
  const postmaster = findPostmaster(primary.dataDirectory);
  assert.ok(postmaster !== null);
  signalServer(primary.dataDirectory, 'SIGSTOP');
  const outcome = must(await stopPostgres(primary));
  assert.equal(outcome.rung, 'kill');
  assert.ok(outcome.durationMs < 2000, `took ${outcome.durationMs} ms`);
  assert.equal(isSameProcessAlive(postmaster), false);
  must(await startPostgres(primary, { mode: 'primary', mayStart: () => true }));
});

test('a postmaster whose data directory was renamed is still found (Z27)', async () => {
  const { renameSync } = await import('node:fs');
  const away = `${primary.dataDirectory}.away`;
  const postmaster = findPostmaster(primary.dataDirectory);
  renameSync(primary.dataDirectory, away);
  assert.equal(findPostmaster(away)?.pid, postmaster?.pid);
  renameSync(away, primary.dataDirectory);
  await until('found again', () => findPostmaster(primary.dataDirectory)?.pid === postmaster?.pid);
});

test('a pid file that names a living stranger is not believed and does not block a start (Z26)', async () => {
  must(await stopPostgres(primary));
  const { writeFileSync } = await import('node:fs');
  writeFileSync(join(primary.dataDirectory, 'postmaster.pid'), `${process.ppid}\n${primary.dataDirectory}\n1\n1\n\n\n\nready\n`);
  assert.equal(findPostmaster(primary.dataDirectory), null);
  must(await startPostgres(primary, { mode: 'standby' }));
});
