import assert from 'node:assert/strict';
import { connect } from 'node:net';
import { after, before, describe, test } from 'node:test';
import type { Client } from 'pg';
import { openRawBinding } from '../../src/proxy/io/raw-handle.ts';
import { type CancelKey, buildCancel } from '../../src/wire/startup.ts';
import { until } from '../lab/plain-postgres.ts';
import { type ProxyStage, type Servers, openStage, portOf, sqlStateOf, startServers } from './stage.ts';

let servers: Servers;
before(async () => {
  servers = await startServers(23_540);
});
after(async () => {
  await servers.remove();
});

type Mode = 'session' | 'transaction';
const TIMES = { idleMs: 60_000, lifetimeMs: 600_000 };

async function withPool(
  options: { readonly size: number; readonly mode?: Mode; readonly kind?: 'write' | 'read'; readonly waitMs?: number; readonly idleMs?: number },
  run: (stage: ProxyStage) => Promise<void>,
): Promise<void> {
  const { size, mode = 'transaction', idleMs = TIMES.idleMs } = options;
  const stage = await openStage(servers, {
    io: openRawBinding(),
    kind: options.kind ?? 'write',
    waitMs: options.waitMs ?? 10_000,
    pooling: { ...TIMES, idleMs, rules: [{ database: null, user: null, mode, size }] },
  });
  try {
    await run(stage);
  } finally {
    stage.close();
  }
}

function keyOf(client: Client): CancelKey {
  const { processID, secretKey } = client as unknown as { processID: number; secretKey: number };
  const secret = new Uint8Array(4);
  new DataView(secret.buffer).setInt32(0, secretKey);
  return { processId: processID, secret };
}

async function pidOf(client: Client): Promise<number> {
  const { rows } = await client.query<{ pid: number }>('select pg_backend_pid() as pid');
  return rows[0]?.pid ?? 0;
}

const clients = (stage: ProxyStage, count: number): Promise<Client[]> => Promise.all(Array.from({ length: count }, () => stage.connect()));
const oneOf = async (client: Client, sql: string): Promise<unknown> =>
  Object.values((await client.query<Record<string, unknown>>(sql)).rows[0] ?? {})[0];

