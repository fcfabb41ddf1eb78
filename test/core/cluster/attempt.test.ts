import assert from 'node:assert/strict';
import { test } from 'node:test';
import { makeTerm, makeTimeline, makeWallMs } from '../../../src/core/ids.ts';
import type { ClusterState } from '../../../src/core/state.ts';
import type { ClusterView, SeenReport } from '../../../src/core/view.ts';
import { goalsOf, id, later, lsnOf, makeTask, picture } from './picture.ts';
import { expectDecision, expectRule } from './rule-case.ts';

const with_ = (change: (attempt: NonNullable<ClusterState['attempt']>) => NonNullable<ClusterState['attempt']>) => ({
  state: (state: ClusterState): ClusterState => ({ ...state, attempt: state.attempt === null ? null : change(state.attempt) }),
});

test('votes are asked once the lease is gone, not before (standbys still receive)', () => {
  const text = `term 3 primary n1 attempt 4 vote
    n1 dead
    n2 standby goal:stream
    n3 standby goal:stream`;
  const view = picture(text);
  assert.equal(goalsOf(expectRule(view, 'attempt.ask-votes'), view.spec), 'n1:fenced n2:vote n3:vote');
  expectRule(picture(text.replace('primary n1', 'primary n1 lease n1/3')), 'failover.blocked-lease');
});

const VOTES = `term 3 primary n1 attempt 4 vote
  n1 dead @0/5000
  n2 detached vote4@0/5000
  n3 detached vote4@0/4FFF`;

test('the most advanced final position is promoted (H31, Q20)', () => {
  const view = picture(VOTES);
  const state = expectRule(view, 'attempt.promote');
  assert.equal(goalsOf(state, view.spec), 'n1:fenced n2:promote n3:vote');
  assert.deepEqual([state.attempt?.candidate, state.attempt?.lostBytes], ['n2', null], 'a last report is no proof that nothing is lost (I5)');
});

test('positions are compared as numbers: 0/A000 is more than 0/9FFF and 1/0 more than 0/FFFFFF (H31)', () => {
  for (const [less, more] of [
    ['0/9FFF', '0/A000'],
    ['0/FFFFFF', '1/0'],
    ['9/0', '10/0'],
  ]) {
    const view = picture(
      VOTES.replace('term 3', `lsn ${less} term 3`).replace('vote4@0/5000', `vote4@${less}`).replace('vote4@0/4FFF', `vote4@${more}`),
    );
    assert.equal(expectRule(view, 'attempt.promote').attempt?.candidate, 'n3');
  }
});

test('equal positions: location, then priority, then name', () => {
  const same = VOTES.replace('0/4FFF', '0/5000');
  assert.equal(expectRule(picture(same), 'attempt.promote').attempt?.candidate, 'n2');
  assert.equal(expectRule(picture(same.replace('n2 detached', 'n2 detached prio10')), 'attempt.promote').attempt?.candidate, 'n3');
  assert.equal(
    expectRule(
      picture(same.replace('n1 dead', 'n1 dead loc:a').replace('n2 detached', 'n2 detached loc:b').replace('n3 detached', 'n3 detached prio1 loc:a')),
      'attempt.promote',
    ).attempt?.candidate,
    'n3',
  );
});

test('a standby of an ancestor timeline loses against one of the present timeline, whatever its LSN', () => {
  const view = picture(`term 3 primary n1 timeline 2 forks 1@0/9000 lsn 0/5000 attempt 4 vote
    n1 dead
    n2 detached tl1 fork0@0/1 vote4@0/8000
    n3 detached tl2 vote4@0/5000`);
  assert.equal(expectRule(view, 'attempt.promote').attempt?.candidate, 'n3');
});

test('a member that can be heard is waited for, a while (I9)', () => {
  const view = picture(VOTES.replace('vote4@0/4FFF', 'vote4?'));
  expectRule(view, 'attempt.waiting-votes');
  expectRule(view, 'attempt.promote', later(1000));
});

test('too few votes block, and the missing are named (Q7)', () => {
  const view = picture(`term 3 primary n1 attempt 4 vote
    n1 dead
    n2 detached vote4@0/5000
    n3 dead`);
  const decision = expectDecision(view, 'failover.blocked-votes', later(1000));
  assert.match(decision.why, /1 of 2 needed votes; missing: n1, n3; if n1 still runs .* makes two primaries.*--accept-two-primaries/);
});

