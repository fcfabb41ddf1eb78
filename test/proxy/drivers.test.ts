/**
 * Real clients through every port, with a real standby behind it: what they get is compared with what they get directly.
 */
import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { makeTerm } from '../../src/core/ids.ts';
import { NO_ROUTE, type Route } from '../../src/core/route/decide.ts';
import { type Controls, PROXY_DATABASE, PROXY_ROLE, openControls } from '../../src/proxy/control.ts';
import { openRawBinding } from '../../src/proxy/io/raw-handle.ts';
import { openPositions } from '../../src/proxy/positions.ts';
import { login, startPlainPostgres, until } from '../lab/plain-postgres.ts';
import { type ProxyStage, type Servers, openStage } from './stage.ts';

const PASSWORD = 'of the proxy';
const PORTS = ['write', 'split', 'read'] as const;

let servers: Servers;
let controls: Controls;
let directory: string;
const stages = new Map<(typeof PORTS)[number], ProxyStage>();

before(async () => {
  directory = mkdtempSync(join(tmpdir(), 'pgherd-drivers-'));
  const a = await startPlainPostgres(23_580);
  await a.query('create table seen (what text)');
  await a.query(`create role ${PROXY_ROLE} login password '${PASSWORD}'`);
  await a.query(`create database ${PROXY_DATABASE}`);
  const b = await startPlainPostgres(23_581, { standbyOf: a });
  servers = {
    a,
    b,
    remove: async () => {
      await Promise.all([b.remove(), a.remove()]);
    },
  };
  let route: Route = NO_ROUTE;
  controls = openControls({ id: 'p1', password: PASSWORD, ca: null, connectMs: 3000 });
  const positions = openPositions({ controls, route: () => route });
  for (const kind of PORTS) {
    const stage = await openStage(servers, { io: openRawBinding(), kind, ...(kind === 'split' ? { positions } : {}) });
    stages.set(kind, stage);
    const readers = [{ ...stage.targets.b, weight: 1, lagBytes: 0 }];
    stage.route({ readers });
    route = { ...NO_ROUTE, closed: null, term: makeTerm(1), writer: stage.targets.a, readers };
  }
});
after(async () => {
  for (const stage of stages.values()) stage.close();
  controls.close();
  await servers.remove();
  rmSync(directory, { recursive: true });
});

function portOf(kind: (typeof PORTS)[number] | 'direct'): number {
  return kind === 'direct' ? servers.a.port : (stages.get(kind)?.port ?? 0);
}

function run(program: string, port: number, args: readonly string[], input = ''): Promise<{ readonly output: string; readonly error: string }> {
  const env = {
    PATH: process.env['PATH'] ?? '',
    PGHOST: '127.0.0.1',
    PGPORT: String(port),
    PGUSER: login.user,
    PGPASSWORD: login.password,
    PGDATABASE: login.database,
    PGSSLMODE: 'disable',
    PGCONNECT_TIMEOUT: '10',
  };
  return new Promise((resolve, reject) => {
    const child = execFile(program, [...args], { env, cwd: directory, maxBuffer: 64 * 1024 * 1024, timeout: 60_000 }, (cause, stdout, stderr) => {
      if (cause !== null && !('code' in cause && typeof cause.code === 'number')) reject(cause);
      else resolve({ output: stdout, error: cause === null ? stderr : `${stderr}\nended with ${String(cause.code)}` });
    });
    child.stdin?.end(input);
  });
}

async function standbyHasAll(): Promise<void> {
  const [row] = await servers.a.query('select pg_current_wal_insert_lsn()::text as lsn');
  await until(
    async () => (await servers.b.query(`select pg_last_wal_replay_lsn() >= '${String(row?.['lsn'])}' as there`))[0]?.['there'] === true,
    10_000,
  );
}

describe('pgbench', () => {
  before(async () => {
    const made = await run('pgbench', portOf('write'), ['-i', '-q', '-s', '1']);
    assert.doesNotMatch(made.error, /ended with|ERROR/);
    await standbyHasAll();
  });

  for (const mode of ['simple', 'extended', 'prepared'])
    test(`writes and reads in the ${mode} protocol, through every port, without an error and without a lost row`, async () => {
      for (const kind of ['write', 'split'] as const) {
        await servers.a.query('truncate pgbench_history; update pgbench_branches set bbalance = 0; update pgbench_tellers set tbalance = 0');
        const { output, error } = await run('pgbench', portOf(kind), ['-n', '-c', '4', '-j', '2', '-t', '50', '-M', mode]);
        assert.match(output, /actually processed: 200\/200/, error);
        const [sums] = await servers.a.query(
          'select count(*)::int as n, sum(delta) = (select sum(bbalance) from pgbench_branches) as same from pgbench_history',
        );
        assert.deepEqual(sums, { n: 200, same: true });
      }
      // Reads that clean pages up after the writes make WAL that nobody flushes at once, and the standby is not there yet for as long.
      await servers.a.query('vacuum');
      await standbyHasAll();
      for (const kind of PORTS) {
        const { output, error } = await run('pgbench', portOf(kind), ['-S', '-n', '-c', '4', '-t', '500', '-M', mode]);
        assert.match(output, /actually processed: 2000\/2000/, error);
        assert.match(output, /failed transactions: 0/);
      }
    });

  test('reads of the split port were served by the standby', () => {
    const reads = stages.get('split')?.sessions.reads;
    assert.ok(reads !== undefined && reads.standby > reads.primary, JSON.stringify(reads));
  });
});

