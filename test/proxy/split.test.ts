import assert from 'node:assert/strict';
import { type Socket, connect, createServer } from 'node:net';
import { after, before, beforeEach, describe, test } from 'node:test';
import type { Client, QueryConfig } from 'pg';
import { makeTerm } from '../../src/core/ids.ts';
import { makeLsn } from '../../src/core/lsn.ts';
import { openRawBinding } from '../../src/proxy/io/raw-handle.ts';
import type { Positions } from '../../src/proxy/positions.ts';
import { until } from '../lab/plain-postgres.ts';
import { type ProxyStage, type Servers, openStage, portOf, sqlStateOf, startServers } from './stage.ts';

/** Stands in for the nodes' positions: the test says whether the standby has everything, and up to where. */
const positions = {
  reach: true,
  upTo: makeLsn(100n),
  /** Reads do not wait for a standby that has not everything. */
  tooLate: true,
  /** What happens when somebody waits. */
  onWait: (_onReached: () => void): void => undefined,
};
const asPositions: Positions = {
  want: (waiter) => waiter.onToken({ term: makeTerm(1), lsn: makeLsn(1n) }),
  reached: (_target, token, onReached) => {
    if (positions.reach && token.lsn <= positions.upTo) return true;
    if (onReached !== undefined) positions.onWait(onReached);
    return false;
  },
  late: () => positions.tooLate,
  forget: () => undefined,
};

let servers: Servers;
let stage: ProxyStage;
before(async () => {
  servers = await startServers(23_520);
  for (const server of [servers.a, servers.b]) {
    await server.query(`create function where_am_i() returns int language sql stable as 'select inet_server_port()'`);
    await server.query(`create sequence s; create function liar() returns bigint language sql stable as $$ select nextval('s') $$`);
    await server.query(
      `create function writer() returns int language plpgsql as $$ begin insert into seen values ('writer'); return inet_server_port(); end $$`,
    );
  }
  // The server that plays the standby refuses writes as one does.
  await servers.b.query('alter system set default_transaction_read_only = on');
  await servers.b.query('select pg_reload_conf()');
  await until(async () => (await servers.b.query('show default_transaction_read_only'))[0]?.['default_transaction_read_only'] === 'on', 5000);
});
after(async () => {
  await servers.remove();
});
beforeEach(() => {
  positions.reach = true;
  positions.upTo = makeLsn(100n);
  positions.tooLate = true;
  positions.onWait = () => undefined;
});

async function open(): Promise<{ readonly client: Client; readonly where: () => Promise<'a' | 'b'> }> {
  const client = await stage.connect();
  const where = async (): Promise<'a' | 'b'> => {
    const { rows } = await client.query('select where_am_i() as port');
    return rows[0].port === servers.a.port ? 'a' : 'b';
  };
  // The first read opens the way to the standby and runs on the primary.
  await until(async () => (await where()) === 'b', 5000);
  return { client, where };
}

/** Passes everything on but the end of a connection by the server; what a client sends after that meets a reset, as it does where the server's process is gone. */
async function openRelay(port: number): Promise<{ readonly port: number; readonly ended: () => number; readonly close: () => void }> {
  let ended = 0;
  const sockets = new Set<Socket>();
  const relay = createServer({ allowHalfOpen: true }, (client) => {
    const server = connect({ port, host: '127.0.0.1', allowHalfOpen: true });
    let over = false;
    for (const socket of [client, server]) {
      sockets.add(socket);
      socket.on('error', () => undefined);
    }
    client.on('data', (bytes) => (over ? client.resetAndDestroy() : server.write(bytes)));
    // Whoever understands the last words ends the connection first.
    client.on('close', () => {
      if (!over) ended++;
      server.destroy();
    });
    server.on('data', (bytes) => client.write(bytes));
    server.on('end', () => {
      over = true;
      ended++;
    });
  });
  await new Promise<void>((resolve) => relay.listen(0, '127.0.0.1', resolve));
  const address = relay.address();
  assert.ok(address !== null && typeof address === 'object');
  return {
    port: address.port,
    ended: () => ended,
    close: () => {
      relay.close();
      for (const socket of sockets) socket.destroy();
    },
  };
}

