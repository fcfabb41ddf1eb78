/** Cascading and delayed standbys, and the slots that are kept ready for everybody, on real servers. */
import assert from 'node:assert/strict';
import { after, test } from 'node:test';
import { type Lsn, parseLsn } from '../../src/core/lsn.ts';
import { cloneFrom } from '../../src/agent/postgres/clone.ts';
import { detachStandby } from '../../src/agent/postgres/detach.ts';
import { followUpstream } from '../../src/agent/postgres/follow.ts';
import type { Instance } from '../../src/agent/postgres/instance.ts';
import { killAll } from '../../src/agent/postgres/kill-all.ts';
import { createObserver } from '../../src/agent/postgres/observe.ts';
import { promotePostgres } from '../../src/agent/postgres/promote.ts';
import { applySettings } from '../../src/agent/postgres/settings.ts';
import { ensureSlots } from '../../src/agent/postgres/slots.ts';
import { startPostgres } from '../../src/agent/postgres/start.ts';
import { createLab, createPrimary, must, settings, sql, until } from './harness.ts';

const lab = createLab();
const [n1, n2, n3] = [await lab.node('n1'), await lab.node('n2'), await lab.node('n3')];
const members = [n1, n2, n3].map((instance) => ({ id: instance.node, host: instance.host, internalHost: null, port: instance.port }));
const ids = members.map((member) => member.id);
const [o1, o2, o3] = [n1, n2, n3].map((instance) => createObserver(instance, { members: () => members })) as [
  ReturnType<typeof createObserver>,
  ReturnType<typeof createObserver>,
  ReturnType<typeof createObserver>,
];
after(async () => {
  for (const observer of [o1, o2, o3]) observer.close();
  await lab.close();
});

const flushed = async (instance: Instance): Promise<Lsn> => {
  const [row] = await sql(instance, (db) => db.query('SELECT pg_current_wal_flush_lsn()::text AS at'));
  return parseLsn(String(row?.['at'])) ?? (0n as Lsn);
};
const restartOf = async (instance: Instance, name: string): Promise<Lsn> => {
  const [row] = await sql(instance, (db) => db.query('SELECT restart_lsn::text AS at FROM pg_replication_slots WHERE slot_name = $1', [name]));
  return parseLsn(String(row?.['at'])) ?? (0n as Lsn);
};
const received = async (observer: typeof o1): Promise<Lsn> => (await observer.observe()).receivedLsn ?? (0n as Lsn);
/** Fills and closes WAL segments: about 16 MiB each. */
const segments = (count: number) =>
  sql(n1, async (db) => {
    for (let index = 0; index < count; index++) {
      await db.query('INSERT INTO public.t SELECT generate_series(1, 1000)');
      await db.query('SELECT pg_switch_wal()');
    }
    await db.query('CHECKPOINT');
  });

test('a standby goes behind another one by a reload, is not restarted, and is seen there and not at the primary', async () => {
  await createPrimary(n1);
  must(await ensureSlots(n1, { members: ids }));
  for (const node of [n2, n3]) {
    must(await cloneFrom(node, { upstream: n1, settings, systemIdentifier: null, keepSaved: 1 }));
    must(await startPostgres(node, { mode: 'standby' }));
    must(await followUpstream(node, { upstream: n1 }));
    must(await ensureSlots(node, { members: ids }));
  }
  await sql(n1, (db) => db.query('CREATE TABLE public.t (id int)'));
  const before = await o3.observe();
  must(await followUpstream(n3, { upstream: n2 }));
  const report = await o3.observe();
  assert.equal(report.streamingFrom, 'n2');
  assert.equal(report.startedAt, before.startedAt);
  assert.deepEqual(
    (await o2.observe()).walsenders.map((one) => [one.node, one.state]),
    [['n3', 'streaming']],
  );
  await until('the primary has let go of it', async () => (await o1.observe()).walsenders.every((one) => one.node === 'n2'));
});

