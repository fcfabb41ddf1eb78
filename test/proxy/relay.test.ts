import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { execFile, spawn } from 'node:child_process';
import { type Socket, connect } from 'node:net';
import { after, before, describe, test } from 'node:test';
import type { Client } from 'pg';
import { openRawBinding } from '../../src/proxy/io/raw-handle.ts';
import type { Reader } from '../../src/core/route/decide.ts';
import { chooseIo } from '../../src/proxy/io/self-test.ts';
import { buildQuery } from '../../src/wire/frontend.ts';
import { login, until } from '../lab/plain-postgres.ts';
import { type ProxyStage, type Servers, openStage, portOf, sqlStateOf, startServers } from './stage.ts';

let servers: Servers;
before(async () => {
  servers = await startServers(23_510);
});
after(async () => {
  await servers.remove();
});

const WAYS = { 'raw handles': openRawBinding(), 'public sockets': null } as const;
const CONNINFO = (stage: ProxyStage): string => `host=127.0.0.1 port=${stage.port} user=${login.user} dbname=${login.database}`;
const ENV = { ...process.env, PGPASSWORD: login.password };

function run(
  program: string,
  args: readonly string[],
  input?: Buffer,
): Promise<{ readonly code: number; readonly stdout: Buffer; readonly stderr: string }> {
  return new Promise((resolve) => {
    const child = execFile(program, [...args], { env: ENV, encoding: 'buffer', maxBuffer: 256 * 1024 * 1024 }, (error, stdout, stderr) =>
      resolve({ code: error === null ? 0 : Number(error.code ?? 1), stdout, stderr: stderr.toString() }),
    );
    child.stdin?.on('error', () => undefined);
    child.stdin?.end(input);
  });
}

test('this Node has raw handles that pass the self-test', async () => {
  const choice = await chooseIo();
  assert.notEqual(choice.io, null, choice.why);
});

