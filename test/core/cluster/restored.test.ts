import assert from 'node:assert/strict';
import { test } from 'node:test';
import { decideCluster } from '../../../src/core/cluster/decide.ts';
import { makeRevision } from '../../../src/core/ids.ts';
import type { ClusterState } from '../../../src/core/state.ts';
import { NOW, goalsOf, id, later, makeTask, picture } from './picture.ts';
import { expectDecision, expectRule } from './rule-case.ts';

/** A backup in which n1 was the primary of term 3, in a store that counts as another one. */
const restored = (text: string, extra: Parameters<typeof picture>[1] = {}): ReturnType<typeof picture> =>
  picture(text, { ...extra, state: (state: ClusterState) => ({ ...(extra.state?.(state) ?? state), incarnation: 'restored from store-0' }) });

const STEADY = `term 3 primary n1 lease n1/3
  n1 primary knows3 @0/5000
  n2 standby knows3 @0/5000
  n3 standby knows3 @0/4000`;

test('the primary of the newest known term is open: the store is confirmed (Z14)', () => {
  const state = expectRule(restored(STEADY), 'housekeeping.incarnation');
  assert.deepEqual([state.incarnation, state.term, state.primary], ['store-1', 3, 'n1']);
});

test('where standbys acknowledge, an open primary confirms the store only with so many members that gave no vote since that nobody was elected beside it', () => {
  const text = (second: string, third: string): string => `term 3 primary n1 lease n1/3 quorum 1/n2,n3
    n1 primary knows3 @0/5000
    n2 ${second}
    n3 ${third}`;
  const decided = (second: string, third: string): string | undefined => decideCluster(restored(text(second, third)), NOW).state?.incarnation;
  // n3 may vote, but not elect alone: of three members two are needed.
  assert.equal(decided('standby knows3 @0/5000', 'dead knows3'), 'store-1');
  assert.equal(decided('standby vote4@0/5000 knows4', 'dead knows3') ?? 'restored from store-0', 'restored from store-0');
  // In asynchronous mode nobody is elected before the primary has closed.
  const asynchronous = text('standby vote4@0/5000 knows4', 'dead knows3').replace(' quorum 1/n2,n3', '');
  assert.equal(decideCluster(restored(asynchronous), NOW).state?.incarnation, 'store-1');
});

test('a backup of the vote of a quorum failover: the primary that it names is still open, and its term was given to somebody since, perhaps', () => {
  const text = `term 3 primary n1 lease n1/3 quorum 1/n2,n3 attempt 4 vote
    n1 primary knows3 @0/5000
    n2 detached vote4@0/5000 knows4
    n3 dead`;
  const decision = decideCluster(restored(text), NOW);
  assert.equal(decision.state?.incarnation ?? 'restored from store-0', 'restored from store-0');
  assert.equal(decision.state?.attempt?.phase ?? 'vote', 'vote');
});

test('a member that voted in a term which the store forgot: terms go on behind it', () => {
  assert.equal(expectRule(picture(STEADY.replace('n2 standby', 'n2 standby vote9')), 'housekeeping.terms').term, 9);
  const both = decideCluster(restored(STEADY.replace('n3 standby knows3', 'n3 standby knows9')), NOW);
  assert.deepEqual([both.state?.term, both.state?.incarnation], [9, 'store-1']);
});

test('everybody is down but can be heard, and nobody knows more: the store is confirmed, and the primary may start', () => {
  const text = `term 3 primary n1
    n1 stopped knows3 @0/5000
    n2 standby knows3 @0/5000
    w witness knows3`;
  assert.equal(decideCluster(restored(text), NOW).state?.incarnation, 'store-1');
});

test('one member silent, or one that knows a newer term, and no primary open: nothing is confirmed, nothing promoted (4.10)', () => {
  const text = `term 3 primary n1
    n1 dead knows3 @0/5000
    n2 standby knows3 sees:n1=down @0/5000
    n3 standby knows3 sees:n1=down @0/4000`;
  const silent = expectDecision(restored(text), 'failover.blocked-store');
  assert.equal(silent.state?.incarnation ?? '', 'restored from store-0');
  assert.equal(silent.state?.attempt ?? null, null);
  const newer = decideCluster(restored(text.replace('n1 dead', 'n1 stopped').replace('n3 standby knows3', 'n3 standby knows5')), NOW);
  assert.deepEqual([newer.state?.incarnation, newer.state?.term, newer.state?.attempt], ['restored from store-0', 5, null]);
});