test('to accept loss does not waive a vote; to accept two primaries does, and waives nothing else', () => {
  const few = (change: Parameters<typeof with_>[0], head = ''): ReturnType<typeof picture> =>
    picture(`${head}term 3 primary n1 attempt 4 vote\nn1 dead\nn2 detached vote4@0/5000\nn3 dead`, with_(change));
  expectRule(
    few((attempt) => ({ ...attempt, acceptLoss: true })),
    'failover.blocked-votes',
    later(1000),
  );
  expectRule(
    few((attempt) => ({ ...attempt, acceptTwoPrimaries: true })),
    'attempt.promote',
    later(1000),
  );
  expectRule(
    few((attempt) => ({ ...attempt, acceptTwoPrimaries: true }), 'lsn 0/900000 '),
    'failover.blocked-lag',
    later(1000),
  );
  expectRule(
    few((attempt) => ({ ...attempt, acceptTwoPrimaries: true, acceptLoss: true }), 'lease n1/3 '),
    'failover.blocked-lease',
    later(1000),
  );
});

test('a candidate whose timeline came another way to the number of the cluster’s is none, however far it is (Z53, seed 378)', () => {
  const view = picture(`term 3 primary n1 timeline 3 forks 1@0/4000 lsn 0/5000 attempt 4 vote
    n1 dead
    n2 detached tl3 fork1@0/4000 fork2@0/4800 vote4@0/9000
    n3 detached tl3 fork1@0/4000 vote4@0/5000`);
  assert.equal(expectRule(view, 'attempt.promote').attempt?.candidate, 'n3');
});

test('a candidate that somebody promoted since it voted is none (seed 9500379)', () => {
  const text = `term 3 primary n1 lsn 0/4000 attempt 4 vote
    n1 dead
    n2 detached vote4@0/5000
    n3 detached vote4@0/4800`;
  assert.equal(expectRule(picture(text), 'attempt.promote').attempt?.candidate, 'n2');
  const promoted = picture(text.replace('n2 detached', 'n2 rogue tl2 fork1@0/5000'));
  const seen = promoted.reports[id('n2')];
  assert.ok(seen?.report.vote?.position != null);
  const vote = { ...seen.report.vote, position: { timeline: makeTimeline(1), lsn: lsnOf('0/5000') } };
  const reports = { ...promoted.reports, [id('n2')]: { ...seen, report: { ...seen.report, vote } } };
  assert.equal(expectRule({ ...promoted, reports }, 'attempt.promote').attempt?.candidate, 'n3');
});

test('a vote for another term does not count', () => {
  expectRule(picture(VOTES.replace('vote4@0/5000', 'vote3@0/5000').replace('vote4@0/4FFF', 'vote3@0/4FFF')), 'failover.blocked-votes', later(1000));
});

test('a witness votes and is no candidate', () => {
  const view = picture(`term 3 primary n1 attempt 4 vote
    n1 dead
    n2 detached vote4@0/5000
    w witness vote4`);
  assert.equal(expectRule(view, 'attempt.promote').attempt?.candidate, 'n2');
});

test('more loss than the bound blocks; accepted, it is recorded (I5)', () => {
  const text = VOTES.replace('term 3', 'lsn 0/900000 term 3');
  assert.match(expectDecision(picture(text), 'failover.blocked-lag').why, /lacks 9416704 bytes/);
  const state = expectRule(
    picture(
      text,
      with_((attempt) => ({ ...attempt, acceptLoss: true })),
    ),
    'attempt.promote',
  );
  assert.equal(state.attempt?.lostBytes, 9_416_704);
});

test('the end of an old primary that was promoted by hand is on another timeline: it proves nothing, but where it left is known (I5)', () => {
  const text = `term 3 primary n1 lsn 0/4000 attempt 4 vote
    n1 crashed tl2 fork1@0/5000 @0/5100
    n2 detached vote4@0/4800
    n3 detached vote4@0/4700`;
  const behind = expectDecision(picture(text), 'attempt.promote');
  assert.deepEqual([behind.state?.attempt?.candidate, behind.state?.attempt?.lostBytes], ['n2', 2048]);
  assert.match(behind.why, /at least 2048 bytes of the old primary are lost/);
  const level = expectDecision(picture(text.replace('vote4@0/4800', 'vote4@0/5000')), 'attempt.promote');
  assert.equal(level.state?.attempt?.lostBytes, null, 'what it took in on its own timeline is not known');
  const bounded = expectDecision(picture(text, { spec: { maxLagOnFailoverBytes: 1024 } }), 'attempt.abandoned-for-restart');
  assert.match(bounded.why, /lacks 2048 bytes/);
  const crash = with_((attempt) => ({ ...attempt, rule: 'crash.failover' }));
  expectRule(picture(text, crash), 'attempt.waiting-votes');
  expectRule(picture(text, crash), 'attempt.abandoned-for-restart', later(1000));
});