for (const [name, io] of Object.entries(WAYS)) {
  describe(`the write port over ${name}`, () => {
    let stage: ProxyStage;
    before(async () => {
      stage = await openStage(servers, { io });
    });
    after(() => stage.close());

    test('carries statements, parameters, errors, notices and notifications', async () => {
      const client = await stage.connect();
      assert.equal((await client.query('select $1::int + 1 as n', [41])).rows[0].n, 42);
      assert.equal(await sqlStateOf(client.query('select 1/0')), '22012');
      const heard: string[] = [];
      client.on('notice', (notice) => heard.push(notice.message ?? ''));
      client.on('notification', (message) => heard.push(message.payload ?? ''));
      await client.query("listen c; do $$ begin raise notice 'hello'; end $$; notify c, 'from me'");
      await until(() => heard.length === 2, 5000);
      assert.deepEqual(heard.sort(), ['from me', 'hello']);
      await client.end();
    });

    test('carries 40 MB each way by COPY, byte for byte, against slow readers', async () => {
      const rows = Buffer.from(Array.from({ length: 400_000 }, (_, n) => `${n}\t${'x'.repeat(90)}\n`).join(''));
      const psql = (sql: string, input?: Buffer) => run('psql', ['-XqAt', CONNINFO(stage), '-c', sql], input);
      await psql('drop table if exists big; create table big (n int, t text)');
      const sent = await psql('copy big from stdin', rows);
      assert.equal(sent.code, 0, sent.stderr);
      const slow = spawn('sh', ['-c', `psql -XqAt "${CONNINFO(stage)}" -c "copy (select * from big order by n) to stdout" | (sleep 1; md5sum)`], {
        env: ENV,
      });
      let sum = '';
      slow.stdout.on('data', (chunk: Buffer) => {
        sum += chunk.toString();
      });
      await new Promise((resolve) => slow.once('close', resolve));
      assert.equal(sum.slice(0, 32), createHash('md5').update(rows).digest('hex'));
    });

    test('refuses a wrong password and an unknown user with the same words, and passes the error of the server on', async () => {
      assert.equal(await sqlStateOf(stage.connect({ password: 'wrong' })), '28P01');
      assert.equal(await sqlStateOf(stage.connect({ user: 'nobody' })), '28P01');
      assert.equal(await sqlStateOf(stage.connect({ database: 'nodb' })), '3D000');
    });

    test('a cancel request reaches the statement that runs now', async () => {
      const child = spawn('psql', ['-XqAt', CONNINFO(stage), '-c', 'select pg_sleep(60)'], { env: ENV });
      let said = '';
      child.stderr.on('data', (chunk: Buffer) => {
        said += chunk.toString();
      });
      await until(
        async () => (await servers.a.query("select 1 from pg_stat_activity where query = 'select pg_sleep(60)' and state = 'active'")).length === 1,
        10_000,
      );
      child.kill('SIGINT');
      await new Promise((resolve) => child.once('close', resolve));
      assert.match(said, /canceling statement due to user request/);
    });

    test('a pipeline of any length is answered, and costs bounded memory', async () => {
      const client = await stage.connect();
      const { connection } = client as unknown as { connection: { stream: Socket; on(event: 'readyForQuery', listener: () => void): void } };
      const count = 200_000;
      let answers = 0;
      let most = 0;
      const all = new Promise<void>((resolve) => {
        connection.on('readyForQuery', () => {
          answers += 1;
          if (answers % 500 === 0) for (const session of stage.sessions.sessions) most = Math.max(most, session.memory.awaited);
          if (answers === count) resolve();
        });
      });
      const syncs = Buffer.alloc(count * 5);
      for (let i = 0; i < count; i++) syncs.set([0x53, 0, 0, 0, 4], i * 5);
      connection.stream.write(syncs);
      await all;
      assert.ok(most < 40_000, `${most} answers were awaited at once`);
      assert.equal((await client.query('select 1 as n')).rows[0].n, 1);
    });

    test('a session that goes away leaves no connection behind', async () => {
      const client = await stage.connect({ application_name: 'leaver' });
      await client.end();
      await until(async () => (await servers.a.query("select 1 from pg_stat_activity where application_name = 'leaver'")).length === 0, 5000);
      assert.ok(![...stage.sessions.sessions].some((session) => session.login.startup.parameters.some(([, value]) => value === 'leaver')));
    });

    test('pgbench runs in all three protocols', async () => {
      const made = await run('pgbench', ['-i', '-s', '1', '-q', CONNINFO(stage)]);
      assert.equal(made.code, 0, made.stderr);
      for (const mode of ['simple', 'extended', 'prepared']) {
        const bench = await run('pgbench', ['-c', '8', '-t', '25', '-M', mode, '-n', CONNINFO(stage)]);
        assert.equal(bench.code, 0, bench.stderr);
        assert.match(bench.stdout.toString(), /number of transactions actually processed: 200\/200/);
      }
    });
  });
}

describe('limits', () => {
  test('too many clients are told so', async () => {
    const stage = await openStage(servers, { io: WAYS['raw handles'], maxClients: 1 });
    const first = await stage.connect();
    assert.equal(await sqlStateOf(stage.connect()), '53300');
    assert.equal((await first.query('select 1 as n')).rows[0].n, 1);
    stage.close();
  });

  test('a client that says nothing, or garbage, loses its place', async () => {
    const stage = await openStage(servers, { io: WAYS['raw handles'], loginMs: 200 });
    for (const bytes of [new Uint8Array(0), Uint8Array.of(0, 0), Buffer.from('GET / HTTP/1.1\r\n\r\n'), buildQuery('select 1')]) {
      const socket = connect(stage.port, '127.0.0.1');
      socket.on('error', () => undefined);
      socket.resume();
      socket.write(bytes);
      await new Promise((resolve) => socket.once('close', resolve));
    }
    assert.equal(stage.sessions.sessions.size, 0);
    stage.close();
  });
});

