import assert from 'node:assert/strict';
import { test } from 'node:test';
import { makeTerm, makeTimeline, makeWallMs } from '../../../src/core/ids.ts';
import type { ClusterState, RecoveryProgress, TermRecord } from '../../../src/core/state.ts';
import { nextRecoveryStep } from '../../../src/core/cluster/recovery.ts';
import { findNode } from '../../../src/core/spec.ts';
import type { ClusterView } from '../../../src/core/view.ts';
import { type Picture, NOW, WALL, goalsOf, id, later, lsnOf, makeTask, picture } from './picture.ts';
import { changeReport } from './scale-views.ts';
import { expectDecision, expectRule } from './rule-case.ts';

const progress = (change: Partial<RecoveryProgress>): Picture => ({
  state: (state: ClusterState) => ({
    ...state,
    recovery: {
      [id('n2')]: {
        checks: 0,
        firstSeenWallMs: makeWallMs(WALL - 5000),
        attempts: 0,
        notBeforeWallMs: makeWallMs(WALL - 5000),
        lastError: null,
        ...change,
      },
    },
  }),
});

/** n1 is the primary of term 4 on timeline 2, which left timeline 1 at 0/5000. */
const after = (line: string): string => `term 4 primary n1 timeline 2 forks 1@0/5000 lsn 0/6000 lease n1/4
  n1 primary @0/6000
  ${line}`;

test('a returned old primary is looked at three times, then rewound (H42, I17)', () => {
  const text = after('n2 crashed tl1 fork0@0/1 @0/5800 goal:fenced');
  assert.equal(expectRule(picture(text), 'standby.checking').recovery[id('n2')]?.checks, 1);
  const view = picture(text, progress({ checks: 2 }));
  assert.equal(goalsOf(expectRule(view, 'standby.rewind'), view.spec), 'n1:primary n2:rewind');
});

test('one that holds nothing of its own only streams', () => {
  const view = picture(after('n2 stopped tl1 fork0@0/1 @0/5000 goal:fenced'), progress({ checks: 2 }));
  assert.equal(goalsOf(expectRule(view, 'standby.stream'), view.spec), 'n1:primary n2:stream');
});

test('a standby past the fork is rewound, one before it is not (I9, Z51)', () => {
  expectRule(picture(after('n2 detached tl1 fork0@0/1 @0/5001'), progress({ checks: 2 })), 'standby.rewind');
  expectRule(picture(after('n2 detached tl1 fork0@0/1 @0/5000')), 'cluster.steady');
});

test('two promotions to the same timeline number are told apart by their fork (Z53)', () => {
  expectRule(picture(after('n2 detached tl2 fork1@0/4000 @0/4100'), progress({ checks: 2 })), 'standby.rewind');
});

test('an empty node is cloned at once, an incomplete one after its looks (Z48)', () => {
  expectRule(picture(after('n2 absent goal:unset')), 'standby.clone');
  expectRule(picture(after('n2 incomplete'), progress({ checks: 2 })), 'standby.clone');
  expectRule(picture(after('n2 incomplete')), 'standby.checking');
});

test('a node whose position cannot be told while it starts is never cloned for that (Z44)', () => {
  const view = picture(after('n2 standby'));
  const seen = view.reports[id('n2')];
  assert.ok(seen !== undefined);
  const postgres = { ...seen.report.postgres, state: 'starting' as const, timeline: null, receivedLsn: null, replayedLsn: null, streamingFrom: null };
  const starting = { ...view, reports: { ...view.reports, [id('n2')]: { ...seen, report: { ...seen.report, postgres } } } };
  assert.equal(goalsOf(expectRule(starting, 'cluster.steady'), view.spec), 'n1:primary n2:stream');
});

test('removed WAL leads to a clone (H38)', () => {
  expectRule(picture(after('n2 detached @0/5500 fail:follow.wal-removed'), progress({ checks: 2 })), 'standby.clone');
});