test('files that show an older timeline than the cluster’s say nothing of the end of its WAL (I5)', () => {
  const view = picture(`term 3 primary n1 timeline 2 forks 1@0/3000 lsn 0/4000 attempt 4 vote
    n1 crashed tl1 fork0@0/1 @0/5000
    n2 detached vote4@0/4800 tl2
    n3 detached vote4@0/4700 tl2`);
  const decision = expectDecision(view, 'attempt.promote');
  assert.deepEqual([decision.state?.attempt?.candidate, decision.state?.attempt?.lostBytes], ['n2', null]);
});

const CRASHED = `term 3 primary n1 attempt 4 vote
  n1 crashed @0/5000
  n2 detached vote4@0/4FF0
  n3 detached vote4@0/4FF0`;

test('after a crash, a candidate that lacks anything is not promoted: the old primary opens the new term', () => {
  const crash = with_((attempt) => ({ ...attempt, rule: 'crash.failover' }));
  const view = picture(CRASHED, crash);
  assert.equal(goalsOf(expectRule(view, 'attempt.abandoned-for-restart'), view.spec), 'n1:primary n2:vote n3:vote');
  expectRule(picture(CRASHED.replaceAll('4FF0', '5000'), crash), 'attempt.promote');
});

test('after a failed restart, the bound counts instead', () => {
  expectRule(
    picture(
      CRASHED,
      with_((attempt) => ({ ...attempt, rule: 'crash.restart-failed' })),
    ),
    'attempt.promote',
  );
});

test('nobody may be promoted', () => {
  expectRule(picture(VOTES.replaceAll('detached', 'detached prio0')), 'failover.blocked-no-candidate', later(1000));
});

test('never a promote order while anybody holds a lease (I1)', () => {
  expectRule(picture(VOTES.replace('term 3', 'lease n9/2 term 3').replace('n1 dead', 'n1 fenced')), 'failover.blocked-lease');
});

const ORDERED = `term 3 primary n1 attempt 4 promote:n2
  n1 dead
  n2 detached busy
  n3 detached vote4@0/5000`;

test('the order given: its outcome is waited for, without a write', () => {
  const decision = expectDecision(picture(ORDERED), 'attempt.waiting-open');
  assert.equal(decision.state, null);
});

test('a candidate that starts without progress is replaced, one that moves is waited for', () => {
  const text = `term 3 primary n1 lease n1/4 attempt 4 promote:n1
    n1 starting lease4 busy @0/5000
    n2 detached vote4@0/5000
    n3 detached vote4@0/5000`;
  expectRule(picture(text), 'attempt.waiting-open', later(300_000));
  expectRule(picture(text.replace('starting', 'starting stalled31000')), 'attempt.candidate-lost');
});

test('the candidate is open: it is the primary, the others follow, the old one is fenced (H28, H29, I11)', () => {
  const view = picture(ORDERED.replace('n2 detached busy', 'n2 primary tl2 fork1@0/5000 lease4 open').replace('term 3', 'lease n2/4 term 3'));
  const decision = expectDecision(view, 'attempt.opened', later(500));
  const state = decision.state;
  assert.ok(state !== null);
  assert.equal(goalsOf(state, view.spec), 'n1:fenced n2:primary n3:stream');
  assert.deepEqual([state.primary, state.primaryTerm, state.timeline, state.route.writer], ['n2', 4, 2, 'n2']);
  assert.deepEqual([decision.opened?.term, decision.opened?.forkLsn, decision.opened?.outageMs], [4, 0x5000n, 3500]);
});

test('a candidate that refuses is called back, and another term attempted (Z38)', () => {
  const state = expectRule(picture(ORDERED.replace('busy', 'refuses4')), 'attempt.refused');
  assert.deepEqual([state.term, state.attempt?.phase, state.goals[id('n2')]?.kind], [5, 'vote', 'fenced']);
  expectRule(picture(ORDERED.replace('busy', 'gaveup:promote.timeout')), 'attempt.refused');
});

