import assert from 'node:assert/strict';
import { test } from 'node:test';
import { executableActions } from '../../src/agent/execute.ts';
import { makeNodeId, makeTerm } from '../../src/core/ids.ts';
import { err, ok } from '../../src/core/result.ts';
import type { ClusterState, Goal } from '../../src/core/state.ts';
import { N1, down, makeWallMs, postgres, primaryRunning } from '../core/node/facts.ts';
import { createWorld, failure } from './fake-world.ts';

const n2 = makeNodeId('n2');
const n3 = makeNodeId('n3');
const T = makeTerm;
const W = makeWallMs(1);
const standbyOf = (upstream: typeof n2, via: 'stream' | 'rewind' | 'clone' = 'stream', id = `s-${upstream}-${via}`): Goal => ({
  kind: 'standby',
  id,
  term: T(1),
  upstream,
  via,
  source: null,
  rateKb: null,
  generation: 0,
  restart: null,
});

test('a new cluster: initdb, lease, start, roles, and only then open', async () => {
  const world = createWorld();
  world.pg = down('absent', null);
  await world.settle({ kind: 'create', id: 'c', term: T(1) });
  assert.deepEqual(world.did, ['initdb', 'acquire 1', 'close', 'start-primary', 'roles', 'mark 1', 'note-opening 1', 'open']);
  assert.equal(world.status?.open, true);
  assert.equal(world.status?.leaseTerm, 1);
});

test('a promotion takes the lease first and opens after it', async () => {
  const world = createWorld();
  await world.settle({ kind: 'promote', id: 'x', term: T(2), requiredLsn: null });
  assert.deepEqual(world.did, ['acquire 2', 'close', 'promote', 'note-opening 2', 'mark 2', 'note-opening 2', 'open']);
});

test('a promotion that fails kills the server, refuses the term durably and releases, in this order (Z38, H28)', async () => {
  const world = createWorld();
  world.answers.set('promote', () => Promise.resolve(err(failure('promote.timeout', true))));
  await world.settle({ kind: 'promote', id: 'x', term: T(2), requiredLsn: null });
  assert.deepEqual(world.did, ['acquire 2', 'close', 'promote', 'kill', 'refuse 2', 'release', 'open-standby']);
  assert.equal(world.lease, null);
});

test('the node that is to take over makes a lease ready during the checkpoint before, while writes go on; nobody else does', async () => {
  const planned = { taskId: 't', phase: 'checkpoint' as const, startedWallMs: W, phaseWallMs: W, deadlineWallMs: W, holdRoute: 0, reason: '' };
  const ready = async (state: Partial<ClusterState>): Promise<number> => {
    const world = createWorld();
    world.state = state;
    await world.settle(standbyOf(n2));
    return world.prepared;
  };
  assert.ok((await ready({ switchover: { ...planned, from: n2, to: N1 } })) > 0);
  assert.equal(await ready({ switchover: { ...planned, from: n2, to: n3 } }), 0);
  assert.equal(await ready({}), 0);
});

test('no promotion is requested before the port is closed', async () => {
  const world = createWorld();
  let close: (value: ReturnType<typeof ok<string>>) => void = () => undefined;
  world.answers.set('close', () => new Promise((resolve) => (close = resolve)));
  const goal: Goal = { kind: 'promote', id: 'x', term: T(2), requiredLsn: null };
  const settled = world.settle(goal);
  for (let turn = 0; turn < 10; turn++) await new Promise((resolve) => setImmediate(resolve));
  assert.deepEqual(world.did, ['acquire 2', 'close']);
  close(ok(''));
  await settled;
  await world.settle(goal);
  assert.deepEqual(world.did, ['acquire 2', 'close', 'promote', 'note-opening 2', 'mark 2', 'note-opening 2', 'open']);
});

test('a port that cannot be closed ends a promotion before it is requested: nothing is killed or refused', async () => {
  const world = createWorld();
  world.answers.set('close', () => Promise.resolve(err(failure('firewall.failed', true))));
  await world.settle({ kind: 'promote', id: 'x', term: T(2), requiredLsn: null });
  assert.deepEqual([...new Set(world.did)], ['acquire 2', 'close']);
  assert.equal(world.status?.activity.kind, 'failed');
});

test('a handover turns newcomers away, and stops before it releases', async () => {
  const world = createWorld();
  world.pg = primaryRunning;
  world.lease = T(1);
  await world.settle({ kind: 'handover', id: 'h', term: T(1), to: n2 });
  assert.deepEqual(world.did.slice(0, 3), ['turn-away', 'stop', 'release']);
});

