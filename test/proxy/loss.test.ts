import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import type { Client } from 'pg';
import { openRawBinding } from '../../src/proxy/io/raw-handle.ts';
import { until } from '../lab/plain-postgres.ts';
import { type ProxyStage, type Servers, openStage, portOf, sqlStateOf, startServers } from './stage.ts';

let servers: Servers;
before(async () => {
  servers = await startServers(23_530);
});
after(async () => {
  await servers.remove();
});

describe('an unplanned loss of the primary', () => {
  let stage: ProxyStage;
  before(async () => {
    stage = await openStage(servers, { io: openRawBinding() });
  });
  after(() => stage.close());

  async function pidOf(client: Client): Promise<number> {
    const { rows } = await client.query<{ pid: number }>('select pg_backend_pid() as pid');
    return rows[0]?.pid ?? 0;
  }

  test('an idle session goes on at the new one without an error', async () => {
    const client = await stage.connect();
    await client.query('select 1');
    stage.route({ writer: null, closed: 'test' });
    const waiting = portOf(client);
    stage.route({ writer: stage.targets.b, closed: null });
    assert.equal(await waiting, servers.b.port);
    stage.route({ writer: stage.targets.a });
  });

  test('a session whose server process was ended while it was idle goes on', async () => {
    const client = await stage.connect();
    await servers.a.query(`select pg_terminate_backend(${await pidOf(client)})`);
    await until(async () => (await servers.a.query("select 1 from pg_stat_activity where application_name = 'x'")).length === 0, 1000);
    assert.equal(await portOf(client), servers.a.port);
  });

  test('an open transaction is answered once with 40001, also in the extended protocol, and the session goes on', async () => {
    for (const next of ['select 1', { text: 'select $1::int', values: [1] }]) {
      const client = await stage.connect();
      await client.query('begin');
      await client.query("insert into seen values ('lost')");
      stage.route({ writer: null, closed: 'test' });
      assert.equal(await sqlStateOf(client.query(next as string)), '40001');
      stage.route({ writer: stage.targets.a, closed: null });
      assert.equal(await portOf(client), servers.a.port);
    }
    assert.equal((await servers.a.query("select 1 from seen where what = 'lost'")).length, 0);
  });

  test('a ROLLBACK of a lost transaction gets what it wants', async () => {
    const client = await stage.connect();
    await client.query('begin');
    stage.route({ writer: null, closed: 'test' });
    assert.equal((await client.query('rollback')).command, 'ROLLBACK');
    stage.route({ writer: stage.targets.a, closed: null });
    assert.equal(await portOf(client), servers.a.port);
  });

  test('a statement whose answer was lost is unknown, and never sent again', async () => {
    const client = await stage.connect();
    const running = sqlStateOf(client.query("insert into seen select 'once' from pg_sleep(0.3)"));
    await until(
      async () =>
        (await servers.a.query("select 1 from pg_stat_activity where query like 'insert into seen select ''once''%' and state = 'active'")).length ===
        1,
      5000,
    );
    stage.route({ writer: null, closed: 'test' });
    assert.equal(await running, '08007');
    stage.route({ writer: stage.targets.a, closed: null });
    await until(
      async () =>
        (await servers.a.query("select 1 from pg_stat_activity where query like 'insert into seen select ''once''%' and state = 'active'")).length ===
        0,
      5000,
    );
    assert.ok((await client.query("select 1 from seen where what = 'once'")).rows.length <= 1);
  });

  test('a statement that only reads has no unknown outcome: it may be run again', async () => {
    const [client, locker] = [await stage.connect(), await stage.connect({ port: servers.a.port })];
    await locker.query('begin');
    await locker.query('lock table seen');
    const running = sqlStateOf(client.query("select 'waits' from seen"));
    const waits = "select 1 from pg_stat_activity where query like 'select ''waits''%' and wait_event_type = 'Lock'";
    await until(async () => (await servers.a.query(waits)).length === 1, 5000);
    stage.route({ writer: null, closed: 'test' });
    assert.equal(await running, '40001');
    await locker.query('rollback');
    stage.route({ writer: stage.targets.a, closed: null });
    assert.equal(await portOf(client), servers.a.port);
  });
});
