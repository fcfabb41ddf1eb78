import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { TaskRequest } from '../../src/core/state.ts';
import { planTask } from '../../src/server/plan.ts';
import { makeWallMs } from '../../src/core/ids.ts';
import { describeWorkload } from '../../src/server/workload.ts';
import { progressOf } from '../../src/server/tasks.ts';
import { NOW, id, picture } from '../core/cluster/picture.ts';
import { ADD, N4, REMOVE, changeReport, outside, running } from '../core/cluster/scale-views.ts';

const plan = (text: string, request: TaskRequest) => planTask({ view: picture(text), members: {}, unreadable: [] }, { request, by: 'anna' }, NOW);
const failover = { kind: 'failover', to: null, acceptLoss: false, acceptTwoPrimaries: false } as const;

test('a failover that nobody can win names each node with its reason, and plans nothing', () => {
  const { plan: steps, problems } = plan('term 3 primary n1 lsn 0/5000\nn1 dead\nn2 dead\nn3 standby prio0', failover);
  assert.deepEqual(steps, ['failover']);
  assert.equal(problems.length, 1);
  assert.match(problems[0]?.text ?? '', /No node can be promoted: n2: its agent does not report; n3: its priority is 0/);
});

test('a failover that would be done names who is fenced, who is promoted and who is not', () => {
  const { plan: steps, problems } = plan(
    'term 3 primary n1 lease n1/3\nn1 primary @0/5000\nn2 standby @0/5000\nn3 standby @0/4000\nn4 dead',
    failover,
  );
  assert.deepEqual(problems, []);
  assert.deepEqual(steps, [
    'failover',
    'fence: n1 accepts no more writes; its sessions end',
    'vote: the others detach and say what they have',
    'promote: n2 at 0/5000 on timeline 1, unless another one has more by then; nothing known is lost',
    'next in line: n3 at 0/4000 on timeline 1',
    'not promoted: n4: its agent does not report',
  ]);
});

test('a switchover plans its whole way, with what was checked and the way back', () => {
  const { plan: steps, problems } = plan('term 3 primary n1 lease n1/3\nn1 primary @0/5000\nn2 standby @0/5000\nn3 standby @0/4000', {
    kind: 'switchover',
    to: id('n2'),
  });
  assert.deepEqual(problems, []);
  assert.deepEqual(
    steps.map((step) => step.split(':')[0]),
    ['switchover to n2', 'check', 'checkpoint', 'hold', 'stop', 'promote', 'follow'],
  );
  assert.match(steps[1] ?? '', /^check: n2 streams from n1 on timeline 1, 0 bytes behind/);
  assert.match(steps[5] ?? '', /^promote: n2 opens term 4\./);
  assert.match(steps[6] ?? '', /^follow: n1, n3 stream from n2/);
});

test('a planned change names what it meets: long transactions, prepared ones, logical slots, an archive that does not take WAL', () => {
  const quiet = { longTransactions: 0, longestMs: 0, preparedTransactions: 0, logicalSlots: [], archivingFails: null };
  assert.deepEqual(describeWorkload(quiet), []);
  const notes = describeWorkload({
    longTransactions: 2,
    longestMs: 61_000,
    preparedTransactions: 1,
    logicalSlots: ['a', 'b'],
    archivingFails: '0001',
  });
  assert.match(notes[0] ?? '', /2 transactions run for more than 2 s \(the longest for 61 s\)/);
  assert.match(notes[1] ?? '', /1 prepared transaction goes over/);
  assert.match(notes[2] ?? '', /does not have the logical slots a, b/);
  assert.match(notes[3] ?? '', /archiving fails \(last: 0001\)/);
});

test('adding and removing a node plan their whole way, or name what stands against it', () => {
  const added = planTask({ view: outside(), members: {}, unreadable: [] }, { request: ADD, by: 'anna' }, NOW);
  assert.deepEqual(added.problems, []);
  assert.deepEqual(
    added.plan.map((step) => step.split(':')[0]),
    ['node add n4', 'reach', 'slot', 'copy', 'catch up', 'take in'],
  );
  const refused = planTask({ view: { ...outside(), members: {} }, members: {}, unreadable: [] }, { request: ADD, by: 'anna' }, NOW);
  assert.deepEqual([refused.plan, refused.problems.map((problem) => problem.code)], [['node add n4'], ['node-add.not-joined']]);
  const removed = plan('term 3 primary n1 lease n1/3\nn1 primary @0/5000\nn2 standby @0/5000\nn3 standby @0/5000', REMOVE);
  assert.deepEqual(
    removed.plan.map((step) => step.split(':')[0]),
    ['node remove n3', 'drain', 'votes', 'stop', 'unregister'],
  );
});

test('progress is bytes and the time that is left at the rate so far', () => {
  const task = running(ADD, 'copy');
  const copying = (doneBytes: number | null, sinceMs: number): ReturnType<typeof outside> =>
    changeReport(outside(), N4, (report) => ({
      ...report,
      activity: { kind: 'busy', goalId: 'g', step: 'clone', sinceWallMs: makeWallMs(NOW.wall - sinceMs), doneBytes, totalBytes: 1000 },
    }));
  assert.deepEqual(progressOf(copying(250, 10_000), task, NOW), { node: 'n4', step: 'clone', doneBytes: 250, totalBytes: 1000, etaMs: 30_000 });
  assert.equal(progressOf(copying(250, 1000), task, NOW)?.etaMs, null, 'too early to tell');
  assert.equal(progressOf(copying(0, 10_000), task, NOW)?.etaMs, null, 'no rate yet');
  assert.equal(progressOf(copying(null, 10_000), task, NOW), null);
  assert.equal(progressOf(copying(250, 10_000), { ...task, status: 'done' }, NOW), null);
});

test('no step of any dry run has an empty name in it', () => {
  const requests: readonly TaskRequest[] = [
    failover,
    { ...failover, acceptLoss: true, acceptTwoPrimaries: false },
    { kind: 'switchover', to: null },
    { kind: 'nodeStop', node: id('n3') },
    { kind: 'nodeRestart', node: id('n1') },
    { kind: 'nodeRejoin', node: id('n3'), via: 'clone', source: null, rateKb: null },
    { kind: 'nodeRemove', node: id('n3'), dropData: true },
    { kind: 'clusterStop' },
    { kind: 'clusterRestart', rolling: true },
    { kind: 'freeze', forMs: null },
  ];
  for (const nodes of ['n2 standby\nn3 standby', 'n2 dead\nn3 standby prio0', 'n2 absent\nn3 dead']) {
    for (const request of requests) {
      for (const step of plan(`term 3 primary n1 lease n1/3\nn1 primary\n${nodes}`, request).plan)
        assert.doesNotMatch(step, /\b(by|to|of|from|is|than)\s*([,;.:)]|$)|\s{2}|undefined|null/, `${request.kind}: ${step}`);
    }
  }
});
