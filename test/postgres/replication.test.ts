import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { getPriority } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { makeNodeId } from '../../src/core/ids.ts';
import { parseLsn } from '../../src/core/lsn.ts';
import { cloneFrom } from '../../src/agent/postgres/clone.ts';
import { alienNames } from '../../src/agent/postgres/data-directory.ts';
import { detachStandby } from '../../src/agent/postgres/detach.ts';
import { followUpstream } from '../../src/agent/postgres/follow.ts';
import { killAll } from '../../src/agent/postgres/kill-all.ts';
import { createObserver } from '../../src/agent/postgres/observe.ts';
import { findStartup } from '../../src/agent/postgres/hurry.ts';
import { findPostmaster, findProcesses, readTitle } from '../../src/agent/postgres/postmaster.ts';
import { promotePostgres } from '../../src/agent/postgres/promote.ts';
import { ensureSlots } from '../../src/agent/postgres/slots.ts';
import { setAside } from '../../src/agent/postgres/set-aside.ts';
import { startPostgres } from '../../src/agent/postgres/start.ts';
import { stopPostgres } from '../../src/agent/postgres/stop.ts';
import { createLab, createPrimary, must, settings, signalServer, sql, until } from './harness.ts';

const lab = createLab();
const [n1, n2, n3] = [await lab.node('n1'), await lab.node('n2'), await lab.node('n3')];
const members = [n1, n2, n3].map((instance) => ({ id: instance.node, host: instance.host, internalHost: null, port: instance.port }));
const [o1, o2, o3] = [n1, n2, n3].map((instance) => createObserver(instance, { members: () => members })) as [
  ReturnType<typeof createObserver>,
  ReturnType<typeof createObserver>,
  ReturnType<typeof createObserver>,
];
after(async () => {
  for (const observer of [o1, o2, o3]) observer.close();
  await lab.close();
});

const moduleOf = (path: string): string => new URL(`../../src/${path}`, import.meta.url).href;
const clone = (instance: typeof n1, upstream: typeof n1) => cloneFrom(instance, { upstream, settings, systemIdentifier: null, keepSaved: 1 });
const at = async (instance: typeof n1): Promise<bigint> => {
  const [row] = await sql(instance, (db) => db.query('SELECT pg_current_wal_flush_lsn()::text AS at'));
  return parseLsn(String(row?.['at'])) ?? 0n;
};

test('an absent directory is reported absent', async () => {
  assert.equal((await o2.observe()).state, 'absent');
});

test('two clones of a primary stream, and its walsenders carry their node ids', async () => {
  await createPrimary(n1);
  must(await ensureSlots(n1, { members: members.map((member) => member.id) }));
  for (const node of [n2, n3]) {
    const cloned = must(await clone(node, n1));
    assert.equal(cloned.savedPath, null);
    assert.equal(must(await startPostgres(node, { mode: 'standby' })).role, 'standby');
    must(await followUpstream(node, { upstream: n1 }));
  }
  const report = await o1.observe();
  assert.equal(report.role, 'primary');
  assert.deepEqual(report.walsenders.map((sender) => [sender.node, sender.state]).sort(), [
    ['n2', 'streaming'],
    ['n3', 'streaming'],
  ]);
  const standby = await o2.observe();
  assert.deepEqual([standby.state, standby.role, standby.streamingFrom, standby.timeline], ['running', 'standby', 'n1', 1]);
  assert.equal(standby.systemIdentifier, report.systemIdentifier);
});

test('a slot for each other member, none for the node itself; foreign slots stay (H23, H24, Z73)', async () => {
  await sql(n1, (db) => db.query("SELECT pg_create_physical_replication_slot('mine', true)"));
  const made = must(await ensureSlots(n1, { members: [n1.node, n2.node, n3.node, makeNodeId('gone')] }));
  assert.deepEqual(made.created, ['pgherd_gone']);
  assert.deepEqual(must(await ensureSlots(n1, { members: [n1.node, n2.node, n3.node] })).dropped, ['pgherd_gone']);
  const names = await sql(n1, (db) => db.query('SELECT slot_name FROM pg_replication_slots ORDER BY 1'));
  assert.deepEqual(
    names.map((row) => row['slot_name']),
    ['mine', 'pgherd_n2', 'pgherd_n3'],
  );
  must(await ensureSlots(n2, { members: members.map((member) => member.id) }));
  await sql(n1, (db) => db.query("SELECT pg_drop_replication_slot('mine')"));
});