describe('a hold', () => {
  let stage: ProxyStage;
  before(async () => {
    stage = await openStage(servers, { io: WAYS['raw handles'] });
  });
  after(() => stage.close());

  test('lets transactions end, keeps new ones waiting, and goes on at the next primary without an error', async () => {
    const [busy, idle] = [await stage.connect(), await stage.connect()];
    await busy.query('begin');
    await idle.query('select 1');
    const before = stage.held.length;
    stage.route({ hold: true, next: stage.targets.b });
    const waiting = portOf(idle);
    assert.equal(await portOf(busy), servers.a.port, 'a running transaction goes on where it is');
    assert.equal(stage.held.length, before, 'the hold is not complete while it runs');
    await busy.query('commit');
    await until(() => stage.held.length === before + 1, 5000);
    const late = stage.connect();
    stage.route({ hold: false, next: null, writer: stage.targets.b });
    assert.equal(await waiting, servers.b.port);
    assert.equal(await portOf(busy), servers.b.port);
    assert.equal(await portOf(await late), servers.b.port, 'a client that came during the hold gets in afterwards');
    stage.route({ writer: stage.targets.a });
  });

  test('finds the connections that were made while it was only coming', async () => {
    const [client, other] = [await stage.connect({ application_name: 'ahead' }), await stage.connect({ application_name: 'ahead' })];
    const ahead = async (): Promise<number> => {
      const [row] = await servers.b.query("select count(*)::int as n from pg_stat_activity where application_name = 'ahead'");
      return Number(row?.['n']);
    };
    const pids = async (of: Client): Promise<number> => (await of.query('select pg_backend_pid() as pid')).rows[0].pid;
    stage.route({ next: stage.targets.b });
    await until(async () => (await ahead()) === 2, 5000);
    assert.equal(await portOf(client), servers.a.port, 'nothing waits yet');
    const made = (await servers.b.query("select pid from pg_stat_activity where application_name = 'ahead'")).map((row) => Number(row['pid']));
    await other.query("set datestyle = 'German'");
    const before = stage.held.length;
    stage.route({ hold: true });
    await until(() => stage.held.length === before + 1, 5000);
    stage.route({ hold: false, next: null, writer: stage.targets.b });
    assert.ok(made.includes(await pids(client)));
    assert.ok(!made.includes(await pids(other)), 'its settings were changed since');
    assert.equal((await other.query('show datestyle')).rows[0].DateStyle, 'German, DMY');
    stage.route({ writer: stage.targets.a });
    stage.route({ next: stage.targets.b });
    stage.route({ next: null });
    await until(async () => (await ahead()) === 0, 5000);
    assert.equal(await portOf(client), servers.a.port, 'a switchover that was taken back before its hold costs nothing');
  });

  test('that is taken back leads back to the old primary', async () => {
    const client = await stage.connect();
    await client.query('select 1');
    stage.route({ hold: true, next: stage.targets.b });
    const waiting = portOf(client);
    stage.route({ hold: false, next: null });
    assert.equal(await waiting, servers.a.port);
  });

  test('gives up after its limit with an error that says that nothing was done, and the session goes on', async () => {
    const impatient = await openStage(servers, { io: WAYS['raw handles'], waitMs: 300 });
    const client = await impatient.connect();
    impatient.route({ hold: true, next: null });
    assert.equal(await sqlStateOf(client.query('select 1')), '57P03');
    impatient.route({ hold: false });
    assert.equal(await portOf(client), servers.a.port);
    impatient.close();
  });

  test('a session with state that cannot be carried over ends with its node, and says why', async () => {
    const client = await stage.connect();
    await client.query('create temporary table mine (n int)');
    stage.route({ hold: true, next: stage.targets.b });
    await until(() => stage.held.length > 0, 5000);
    stage.route({ hold: false, next: null, writer: stage.targets.b });
    await assert.rejects(client.query('select 1'), /the session ends with its node, because it had temporary tables/);
    stage.route({ writer: stage.targets.a });
  });
});

describe('the end of the proxy', () => {
  test('lets a transaction end, and tells idle sessions at once', async () => {
    const stage = await openStage(servers, { io: WAYS['raw handles'] });
    const [idle, busy] = [await stage.connect(), await stage.connect()];
    const ended = new Promise<Error>((resolve) => idle.once('error', resolve));
    await busy.query('begin');
    const drained = stage.sessions.drain(5000);
    assert.match((await ended).message, /the proxy stops/);
    await busy.query("insert into seen values ('drained')");
    await busy.query('commit');
    await drained;
    assert.equal((await servers.a.query("select 1 from seen where what = 'drained'")).length, 1);
    stage.close();
  });
});