test('a handover releases as soon as the shutdown checkpoint is written, once, and tells it with the position', async () => {
  const world = createWorld();
  world.pg = primaryRunning;
  world.lease = T(1);
  world.writesShutdownFirst = true;
  await world.settle({ kind: 'handover', id: 'h', term: T(1), to: n2 });
  assert.deepEqual(
    world.did.filter((what) => what !== 'open-standby'),
    ['turn-away', 'release', 'stop'],
  );
  assert.equal(world.lease, null);
});

test('another stop than that of a handover keeps the lease until nothing is left', async () => {
  const world = createWorld();
  world.pg = primaryRunning;
  world.lease = T(1);
  world.writesShutdownFirst = true;
  await world.settle({ kind: 'stopped', id: 's', term: T(1), reason: 'r' });
  assert.deepEqual(world.did.slice(0, 2), ['stop', 'release']);
});

test('a vote is on disk before the walreceiver is touched', async () => {
  const world = createWorld();
  await world.settle({ kind: 'vote', id: 'v', term: T(2) });
  assert.deepEqual(world.did, ['vote 2', 'detach', 'vote 2 final']);
  assert.deepEqual(world.status?.activity.kind, 'done');
});

test('a vote waits for a promise that was given to a primary without a store (architecture 4.7)', async () => {
  const world = createWorld();
  world.mayVote = { kind: 'wait', why: 'promised n2' };
  await world.settle({ kind: 'vote', id: 'v', term: T(2) });
  assert.deepEqual(world.did, []);
  world.mayVote = { kind: 'granted' };
  world.at += 1000;
  await world.settle({ kind: 'vote', id: 'v', term: T(2) });
  assert.deepEqual(world.did, ['vote 2', 'detach', 'vote 2 final']);
});

test('a clone that runs is aborted when the goal changes, and the new goal is taken up', async () => {
  const world = createWorld();
  world.pg = down('absent', null);
  world.answers.set(
    'clone',
    (signal) =>
      new Promise((resolve) => {
        signal.addEventListener('abort', () => resolve(err(failure('clone.aborted', true))), { once: true });
      }),
  );
  await world.settle(standbyOf(n2, 'clone'));
  assert.equal(world.status?.activity.kind, 'busy');
  world.answers.delete('clone');
  await world.settle(standbyOf(n3, 'clone'));
  await world.settle(standbyOf(n3, 'clone'));
  assert.deepEqual(world.did, ['clone', 'clone', 'open-standby', 'start-standby']);
  assert.equal(world.upstream, n3);
});

test('a failed follow waits with a growing pause, and says how often it was tried (H27, I10)', async () => {
  const world = createWorld();
  world.answers.set('follow', () => Promise.resolve(err(failure('follow.refused', true))));
  await world.settle(standbyOf(n3));
  await world.settle(standbyOf(n3));
  assert.equal(world.did.length, 1);
  world.at += 600;
  await world.settle(standbyOf(n3));
  assert.equal(world.did.length, 2);
  const activity = world.status?.activity;
  assert.deepEqual([activity?.kind, activity?.kind === 'failed' && activity.attempts], ['failed', 2]);
  world.at += 600;
  await world.settle(standbyOf(n3));
  assert.equal(world.did.length, 2, 'the second pause is longer than the first');
  world.spec = { ...world.spec };
  await world.settle(standbyOf(n3));
  assert.equal(world.did.length, 3, 'what people have just corrected is tried at once');
  await world.settle(standbyOf(n3));
  assert.equal(world.did.length, 3, 'once');
  world.answers.delete('follow');
  world.at += 3000;
  await world.settle(standbyOf(n3));
  assert.equal(world.status?.activity.kind, 'done');
});

test('an agent that was killed between the start and the opening waits again, with the port closed to clients, for what was recovered (architecture 4.4)', async () => {
  const world = createWorld();
  world.pg = down('crashed', 'primary');
  world.lease = T(1);
  world.syncReady = false;
  await world.settle({ kind: 'primary', id: 'p', term: T(1), generation: 0, restart: null });
  assert.deepEqual([world.pg.state, world.status?.open, world.unopened, world.recoveries], ['running', false, true, 1]);
  world.did.length = 0;
  // Killed, and back: the lease is taken over from the guard.
  world.loop.leaseAdopted();
  assert.deepEqual([world.did, world.recoveries], [['close'], 2]);
  world.syncReady = true;
  await world.settle({ kind: 'primary', id: 'p', term: T(1), generation: 0, restart: null });
  assert.deepEqual([world.status?.open, world.unopened], [true, false]);
  world.did.length = 0;
  world.loop.leaseAdopted();
  assert.deepEqual([world.did, world.recoveries], [[], 2], 'clients were in: nobody is kept out');
});

