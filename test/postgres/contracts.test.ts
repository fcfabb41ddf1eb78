/** What the safety rules take for granted of PostgreSQL, pinned against the real server. The list with its reasons: docs/contracts.md. */
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { after, test } from 'node:test';
import { cloneFrom } from '../../src/agent/postgres/clone.ts';
import { detachStandby } from '../../src/agent/postgres/detach.ts';
import { asOsUser, binary } from '../../src/agent/postgres/instance.ts';
import { killAll } from '../../src/agent/postgres/kill-all.ts';
import { findPostmaster, findProcesses, isSameProcessAlive } from '../../src/agent/postgres/postmaster.ts';
import { createObserver } from '../../src/agent/postgres/observe.ts';
import { promotePostgres } from '../../src/agent/postgres/promote.ts';
import { localTarget, openSql, withLocalSql } from '../../src/agent/postgres/sql.ts';
import { startPostgres } from '../../src/agent/postgres/start.ts';
import { stopPostgres } from '../../src/agent/postgres/stop.ts';
import { readWalEnd } from '../../src/agent/postgres/wal-end.ts';
import type { PostgresReport } from '../../src/core/report.ts';
import { createLab, createPrimary, must, settings, sql, until } from './harness.ts';

const lab = createLab();
after(() => lab.close());
const [n1, n2, n3] = [await lab.node('n1'), await lab.node('n2'), await lab.node('n3')];
const LIMITS = { connectMs: 2000, statementMs: 60_000 };

async function role(): Promise<unknown> {
  const answer = await withLocalSql(n1, {}, async (db) => (await db.query('SELECT pg_is_in_recovery() AS recovery'))[0]?.['recovery']);
  return answer.ok ? answer.value : null;
}

test('a backend that is killed takes the whole server with it, which does not come back by itself (restart_after_crash = off)', async () => {
  await createPrimary(n1);
  const postmaster = findPostmaster(n1.dataDirectory);
  assert.ok(postmaster !== null);
  const victim = await openSql(localTarget(n1), LIMITS);
  const [row] = await victim.query('SELECT pg_backend_pid() AS pid');
  process.kill(Number(row?.['pid']), 'SIGKILL');
  await until('the postmaster is gone', () => !isSameProcessAlive(postmaster));
  await until('nothing of it is left', () => findProcesses(n1.dataDirectory).length === 0);
  victim.destroy();
});

test('a crashed primary that anybody starts by hand comes up read-only, because standby.signal lies there', async () => {
  const child = spawn(binary(n1, 'postgres'), ['-D', n1.dataDirectory], { ...asOsUser(n1), cwd: '/', detached: true, stdio: 'ignore' });
  child.unref();
  await until('it answers', async () => (await role()) !== null);
  assert.equal(await role(), true);
  const refused = await withLocalSql(n1, {}, (db) => db.query('CREATE TABLE public.never (v int)'));
  assert.match(refused.ok ? '' : refused.error.cause, /read-only|25006|recovery/);
  assert.deepEqual((await killAll(n1.dataDirectory)).survivors, []);
});

test('a backend at work outlives its postmaster, so that "crashed" needs the look for orphans (Z27)', async () => {
  must(await startPostgres(n1, { mode: 'primary', mayStart: () => true }));
  const busy = await openSql(localTarget(n1), LIMITS);
  const [row] = await busy.query('SELECT pg_backend_pid() AS pid');
  const pid = Number(row?.['pid']);
  // It computes, and waits for nothing that would tell it of the postmaster's death.
  const work = busy.query('DO $$ BEGIN FOR i IN 1..2000000000 LOOP NULL; END LOOP; END $$').catch(() => null);
  const postmaster = findPostmaster(n1.dataDirectory);
  assert.ok(postmaster !== null);
  await until('it works', async () => {
    const [seen] = await sql(n1, (db) => db.query("SELECT state FROM pg_stat_activity WHERE pid = $1 AND query LIKE 'DO%'", [pid]));
    return seen?.['state'] === 'active';
  });
  process.kill(postmaster.pid, 'SIGKILL');
  await until('the postmaster is gone', () => !isSameProcessAlive(postmaster));
  assert.ok(
    findProcesses(n1.dataDirectory).some((one) => one.pid === pid),
    'the backend still works in the directory',
  );
  assert.deepEqual((await killAll(n1.dataDirectory)).survivors, []);
  assert.equal(findProcesses(n1.dataDirectory).length, 0);
  busy.destroy();
  await work;
  must(await startPostgres(n1, { mode: 'primary', mayStart: () => true }));
});

