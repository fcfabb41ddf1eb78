import assert from 'node:assert/strict';
import { createServer } from 'node:net';
import { after, test } from 'node:test';
import { makeNodeId } from '../../src/core/ids.ts';
import { askTrusted } from '../../src/agent/probe/trusted.ts';
import { createProber, probeMember } from '../../src/agent/probe/probe-member.ts';
import { startPostgres } from '../../src/agent/postgres/start.ts';
import { stopPostgres } from '../../src/agent/postgres/stop.ts';
import { LOCAL_LIMITS, localTarget, openSql } from '../../src/agent/postgres/sql.ts';
import { createLab, createPrimary, must, signalServer, sql, until } from './harness.ts';

const lab = createLab();
after(() => lab.close());
const n1 = await lab.node('n1');
const look = (limitMs = 700) => probeMember(n1, n1, { self: makeNodeId('n9'), limitMs });

test('a primary takes the heartbeat write, also when a synchronous standby is missing (Z61)', async () => {
  await createPrimary(n1);
  await sql(n1, async (db) => {
    await db.query("ALTER SYSTEM SET synchronous_standby_names = 'nobody'");
    await db.query('SELECT pg_reload_conf()');
  });
  assert.deepEqual({ ...(await look()), durationMs: 0 }, { verdict: 'primary', error: null, durationMs: 0 });
  const rows = await sql(n1, (db) => db.query('SELECT 1'));
  assert.equal(rows.length, 1);
});

test('a stopped (SIGSTOP) server fails the look within its limit (I6, Q19)', async () => {
  signalServer(n1.dataDirectory, 'SIGSTOP');
  const answer = await look(200);
  signalServer(n1.dataDirectory, 'SIGCONT');
  assert.equal(answer.verdict, 'failed');
  assert.ok(answer.durationMs < 2000, `${answer.durationMs} ms`);
});

test('a full server is not called down', async () => {
  await sql(n1, (db) => db.query('ALTER DATABASE pgherd CONNECTION LIMIT 0'));
  const answer = await look();
  await sql(n1, (db) => db.query('ALTER DATABASE pgherd CONNECTION LIMIT 50'));
  assert.equal(answer.verdict, 'primary');
  assert.match(answer.error ?? '', /too many connections/);
});

test('a prober whose writes are not answered leaves two of them open, however often it looks, and sees at once when they are (I6)', async () => {
  const prober = createProber(n1, makeNodeId('n9'));
  const holder = await openSql(localTarget(n1, 'pgherd'), LOCAL_LIMITS);
  const waiting = async (): Promise<number> =>
    (await sql(n1, (db) => db.query("SELECT 1 FROM pg_stat_activity WHERE application_name = 'pgherd_probe n9' AND state = 'active'"))).length;
  try {
    assert.equal((await prober.probe(n1, 700)).verdict, 'primary');
    await holder.query('BEGIN');
    await holder.query('LOCK TABLE pgherd.heartbeat IN ACCESS EXCLUSIVE MODE');
    for (let look = 0; look < 12; look++) assert.equal((await prober.probe(n1, 400)).verdict, 'failed', `look ${look}`);
    assert.equal(await waiting(), 2);
    assert.match((await prober.probe(n1, 700)).error ?? '', /no write has been answered for \d+ ms/);
    await holder.query('COMMIT');
    await until('the writes are answered', async () => (await waiting()) === 0);
    await until('the prober sees it', async () => (await prober.probe(n1, 700)).verdict === 'primary');
  } finally {
    holder.destroy();
    prober.close();
  }
});

test('writes that were lost on the way are forgotten as soon as the server says that it has none of them', async () => {
  const prober = createProber(n1, makeNodeId('n9'));
  const holder = await openSql(localTarget(n1, 'pgherd'), LOCAL_LIMITS);
  try {
    await holder.query('BEGIN');
    await holder.query('LOCK TABLE pgherd.heartbeat IN ACCESS EXCLUSIVE MODE');
    for (let look = 0; look < 4; look++) await prober.probe(n1, 400);
    await sql(n1, (db) => db.query("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'pgherd_probe n9'"));
    await holder.query('COMMIT');
    await until('the prober writes again', async () => (await prober.probe(n1, 700)).verdict === 'primary');
  } finally {
    holder.destroy();
    prober.close();
  }
});

test('a prober tells at once that its connection ended between two looks, and nothing when it ends it itself', async () => {
  let broken = 0;
  const prober = createProber(n1, makeNodeId('n9'), () => {
    broken += 1;
  });
  const endSession = (): Promise<unknown> =>
    sql(n1, (db) => db.query("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'pgherd_probe n9'"));
  try {
    assert.equal((await prober.probe(n1, 700)).verdict, 'primary');
    await endSession();
    await until('it tells', () => broken === 1);
    assert.equal((await prober.probe(n1, 700)).verdict, 'primary');
  } finally {
    prober.close();
  }
  await until(
    'its session is gone',
    async () => (await sql(n1, (db) => db.query("SELECT 1 FROM pg_stat_activity WHERE application_name = 'pgherd_probe n9'"))).length === 0,
  );
  assert.equal(broken, 1);
});

test('a standby answers as one, a stopped server fails', async () => {
  must(await stopPostgres(n1));
  assert.equal((await look()).verdict, 'failed');
  must(await startPostgres(n1, { mode: 'standby' }));
  assert.equal((await look()).verdict, 'standby');
});

test('a peer that accepts and never speaks fails the look within its limit', async () => {
  const server = createServer(() => undefined);
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const address = server.address();
  const port = typeof address === 'object' && address !== null ? address.port : 0;
  const answer = await probeMember(n1, { host: '127.0.0.1', port }, { self: makeNodeId('n9'), limitMs: 150 });
  server.close();
  assert.equal(answer.verdict, 'failed');
  assert.ok(answer.durationMs < 2000);
});

test('a prober that is met with silence has looked twice within one limit, over two connections (architecture 4.6)', async () => {
  let connections = 0;
  const server = createServer(() => {
    connections += 1;
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const address = server.address();
  const port = typeof address === 'object' && address !== null ? address.port : 0;
  const prober = createProber(n1, makeNodeId('n9'));
  const answer = await prober.probe({ host: '127.0.0.1', port }, 500);
  prober.close();
  server.close();
  assert.deepEqual([answer.verdict, answer.looks, connections], ['failed', 2, 2]);
  assert.ok(answer.durationMs < 2000);
});

test('a trusted address that refuses a connection has answered; none configured is no answer', async () => {
  assert.equal((await askTrusted(['127.0.0.1:1'], { limitMs: 300 })).reachable, true);
  assert.equal((await askTrusted([], { limitMs: 300 })).reachable, null);
});

test('a trusted address that cannot be asked is not a lost gateway (I28)', async () => {
  assert.equal((await askTrusted(['not a host'], { limitMs: 300 })).reachable, null);
});