test('a candidate that is gone is replaced only when no lease stands (Q12)', () => {
  const text = ORDERED.replace('n2 detached busy', 'n2 dead');
  expectRule(picture(text), 'attempt.candidate-lost');
  expectRule(picture(text.replace('term 3', 'lease n2/4 term 3')), 'attempt.waiting-open');
});

test('a standby whose WAL is not of the new history does not follow: it is fenced, and compared first (I12)', () => {
  const open = ORDERED.replace('n2 detached busy', 'n2 primary tl2 fork1@0/5000 lease4 open').replace('term 3', 'lease n2/4 term 3');
  const ahead = picture(`${open.replace(/n3 .*/, 'n3 detached @0/5800')}`);
  const fenced = expectRule(ahead, 'attempt.opened', later(500));
  assert.equal(goalsOf(fenced, ahead.spec), 'n1:fenced n2:primary n3:fenced');
  // Promoted by hand before: number and fork of its timeline are those of the new primary's, what it wrote is not (Z53).
  const twin = picture(`${open.replace(/n3 .*/, 'n3 stopped tl2 fork1@0/5000 @0/5100')}`);
  const marked = expectRule(twin, 'attempt.opened', later(500));
  assert.equal(goalsOf(marked, twin.spec), 'n1:fenced n2:primary n3:fenced');
  assert.match(marked.recovery[id('n3')]?.lastError ?? '', /^a promotion was not completed/);
});

test('a timeline number that was used before marks everybody who may hold the older one, with the same fork or not (Z53)', () => {
  const view = picture(
    ORDERED.replace('term 3', 'timeline 2 forks 1@0/5000 lease n2/4 term 3')
      .replace('n1 dead', 'n1 dead tl2 fork1@0/5000')
      .replace('n2 detached busy', 'n2 primary tl2 fork1@0/5000 lease4 open')
      .replace(/n3 .*/, 'n3 detached vote4@0/4FFF tl1 fork0@0/1 @0/4FFF'),
  );
  const state = expectRule(view, 'attempt.opened', later(500));
  assert.equal(goalsOf(state, view.spec), 'n1:fenced n2:primary n3:stream');
  assert.match(state.recovery[id('n1')]?.lastError ?? '', /^a promotion was not completed/);
  assert.equal(state.recovery[id('n3')], undefined);
  // Not detached: since its last report it may have streamed onto the older one.
  const silent = { ...view, reports: { ...view.reports, [id('n3')]: withoutVote(view, 'n3') } };
  assert.match(expectRule(silent, 'attempt.opened', later(500)).recovery[id('n3')]?.lastError ?? '', /^a promotion was not completed/);
});

function withoutVote(view: ClusterView, node: string): SeenReport {
  const seen = view.reports[id(node)];
  assert.ok(seen);
  return { ...seen, alive: false, report: { ...seen.report, vote: null } };
}

test('one that was being copied is copied from the new primary, and stays marked where it may have copied the older timeline (Z53)', () => {
  const text = ORDERED.replace('n2 detached busy', 'n2 primary tl2 fork1@0/5000 lease4 open').replace(/n3 .*/, 'n3 incomplete');
  const fresh = picture(text.replace('term 3', 'lease n2/4 term 3'));
  const state = expectRule(fresh, 'attempt.opened', later(500));
  assert.deepEqual([goalsOf(state, fresh.spec), state.recovery[id('n3')]], ['n1:fenced n2:primary n3:clone', undefined]);
  const again = picture(text.replace('term 3', 'timeline 2 forks 1@0/5000 lease n2/4 term 3').replace('n1 dead', 'n1 dead tl2 fork1@0/5000'));
  const marked = expectRule(again, 'attempt.opened', later(500));
  assert.equal(goalsOf(marked, again.spec), 'n1:fenced n2:primary n3:clone');
  assert.match(marked.recovery[id('n3')]?.lastError ?? '', /^a promotion was not completed/);
});

test('one that may hold a timeline of its own is no candidate, however far it is (Z53)', () => {
  const marked = {
    state: (state: ClusterState): ClusterState => ({
      ...state,
      recovery: {
        [id('n2')]: {
          checks: 0,
          firstSeenWallMs: makeWallMs(0),
          attempts: 0,
          notBeforeWallMs: makeWallMs(0),
          lastError: 'a promotion was not completed',
        },
      },
    }),
  };
  const text = VOTES.replace('term 3', 'timeline 2 forks 1@0/4000 term 3').replaceAll('detached', 'detached tl2 fork1@0/4000');
  assert.equal(expectRule(picture(text), 'attempt.promote').attempt?.candidate, 'n2');
  assert.equal(expectRule(picture(text, marked), 'attempt.promote').attempt?.candidate, 'n3');
});