test('an agent that takes over an unopened primary waits for what was recovered, also when it knows nothing of the state at first', async () => {
  const world = createWorld();
  world.unopened = true;
  world.lease = T(1);
  world.pg = { ...world.pg, state: 'running', role: 'primary' };
  world.syncReady = false;
  await world.settle({ kind: 'primary', id: 'p', term: T(1), generation: 0, restart: null });
  assert.deepEqual([world.recoveries, world.status?.open], [1, false]);
});

test('a primary that was started and let nobody in waits for nobody once it was started as a standby', async () => {
  const world = createWorld();
  world.pg = down('crashed', 'primary');
  world.lease = T(1);
  world.syncReady = false;
  await world.settle({ kind: 'primary', id: 'p', term: T(1), generation: 0, restart: null });
  assert.deepEqual([world.unopened, world.recoveries], [true, 1]);
  world.lease = null;
  world.pg = down('crashed', 'primary');
  await world.settle(standbyOf(n2));
  assert.deepEqual([world.unopened, world.recoveries], [false, 0]);
});

test('a lost lease closes the node for writes and fences what is left', async () => {
  const world = createWorld();
  const goal: Goal = { kind: 'primary', id: 'p', term: T(1), generation: 0, restart: null };
  world.pg = down('stopped', 'primary');
  await world.settle(goal);
  assert.equal(world.status?.open, true);
  world.lease = null;
  world.answers.set('acquire 1', () => Promise.resolve(err(failure('lease.store', true))));
  world.loop.leaseLost();
  await world.settle(goal);
  assert.equal(world.status?.open, false);
  assert.ok(world.did.includes('kill'));
  assert.equal(world.pg.state, 'crashed');
});

test('what is asked for again and again is logged when its tries have doubled, and at once when it fails otherwise', async () => {
  const world = createWorld();
  const goal: Goal = { kind: 'primary', id: 'p', term: T(1), generation: 0, restart: null };
  world.pg = down('stopped', 'primary');
  const failWith = (code: string) => world.answers.set('acquire 1', () => Promise.resolve(err(failure(code, true))));
  const tries = async (count: number): Promise<void> => {
    for (let n = 0; n < count; n++) {
      world.at += 500;
      await world.settle(goal);
    }
  };
  failWith('lease.store');
  await tries(200);
  assert.equal(world.did.filter((one) => one === 'acquire 1').length, 200);
  const lines = world.logged.length;
  assert.ok(lines >= 16 && lines <= 22, `${lines} lines: ${world.logged.slice(-3).join(', ')}`);
  failWith('lease.taken');
  await tries(1);
  assert.match(world.logged.at(-1) ?? '', /lease\.taken/);
});

test('a fence that leaves processes behind releases nothing and lets the lease run out', async () => {
  const world = createWorld();
  world.pg = primaryRunning;
  world.lease = T(1);
  await world.settle({ kind: 'primary', id: 'p', term: T(1), generation: 0, restart: null });
  const outcomes = [err(failure('fence.survivors', true)), err(failure('fence.survivors', true))];
  world.answers.set('kill', () => Promise.resolve(outcomes.pop() ?? ok('')));
  world.did.length = 0;
  await world.settle({ kind: 'fenced', id: 'f', term: T(1), reason: 'its disk is stuck' });
  assert.deepEqual(world.did, ['lapse', 'kill', 'lapse', 'kill', 'lapse', 'kill', 'release', 'open-standby']);
  assert.equal(world.status?.open, false);
});

test('a server that does not answer is fenced on order all the same (H50, I6)', async () => {
  const world = createWorld();
  const goal: Goal = { kind: 'primary', id: 'p', term: T(1), generation: 0, restart: null };
  world.pg = primaryRunning;
  world.lease = T(1);
  await world.settle(goal);
  world.slowLook = true;
  await world.settle(goal);
  assert.ok(!world.did.includes('kill'), 'nothing is decided on an old look');
  await world.settle({ kind: 'fenced', id: 'f', term: T(1), reason: 'it hangs' });
  assert.ok(world.did.includes('kill'));
});

test('a server that did not answer the last look gets no upkeep, which would hold back the next look (Z21)', async () => {
  const upkeeps = async (trouble: string | null): Promise<number> => {
    const world = createWorld();
    world.pg = { ...primaryRunning, role: 'standby', streamingFrom: n2 };
    world.upstream = n2;
    world.trouble = trouble;
    await world.settle({
      kind: 'standby',
      id: 's',
      term: T(1),
      upstream: n2,
      via: 'stream',
      source: null,
      rateKb: null,
      generation: 0,
      restart: null,
    });
    return world.upkeeps;
  };
  assert.ok((await upkeeps(null)) > 0);
  assert.equal(await upkeeps('no answer within 700 ms'), 0);
});