test('what PostgreSQL calls another history is rewound after a stream and cloned after a rewind, though the numbers look right', () => {
  for (const message of [
    'FATAL: highest timeline 1 of the primary is behind recovery timeline 2',
    'FATAL: requested timeline 3 does not contain minimum recovery point 0/3018D84 on timeline 1',
  ]) {
    const saying = (line: string): ReturnType<typeof picture> => {
      const view = picture(after(line), progress({ checks: 2 }));
      const seen = view.reports[id('n2')];
      assert.ok(seen !== undefined && seen.report.activity.kind === 'failed');
      const report = { ...seen.report, activity: { ...seen.report.activity, message } };
      return { ...view, reports: { ...view.reports, [id('n2')]: { ...seen, report } } };
    };
    expectRule(saying('n2 detached @0/5500 fail:follow.not-streaming'), 'standby.rewind');
    expectRule(saying('n2 detached @0/5500 goal:rewind fail:follow.not-streaming'), 'standby.clone');
    expectRule(saying('n2 stopped @0/5500 goal:rewind fail:start.failed'), 'standby.clone');
    // A copy that ended there too: a new order after its back-off, and not the same one at every look.
    const copied = saying('n2 detached @0/5500 goal:clone fail:follow.not-streaming');
    const waiting = { ...copied, state: expectRule(copied, 'standby.retry') };
    expectRule(waiting, 'cluster.steady', later(900));
    const again = expectRule(waiting, 'standby.clone', later(6000));
    assert.notEqual(again.goals[id('n2')]?.id, copied.state.goals[id('n2')]?.id);
  }
});

test('a rewind that failed for good leads to a clone; a running one is left alone', () => {
  expectRule(picture(after('n2 stopped tl1 fork0@0/1 @0/5800 goal:rewind gaveup:rewind.no-wal'), progress({ checks: 3 })), 'standby.clone');
  expectRule(picture(after('n2 rewinding tl1 fork0@0/1 @0/5800 goal:rewind busy')), 'cluster.steady');
});

test('a clone that failed is tried again after a doubling pause (H58)', () => {
  const text = after('n2 incomplete goal:clone gaveup:clone.failed');
  const first = expectRule(picture(text), 'standby.retry').recovery[id('n2')];
  assert.deepEqual([first?.attempts, (first?.notBeforeWallMs ?? 0) - WALL], [1, 5000]);
  const tenth = expectRule(picture(text, progress({ attempts: 9 })), 'standby.retry').recovery[id('n2')];
  assert.equal((tenth?.notBeforeWallMs ?? 0) - WALL, 60_000);
  const waiting = picture(text, progress({ attempts: 1, lastError: 'clone.failed: it did not work', notBeforeWallMs: makeWallMs(WALL + 3000) }));
  expectRule(waiting, 'cluster.steady');
  const again = expectRule(waiting, 'standby.clone', later(3000));
  assert.notEqual(again.goals[id('n2')]?.id, waiting.state.goals[id('n2')]?.id);
});

test('a foreign or unexplained directory is quarantined, never touched (Q9, I9, I11)', () => {
  for (const line of [
    'n2 detached sys9 @0/5500',
    'n2 rogue tl3 fork1@0/5000 fork2@0/5500 @0/5600 goal:fenced',
    'n2 stopped tl3 fork1@0/5000 fork2@0/5500 @0/5600 goal:fenced',
  ]) {
    const view = picture(after(line), { state: (state) => ({ ...state }) });
    const state = expectRule(line.includes('rogue') ? picture(after(line.replace('rogue', 'detached'))) : view, 'standby.quarantined');
    assert.equal(state.goals[id('n2')]?.kind, 'fenced');
  }
});