test('a failover by hand ends with its attempt (Z79)', () => {
  const task = makeTask({ kind: 'failover', to: null, acceptLoss: false, acceptTwoPrimaries: false }, { id: 'f', status: 'running' });
  const view = picture(ORDERED.replace('n2 detached busy', 'n2 primary tl2 fork1@0/5000 lease4 open'), {
    ...with_((attempt) => ({ ...attempt, path: 'manual', taskId: 'f' })),
    tasks: [task],
  });
  assert.equal(expectDecision(view, 'attempt.opened').tasks[0]?.status, 'done');
  expectRule(picture('term 3 primary n1 lease n1/3\nn1 primary\nn2 standby', { tasks: [task] }), 'failover.over');
});

test('a candidate that is given up without its refusal may have opened: the loss is unknown, and what it had counts', () => {
  const positions = { n2: { timeline: makeTimeline(1), lsn: lsnOf('0/7000') } };
  const view = picture(
    ORDERED.replace('n2 detached busy', 'n2 dead').replace('n1 dead', 'n1 crashed @0/5000'),
    with_((attempt) => ({ ...attempt, positions, lostBytes: 0 })),
  );
  const lost = expectRule(view, 'attempt.candidate-lost');
  assert.deepEqual(lost.attempt?.mayHaveOpened, [{ node: 'n2', term: 4 }]);
  assert.equal(lost.primaryLsn, lsnOf('0/7000'), 'the elected position was known');
  const voted = `term 3 primary n1 attempt 5 vote
    n1 crashed @0/5000
    n2 dead
    n3 detached vote5@0/5000`;
  const again = { state: (state: ClusterState): ClusterState => ({ ...state, primaryLsn: lost.primaryLsn, attempt: lost.attempt }) };
  const decision = expectDecision(picture(voted, again), 'attempt.promote', later(1000));
  assert.equal(decision.state?.attempt?.lostBytes, null, 'the end of n1 is known, that of n2 is not');
  assert.match(decision.why, /at least 8192 bytes are lost; what was acknowledged by n2 in term 4, if it opened before it was lost, is not known/);
});

test('a candidate that durably refused opened nothing: what is known of the loss stays known', () => {
  const state = expectRule(picture(ORDERED.replace('busy', 'refuses4')), 'attempt.refused');
  assert.deepEqual(state.attempt?.mayHaveOpened, []);
});

test('a refusal of a term that was open there is none: what was acknowledged in it is not known (I5)', () => {
  const refusal = ORDERED.replace('busy', 'refuses4 opened4');
  assert.deepEqual(expectRule(picture(refusal), 'attempt.refused').attempt?.mayHaveOpened, [{ node: 'n2', term: 4 }]);
  assert.deepEqual(expectRule(picture(refusal.replace('opened4', 'opened3')), 'attempt.refused').attempt?.mayHaveOpened, []);
});

test('the old primary that opens after a candidate was given up does not claim that nothing is lost', () => {
  const text = `term 3 primary n1 attempt 5 vote
    n1 crashed @0/5000
    n2 dead
    n3 detached prio0 vote5@0/5000`;
  const given = with_((attempt) => ({ ...attempt, mayHaveOpened: [{ node: id('n2'), term: makeTerm(4) }] }));
  assert.equal(expectRule(picture(text, given), 'attempt.abandoned-for-restart', later(1000)).attempt?.lostBytes, null);
  const opening = text.replace('vote\n', 'promote:n1\n').replace('n1 crashed', 'n1 primary lease5 open');
  assert.equal(expectDecision(picture(opening, given), 'attempt.opened', later(1000)).opened?.lostBytes, null);
});

test('a controller that has just begun to watch calls no candidate lost (Q12)', () => {
  const text = ORDERED.replace('n2 detached busy', 'n2 dead');
  expectRule(picture(text.replace('term 3', 'watched 300 term 3')), 'attempt.waiting-open');
  expectRule(picture(text), 'attempt.candidate-lost');
  const untaken = ORDERED.replace('term 3', 'watched 300 term 3');
  expectRule(picture(untaken), 'attempt.waiting-open', later(12_000));
});