describe('transaction mode', () => {
  test('twenty clients share two connections; each finds its own again while nobody needs it', async () => {
    await withPool({ size: 2 }, async (stage) => {
      const all = await clients(stage, 20);
      const pids = new Set<number>();
      await Promise.all(
        all.map(async (client) => {
          for (let n = 0; n < 25; n++) pids.add(await pidOf(client));
        }),
      );
      assert.equal(pids.size, 2);
      const [first] = all as [Client];
      const own = await pidOf(first);
      for (let n = 0; n < 10; n++) assert.equal(await pidOf(first), own);
      assert.deepEqual(
        stage.sessions.pools.facts().map(({ size, lent, spare, waiting, mode }) => [size, lent, spare, waiting, mode]),
        [[2, 2, 0, 0, 'transaction']],
      );
    });
  });

  test('a transaction keeps its connection, and who waits for one gets it in turn', async () => {
    await withPool({ size: 1 }, async (stage) => {
      const [a, b, c] = (await clients(stage, 3)) as [Client, Client, Client];
      await a.query('begin');
      const order: string[] = [];
      const waiting = [b, c].map(async (client, index) => {
        await client.query('select 1');
        order.push(index === 0 ? 'b' : 'c');
      });
      await until(() => stage.sessions.pools.waiting() === 2, 2000);
      await a.query("insert into seen values ('pooled')");
      assert.deepEqual(order, []);
      await a.query('commit');
      await Promise.all(waiting);
      assert.deepEqual(order, ['b', 'c']);
    });
  });

  test('settings, prepared statements and the role are those of the session, whichever connection it gets', async () => {
    await servers.a.query('drop role if exists pool_guest; create role pool_guest');
    await withPool({ size: 1 }, async (stage) => {
      const [a, b] = (await clients(stage, 2)) as [Client, Client];
      await a.query("set application_name = 'a'; ");
      await a.query("set search_path = 'pg_catalog'");
      await a.query('set role pool_guest');
      for (let n = 0; n < 5; n++) {
        assert.equal(await oneOf(a, 'show application_name'), 'a');
        assert.equal(await oneOf(a, 'show search_path'), 'pg_catalog');
        assert.equal(await oneOf(a, 'select current_user'), 'pool_guest');
        assert.equal(await oneOf(b, 'show search_path'), '"$user", public');
        assert.equal(await oneOf(b, 'select current_user'), 'postgres');
        for (const [client, plus] of [
          [a, 1],
          [b, 2],
        ] as const)
          assert.equal(
            Number(Object.values((await client.query({ name: 'same', text: `select $1::int + ${plus} as n`, values: [40] })).rows[0])[0]),
            40 + plus,
          );
      }
    });
  });

  test('what cannot be made again keeps its connection, as long as it is there', async () => {
    await withPool({ size: 1, waitMs: 700 }, async (stage) => {
      const [a, b] = (await clients(stage, 2)) as [Client, Client];
      for (const [make, end] of [
        ['create temp table mine (n int)', 'discard all'],
        ['select pg_advisory_lock(7)', 'select pg_advisory_unlock_all()'],
        ['listen news', 'unlisten *'],
        ["prepare p as select 'p'", 'deallocate all'],
      ] as const) {
        await a.query(make);
        const begun = performance.now();
        assert.equal(await sqlStateOf(b.query('select 1')), '57P03', make);
        assert.ok(performance.now() - begun > 600);
        await a.query(end);
        assert.equal(await oneOf(b, 'select 1'), 1, end);
      }
    });
  });

  test('called code that may have changed the session does not keep the connection when the server says that it did not', async () => {
    await servers.a.query("create or replace function harmless() returns int language plpgsql volatile as 'begin return 5; end'");
    await withPool({ size: 1 }, async (stage) => {
      const [a, b] = (await clients(stage, 2)) as [Client, Client];
      for (let n = 0; n < 3; n++) {
        assert.equal(await oneOf(a, 'select harmless()'), 5);
        assert.equal(await oneOf(b, 'select 1'), 1);
      }
    });
  });

  test('lastval() never tells of another client’s row', async () => {
    await servers.a.query('drop table if exists numbered; create table numbered (id serial, who text)');
    await withPool({ size: 1 }, async (stage) => {
      const [a, b] = (await clients(stage, 2)) as [Client, Client];
      await a.query("insert into numbered (who) values ('a')");
      assert.equal(Number(await oneOf(a, 'select lastval()')), 1, 'nobody came between');
      await a.query("insert into numbered (who) values ('a')");
      assert.equal(await sqlStateOf(b.query('select lastval()')), '55000');
      await b.query('begin');
      await b.query("insert into numbered (who) values ('b')");
      assert.equal(Number(await oneOf(b, 'select lastval()')), 3);
      await b.query('commit');
      assert.equal(await sqlStateOf(a.query('select lastval()')), '55000');
    });
  });

  test('an unnamed statement that was prepared in an earlier cycle is there on another connection', async () => {
    await withPool({ size: 1 }, async (stage) => {
      const [a, b] = (await clients(stage, 2)) as [Client, Client];
      type Wire = {
        parse(o: object): void;
        describe(o: object): void;
        bind(o: object): void;
        execute(o: object): void;
        sync(): void;
        on: Client['on'];
        once: Client['on'];
      };
      const wire = (a as unknown as { connection: Wire }).connection;
      const ready = (): Promise<unknown> => new Promise((resolve) => wire.once('readyForQuery' as never, resolve as never));
      const rows: string[] = [];
      wire.on('dataRow' as never, ((row: { fields: (string | null)[] }) => rows.push(String(row.fields[0]))) as never);
      const prepared = ready();
      wire.parse({ name: '', text: 'select $1::text || $2', types: [] });
      wire.sync();
      await prepared;
      await b.query({ text: 'select $1::int', values: [1] });
      const ran = ready();
      wire.bind({ portal: '', statement: '', values: ['un', 'named'] });
      wire.execute({ portal: '', rows: 0 });
      wire.sync();
      await ran;
      assert.deepEqual(rows, ['unnamed']);
    });
  });

  test('a cancel request hits the statement that it is for, and nothing of anybody else', async () => {
    await withPool({ size: 1 }, async (stage) => {
      const [a, b] = (await clients(stage, 2)) as [Client, Client];
      const cancel = (): Promise<void> =>
        new Promise((resolve) => {
          const socket = connect(stage.port, '127.0.0.1', () => socket.write(buildCancel(keyOf(a))));
          socket.on('error', () => undefined);
          socket.on('close', () => resolve());
        });
      const slow = sqlStateOf(a.query('select pg_sleep(10)'));
      await until(() => [...stage.sessions.sessions].some((session) => session.state === 'active'), 2000);
      await cancel();
      assert.equal(await slow, '57014');
      // Now nothing of it runs: whoever has the connection is left alone.
      for (let n = 0; n < 20; n++) {
        const other = b.query('select pg_sleep(0.01)');
        await cancel();
        await other;
      }
    });
  });

  test('the primary moves: nobody is told, and the new one has no more connections than the pool may have', async () => {
    await withPool({ size: 3 }, async (stage) => {
      const all = await clients(stage, 12);
      let running = true;
      const errors: string[] = [];
      const work = all.map(async (client) => {
        while (running) await client.query("insert into seen values ('moved')").catch((error: Error) => errors.push(error.message));
      });
      for (const to of ['b', 'a', 'b', 'a'] as const) {
        await new Promise((resolve) => setTimeout(resolve, 100));
        const before = stage.held.length;
        stage.route({ hold: true, next: stage.targets[to] });
        await until(() => stage.held.length > before, 3000);
        stage.route({ hold: false, next: null, writer: stage.targets[to] });
      }
      running = false;
      await Promise.all(work);
      assert.deepEqual(errors, []);
      assert.equal(await portOf(all[0] as Client), servers.a.port);
      await until(async () => {
        const [row] = await servers.a.query(
          "select count(*)::int as n from pg_stat_activity where backend_type = 'client backend' and pid <> pg_backend_pid()",
        );
        return Number(row?.['n']) <= 3;
      }, 3000);
    });
  });

  test('a server that ends its connections costs idle clients nothing', async () => {
    await withPool({ size: 2 }, async (stage) => {
      const all = await clients(stage, 5);
      await Promise.all(all.map((client) => client.query('select 1')));
      await servers.a.query(
        "select pg_terminate_backend(pid) from pg_stat_activity where backend_type = 'client backend' and pid <> pg_backend_pid()",
      );
      assert.deepEqual(await Promise.all(all.map((client) => oneOf(client, 'select 1'))), [1, 1, 1, 1, 1]);
    });
  });

  test('the read port shares connections on each standby, and a connection that nobody uses is closed', async () => {
    await withPool({ size: 1, kind: 'read', idleMs: 300 }, async (stage) => {
      const all = await clients(stage, 6);
      const ports = await Promise.all(all.map((client) => portOf(client)));
      assert.deepEqual([...new Set(ports)].sort(), [servers.a.port, servers.b.port].sort());
      for (let n = 0; n < 5; n++) await Promise.all(all.map((client) => client.query('select 1')));
      assert.ok(stage.sessions.pools.facts().every(({ lent, spare }) => lent + spare === 1));
      await until(() => stage.sessions.pools.facts().every(({ lent, spare }) => lent + spare === 0), 3000);
      assert.equal(await oneOf(all[0] as Client, 'select 1'), 1);
    });
  });
});