test('the primary that the backup names has crashed, and a newer term is known: nobody is told to restart, a person is asked', () => {
  // An order of term 3 is refused by a member that knows term 4, and nobody takes a lease in a store that is not confirmed.
  const text = `term 3 primary n1
    n1 crashed knows4 @0/5000
    n2 standby knows4 @0/5000
    n3 standby knows3 @0/4000`;
  for (const onCrash of ['failover', 'restart']) {
    const decision = expectDecision(restored(text, { spec: { onCrash } }), 'failover.blocked-store');
    assert.deepEqual(decision.state?.recovery ?? {}, {});
    assert.match(decision.why, /"pgherd failover" says that this store counts/);
  }
});

test('what the backup says of synchronous standbys counts no more: it is asked for anew, above every order that the store may have forgotten', () => {
  const state = expectRule(restored(STEADY.replace('lease n1/3', 'lease n1/3 quorum 1/n2,n3')), 'housekeeping.incarnation');
  const { k, voters, wanted, revision, wantedRevision, floorPending } = state.quorum;
  assert.deepEqual([k, voters, wanted.members, floorPending], [0, [], ['n2.a', 'n3.a'], true]);
  assert.ok(revision > 100_000 && wantedRevision === revision, 'agents follow rising orders only, and know later ones than the backup');
  const asynchronous = expectRule(restored(STEADY), 'housekeeping.incarnation');
  assert.deepEqual(asynchronous.quorum, restored(STEADY).state.quorum);
});

test('a primary of a term that the store forgot brings it back, keeps its clients, and the old one is fenced', () => {
  // n2 is open in term 5; the backup knows only n1 in term 3, which comes back at this moment.
  const view = restored(`term 3 primary n1
    n1 stopped knows3 @0/5000
    n2 primary lease5 open tl2 fork1@0/4800 knows5 @0/6000
    n3 standby tl2 fork1@0/4800 knows5 @0/6000`);
  const decision = decideCluster(view, NOW);
  const { state } = decision;
  assert.ok(state !== null);
  assert.deepEqual([state.primary, state.primaryTerm, state.term, state.timeline, state.incarnation], ['n2', 5, 5, 2, 'store-1']);
  assert.equal(goalsOf(state, view.spec), 'n1:fenced n2:primary n3:stream');
  assert.equal(decision.opened?.rule, 'housekeeping.republished');
});

test('the primary of the backup that is open in a newer term may have been another one between: neither the loss nor who acknowledged is known (I5, I7)', () => {
  // n1 was replaced in term 4 and came back in term 5; the backup is of term 3, and its facts are of that time.
  const view = restored(`term 3 primary n1 quorum 1/n2,n3
    n1 primary lease5 open tl3 fork1@0/4800 fork2@0/4900 knows5 @0/6000
    n2 standby tl3 fork1@0/4800 fork2@0/4900 knows5 @0/6000
    n3 standby tl3 fork1@0/4800 fork2@0/4900 knows5 @0/6000`);
  const { opened, state } = decideCluster(view, NOW);
  assert.deepEqual([opened?.term, opened?.primary, opened?.lostBytes], [5, 'n1', null]);
  assert.ok(state !== null);
  assert.deepEqual([state.quorum.term, state.quorum.k, state.quorum.voters], [5, 0, []]);
  assert.ok(state.quorum.revision > view.state.quorum.revision + 1000, 'above every order that the store forgot');
});

test('a candidate that opens the term of the present attempt is no forgotten primary', () => {
  const view = picture(`term 3 primary n1 lease n2/4 attempt 4 promote:n2
    n1 dead
    n2 primary lease4 open tl2 fork1@0/5000 knows4
    n3 detached vote4@0/5000 knows4`);
  assert.equal(expectDecision(view, 'attempt.opened').opened?.term, 4);
  // Replaced a moment ago, its report still says open: the newer attempt stands.
  const replaced = picture(`term 3 primary n1 attempt 5 vote
    n1 dead
    n2 primary lease4 open tl2 fork1@0/5000 knows4
    n3 detached vote5@0/5000 knows5`);
  assert.equal(decideCluster(replaced, later(1000)).state?.primary ?? 'n1', 'n1');
});