test('a request to promote may be repeated: it opens one timeline', async () => {
  must(await cloneFrom(n2, { upstream: n1, settings, systemIdentifier: null, keepSaved: 1 }));
  must(await cloneFrom(n3, { upstream: n1, settings, systemIdentifier: null, keepSaved: 1 }));
  for (const node of [n2, n3]) {
    must(await startPostgres(node, { mode: 'standby' }));
    must(await detachStandby(node));
  }
  await sql(n2, async (db) => {
    for (let i = 0; i < 5; i++) await db.query('SELECT pg_promote(false) WHERE pg_is_in_recovery()');
  });
  await until('promoted', async () => (await sql(n2, (db) => db.query('SELECT pg_is_in_recovery() AS r')))[0]?.['r'] === false);
  const again = await promotePostgres(n2, { requiredLsn: null, mayPromote: () => true });
  assert.equal(again.ok ? '' : again.error.code, 'promote.not-in-recovery');
  const [row] = await sql(n2, (db) => db.query('SELECT substr(pg_walfile_name(pg_current_wal_insert_lsn()), 1, 8) AS timeline'));
  assert.equal(row?.['timeline'], '00000002');
});

test('two promotions that do not know of each other share a timeline number, so that a number is no identity (Z18, Z53)', async () => {
  const promoted = must(await promotePostgres(n3, { requiredLsn: null, mayPromote: () => true }));
  assert.equal(promoted.timeline, 2);
});

test('after its shutdown checkpoint a server that stops accepts nothing, however long it still waits for a standby', async () => {
  const observer = createObserver(n1, { members: () => [] });
  const other = await lab.node('n4');
  must(await cloneFrom(other, { upstream: n1, settings, systemIdentifier: null, keepSaved: 1 }));
  must(await startPostgres(other, { mode: 'standby' }));
  await until('it streams', async () => (await sql(n1, (db) => db.query("SELECT 1 FROM pg_stat_replication WHERE state = 'streaming'"))).length > 0);
  assert.equal((await observer.observe()).state, 'running');
  const [receiver] = await sql(other, (db) => db.query('SELECT pid FROM pg_stat_wal_receiver'));
  const pid = Number(receiver?.['pid']);
  await sql(n1, (db) => db.query('CREATE TABLE IF NOT EXISTS public.written (v int)'));
  const writer = await openSql(localTarget(n1), LIMITS);
  // The standby takes nothing any more, so that the walsender lingers when everything else has ended.
  process.kill(pid, 'SIGSTOP');
  let acknowledged = 0;
  let ended = false;
  const writing = (async () => {
    while (!ended) {
      await writer.query('INSERT INTO public.written VALUES (1)');
      acknowledged++;
    }
  })().catch(() => undefined);
  await until('it writes', () => acknowledged > 20);
  const atWord: { report: PostgresReport; acknowledged: number; refused: string; alive: boolean }[] = [];
  let looking: Promise<unknown> | null = null;
  const postmaster = findPostmaster(n1.dataDirectory);
  assert.ok(postmaster !== null);
  const stopping = stopPostgres(n1, {
    onShutDown: () => {
      const before = acknowledged;
      looking = (async () => {
        const refused = await withLocalSql(n1, {}, (db) => db.query('INSERT INTO public.written VALUES (2)'));
        const report = await observer.observe();
        atWord.push({ report, acknowledged: before, refused: refused.ok ? 'accepted' : refused.error.cause, alive: isSameProcessAlive(postmaster) });
      })();
    },
  });
  const stopped = must(await stopping);
  await looking;
  ended = true;
  await writing;
  process.kill(pid, 'SIGCONT');
  writer.destroy();
  observer.close();
  assert.equal(atWord.length, 1, 'the word was given once');
  const [word] = atWord;
  assert.equal(word?.alive, true, 'the postmaster still waits for its walsender');
  assert.match(word?.refused ?? '', /shutting down/);
  assert.deepEqual([word?.report.state, word?.report.cleanShutdown], ['stopping', true]);
  assert.equal(word?.report.shutdownLsn, stopped.shutdownLsn);
  assert.equal(word?.acknowledged, acknowledged, 'nothing was acknowledged after the word');
  // Not one record more came to the directory after the word.
  assert.ok(stopped.clean && stopped.shutdownLsn !== null);
  const end = must(await readWalEnd(n1, {}));
  assert.equal(end.shutdownLsn, stopped.shutdownLsn);
  assert.equal(end.lsn, stopped.shutdownLsn);
});