test('the slot that the primary keeps for it moves on with its position, and never past it (Z69)', async () => {
  await segments(3);
  const end = await flushed(n1);
  await until('n3 has it, by way of n2', async () => (await received(o3)) >= end);
  const kept = await restartOf(n1, 'pgherd_n3');
  must(await ensureSlots(n1, { members: ids }));
  assert.equal(await restartOf(n1, 'pgherd_n3'), kept, 'without a known position a primary keeps what it has');
  const position = await received(o3);
  assert.deepEqual(must(await ensureSlots(n1, { members: ids, positions: { n3: position } })).advanced, ['pgherd_n3']);
  assert.equal(await restartOf(n1, 'pgherd_n3'), position);
  const beyond = ((await flushed(n1)) + 1_000_000n) as Lsn;
  must(await ensureSlots(n1, { members: ids, positions: { n3: beyond } }));
  assert.ok((await restartOf(n1, 'pgherd_n3')) <= (await flushed(n1)));
  assert.deepEqual(must(await ensureSlots(n1, { members: ids, positions: { n3: position } })).advanced, [], 'a slot never moves back');
});

test('a standby keeps WAL for one that is far behind, also past its own restart points: after a failover nothing is missing', async () => {
  // n3 stands still while the others go on and take checkpoints.
  const vote = must(await detachStandby(n3));
  must(await ensureSlots(n2, { members: ids, positions: { n3: vote.position.lsn } }));
  await segments(8);
  const end = await flushed(n1);
  await until('n2 has it', async () => ((await o2.observe()).replayedLsn ?? 0n) >= end);
  await sql(n2, (db) => db.query('CHECKPOINT'));
  must(await ensureSlots(n2, { members: ids, positions: { n3: vote.position.lsn } }));
  assert.ok((await restartOf(n2, 'pgherd_n3')) <= vote.position.lsn);
  assert.deepEqual((await killAll(n1.dataDirectory)).survivors, []);
  const detached = must(await detachStandby(n2));
  must(await promotePostgres(n2, { requiredLsn: detached.position.lsn, mayPromote: () => true }));
  must(await ensureSlots(n2, { members: ids, positions: { n3: vote.position.lsn } }));
  must(await followUpstream(n3, { upstream: n2 }));
  await until('n3 has caught up on the new timeline', async () => ((await o3.observe()).replayedLsn ?? 0n) >= end);
});

test('a delayed standby has its WAL, replays it later, votes with a final position, and says that it waits', async () => {
  must(await applySettings(n3, { ...settings, delayMs: 3_600_000 }));
  await until('the delay is in force', async () => {
    const [row] = await sql(n3, (db) => db.query("SELECT current_setting('recovery_min_apply_delay') AS delay"));
    return row?.['delay'] === '1h';
  });
  await sql(n2, (db) => db.query('CREATE TABLE public.dropped_by_mistake AS SELECT 1 AS id'));
  const end = await flushed(n2);
  await until('n3 has received it', async () => (await received(o3)) >= end);
  await until('and waits with it', async () => (await o3.observe()).waitsForDelay);
  const [there] = await sql(n3, (db) => db.query("SELECT to_regclass('public.dropped_by_mistake') AS found"));
  assert.equal(there?.['found'], null);
  const vote = must(await detachStandby(n3));
  assert.equal(vote.final, true);
  assert.ok(vote.position.lsn >= end);
  // PostgreSQL asks for more WAL only when it has replayed what it has: to follow means the setting, and no error each few seconds.
  assert.equal(must(await followUpstream(n3, { upstream: n2, limitMs: 5000 })).timeline, null);
  assert.equal((await o3.observe()).streamingFrom, null);
  must(await applySettings(n3, { ...settings, delayMs: 0 }));
  await until('without the delay it replays and streams', async () => {
    const report = await o3.observe();
    return !report.waitsForDelay && report.streamingFrom === 'n2' && (report.replayedLsn ?? 0n) >= end;
  });
});