describe('the split port', () => {
  before(async () => {
    stage = await openStage(servers, { io: openRawBinding(), kind: 'split', positions: asPositions });
    stage.route({ readers: [{ ...stage.targets.b, weight: 1, lagBytes: 0 }] });
  });
  after(() => stage.close());

  test('reads go to the standby, writes and everything that is not proven to only read to the primary', async () => {
    const { client, where } = await open();
    assert.equal(await where(), 'b');
    await client.query("insert into seen values ('split')");
    assert.equal((await client.query('select writer() as port')).rows[0].port, servers.a.port);
    assert.equal(await portOf(client), servers.a.port, 'inet_server_port() tells of the server, not of the data');
    for (const sql of [
      'select * from seen for update',
      "with w as (insert into seen values ('w') returning *) select * from w",
      'select nextval($$s$$)',
      'explain analyze select writer()',
    ])
      assert.equal(await sqlStateOf(client.query(sql)), null, sql);
  });

  test('a transaction stays on the primary as a whole', async () => {
    const { client, where } = await open();
    await client.query('begin');
    assert.equal(await where(), 'a');
    await client.query("insert into seen values ('tx')");
    assert.equal(await where(), 'a');
    await client.query('commit');
    await until(async () => (await where()) === 'b', 5000);
  });

  test('what the standby has not replayed is read on the primary', async () => {
    const { where } = await open();
    positions.reach = false;
    assert.equal(await where(), 'a');
    positions.reach = true;
    assert.equal(await where(), 'b');
  });

  test('a read waits a moment for the standby, and then goes to the primary', async () => {
    const { where } = await open();
    positions.tooLate = false;
    positions.reach = false;
    positions.onWait = (onReached) => {
      queueMicrotask(() => {
        positions.reach = true;
        onReached();
      });
    };
    assert.equal(await where(), 'b');
    positions.onWait = () => undefined;
    positions.reach = false;
    assert.equal(await where(), 'a');
  });

  test('a session chooses how old its reads may be, as it chooses any other setting', async () => {
    const { client, where } = await open();
    await client.query('set pgherd.consistency = strong');
    assert.equal(await where(), 'a');
    await client.query("set session pgherd.consistency to 'eventual'");
    positions.reach = false;
    await until(async () => (await where()) === 'b', 5000);
    await client.query('begin; set pgherd.consistency = strong; rollback');
    await until(async () => (await where()) === 'b', 5000);
    await client.query('reset pgherd.consistency');
    assert.equal(await where(), 'a');
    assert.equal(await where(), 'a');
    const other = await stage.connect({ options: '-c pgherd.consistency=eventual' });
    await until(async () => (await other.query('select where_am_i() as port')).rows[0].port === servers.b.port, 5000);
  });

  test('a word that is no consistency is answered with a warning, and read on the primary', async () => {
    const { client, where } = await open();
    const notices: string[] = [];
    client.on('notice', (notice) => void notices.push(`${notice.code} ${notice.message}`));
    await client.query("set pgherd.consistency = 'sometimes'");
    assert.equal(await where(), 'a');
    assert.equal(await where(), 'a');
    assert.equal(notices.length, 1);
    assert.match(notices[0] ?? '', /^22023 .*sometimes/);
  });

  test('a token is shown in both protocols, prepared, pipelined, and in a transaction', async () => {
    const { client } = await open();
    const shown = async (query: string | QueryConfig): Promise<string> => {
      const { rows } = await client.query<Record<string, string>>(query as string);
      return rows[0]?.['pgherd.lsn'] ?? '';
    };
    assert.equal(await shown('show pgherd.lsn'), '1:0/1');
    assert.equal(await shown({ text: 'SHOW pgherd.lsn;', values: [] }), '1:0/1');
    await client.query("select set_config('pgherd.lsn', 'old', false)");
    for (let n = 0; n < 3; n++) {
      assert.equal(await shown({ name: 'token', text: 'show pgherd.lsn' }), '1:0/1');
      await client.query("select set_config('pgherd.lsn', 'old', false)");
    }
    await client.query('begin');
    await client.query("insert into seen values ('token')");
    assert.equal(await shown('show pgherd.lsn'), '1:0/1');
    await client.query('commit');
    await client.query("select set_config('pgherd.lsn', 'old', false)");
    const [, both] = await Promise.all([client.query("insert into seen values ('token')"), shown('show pgherd.lsn')]);
    assert.equal(both, '1:0/1');
  });

  test('a session waits for what another one has shown', async () => {
    const { client, where } = await open();
    await client.query("set pgherd.wait_for_lsn = '1:0/C8'");
    assert.equal(await where(), 'a', 'the standby is at 0/64');
    positions.upTo = makeLsn(0xc8n);
    assert.equal(await where(), 'b');
    await client.query("set pgherd.wait_for_lsn = '2:0/C8'");
    assert.equal(await where(), 'a', 'nobody is known who would have that term');
    await client.query("set pgherd.wait_for_lsn = 'C8'");
    assert.equal(await where(), 'a', 'it is no token');
    await client.query("set pgherd.wait_for_lsn = ''");
    assert.equal(await where(), 'b');
  });

  test('prepared statements work on both, whatever prepared them', async () => {
    const { client } = await open();
    const named = { name: 'here', text: 'select where_am_i() as port, $1::text as v' };
    const first = await client.query({ ...named, values: ['1'] });
    assert.equal(first.rows[0].port, servers.a.port, 'it is prepared where everything is');
    await until(async () => (await client.query({ ...named, values: ['2'] })).rows[0].port === servers.b.port, 5000);
    positions.reach = false;
    assert.equal((await client.query({ ...named, values: ['3'] })).rows[0].port, servers.a.port);
    assert.equal((await client.query('select where_am_i() as port, $1::text as v', ['4'])).rows[0].v, '4');
  });

  test('settings reach the standby', async () => {
    const { client, where } = await open();
    await client.query("set datestyle = 'German'");
    await until(async () => (await where()) === 'b', 5000);
    assert.equal((await client.query("select where_am_i() as port, date '2026-11-21'::text as d")).rows[0].d, '21.11.2026');
  });

  test('a function that is declared harmless and writes is run by the primary after all', async () => {
    const { client, where } = await open();
    assert.equal(await where(), 'b');
    assert.equal(await sqlStateOf(client.query('select liar()')), null);
    assert.equal(await sqlStateOf(client.query('select liar() + $1::int', [1])), null);
    assert.equal(await sqlStateOf(client.query('select 1/0 as n from seen')), '22012');
  });

  test('a session that is SERIALIZABLE reads on the primary, which a standby refuses', async () => {
    const { client } = await open();
    await client.query("set default_transaction_isolation = 'serializable'");
    for (let n = 0; n < 20; n++) assert.equal((await client.query('select count(*)::int >= 0 as good from seen')).rows[0].good, true);
  });

  test('a session with a temporary table stays on the primary until it is gone', async () => {
    const { client, where } = await open();
    await client.query('create temporary table mine (n int)');
    await client.query('select * from mine');
    assert.equal(await where(), 'a');
    await client.query('discard all');
    await until(async () => (await where()) === 'b', 5000);
  });

  test('many statements at once are answered in order', async () => {
    const { client } = await open();
    const wanted = Array.from({ length: 200 }, (_, n) => n);
    const answers = await Promise.all(
      wanted.map(async (n) => {
        if (n % 7 === 0) await client.query("insert into seen values ('order')");
        return (await client.query('select $1::int as n, where_am_i()', [n])).rows[0].n;
      }),
    );
    assert.deepEqual(answers, wanted);
    assert.ok(stage.sessions.reads.standby > 0);
  });

  test('a standby that goes away costs no read, and another one is taken when it is back', async () => {
    const { where } = await open();
    stage.route({ readers: [] });
    assert.equal(await where(), 'a');
    stage.route({ readers: [{ ...stage.targets.b, weight: 1, lagBytes: 0 }] });
    await until(async () => (await where()) === 'b', 5000);
    await servers.b.query("select pg_terminate_backend(pid) from pg_stat_activity where pid <> pg_backend_pid() and backend_type = 'client backend'");
    assert.match(await where(), /a|b/);
    await until(async () => (await where()) === 'b', 5000);
  });

  test('a read that its standby breaks off with a goodbye is run by the primary, although that standby still serves', async () => {
    const { client } = await open();
    const locker = await stage.connect({ port: servers.b.port });
    await locker.query('begin read write; lock table seen');
    const waiting = client.query("select 'told to go' as what, where_am_i() as port from (select count(*) from seen) as rows");
    const reader = "from pg_stat_activity where query like '%told to go%' and wait_event_type = 'Lock'";
    await until(async () => (await servers.b.query(`select 1 ${reader}`)).length === 1, 5000);
    await servers.b.query(`select pg_terminate_backend(pid) ${reader}`);
    assert.equal((await waiting).rows[0].port, servers.a.port);
    await locker.query('rollback');
  });

  test('no read is sent to a standby that has said goodbye and not yet closed the connection', async (t) => {
    const [name, relay] = ["'behind the relay'", await openRelay(servers.b.port)];
    t.after(() => relay.close());
    stage.route({ readers: [{ ...stage.targets.b, port: relay.port, weight: 1, lagBytes: 0 }] });
    const { client, where } = await open();
    await client.query(`set application_name = ${name}`);
    await until(async () => (await where()) === 'b', 5000);
    await servers.b.query(`select pg_terminate_backend(pid) from pg_stat_activity where application_name = ${name}`);
    // The last words have been passed on, the end has not.
    await until(() => relay.ended() > 0, 5000);
    for (let n = 0; n < 5; n++) assert.match(await where(), /a|b/);
    stage.route({ readers: [{ ...stage.targets.b, weight: 1, lagBytes: 0 }] });
  });

  test('a hold leads everything to the next primary', async () => {
    const { client } = await open();
    const before = stage.held.length;
    stage.route({ hold: true, next: stage.targets.b, readers: [] });
    await until(() => stage.held.length > before, 5000);
    const waiting = client.query('select where_am_i() as port');
    stage.route({ hold: false, next: null, writer: stage.targets.b });
    assert.equal((await waiting).rows[0].port, servers.b.port);
    stage.route({ writer: stage.targets.a, readers: [{ ...stage.targets.b, weight: 1, lagBytes: 0 }] });
  });
});