test('an attempt that came back with a restored store waits for the primary or a person', () => {
  const text = `term 3 primary n1 attempt 4 promote:n2
    n1 dead knows3
    n2 detached knows4
    n3 detached vote4@0/5000 knows4`;
  const waiting = expectDecision(restored(text), 'failover.blocked-store', later(100_000));
  assert.equal(waiting.state?.attempt?.term, 4);
  const byHand = { kind: 'failover', to: null, acceptLoss: false, acceptTwoPrimaries: false } as const;
  const state = expectRule(restored(text, { tasks: [makeTask(byHand)] }), 'failover.by-hand');
  assert.deepEqual([state.incarnation, state.attempt?.term], ['store-1', 5], 'a person says that this store counts');
});

test('a backup of the middle of a switchover: the candidate is open in its term, which is taken from it, and the command is done', () => {
  const middle = (text: string): ReturnType<typeof picture> => {
    const command = { ...makeTask({ kind: 'switchover', to: id('n2') }), status: 'running' as const };
    const view = restored(text, { tasks: [command] });
    const { attempt } = view.state;
    return attempt === null ? view : { ...view, state: { ...view.state, attempt: { ...attempt, path: 'planned', taskId: command.id } } };
  };
  // The order for term 4 stands in the backup; since then n2 has opened it, and n1 follows.
  const opened = decideCluster(
    middle(`term 3 primary n1 attempt 4 promote:n2
      n1 standby tl2 fork1@0/5000 knows4 @0/6000
      n2 primary lease4 open tl2 fork1@0/5000 knows4 @0/6000
      n3 dead`),
    later(100_000),
  );
  assert.deepEqual([opened.state?.primary, opened.state?.primaryTerm, opened.state?.incarnation, opened.state?.attempt], ['n2', 4, 'store-1', null]);
  assert.equal(opened.opened?.rule, 'housekeeping.republished');
  assert.deepEqual(
    opened.tasks.map((task) => task.status),
    ['done'],
  );
  // A newer attempt than the term that is open was begun after that one was given up: nobody is believed.
  const older = decideCluster(
    middle(`term 3 primary n1 attempt 5 promote:n3
      n1 dead
      n2 primary lease4 open tl2 fork1@0/5000 knows4 @0/6000
      n3 dead`),
    later(100_000),
  );
  assert.deepEqual([older.rule, older.state?.primary ?? 'n1'], ['failover.blocked-store', 'n1']);
});

test('a backup of the middle of a promotion that did not come to its end: it goes on when everybody is heard and nobody knows more', () => {
  const text = (third: string): string => `term 3 primary n1 attempt 4 promote:n2
    n1 fenced knows4 @0/5000
    n2 detached vote4@0/5000 knows4 @0/5000
    n3 detached vote4@0/5000 ${third} @0/5000`;
  const state = decideCluster(restored(text('knows4')), NOW).state;
  assert.deepEqual([state?.incarnation, state?.attempt?.candidate, state?.attempt?.afterRestore], ['store-1', 'n2', true]);
  // A newer term was begun after the backup: its outcome is not known here.
  assert.equal(decideCluster(restored(text('knows5')), NOW).state?.incarnation, 'restored from store-0');
  // Votes were still counted: the term may have been given to anybody since.
  const voting = decideCluster(restored(text('knows4').replace('promote:n2', 'vote')), NOW);
  assert.deepEqual([voting.rule, voting.state?.incarnation ?? 'restored from store-0'], ['failover.blocked-store', 'restored from store-0']);
});

