import assert from 'node:assert/strict';
import { after, test } from 'node:test';
import { readWorkload } from '../../src/agent/postgres/workload.ts';
import { withSql } from '../../src/agent/postgres/sql.ts';
import { runInitdb } from '../../src/agent/postgres/initdb.ts';
import { setupRoles } from '../../src/agent/postgres/setup-roles.ts';
import { startPostgres } from '../../src/agent/postgres/start.ts';
import { createLab, must, settings, sql, until } from './harness.ts';

const lab = createLab();
after(() => lab.close());
const instance = await lab.node('n1');
const parameters = { ...settings.parameters, wal_level: 'logical', max_prepared_transactions: '4', archive_mode: 'on', archive_command: 'false' };

test('a quiet server has nothing to say; transactions, prepared ones, logical slots and an archive that takes nothing are counted', async () => {
  must(await runInitdb(instance, { checksums: false, settings: { ...settings, parameters, hba: ['local all app trust'] } }));
  must(await startPostgres(instance, { mode: 'primary', mayStart: () => true }));
  must(await setupRoles(instance));
  assert.deepEqual(must(await readWorkload(instance)), {
    longTransactions: 0,
    longestMs: 0,
    preparedTransactions: 0,
    logicalSlots: [],
    archivingFails: null,
  });
  await sql(instance, async (db) => {
    await db.query("SELECT pg_create_logical_replication_slot('feed', 'pgoutput')");
    await db.query('CREATE ROLE app LOGIN');
    await db.query('SELECT pg_switch_wal()');
  });
  const app = { host: instance.socketDirectory, port: instance.port, user: 'app', database: 'postgres', password: null };
  const held = withSql(app, { limits: { connectMs: 5000, statementMs: 60_000 } }, (db) => db.query('SELECT pg_sleep(60)'));
  await until('all of it is seen', async () => {
    const seen = must(await readWorkload(instance));
    return seen.longTransactions === 1 && seen.longestMs > 2000 && seen.logicalSlots.join() === 'feed' && seen.archivingFails !== null;
  });
  await sql(instance, (db) => db.query("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'app'"));
  assert.equal((await held).ok, false);
});