describe('the read port', () => {
  test('spreads sessions over the readers, and moves them when one is taken out', async () => {
    const stage = await openStage(servers, { io: WAYS['raw handles'], kind: 'read' });
    const clients = [await stage.connect(), await stage.connect(), await stage.connect(), await stage.connect()];
    const ports = await Promise.all(clients.map(portOf));
    assert.equal(ports.filter((port) => port === servers.a.port).length, 2);
    stage.route({ readers: [{ ...stage.targets.b, weight: 1, lagBytes: 0 }] });
    assert.deepEqual(await Promise.all(clients.map(portOf)), [servers.b.port, servers.b.port, servers.b.port, servers.b.port]);
    const [a, b] = [stage.targets.a, stage.targets.b].map((target) => ({ ...target, weight: 1, lagBytes: 0 })) as [Reader, Reader];
    const atA = async (): Promise<number> => (await Promise.all(clients.map(portOf))).filter((port) => port === servers.a.port).length;
    stage.route({ readers: [a, b] });
    assert.equal(await atA(), 2, 'one that comes back gets its share of the sessions that are there');
    stage.route({ readers: [b] });
    assert.equal(await atA(), 0);
    stage.route({ readers: [{ ...a, weight: 3 }, b] });
    assert.equal(await atA(), 3);
    stage.close();
  });

  test('runs a read again when its node left the route before it answered, but not one that may have ended its node itself', async () => {
    const stage = await openStage(servers, { io: WAYS['raw handles'], kind: 'read' });
    const only = (target: ProxyStage['targets']['a']): void => stage.route({ readers: [{ ...target, weight: 1, lagBytes: 0 }] });
    const text = 'select count(*)::int as n from generate_series(1, 10000000) s';
    const busy = `from pg_stat_activity where query like '%generate_series%' and state = 'active' and pid <> pg_backend_pid()`;
    const runs = (): Promise<void> => until(async () => Number((await servers.a.query(`select count(*)::int as n ${busy}`))[0]?.['n']) > 0, 5000);
    const terminate = (): Promise<unknown> => servers.a.query(`select pg_terminate_backend(pid) ${busy}`);
    only(stage.targets.a);
    const client = await stage.connect();
    await portOf(client);
    const leaving = client.query(text);
    await runs();
    only(stage.targets.b);
    await terminate();
    assert.equal((await leaving).rows[0].n, 10_000_000);
    assert.equal(await portOf(client), servers.b.port);
    only(stage.targets.a);
    await until(async () => (await portOf(client)) === servers.a.port, 5000);
    const staying = sqlStateOf(client.query(text));
    await runs();
    await terminate();
    assert.equal(await staying, '40001');
    stage.route({ writer: stage.targets.b });
    assert.equal((await client.query('select 1 as n')).rows[0].n, 1, 'the session goes on');
    stage.close();
  });
});