test('a detached standby has no walreceiver, and its position is the end of what it received (I9, Q21)', async () => {
  await sql(n1, (db) => db.query('CREATE TABLE public.t AS SELECT generate_series(1, 5000) AS id'));
  const flushed = await at(n1);
  await until('n2 has it', async () => ((await o2.observe()).receivedLsn ?? 0n) >= flushed);
  const detached = must(await detachStandby(n2));
  assert.equal(detached.final, true);
  assert.equal(detached.position.timeline, 1);
  assert.ok(detached.position.lsn >= flushed);
  await sql(n1, (db) => db.query('INSERT INTO public.t VALUES (0)'));
  assert.equal((await o2.observe()).streamingFrom, null);
  const later = must(await detachStandby(n2));
  assert.equal(later.position.lsn, detached.position.lsn);
  must(await followUpstream(n2, { upstream: n1 }));
});

test('a standby whose replay is paused detaches too; its position counts what is not replayed, and is not final', async () => {
  await sql(n3, (db) => db.query('SELECT pg_wal_replay_pause()'));
  await until('paused', async () => (await sql(n3, (db) => db.query('SELECT pg_get_wal_replay_pause_state() AS s')))[0]?.['s'] === 'paused');
  await sql(n1, (db) => db.query('INSERT INTO public.t SELECT generate_series(1, 3000)'));
  const flushed = await at(n1);
  await until('n3 received it', async () => ((await o3.observe()).receivedLsn ?? 0n) >= flushed);
  const detached = must(await detachStandby(n3, { exhaustMs: 50 }));
  assert.equal(detached.final, false);
  assert.ok(detached.position.lsn >= flushed);
  await sql(n3, (db) => db.query('SELECT pg_wal_replay_resume()'));
  must(await followUpstream(n3, { upstream: n1 }));
});

function startupOf(instance: typeof n3): ReturnType<typeof findStartup> {
  const postmaster = findPostmaster(instance.dataDirectory);
  return postmaster === null ? null : findStartup(postmaster);
}

test('a standby has a startup process, and a primary has none', () => {
  for (const instance of [n2, n3]) {
    const pid = startupOf(instance)?.pid;
    assert.ok(findProcesses(instance.dataDirectory).some((process) => process.pid === pid));
    assert.match(readFileSync(`/proc/${pid}/cmdline`, 'latin1'), /startup (recovering|waiting)/);
  }
  assert.equal(startupOf(n1), null);
});

test('those that end a primary, and who replays at a promotion, are hurried, and nobody else', () => {
  const script = (call: string): string => `
    import { raisePriority } from ${JSON.stringify(moduleOf('base/priority.ts'))};
    import { hurryServer, hurryStartup } from ${JSON.stringify(moduleOf('agent/postgres/hurry.ts'))};
    process.stdout.write(String(raisePriority('vital')));
    ${call};`;
  const hurry = (call: string): boolean =>
    execFileSync(process.execPath, ['--input-type=module', '--eval', script(call)], { encoding: 'utf8' }) === 'true';
  const raised = (instance: typeof n1): readonly string[] =>
    findProcesses(instance.dataDirectory)
      .filter(({ pid }) => getPriority(pid) < 0)
      .map(({ pid }) => /^postgres: (?:\S+: )?(\S+)/.exec(readTitle(pid) ?? '')?.[1] ?? 'postmaster')
      .toSorted();
  assert.deepEqual([raised(n1), raised(n2)], [[], []]);
  const mayRaise = hurry(`hurryServer({ pid: ${findPostmaster(n1.dataDirectory)?.pid} })`);
  hurry(`hurryStartup({ dataDirectory: ${JSON.stringify(n2.dataDirectory)} })`);
  // A process without the right to raise itself raises nobody.
  assert.deepEqual([raised(n1), raised(n2)], mayRaise ? [['checkpointer', 'postmaster', 'walsender', 'walsender'], ['startup']] : [[], []]);
});

test('a SIGSTOPped startup process does not keep the walreceiver acknowledging after a detach', async () => {
  const startup = startupOf(n3);
  assert.ok(startup !== null);
  process.kill(startup.pid, 'SIGSTOP');
  try {
    const detached = must(await detachStandby(n3, { exhaustMs: 20 }));
    assert.ok(detached.position.lsn > 0n);
  } finally {
    process.kill(startup.pid, 'SIGCONT');
  }
  // The walreceiver that a stopped startup process asked for must not come back.
  assert.equal(must(await detachStandby(n3)).final, true);
  must(await followUpstream(n3, { upstream: n1 }));
});