test('a switchover of the backup keeps nobody from deciding by hand', () => {
  const view = restored(
    `term 3 primary n1
      n1 dead knows3 @0/5000
      n2 standby knows4 sees:n1=down @0/5000
      n3 standby knows3 sees:n1=down @0/5000`,
    {
      tasks: [makeTask({ kind: 'failover', to: null, acceptLoss: false, acceptTwoPrimaries: false })],
      state: (one) => ({
        ...one,
        switchover: {
          taskId: 't0',
          from: id('n1'),
          to: id('n2'),
          phase: 'stop',
          startedWallMs: NOW.wall,
          phaseWallMs: NOW.wall,
          deadlineWallMs: NOW.wall,
          holdRoute: 1,
          reason: '',
        },
      }),
    },
  );
  const state = expectRule(view, 'failover.by-hand');
  assert.deepEqual([state.switchover, state.attempt?.term], [null, 5]);
});

test('a command of the backup that cannot go on ends after a while, so that the failover by hand that decides is let in', () => {
  const view = restored(
    `term 3 primary n1 attempt 4 vote
      n1 crashed knows4 @0/5000
      n2 standby knows3 @0/5000
      n3 standby knows3 @0/4000`,
    {
      tasks: [{ ...makeTask({ kind: 'failover', to: id('n3'), acceptLoss: true, acceptTwoPrimaries: false }, { id: 't0' }), status: 'running' }],
      state: (one) => ({ ...one, attempt: one.attempt === null ? null : { ...one.attempt, taskId: 't0' } }),
    },
  );
  const first = expectDecision(view, 'failover.blocked-store');
  assert.deepEqual(first.tasks, []);
  const blocked = { ...view, state: first.state ?? view.state };
  assert.deepEqual(expectDecision(blocked, 'failover.blocked-store', later(4900)).tasks, []);
  const ended = expectDecision(blocked, 'housekeeping.restored-command', later(5100));
  assert.deepEqual(
    ended.tasks.map((task) => [task.id, task.status, task.problems.at(-1)?.code]),
    [['t0', 'failed', 'task.restored']],
  );
  const person = makeTask({ kind: 'failover', to: null, acceptLoss: true, acceptTwoPrimaries: false }, { id: 't1' });
  const state = expectRule({ ...blocked, tasks: [...ended.tasks, person] }, 'failover.by-hand', later(6000));
  assert.deepEqual([state.incarnation, state.attempt?.taskId, state.attempt?.afterRestore], ['store-1', 't1', true]);
});

test('a report of another store proves nothing about what its agent has read (4.10)', () => {
  const fenced = (words: string): ReturnType<typeof picture> => ({
    ...picture(`term 3 primary n1 attempt 4 vote
      n1 fenced ${words} @0/5000
      n2 detached vote4@0/5000
      n3 dead`),
    stateRevision: makeRevision(10),
  });
  expectRule(fenced(''), 'attempt.promote', later(1000));
  // Its revision 10 was counted by the old store: it need not know of this attempt, and may hold on to its role.
  const decision = decideCluster(fenced('other-store'), later(1000));
  assert.notEqual(decision.rule, 'attempt.promote');
  assert.equal(decision.state?.goals[id('n2')]?.kind ?? 'vote', 'vote');
});

test('a person who decides after a restore gets the newest data there is, and is told that the loss is not known', () => {
  // The backup knows n1 in term 1; n2 was open in term 2 on timeline 2 since, and everything was down before the agents came back.
  const text = `term 1 primary n1
    n1 crashed knows1 @0/5000
    n2 stopped tl2 fork1@0/4800 knows2 @0/6000
    n3 dead knows2`;
  const byHand = { kind: 'failover', to: null, acceptLoss: true, acceptTwoPrimaries: false } as const;
  const state = expectRule(restored(text, { tasks: [makeTask(byHand)] }), 'failover.by-hand');
  assert.deepEqual([state.attempt?.afterRestore, state.attempt?.term], [true, 3]);
  const voted = picture(
    `term 1 primary n1 attempt 3 vote
      n1 crashed knows3 @0/5000
      n2 stopped tl2 fork1@0/4800 vote3@0/6000 knows3 @0/6000
      n3 dead`,
    { state: (one) => ({ ...one, attempt: state.attempt }) },
  );
  const decision = expectDecision(voted, 'attempt.promote', later(1000));
  assert.deepEqual([decision.state?.attempt?.candidate, decision.state?.attempt?.lostBytes], ['n2', null]);
  assert.match(decision.why, /terms that it forgot/);
});

