/** What PostgreSQL does with synchronous_standby_names, and what the keeper says of it. */
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { chownSync, mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { realClock } from '../../src/base/clock.ts';
import { NO_SET, renderSyncNames, voterName } from '../../src/core/cluster/sync-set.ts';
import type { SyncSet } from '../../src/core/state.ts';
import { cloneFrom } from '../../src/agent/postgres/clone.ts';
import { detachStandby } from '../../src/agent/postgres/detach.ts';
import { followUpstream } from '../../src/agent/postgres/follow.ts';
import { ensureIncarnation, readIncarnation, renewIncarnation } from '../../src/agent/postgres/incarnation.ts';
import { type Instance, asOsUser, binary } from '../../src/agent/postgres/instance.ts';
import { createObserver } from '../../src/agent/postgres/observe.ts';
import { openSql } from '../../src/agent/postgres/sql.ts';
import { ensureSlots } from '../../src/agent/postgres/slots.ts';
import { startPostgres } from '../../src/agent/postgres/start.ts';
import { createSyncKeeper } from '../../src/agent/postgres/sync-keeper.ts';
import { isOurs, judgeInForce, lookAtSync } from '../../src/agent/postgres/sync-set.ts';

import { createLab, createPrimary, must, settings, sql, until } from './harness.ts';

const lab = createLab();
const [n1, n2, n3] = [await lab.node('n1'), await lab.node('n2'), await lab.node('n3')];
const members = [n1, n2, n3].map((instance) => ({ id: instance.node, host: instance.host, internalHost: null, port: instance.port }));
const observer = createObserver(n1, { members: () => members });
const keeper = createSyncKeeper({
  instance: n1,
  clock: realClock,
  log: { debug: () => undefined, info: () => undefined, warn: () => undefined, error: () => undefined } as never,
  wake: () => undefined,
});
let revision = 0;
after(async () => {
  observer.close();
  await lab.close();
});

const voter = (instance: Instance): string => voterName(instance.node, readIncarnation(instance) ?? '');
const any = (k: number, ...voters: string[]): SyncSet => ({ method: 'any', k, members: voters });

/** Asks for the set and steps as the agent's loop would, until it is in force. */
async function bring(set: SyncSet): Promise<void> {
  const wanted = { set, term: 1, revision: ++revision };
  await until(`${renderSyncNames(set)} in force`, async () => {
    keeper.step(await observer.observe(), wanted);
    return keeper.report()?.revision === wanted.revision;
  });
}

/** A commit of an ordinary session: resolves when it is acknowledged. */
function commit(): { readonly acknowledged: Promise<boolean>; destroy(): void } {
  let open: Awaited<ReturnType<typeof openSql>> | null = null;
  const acknowledged = (async () => {
    open = await openSql(
      { host: n1.socketDirectory, port: n1.port, user: 'postgres', database: 'postgres', password: null },
      { connectMs: 2000, statementMs: 20_000 },
    );
    await open.query('SET synchronous_commit = on');
    await open.query('INSERT INTO public.t VALUES (1)');
    return true;
  })();
  acknowledged.catch(() => undefined);
  return { acknowledged, destroy: () => open?.destroy() };
}

const waiting = async (): Promise<number> =>
  Number((await sql(n1, (db) => db.query("SELECT count(*)::int AS n FROM pg_stat_activity WHERE wait_event = 'SyncRep'")))[0]?.['n']);

test('a clone has a name of its own, and streams under it (Z58)', async () => {
  await createPrimary(n1);
  await sql(n1, (db) => db.query('CREATE TABLE public.t (id int)'));
  must(await ensureSlots(n1, { members: members.map((member) => member.id) }));
  await ensureIncarnation(n1);
  for (const node of [n2, n3]) {
    must(await cloneFrom(node, { upstream: n1, settings, systemIdentifier: null, keepSaved: 1 }));
    must(await startPostgres(node, { mode: 'standby' }));
    must(await followUpstream(node, { upstream: n1 }));
  }
  const names = [n1, n2, n3].map((instance) => readIncarnation(instance));
  assert.equal(new Set(names).size, 3);
  await until('both stream', async () => (await observer.observe()).walsenders.filter((one) => one.state === 'streaming').length === 2);
  assert.deepEqual((await observer.observe()).walsenders.map((one) => one.voter).sort(), [voter(n2), voter(n3)].sort());
});

test('the name of another directory is no name: a copy by hand answers under none (Z58)', () => {
  assert.equal(readIncarnation({ ...n2, node: n3.node }), null);
  assert.equal(readIncarnation({ ...n2, dataDirectory: '/nowhere' }), null);
});

test('nobody is waited for, and nothing is written, before a set is asked for', async () => {
  await bring(NO_SET);
  assert.equal(
    (await observer.observe()).walsenders.every((one) => one.syncState === 'async'),
    true,
  );
});

test('a set that is in force is waited for at once, also by the first commit after it', async () => {
  await bring(any(1, voter(n2), voter(n3)));
  for (const node of [n2, n3]) must(await detachStandby(node));
  const one = commit();
  await until('it waits', async () => (await waiting()) === 1);
  must(await followUpstream(n2, { upstream: n1 }));
  assert.equal(await one.acknowledged, true);
  one.destroy();
  must(await followUpstream(n3, { upstream: n1 }));
});

test('the flush position of that moment is told, and who is silent (Q8)', async () => {
  await until('a position', async () => {
    keeper.step(await observer.observe(), { set: any(1, voter(n2), voter(n3)), term: 1, revision });
    return keeper.report()?.inForceLsn != null;
  });
  must(await detachStandby(n3));
  await sql(n1, (db) => db.query('INSERT INTO public.t VALUES (2)'));
  await until('n3 is silent, n2 is not', async () => {
    keeper.step(await observer.observe(), { set: any(1, voter(n2), voter(n3)), term: 1, revision });
    const silence = new Map(keeper.report()?.silence.map((one) => [one.voter, one.ms]));
    return (silence.get(voter(n3)) ?? 0) > 300 && silence.get(voter(n2)) === 0;
  });
  must(await followUpstream(n3, { upstream: n1 }));
});

test('an older order is not followed (architecture 4.4)', async () => {
  keeper.step(await observer.observe(), { set: NO_SET, term: 1, revision: revision - 1 });
  assert.equal(keeper.report()?.revision, revision);
});

test('without a member in the set its acknowledgement counts no more, and a commit waits for the others (Z56)', async () => {
  await bring(any(1, voter(n2)));
  const look = must(await lookAtSync(n1));
  assert.deepEqual(
    look.senders.map((one) => [one.name, one.priority]).sort(),
    [
      [voter(n2), 1],
      [voter(n3), 0],
    ].sort(),
  );
  must(await detachStandby(n2));
  const one = commit();
  await until('it waits although n3 streams', async () => (await waiting()) === 1);
  must(await followUpstream(n2, { upstream: n1 }));
  assert.equal(await one.acknowledged, true);
  one.destroy();
});

test('a larger k is in force only once no older walsender is left, since each counts by its own copy', async () => {
  const before = must(await lookAtSync(n1)).senders.map((one) => one.pid);
  await bring(any(1, voter(n2), voter(n3)));
  await bring(any(2, voter(n2), voter(n3)));
  await until('both came back', async () => (await observer.observe()).walsenders.filter((one) => one.state === 'streaming').length === 2);
  const pids = must(await lookAtSync(n1)).senders.map((one) => one.pid);
  assert.deepEqual(
    pids.filter((pid) => before.includes(pid)),
    [],
  );
  must(await detachStandby(n3));
  const one = commit();
  await until('one of two is not enough', async () => (await waiting()) === 1);
  must(await followUpstream(n3, { upstream: n1 }));
  assert.equal(await one.acknowledged, true);
  one.destroy();
});

test("another user's walsender under a voter's name is ended, and counts for nobody (Z58, Z61)", async () => {
  await bring(any(1, voter(n2), voter(n3)));
  must(await detachStandby(n2));
  const receiver = spawn(
    binary(n1, 'pg_receivewal'),
    [
      '-D',
      join(n1.stateDirectory, 'log'),
      '--synchronous',
      '-n',
      '-d',
      `host=${n1.socketDirectory} port=${n1.port} user=pgherd application_name=${voter(n2)}`,
    ],
    { ...asOsUser(n1), stdio: 'ignore' },
  );
  try {
    let judged = { inForce: true, why: '', end: [] as readonly number[] };
    await until('it is seen', async () => {
      const look = must(await lookAtSync(n1));
      judged = judgeInForce(look, { set: any(1, voter(n2), voter(n3)), loadedMs: 0, largerK: false });
      return judged.end.length === 1;
    });
    assert.deepEqual([judged.inForce, judged.why], [false, `${voter(n2)} is used by pgherd`]);
    assert.equal(
      (await observer.observe()).walsenders.some((one) => one.voter === voter(n2)),
      false,
    );
  } finally {
    receiver.kill('SIGKILL');
  }
  must(await followUpstream(n2, { upstream: n1 }));
});

/** The keeper says that the set is not in force, and then that it is again. */
async function missedAndBack(set: SyncSet): Promise<void> {
  const told = (expected: number) => async (): Promise<boolean> => {
    keeper.step(await observer.observe(), { set, term: 1, revision });
    return keeper.report()?.revision === expected;
  };
  await until('it is missed', told(0));
  await until('it is in force again', told(revision));
}

test("another user's walsender that takes a voter's name once the set is in force is ended by the keeper, which promises nothing meanwhile (Z58)", async () => {
  const set = any(1, voter(n2), voter(n3));
  await bring(set);
  const folder = join(n1.socketDirectory, 'received');
  mkdirSync(folder);
  const { uid, gid } = asOsUser(n1);
  if (uid !== undefined && gid !== undefined) chownSync(folder, uid, gid);
  const target = `host=${n1.socketDirectory} port=${n1.port} user=pgherd application_name=${voter(n2)}`;
  const receiver = spawn(binary(n1, 'pg_receivewal'), ['-D', folder, '--synchronous', '-n', '-d', target], { ...asOsUser(n1), stdio: 'ignore' });
  const ended = new Promise((resolve) => receiver.once('exit', resolve));
  try {
    await missedAndBack(set);
    await ended;
    const { senders } = must(await lookAtSync(n1));
    assert.deepEqual(
      senders.map((one) => one.user).filter((user) => user === 'pgherd'),
      [],
    );
  } finally {
    receiver.kill('SIGKILL');
  }
});

test('a set that somebody changes by ALTER SYSTEM is set again, and said not to be in force meanwhile (Z56)', async () => {
  const set = any(1, voter(n2), voter(n3));
  await bring(set);
  await sql(n1, async (db) => {
    await db.query("ALTER SYSTEM SET synchronous_standby_names = ''");
    await db.query('SELECT pg_reload_conf()');
  });
  await missedAndBack(set);
  assert.equal(must(await lookAtSync(n1)).names, renderSyncNames(set));
});

test("people's own names are left alone while nobody is waited for, a leftover of ours is not", () => {
  for (const names of ['s1', 'ANY 1 (s1, s2)', '', null]) assert.equal(isOurs(names), false, String(names));
  for (const set of [any(1, 'n2.0a1b2c3d'), any(1)]) assert.equal(isOurs(renderSyncNames(set)), true);
});

test('a smaller set lets waiting commits go on (H34)', async () => {
  await bring(any(1, voter(n2), voter(n3)));
  for (const node of [n2, n3]) must(await detachStandby(node));
  const one = commit();
  await until('it waits', async () => (await waiting()) === 1);
  await bring(NO_SET);
  assert.equal(await one.acknowledged, true);
  one.destroy();
});

test('a renewed name is another voter', async () => {
  const old = voter(n2);
  await renewIncarnation(n2);
  must(await followUpstream(n2, { upstream: n1 }));
  assert.notEqual(voter(n2), old);
  await until('it streams as the new one', async () => (await observer.observe()).walsenders.some((one) => one.voter === voter(n2)));
});