/** What psql prints for this depends on every message being where it belongs. */
const SCRIPT = String.raw`
\set ON_ERROR_STOP 0
\pset null '(null)'
drop table if exists script; create table script (n int primary key, t text);
insert into script select n, repeat('x', n) from generate_series(1, 20) n returning n;
begin; insert into script values (100, 'gone'); select count(*) from script; rollback; select count(*) from script;
select 1; select 2; select 1/0; select 3;
begin; select 1/0; select 4; commit; select 5;
savepoint nowhere;
begin; savepoint one; insert into script values (1, 'twice'); rollback to one; insert into script values (30, null); commit;
copy script from stdin;
40	copied
41	\N
\.
copy (select * from script where n >= 30 order by n) to stdout;
select * from script where n >= 30 order by n \gx
\d script
prepare named (int) as select t from script where n = $1; execute named (3); deallocate named; execute named (3);
set datestyle = 'German'; select date '2026-11-21'; reset datestyle; select date '2026-11-21';
create temporary table mine (n int); insert into mine values (1); select * from mine; discard all; select * from mine;
do $$ begin raise notice 'a notice'; end $$;
listen news; notify news; unlisten *;
declare c cursor for select 1;
begin; declare c cursor with hold for select n from script order by n; commit; fetch 3 from c; close c;
with w as (update script set t = 'changed' where n = 1 returning *) select * from w; select t from script where n = 1;
select n from script order by n limit 1 for update;
select set_config('work_mem', '5MB', false); show work_mem;
explain (costs off) select 1;
select * from generate_series(1, 3) n
\crosstabview 1 1 1
select lo_create(0) > 0;
\echo done
`;

describe('psql', () => {
  test('prints through the write and the split port what it prints directly', async () => {
    const print = async (kind: (typeof PORTS)[number] | 'direct'): ReturnType<typeof run> => {
      await servers.a.query('drop table if exists script');
      return run('psql', portOf(kind), ['-X', '-f', '-'], SCRIPT);
    };
    const wanted = await print('direct');
    assert.match(wanted.output, /done/);
    for (const kind of ['write', 'split'] as const) {
      const got = await print(kind);
      assert.equal(withoutPids(got.output), withoutPids(wanted.output), kind);
      assert.equal(withoutPids(got.error), withoutPids(wanted.error), kind);
    }
  });
});

/** Those of asynchronous notifications name the process. */
function withoutPids(text: string): string {
  return text.replaceAll(/PID \d+/g, 'PID');
}

describe('pg_dump and pg_restore', () => {
  test('give the same dump through every port, and restore it in parallel', async () => {
    await servers.a.query('drop table if exists large');
    await servers.a.query('create table large as select n, md5(n::text) as t from generate_series(1, 50000) n');
    await servers.a.query('create table if not exists second as select * from large');
    await standbyHasAll();
    const dump = (kind: (typeof PORTS)[number] | 'direct') => run('pg_dump', portOf(kind), ['--no-sync', '-t', 'large', '-t', 'second']);
    const wanted = await dump('direct');
    assert.ok(wanted.output.length > 1_000_000, wanted.error);
    const plain = (text: string): string => text.replaceAll(/^\\(un)?restrict .*$/gm, '');
    for (const kind of PORTS) {
      const got = await dump(kind);
      assert.equal(got.error, '', kind);
      assert.ok(plain(got.output) === plain(wanted.output), `${kind}: ${got.output.length} bytes, not ${wanted.output.length}`);
    }
    for (const kind of ['write', 'split'] as const) {
      const made = await run('pg_dump', portOf(kind), ['-Fd', '-j', '2', '-f', `dump-${kind}`, '-t', 'large', '-t', 'second']);
      assert.equal(made.error, '', kind);
      await servers.a.query(`create database restored_${kind}`);
      const restored = await run('pg_restore', portOf(kind), ['-j', '2', '-d', `restored_${kind}`, `dump-${kind}`]);
      assert.equal(restored.error, '', kind);
      const count = await run('psql', portOf(kind), ['-XAt', '-d', `restored_${kind}`, '-c', 'select count(*) from large']);
      assert.equal(count.output, '50000\n');
    }
  });
});

describe('psycopg2 and psycopg 3', () => {
  test('transactions, cursors, COPY, pipelines, prepared statements and notifications work through the write and the split port', async () => {
    const program = join(dirname(fileURLToPath(import.meta.url)), 'drivers.py');
    for (const kind of ['write', 'split'] as const) {
      const dsn = `host=127.0.0.1 port=${portOf(kind)} user=${login.user} dbname=${login.database}`;
      const { output, error } = await run('/usr/bin/python3', portOf(kind), [program, dsn]);
      assert.equal(output, 'good\n', `${kind}: ${error}`);
    }
  });
});