test('in a store that is not confirmed an unknown timeline is no reason to quarantine: the store may have forgotten the term that opened it', () => {
  const ruleOf = (line: string, incarnation: string): string => {
    const view = picture(after(line), { state: (state) => ({ ...state, incarnation }) });
    const node = findNode(view.spec, id('n2'));
    assert.ok(node !== null);
    const step = nextRecoveryStep(view, node, NOW);
    return step.kind === 'step' ? step.rule : step.kind;
  };
  const unknown = 'n2 stopped tl3 fork1@0/5000 fork2@0/5500 @0/5600';
  assert.equal(ruleOf(unknown, 'store-1'), 'standby.quarantined');
  assert.equal(ruleOf(unknown, 'store-0'), 'nothing');
  assert.equal(ruleOf('n2 stopped sys9 @0/5500', 'store-0'), 'standby.quarantined');
});

test('a promotion that was ordered and not completed explains its timeline: it is rewound', () => {
  expectRule(
    picture(
      after('n2 stopped tl3 fork1@0/5000 fork2@0/5500 @0/5600 goal:fenced'),
      progress({ checks: 2, lastError: 'a promotion was not completed (term 5)' }),
    ),
    'standby.rewind',
  );
});

test('a timeline that a term opened, and that no later one came out of, is rewound; the same number with another fork is not explained by it', () => {
  const left = { term: makeTerm(2), timeline: makeTimeline(2), primary: id('n2'), forkLsn: lsnOf('0/5200') } as unknown as TermRecord;
  const looked = progress({ checks: 2 }).state ?? ((state: ClusterState) => state);
  const view = (line: string): ClusterView =>
    picture(after(line), {
      state: (state) => ({
        ...looked(state),
        timeline: makeTimeline(3),
        history: [{ timeline: makeTimeline(1), forkLsn: lsnOf('0/5000') }],
        terms: [left],
      }),
    });
  expectRule(view('n2 crashed tl2 fork1@0/5200 @0/5600 goal:fenced'), 'standby.rewind');
  expectRule(view('n2 crashed tl2 fork1@0/5300 @0/5600 goal:fenced'), 'standby.quarantined');
});

test('an upstream that lacks a history in between does not help: the node is copied', () => {
  const view = picture(after('n2 standby tl1 fork0@0/1 @0/5000 goal:stream'), progress({ checks: 2 }));
  const n2 = id('n2');
  const say = (message: string): ClusterView =>
    changeReport(view, n2, (report) => ({
      ...report,
      postgres: { ...report.postgres, streamingFrom: null },
      activity: {
        kind: 'failed',
        goalId: view.state.goals[n2]?.id ?? '',
        step: 'follow',
        code: 'follow.not-streaming',
        message,
        attempts: 1,
        atWallMs: makeWallMs(WALL),
        retrying: true,
      },
    }));
  const asked = 'FATAL:  could not receive timeline history file from the primary server: ';
  const decision = expectRule(say(`${asked}ERROR:  could not open file "pg_wal/00000003.history": No such file or directory`), 'standby.clone');
  assert.equal(goalsOf(decision, view.spec), 'n1:primary n2:clone');
  expectRule(say(`${asked}server closed the connection unexpectedly`), 'cluster.steady');
});

test('one that may have opened a timeline of the same number and fork is cloned, never streamed, also while it streams (Z53)', () => {
  const mark = progress({ checks: 2, lastError: 'a promotion was not completed (term 3)' });
  expectRule(picture(after('n2 stopped tl2 fork1@0/5000 @0/5600 goal:fenced'), mark), 'standby.clone');
  expectRule(picture(after('n2 standby'), mark), 'standby.clone');
  expectRule(picture(after('n2 stopped tl1 fork0@0/1 @0/5000 goal:fenced'), mark), 'standby.stream');
});