describe('session mode', () => {
  test('a client gets the connection of one that has gone, without what that one had made', async () => {
    await withPool({ size: 1, mode: 'session' }, async (stage) => {
      const a = await stage.connect();
      await a.query("set search_path = 'pg_catalog'; create temp table mine (n int); select pg_advisory_lock(9)");
      const pid = await pidOf(a);
      const waiting = stage.connect();
      await until(() => stage.sessions.pools.waiting() === 1, 2000);
      await a.end();
      const b = await waiting;
      assert.equal(await pidOf(b), pid);
      assert.equal(await oneOf(b, 'show search_path'), '"$user", public');
      assert.equal(await oneOf(b, "select to_regclass('mine')"), null);
      assert.equal(await oneOf(b, "select count(*)::int from pg_locks where locktype = 'advisory'"), 0);
      await b.query('begin');
      await b.end();
      const c = await stage.connect();
      assert.notEqual(await pidOf(c), pid, 'a transaction was open: the server ends it');
    });
  });
});

test('rules are for a user and a database; the first that fits counts', async () => {
  const stage = await openStage(servers, {
    io: openRawBinding(),
    pooling: {
      ...TIMES,
      rules: [
        { database: 'postgres', user: null, mode: 'off', size: 1 },
        { database: null, user: null, mode: 'transaction', size: 1 },
      ],
    },
  });
  try {
    const [a, b] = (await Promise.all([stage.connect({ database: 'postgres' }), stage.connect({ database: 'postgres' })])) as [Client, Client];
    assert.notEqual(await pidOf(a), await pidOf(b));
    const [c, d] = (await Promise.all([stage.connect({ database: 'template1' }), stage.connect({ database: 'template1' })])) as [Client, Client];
    assert.equal(await pidOf(c), await pidOf(d));
  } finally {
    stage.close();
  }
});