describe('what a session has made', () => {
  let stage: ProxyStage;
  before(async () => {
    stage = await openStage(servers, { io: WAYS['raw handles'] });
    for (const server of [servers.a, servers.b]) {
      await server.query(`create or replace function remember(value text) returns text language plpgsql volatile as
        $$ begin perform set_config('work_mem', value, false); return value; end $$`);
      await server.query(`do $$ begin create role other; exception when duplicate_object then null; end $$`);
    }
  });
  after(() => stage.close());

  async function move(client: Client): Promise<void> {
    const before = stage.held.length;
    stage.route({ hold: true, next: stage.targets.b });
    await until(() => stage.held.length > before, 5000);
    stage.route({ hold: false, next: null, writer: stage.targets.b });
    assert.equal(await portOf(client), servers.b.port);
    stage.route({ writer: stage.targets.a });
    assert.equal(await portOf(client), servers.a.port);
  }
  const setting = async (client: Client, name: string): Promise<string> =>
    (await client.query(`select current_setting($1, true) as v`, [name])).rows[0].v;

  test('settings go with it: those of statements, and those that a function made', async () => {
    const client = await stage.connect();
    await client.query("set lock_timeout = '7s'; ");
    await client.query("select set_config('my.thing', 'seven', false), set_config('my.local', 'x', true)");
    await client.query("set application_name to 'it''s me'");
    await client.query('begin');
    await client.query("set statement_timeout = '7s'");
    await client.query('rollback');
    await client.query("select remember('7MB')");
    await client.query('set role other');
    await move(client);
    assert.equal(await setting(client, 'work_mem'), '7MB');
    assert.equal(await setting(client, 'lock_timeout'), '7s');
    assert.equal(await setting(client, 'application_name'), "it's me");
    assert.equal(await setting(client, 'statement_timeout'), '0');
    assert.equal(await setting(client, 'my.thing'), 'seven');
    assert.equal((await client.query('select current_user as u')).rows[0].u, 'other');
  });

  test('prepared statements go with it, but not those that failed or were closed', async () => {
    const client = await stage.connect();
    const ask = { name: 'plus', text: 'select $1::int + 1 as n' };
    assert.equal((await client.query({ ...ask, values: [1] })).rows[0].n, 2);
    assert.equal(await sqlStateOf(client.query({ name: 'broken', text: 'select nonsense' })), '42703');
    await move(client);
    assert.equal((await client.query({ ...ask, values: [2] })).rows[0].n, 3);
    assert.equal((await client.query("select count(*)::int as n from pg_prepared_statements where name <> 'plus'")).rows[0].n, 0);
  });

  test('what was made and taken away again ties it to no node', async () => {
    const client = await stage.connect();
    await client.query('create temporary table brief (n int)');
    await client.query('drop table brief');
    await client.query('select pg_advisory_lock(7)');
    await client.query('select pg_advisory_unlock(7)');
    await client.query('listen somebody');
    await client.query('unlisten *');
    await move(client);
  });

  test('advisory locks, LISTEN, cursors WITH HOLD and SQL’s PREPARE end it with the reason', async () => {
    const made: readonly (readonly [string, RegExp])[] = [
      ['select pg_advisory_lock(8)', /advisory locks/],
      ['listen c', /LISTEN/],
      ['declare d cursor with hold for select 1', /cursor WITH HOLD/],
      ['prepare p as select 1', /made with PREPARE/],
    ];
    for (const [sql, why] of made) {
      const client = await stage.connect();
      await client.query(sql);
      const before = stage.held.length;
      stage.route({ hold: true, next: stage.targets.b });
      await until(() => stage.held.length > before, 5000);
      stage.route({ hold: false, next: null, writer: stage.targets.b });
      await assert.rejects(client.query('select 1'), why);
      stage.route({ writer: stage.targets.a });
    }
  });

  test('after an unplanned loss, a session that called a function of unknown effect is ended; plain ones go on with their settings', async () => {
    const [plain, opaque] = [await stage.connect(), await stage.connect()];
    await plain.query("set work_mem = '9MB'");
    await opaque.query("select remember('8MB')");
    const ended = new Promise<Error>((resolve) => opaque.once('error', resolve));
    stage.route({ writer: null, closed: 'test' });
    stage.route({ writer: stage.targets.a, closed: null });
    assert.equal(await setting(plain, 'work_mem'), '9MB');
    assert.match((await ended).message, /functions that may have changed the session/);
  });

  test('a function that may have made a setting of the application ends it: no view of the node shows those', async () => {
    await servers.a.query(
      "create function hide(value text) returns text language plpgsql as $$ begin perform set_config('my.hidden', value, false); return value; end $$",
    );
    const client = await stage.connect();
    await client.query("select hide('x')");
    const ended = new Promise<Error>((resolve) => client.once('error', resolve));
    const before = stage.held.length;
    stage.route({ hold: true, next: stage.targets.b });
    await until(() => stage.held.length > before, 5000);
    stage.route({ hold: false, next: null, writer: stage.targets.b });
    assert.match((await ended).message, /own setting/);
    stage.route({ writer: stage.targets.a });
    await servers.a.query('drop function hide');
  });
});