test('after a restore a timeline number that the backup does not know marks everybody who may hold it already (Z53)', () => {
  // The backup knows timeline 1. n1 has opened timeline 3 since, at the position where n2 left timeline 2 for its own timeline 3 now.
  const text = `term 1 primary n1 attempt 4 promote:n2 timeline 1 lease n2/4
    n1 stopped tl3 fork1@0/4000 fork2@0/5000 knows4 @0/5100
    n2 primary tl3 fork1@0/4000 fork2@0/5000 lease4 open knows4 @0/5100
    n3 standby vote4@0/4000 tl1 knows4 @0/4000`;
  const opened = (picked: string, afterRestore: boolean): ClusterState =>
    expectRule(
      picture(picked, { state: (one) => ({ ...one, attempt: one.attempt === null ? null : { ...one.attempt, afterRestore } }) }),
      'attempt.opened',
      later(500),
    );
  const state = opened(text, true);
  assert.match(state.recovery[id('n1')]?.lastError ?? '', /^a promotion was not completed/);
  // It was detached on an ancestor: it holds no timeline 3.
  assert.deepEqual([state.recovery[id('n3')], state.goals[id('n3')]?.kind], [undefined, 'standby']);
  // Where nothing was forgotten, a number above the last one was never used.
  assert.equal(opened(text.replace('timeline 1', 'timeline 2 forks 1@0/4000'), false).recovery[id('n1')], undefined);
});

const SET_BACK = STEADY.replace('n3 standby', 'n3 standby newest20');

test('a member read a newer state in this very store: it was set back, and counts as restored until the primary is seen open in the newest known term', () => {
  const decision = expectDecision(picture(SET_BACK), 'housekeeping.incarnation');
  assert.ok(decision.events.some(({ text }) => text === 'n3 read revision 20 of the state in this store, which is at 10: its data was set back'));
  assert.deepEqual([decision.state?.setBack, decision.state?.incarnation], [{ incarnation: 'store-1', revision: 20 }, 'store-1']);
  // Said once: what is known of it stays in the state.
  const said = picture(SET_BACK, { state: (state) => ({ ...state, setBack: { incarnation: 'store-1', revision: 20 } }) });
  assert.equal(decideCluster(said, NOW).rule, 'cluster.steady');
  // How far another store came says nothing of this one.
  const other = picture(SET_BACK, { state: (state) => ({ ...state, setBack: { incarnation: 'store-0', revision: 500 } }) });
  assert.equal(decideCluster(other, NOW).state?.setBack?.revision, 20);
  assert.equal(decideCluster(picture(STEADY.replace('n3 standby', 'n3 standby newest20 other-store')), NOW).state?.setBack ?? null, null);
});

test('a store that was set back promotes nobody on what it says while a member is silent, and no old term comes back', () => {
  const text = `term 3 primary n1
    n1 dead @0/5000
    n2 standby knows5 newest20 sees:n1=down @0/5000
    n3 standby knows5 sees:n1=down @0/4000`;
  const decision = expectDecision(picture(text), 'failover.blocked-store');
  assert.deepEqual([decision.state?.incarnation, decision.state?.term, decision.state?.attempt], ['restored from store-1', 5, null]);
});

test('a cluster that is stopped learns of it too: whoever is started next waits for the confirmation', () => {
  const text = `term 3 primary n1 phase stopped
    n1 stopped knows3 @0/5000
    n2 stopped knows3 newest20 @0/5000
    n3 dead knows3 @0/4000`;
  assert.equal(expectRule(picture(text), 'housekeeping.set-back').incarnation, 'restored from store-1');
});

test('members that saw a term which nobody opened get their orders in it: they refuse those of a lower one', () => {
  const view = picture(STEADY.replace('n2 standby knows3', 'n2 detached vote5@0/5000 knows5'));
  const learned = decideCluster(view, NOW).state;
  assert.deepEqual([learned?.term, learned?.primaryTerm], [5, 3]);
  const next = learned === null ? null : decideCluster({ ...view, state: learned }, later(600)).state;
  const goals = next?.goals ?? learned?.goals ?? {};
  assert.deepEqual([goals[id('n1')]?.term, goals[id('n2')]?.term, goals[id('n2')]?.kind], [3, 5, 'standby']);
});