test('after a crash of the primary the best standby is promoted, the other one follows it without a restart', async () => {
  const flushed = await at(n1);
  await until('n2 has it', async () => ((await o2.observe()).receivedLsn ?? 0n) >= flushed);
  assert.deepEqual((await killAll(n1.dataDirectory)).survivors, []);
  assert.equal((await o1.observe()).state, 'crashed');
  const vote = must(await detachStandby(n2));
  must(await detachStandby(n3));
  const before = await o3.observe();
  const promoted = must(await promotePostgres(n2, { requiredLsn: vote.position.lsn, mayPromote: () => true }));
  assert.equal(promoted.timeline, 2);
  assert.ok(promoted.forkLsn !== null);
  must(await ensureSlots(n2, { members: members.map((member) => member.id) }));
  must(await followUpstream(n3, { upstream: n2 }));
  await until('n3 replays timeline 2 (Z46)', async () => (await o3.observe()).timeline === 2);
  const report = await o3.observe();
  assert.equal(report.streamingFrom, 'n2');
  assert.equal(report.startedAt, before.startedAt);
  assert.deepEqual(report.history, [{ timeline: 1, forkLsn: promoted.forkLsn }]);
});

test('a promotion is refused on a primary and without the lease', async () => {
  const again = await promotePostgres(n2, { requiredLsn: null, mayPromote: () => true });
  assert.equal(again.ok ? '' : again.error.code, 'promote.not-in-recovery');
  const without = await promotePostgres(n3, { requiredLsn: null, mayPromote: () => false });
  assert.equal(without.ok ? '' : without.error.code, 'promote.refused');
});

test('a clone over an old data directory keeps the old one (Q25, H22)', async () => {
  const cloned = must(await clone(n1, n2));
  assert.ok(cloned.savedPath !== null);
  must(await startPostgres(n1, { mode: 'standby' }));
  must(await followUpstream(n1, { upstream: n2 }));
  assert.equal((await o1.observe()).timeline, 2);
});

test('what never was PostgreSQL’s is not moved aside for a clone: the path may be mistyped', async () => {
  const other = await lab.node('n7');
  mkdirSync(other.dataDirectory);
  writeFileSync(join(other.dataDirectory, 'letters.txt'), 'dear');
  assert.deepEqual(await alienNames(other), ['letters.txt']);
  const refused = await setAside(other, { keep: 2 });
  assert.equal(refused.ok ? '' : refused.error.code, 'set-aside.foreign');
  assert.match(refused.ok ? '' : refused.error.cause, /letters\.txt/);
  assert.equal(readFileSync(join(other.dataDirectory, 'letters.txt'), 'utf8'), 'dear');
  // A directory of PostgreSQL that lost its control file is one all the same.
  writeFileSync(join(other.dataDirectory, 'PG_VERSION'), '15');
  assert.deepEqual(await alienNames(other), []);
  assert.ok(must(await setAside(other, { keep: 2 })).path !== null);
});

test('a clean switchover leaves nothing that the successor has not replayed (Z29)', async () => {
  const stopped = must(await stopPostgres(n2));
  assert.ok(stopped.clean && stopped.shutdownLsn !== null);
  const report = await o2.observe();
  assert.deepEqual([report.state, report.role, report.cleanShutdown, report.shutdownLsn], ['stopped', 'primary', true, stopped.shutdownLsn]);
  const promoted = must(await promotePostgres(n1, { requiredLsn: stopped.shutdownLsn, mayPromote: () => true }));
  assert.equal(promoted.forkLsn, stopped.shutdownLsn);
  must(await ensureSlots(n1, { members: members.map((member) => member.id) }));
  must(await followUpstream(n3, { upstream: n1 }));
  must(await startPostgres(n2, { mode: 'standby' }));
  must(await followUpstream(n2, { upstream: n1 }));
  await until('n2 replays timeline 3', async () => (await o2.observe()).timeline === 3);
});

test('a hung server is reported hung after two looks (Z20)', async () => {
  signalServer(n3.dataDirectory, 'SIGSTOP');
  const quick = createObserver(n3, { members: () => members, limitMs: 100 });
  await quick.observe();
  assert.equal((await quick.observe()).state, 'hung');
  quick.close();
  signalServer(n3.dataDirectory, 'SIGCONT');
});

test('a cleanly stopped standby is read from its files', async () => {
  must(await stopPostgres(n3));
  const report = await o3.observe();
  assert.deepEqual([report.state, report.role, report.cleanShutdown, report.shutdownLsn], ['stopped', 'standby', true, null]);
  assert.ok(report.walEnd !== null);
});