test('a primary that waits for its standbys makes the slots without which they cannot come; an opening that is quick comes first', async () => {
  const world = createWorld();
  const goal: Goal = { kind: 'primary', id: 'p', term: T(1), generation: 0, restart: null };
  world.pg = primaryRunning;
  world.lease = T(1);
  world.unopened = true;
  world.syncReady = false;
  await world.settle(goal);
  assert.deepEqual([world.status?.open, world.upkeeps], [false, 0]);
  world.at += 1500;
  await world.settle(goal);
  assert.deepEqual([world.status?.open, world.upkeeps], [false, 1]);
  // Without a lease it is somebody's own server, or to be fenced.
  world.lease = null;
  world.at += 10_000;
  await world.settle(goal);
  assert.equal(world.upkeeps, 1);
});

test('an aborted promotion does not start a second one beside it', async () => {
  const world = createWorld();
  let running = 0;
  world.answers.set('promote', async (signal) => {
    running++;
    assert.equal(running, 1);
    await new Promise((resolve) => signal.addEventListener('abort', resolve, { once: true }));
    running--;
    return err(failure('aborted', true));
  });
  await world.settle({ kind: 'promote', id: 'x', term: T(2), requiredLsn: null });
  await world.settle({ kind: 'promote', id: 'y', term: T(3), requiredLsn: null });
  await world.settle({ kind: 'fenced', id: 'f', term: T(3), reason: 'r' });
  assert.equal(running, 0);
});

test('rejoin by rewind: stop, rewind, start, once', async () => {
  const world = createWorld();
  world.pg = postgres({ streamingFrom: null });
  world.answers.set('rewind', () => Promise.resolve(ok('rewound; what it had is kept in /x')));
  await world.settle(standbyOf(n2, 'rewind'));
  await world.settle(standbyOf(n2, 'rewind'));
  assert.deepEqual(world.did, ['stop', 'rewind', 'open-standby', 'start-standby']);
  world.pg = { ...world.pg, streamingFrom: n2 };
  await world.settle(standbyOf(n2, 'rewind'));
  assert.deepEqual(world.status?.activity, { kind: 'done', goalId: standbyOf(n2, 'rewind').id, detail: 'rewound; what it had is kept in /x' });
});

test('no lease is taken by the word of a store that was restored, or has not answered yet (Z14)', async () => {
  for (const incarnation of ['another', null]) {
    const world = createWorld();
    world.incarnation = incarnation;
    world.pg = down('stopped', 'primary');
    await world.settle({ kind: 'primary', id: 'p', term: T(2), generation: 0, restart: null });
    assert.deepEqual(world.did, []);
    assert.equal(world.status?.activity.kind === 'failed' ? world.status.activity.code : '', 'lease.store-unconfirmed');
  }
});

test('a term that cannot be marked in the WAL, or whose opening cannot be noted on disk, is not opened for clients', async () => {
  for (const step of ['mark 2', 'note-opening 2']) {
    const world = createWorld();
    world.lease = makeTerm(2);
    world.pg = primaryRunning;
    world.answers.set(step, async () => err(failure('sql.failed', true)));
    await world.settle({ kind: 'primary', id: 'p', term: makeTerm(2), generation: 0, restart: null });
    assert.deepEqual(world.did, ['mark 2', 'note-opening 2']);
    assert.equal(world.status?.open, false);
  }
});

test('a node that leaves is stopped, then its data goes; without that word the data stays', async () => {
  for (const dropData of [true, false]) {
    const world = createWorld();
    world.pg = postgres({ role: 'standby', state: 'running' });
    await world.settle({ kind: 'removed', id: 'r', term: T(1), dropData, reason: 'removed by anna' });
    assert.deepEqual(world.did, dropData ? ['stop', 'drop-data'] : ['stop']);
    assert.equal(world.status?.activity.kind, 'done');
  }
});

test('every action has an executor (Q1)', () => {
  assert.deepEqual([...executableActions].sort(), [
    'acquire-lease',
    'adopt',
    'checkpoint',
    'clone',
    'drop-data',
    'fence',
    'follow',
    'initdb',
    'open',
    'promote',
    'refuse',
    'release-lease',
    'rewind',
    'start-primary',
    'start-standby',
    'stop',
    'vote',
    'wait-replay',
  ]);
});
