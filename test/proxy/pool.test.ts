import assert from 'node:assert/strict';
import { type Socket, connect } from 'node:net';
import { after, before, describe, test } from 'node:test';
import type { Client } from 'pg';
import { openRawBinding } from '../../src/proxy/io/raw-handle.ts';
import { buildQuery, buildSync } from '../../src/wire/frontend.ts';
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
        const answered = (): number => [...stage.sessions.sessions].reduce((sum, session) => sum + session.statements, 0);
        const soFar = answered();
        await until(() => answered() >= soFar + 2 * all.length, 5000);
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

/** The client's connection as bytes: what comes is collected, and nobody else hears it. */
function rawOf(client: Client): { readonly write: (...parts: Uint8Array[]) => void; readonly seen: () => Buffer } {
  const { stream } = (client as unknown as { connection: { stream: Socket } }).connection;
  stream.removeAllListeners('data');
  const chunks: Buffer[] = [];
  stream.on('data', (chunk: Buffer) => void chunks.push(chunk));
  return {
    write: (...parts) => void stream.write(Buffer.concat(parts)),
    seen: () => Buffer.concat(chunks),
  };
}

describe('hostile and unlucky clients of a pool', () => {
  test('a statement that could not be prepared, or cannot be any more, ends nobody’s session', async () => {
    await servers.a.query('drop table if exists gone; create table gone (n int)');
    await withPool({ size: 1 }, async (stage) => {
      const [a, b] = (await clients(stage, 2)) as [Client, Client];
      assert.equal(await sqlStateOf(a.query('select $1 from missing', [1])), '42P01');
      await b.query("insert into seen values ('written')");
      assert.equal(await oneOf(a, 'select 1'), 1);
      const named = { name: 'of-gone', text: 'select count(*)::int as n from gone' };
      assert.equal((await a.query(named)).rows[0]?.n, 0);
      await servers.a.query('drop table gone');
      await b.query('set search_path = public');
      assert.equal(await oneOf(b, 'select 1'), 1);
      assert.match((await sqlStateOf(a.query(named))) ?? '', /^(26000|42P01)$/);
      assert.equal(await oneOf(a, 'select 2'), 2);
    });
  });

  test('clients that call functions of unknown effect without a pause leave room for others', async () => {
    await servers.a.query("create or replace function harmless() returns int language plpgsql volatile as 'begin return 5; end'");
    await withPool({ size: 1, waitMs: 3000 }, async (stage) => {
      const [a, b] = (await clients(stage, 2)) as [Client, Client];
      let running = true;
      let calls = 0;
      const busy = (async () => {
        while (running) {
          await a.query('select harmless()');
          calls += 1;
        }
      })();
      for (let n = 0; n < 5; n++) assert.equal(await oneOf(b, 'select 1'), 1);
      running = false;
      await busy;
      assert.ok(calls > 0);
    });
  });

  test('different start packets take turns, and a limit of the server below the pool’s size is lived with', async () => {
    await withPool({ size: 1 }, async (stage) => {
      const all = await Promise.all(['one', 'two', 'three'].map((application_name) => stage.connect({ application_name })));
      for (let n = 0; n < 3; n++)
        assert.deepEqual(await Promise.all(all.map((client) => oneOf(client, 'show application_name'))), ['one', 'two', 'three']);
    });
    await servers.a.query("create role limited login connection limit 1 password 'of the limited one'");
    const [row] = await servers.a.query("select rolpassword from pg_authid where rolname = 'limited'");
    await servers.b.query(`create role limited login password '${String(row?.['rolpassword'])}'`);
    await withPool({ size: 3 }, async (stage) => {
      const all = await Promise.all([1, 2, 3].map(() => stage.connect({ user: 'limited', password: 'of the limited one' })));
      for (let n = 0; n < 3; n++) assert.deepEqual(await Promise.all(all.map((client) => oneOf(client, 'select 1'))), [1, 1, 1]);
    });
  });

  test('after a switchover, connections that were made ahead are shared like all others', async () => {
    await withPool({ size: 2, waitMs: 3000 }, async (stage) => {
      const all = await clients(stage, 6);
      await Promise.all(all.map((client) => client.query('select 1')));
      stage.route({ next: stage.targets.b });
      await until(
        async () =>
          (await servers.b.query("select 1 from pg_stat_activity where backend_type = 'client backend' and pid <> pg_backend_pid()")).length >= 2,
        3000,
      );
      const before = stage.held.length;
      stage.route({ hold: true, next: stage.targets.b });
      await until(() => stage.held.length > before, 3000);
      stage.route({ hold: false, next: null, writer: stage.targets.b });
      for (let n = 0; n < 3; n++) assert.deepEqual([...new Set(await Promise.all(all.map((client) => portOf(client))))], [servers.b.port]);
      stage.route({ writer: stage.targets.a });
    });
  });

  test('the client knows the settings of the connection that it has', async () => {
    await withPool({ size: 1, idleMs: 100 }, async (stage) => {
      const a = await stage.connect();
      const told: string[] = [];
      (
        a as unknown as { connection: { on(event: string, listener: (message: { parameterName: string; parameterValue: string }) => void): void } }
      ).connection.on('parameterStatus', ({ parameterName, parameterValue }) => void told.push(`${parameterName}=${parameterValue}`));
      await a.query("set timezone = 'Asia/Tokyo'");
      // Its connection is closed, and a new one opened.
      await until(() => stage.sessions.pools.facts().every(({ lent, spare }) => lent + spare === 0), 3000);
      assert.equal(await oneOf(a, 'show timezone'), 'Asia/Tokyo');
      assert.deepEqual(told, ['TimeZone=Asia/Tokyo']);
    });
  });

  test('odd goodbyes and a stray Sync harm nobody else', async () => {
    await withPool({ size: 2 }, async (stage) => {
      const [a, b, c] = (await clients(stage, 3)) as [Client, Client, Client];
      await a.query('select 1');
      // A goodbye with a body.
      rawOf(a).write(Uint8Array.of(0x58, 0, 0, 0, 9, 1, 2, 3, 4, 5));
      assert.equal(await oneOf(b, "select 'b'"), 'b');
      const raw = rawOf(c);
      raw.write(buildQuery('copy seen from stdin'));
      await until(() => raw.seen().includes(0x47), 3000);
      // The COPY fails, and the Sync has an answer of its own.
      raw.write(Buffer.from('d\0\0\0\x12too\tmany\tcols\n', 'latin1'), buildSync());
      await until(() => raw.seen().includes('22P04'), 3000);
      const d = await stage.connect();
      for (let n = 0; n < 5; n++) {
        assert.equal(await oneOf(b, "select 'b'"), 'b');
        assert.equal(await oneOf(d, "select 'd'"), 'd');
      }
    });
  });

  test('statements of one text and other types are not taken for each other', async () => {
    await withPool({ size: 1 }, async (stage) => {
      const [a, b] = (await clients(stage, 2)) as [Client, Client];
      const TYPES = [1184, 1186] as const;
      for (const [index, client] of [a, b].entries()) {
        const raw = rawOf(client);
        const type = TYPES[index] ?? 0;
        const text = Buffer.from('s\0select pg_typeof($1)::text\0', 'latin1');
        const parse = Buffer.alloc(5 + text.length + 6);
        parse[0] = 0x50;
        parse.writeInt32BE(parse.length - 1, 1);
        text.copy(parse, 5);
        parse.writeInt16BE(1, 5 + text.length);
        parse.writeInt32BE(type, 7 + text.length);
        raw.write(parse, buildSync());
        await until(() => raw.seen().at(-6) === 0x5a, 3000);
      }
      const raw = rawOf(a);
      raw.write(Buffer.from('B\0\0\0\x11\0s\0\0\0\0\x01\xff\xff\xff\xff\0\0', 'latin1'), Buffer.from('E\0\0\0\x09\0\0\0\0\0', 'latin1'), buildSync());
      await until(() => raw.seen().at(-6) === 0x5a, 3000);
      assert.ok(raw.seen().includes('timestamp with time zone'), raw.seen().toString('latin1'));
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