test('a promotion that nobody ordered is marked when its timeline has a number of the cluster, and a rejoin of it clones (Z53)', () => {
  const rogue = picture(after('n2 rogue tl2 fork1@0/5000 @0/5500'));
  assert.match(expectRule(rogue, 'standby.fenced').recovery[id('n2')]?.lastError ?? '', /^a promotion was not completed/);
  assert.equal(expectRule(picture(after('n2 rogue tl1 fork0@0/1 @0/4500')), 'standby.fenced').recovery[id('n2')], undefined);
  const waiting = expectRule(picture(after('n2 rogue tl2 fork1@0/5000 @0/5500 goal:fenced')), 'standby.fenced');
  assert.match(waiting.recovery[id('n2')]?.lastError ?? '', /^a promotion was not completed/);
  expectRule(picture(after('n2 rogue tl1 fork0@0/1 @0/4500 goal:fenced')), 'cluster.steady');
  const task = makeTask({ kind: 'nodeRejoin', node: id('n2'), via: 'stream', source: null, rateKb: null });
  const marked = progress({ lastError: 'a promotion was not completed' });
  const asked = picture(after('n2 stopped tl2 fork1@0/5000 @0/5600 goal:fenced'), { ...marked, tasks: [task] });
  assert.equal(goalsOf(expectRule(asked, 'node.rejoin'), asked.spec), 'n1:primary n2:clone');
});

test('a second writable node is fenced, frozen or not (H20, I1, Z19)', () => {
  for (const frozen of ['', 'frozen ']) {
    const view = picture(after('n2 rogue @0/5500').replace('term', `${frozen}term`));
    assert.equal(expectRule(view, 'standby.fenced').goals[id('n2')]?.kind, 'fenced');
  }
});

test('the policy may leave it to a person, with the exact command', () => {
  const view = picture(after('n2 crashed tl1 fork0@0/1 @0/5800 goal:fenced'), { spec: { recovery: 'manual' } });
  const decision = expectDecision(view, 'standby.waits-for-person');
  assert.match(decision.why, /2048 bytes of WAL on timeline 1 past the fork at 0\/5000.*"pgherd node rejoin n2"/);
  expectRule(picture(after('n2 fenced tl1 fork0@0/1 @0/5800 goal:fenced'), { spec: { recovery: 'standby' } }), 'standby.waits-for-person');
});

test('a frozen cluster takes nobody back', () => {
  expectRule(picture(after('n2 crashed tl1 fork0@0/1 @0/5800 goal:fenced').replace('term', 'frozen term')), 'cluster.steady');
});

test('a node that is back says how it was taken back, and where it kept what only it had', () => {
  const told = expectDecision(picture(after('n2 standby tl2 fork1@0/5000 @0/6000 goal:rewind done:kept-in-/x')), 'standby.back');
  assert.equal(told.why, 'n2 streams from n1: kept-in-/x');
});

test('a node that was marked, and rewound from a timeline that is nobody else’s, is back when it streams', () => {
  const marked = progress({ lastError: 'a promotion was not completed' });
  const back = expectRule(picture(after('n2 standby tl2 fork1@0/5000 @0/6000 goal:rewind done'), marked), 'standby.back');
  assert.equal(back.recovery[id('n2')], undefined);
  const goal = back.goals[id('n2')];
  assert.equal(goal?.kind === 'standby' && goal.via, 'stream');
  // It still streams for a moment before the rewind begins; that proves nothing.
  expectRule(picture(after('n2 standby tl2 fork1@0/5000 @0/6000 goal:rewind busy'), marked), 'cluster.steady');
});

test('success is seen in the stream (I10)', () => {
  const view = picture(after('n2 standby @0/6000 goal:clone done'), progress({ attempts: 2 }));
  const state = expectRule(view, 'standby.back');
  assert.deepEqual([goalsOf(state, view.spec), state.recovery], ['n1:primary n2:stream', {}]);
});

test('a diverged node is no reader, a streaming one is (I12, I24)', () => {
  const view = picture(`${after('n2 standby')}\nn3 detached tl1 fork0@0/1 @0/5001`);
  assert.deepEqual(expectRule(view, 'standby.checking').route.readers, ['n2']);
});
