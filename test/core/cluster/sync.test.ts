import assert from 'node:assert/strict';
import { test } from 'node:test';
import { makeTimeline, makeWallMs } from '../../../src/core/ids.ts';
import { decideCluster } from '../../../src/core/cluster/decide.ts';
import { clusterProblems } from '../../../src/core/cluster/problems.ts';
import { wishedSet } from '../../../src/core/cluster/sync-wish.ts';
import { renderSyncNames } from '../../../src/core/cluster/sync-set.ts';
import { describeWeakOwners } from '../../../src/core/cluster/weak-commits.ts';
import type { ClusterState } from '../../../src/core/state.ts';
import { type Picture, NOW, WALL, goalsOf, id, later, lsnOf, picture } from './picture.ts';
import { expectDecision, expectRule, withReport } from './rule-case.ts';

const quorumOf = (state: ClusterState): string => {
  const { k, voters, wanted } = state.quorum;
  return `${k} of ${voters.join(' ') || '-'}; waits for ${renderSyncNames(wanted) || 'nobody'}`;
};

const STEADY = `term 3 primary n1 lease n1/3 quorum 1/n2,n3
  n1 primary @0/5000
  n2 standby @0/5000
  n3 standby @0/4F00`;

const unestablished = (state: ClusterState): ClusterState => ({ ...state, quorum: { ...state.quorum, k: 0, voters: [] } });
const loweredSince =
  (ago: number) =>
  (state: ClusterState): ClusterState => ({
    ...state,
    quorum: { ...state.quorum, lowered: { sinceWallMs: makeWallMs(WALL - ago), reason: 'no standby acknowledges' } },
  });

test('a set that fits who is there is left alone', () => {
  expectRule(picture(STEADY), 'cluster.steady');
});

test('asynchronous mode waits for nobody and writes nothing', () => {
  expectRule(picture('term 3 primary n1 lease n1/3\nn1 primary\nn2 standby'), 'cluster.steady');
});

test('the first standbys: all that stream are asked for at once, and promised once they hold the WAL of that moment (Z55, I7)', () => {
  const raised = expectRule(picture(STEADY.replace('1/n2,n3', '0/')), 'sync.raised');
  assert.equal(quorumOf(raised), '0 of -; waits for ANY 1 ("n2.a", "n3.a")');
  expectRule(picture(STEADY.replace('n1 primary', 'n1 primary notinforce'), { state: unestablished }), 'cluster.steady');
  expectRule(picture(STEADY.replace('n1 primary', 'n1 primary inforce@0/6000'), { state: unestablished }), 'cluster.steady');
  const established = expectRule(picture(STEADY.replace('n1 primary', 'n1 primary inforce@0/5000'), { state: unestablished }), 'sync.established');
  assert.equal(quorumOf(established), '1 of n2.a n3.a; waits for ANY 1 ("n2.a", "n3.a")');
});

test('the word on an older set proves nothing of the wanted one (Q33, Z56)', () => {
  const newer = (state: ClusterState): ClusterState => ({
    ...unestablished(state),
    quorum: { ...unestablished(state).quorum, revision: 9, wantedRevision: 9 },
  });
  const view = picture(STEADY, { state: newer });
  const seen = view.reports[id('n1')];
  assert.ok(seen?.report.sync != null);
  const reports = { ...view.reports, [id('n1')]: { ...seen, report: { ...seen.report, sync: { ...seen.report.sync, revision: 8 } } } };
  expectRule({ ...view, reports }, 'cluster.steady');
});

test('a store that was set back asks anew, above what the agent acts on, and promises nothing meanwhile (architecture 4.10)', () => {
  const view = picture(STEADY);
  const seen = view.reports[id('n1')];
  assert.ok(seen?.report.sync != null);
  const reports = { ...view.reports, [id('n1')]: { ...seen, report: { ...seen.report, sync: { ...seen.report.sync, revision: 40 } } } };
  const { quorum } = expectRule({ ...view, reports }, 'sync.changed');
  assert.deepEqual([quorum.revision, quorum.wantedRevision, quorum.k, quorum.lowered], [41, 41, 0, null]);
  assert.equal(renderSyncNames(quorum.wanted), 'ANY 1 ("n2.a", "n3.a")');
});

test('one of two voters is silent: it leaves the set, and the facts become stronger only afterwards (Q8)', () => {
  const silent = STEADY.replace('n1 primary', 'n1 primary silent:n3=900').replace('n3 standby', 'n3 dead');
  const changed = expectRule(picture(silent), 'sync.changed');
  assert.equal(quorumOf(changed), '1 of n2.a n3.a; waits for ANY 1 ("n2.a")');
  const next = picture(silent, { state: () => changed });
  assert.equal(quorumOf(expectRule(next, 'sync.established')), '1 of n2.a; waits for ANY 1 ("n2.a")');
});

test('a short silence is no loss', () => {
  expectRule(picture(STEADY.replace('n1 primary', 'n1 primary silent:n2=700')), 'cluster.steady');
});

const ALONE = `term 3 primary n1 lease n1/3 quorum 1/n2
  n1 primary @0/5000 silent:n2=900
  n2 dead`;

test('the only voter is lost: adaptive, nobody is waited for, and it is said since when and why (H34, H35, S28, S146)', () => {
  const view = picture(ALONE);
  const decision = expectDecision(view, 'sync.lowered');
  assert.ok(decision.state !== null);
  assert.equal(quorumOf(decision.state), '0 of -; waits for nobody');
  assert.deepEqual(decision.state.quorum.lowered, { sinceWallMs: WALL, reason: 'no standby acknowledges; not streaming: n2' });
  assert.match(decision.events[0]?.text ?? '', /waits for 0 instead of 1 standbys: no standby acknowledges/);
  const shown = clusterProblems({ ...view, state: decision.state }).find((one) => one.code === 'cluster.protection-lowered');
  assert.match(shown?.text ?? '', /^Commits wait for 0 of 1 standbys since 20.*: no standby acknowledges/);
});

test('strict, and a lower bound, keep writes waiting (H35)', () => {
  for (const durability of [
    { mode: 'quorum', k: 1, strict: true },
    { mode: 'quorum', k: 1, minSync: 1 },
  ])
    expectRule(picture(ALONE, { spec: { durability } }), 'cluster.steady');
});

test('a lower bound of one leaves one of two', () => {
  const text = `term 3 primary n1 lease n1/3 quorum 2/n2,n3
    n1 primary @0/5000 silent:n3=900
    n2 standby @0/5000
    n3 dead`;
  const state = expectRule(picture(text, { spec: { durability: { mode: 'quorum', k: 2, minSync: 1 } } }), 'sync.lowered');
  assert.equal(quorumOf(state), '1 of n2.a n3.a; waits for ANY 1 ("n2.a", "n3.a")');
});

test('protection comes back by itself, not at once (S44, Z63)', () => {
  const text = STEADY.replace('1/n2,n3', '0/');
  expectRule(picture(text, { state: loweredSince(1000) }), 'cluster.steady');
  const raised = expectRule(picture(text, { state: loweredSince(4000) }), 'sync.raised');
  assert.notEqual(raised.quorum.lowered, null, 'until the facts say so, it is still lower');
  const established = expectRule(picture(text, { state: () => raised }), 'sync.established');
  assert.equal(established.quorum.lowered, null);
});

test('a standby far behind is not waited for (Z55)', () => {
  const text = STEADY.replace('1/n2,n3', '1/n2 lsn 0/5000000')
    .replace('n1 primary @0/5000', 'n1 primary @0/5000000')
    .replace('n2 standby @0/5000', 'n2 standby @0/5000000');
  expectRule(picture(text), 'cluster.steady');
});

test('a rebuilt standby joins under its new name, and the old name leaves (Z58, Z60)', () => {
  const text = STEADY.replace('n3 standby', 'n3 standby inc:b');
  const added = expectRule(picture(text), 'sync.changed');
  assert.equal(quorumOf(added), '1 of n2.a n3.a n3.b; waits for ANY 1 ("n2.a", "n3.a", "n3.b")');
  const removed = expectRule(picture(text, { state: () => added }), 'sync.changed');
  assert.equal(renderSyncNames(removed.quorum.wanted), 'ANY 1 ("n2.a", "n3.b")');
});

test('a node that is never promoted, or whose agent is dead, is no voter while others are (Z62)', () => {
  for (const text of [STEADY.replace('n3 standby', 'n3 standby prio0'), STEADY.replace('n3 standby', 'n3 dead')])
    assert.equal(renderSyncNames(expectRule(picture(text), 'sync.changed').quorum.wanted), 'ANY 1 ("n2.a")', text);
});

test('a node of another location is no voter where only a person promotes it, and none does by itself (crossLocation)', () => {
  const spec = { crossLocation: 'manual', durability: { mode: 'quorum', k: 1 } };
  const text = STEADY.replace('n1 primary', 'n1 primary loc:a').replace('n2 standby', 'n2 standby loc:a').replace('n3 standby', 'n3 standby loc:b');
  assert.equal(renderSyncNames(expectRule(picture(text, { spec }), 'sync.changed').quorum.wanted), 'ANY 1 ("n2.a")');
  const lost = `term 3 primary n1
    n1 dead loc:a
    n2 standby prio0 loc:a sees:n1=down
    n3 standby loc:b sees:n1=down`;
  assert.match(
    expectDecision(picture(lost, { spec: { crossLocation: 'manual' } }), 'failover.blocked-no-candidate').why,
    /n3: it is in b, the primary in a/,
  );
  expectRule(picture(lost), 'primary.lost');
});

test('a weaker synchronous_commit in the settings is named, since its commits are not protected', () => {
  const codes = (value: string): readonly string[] =>
    clusterProblems(picture(STEADY, { spec: { durability: { mode: 'quorum', k: 1 }, postgres: { parameters: { synchronous_commit: value } } } })).map(
      (one) => one.code,
    );
  for (const value of ['off', 'local', 'remote_write']) assert.ok(codes(value).includes('cluster.weak-commit'), value);
  for (const value of ['on', 'remote_apply']) assert.ok(!codes(value).includes('cluster.weak-commit'), value);
});

test('a weaker synchronous_commit by a file is a problem, one of a role or a database is named for the doctor alone; nobody is named where nothing is promised', () => {
  const weak = (mode: string) => {
    const view = withReport(picture(STEADY, { spec: { durability: { mode, k: 1 } } }), 'n1', {
      weakCommits: [
        { database: null, role: null, value: 'local', file: 'postgresql.auto.conf' },
        { database: null, role: 'app', value: 'off', file: null },
        { database: 'log', role: null, value: 'remote_write', file: null },
        { database: 'log', role: 'app', value: 'FALSE', file: null },
      ],
    });
    const found = clusterProblems(view).filter((one) => one.code === 'cluster.weak-commit');
    return [found.map((one) => one.text.split(':')[0]), describeWeakOwners(view)];
  };
  assert.deepEqual(weak('quorum'), [
    ['synchronous_commit is local by postgresql.auto.conf on n1'],
    'role app (off), database log (remote_write), role app in log (FALSE)',
  ]);
  assert.deepEqual(weak('async'), [[], null]);
});

test('writes that wait are a problem of their own (H35)', () => {
  const view = picture(ALONE, { spec: { durability: { mode: 'quorum', k: 1, strict: true } } });
  assert.ok(clusterProblems(view).some((one) => one.code === 'cluster.writes-wait'));
  assert.ok(!clusterProblems(picture(STEADY)).some((one) => one.code === 'cluster.writes-wait'));
});

test('strict, and nobody acknowledges: the set stays, so that whoever comes back first lets writes go on (H35)', () => {
  const text = STEADY.replace('n1 primary', 'n1 primary silent:n2=900 silent:n3=900')
    .replace('n2 standby', 'n2 dead')
    .replace('n3 standby', 'n3 dead');
  const spec = { durability: { mode: 'quorum', k: 1, strict: true } };
  expectRule(picture(text, { spec }), 'cluster.steady');
  const back = text.replace('silent:n3=900', '').replace('n3 dead', 'n3 standby');
  assert.equal(quorumOf(expectRule(picture(back, { spec }), 'sync.changed')), '1 of n2.a n3.a; waits for ANY 1 ("n3.a")');
});

test('strict, and nobody acknowledges: a member that was built anew leaves the set, since it can not come back as that voter', () => {
  const text = STEADY.replace('n1 primary', 'n1 primary silent:n2=900 silent:n3=900 notinforce').replace('n2 standby', 'n2 dead');
  const built = picture(text.replace('n3 standby', 'n3 stopped inc:b'), { spec: { durability: { mode: 'quorum', k: 1, strict: true } } });
  assert.deepEqual(wishedSet(built, NOW)?.set.members, ['n2.a']);
});

test('strict, and of two that are needed one acknowledges that could not be promoted: it stays in the set beside those that are away (I4)', () => {
  const text = STEADY.replace('1/n2,n3', '2/n2,n3,n4').replace('n1 primary', 'n1 primary silent:n2=900 silent:n3=900');
  const alone = `${text.replace('n2 standby', 'n2 dead').replace('n3 standby', 'n3 dead')}\n  n4 standby prio0 @0/5000`;
  expectRule(picture(alone, { spec: { durability: { mode: 'quorum', k: 2, strict: true } } }), 'cluster.steady');
});

test('of the members that writes wait for, only those that are silent are named', () => {
  const view = picture(STEADY.replace('1/n2,n3', '2/n2,n3').replace('n1 primary', 'n1 primary silent:n3=900').replace('n3 standby', 'n3 dead'), {
    spec: { durability: { mode: 'quorum', k: 2, strict: true } },
  });
  const found = clusterProblems(view).find((one) => one.code === 'cluster.writes-wait');
  assert.equal(found?.text, 'Writes wait for 2 of 2 standbys, and too few acknowledge (silent: n3).');
});

test('in mode sync the best k are named, and a lost one is replaced: first the new one, then the other order, then without the old one', () => {
  const spec = { durability: { mode: 'sync', k: 1 } };
  const first = (state: ClusterState): ClusterState => {
    const set = { method: 'first' as const, k: 1, members: ['n2.a'] };
    return { ...state, quorum: { ...state.quorum, voters: ['n2.a'], wanted: set, mayStand: [set] } };
  };
  expectRule(picture(STEADY, { spec, state: first }), 'cluster.steady');
  const text = STEADY.replace('n1 primary', 'n1 primary silent:n2=900').replace('n2 standby', 'n2 dead');
  const added = expectRule(picture(text, { spec, state: first }), 'sync.changed');
  assert.equal(quorumOf(added), '1 of n2.a n3.a; waits for FIRST 1 ("n2.a", "n3.a")');
  const ordered = expectRule(picture(text, { spec, state: () => added }), 'sync.changed');
  assert.equal(renderSyncNames(ordered.quorum.wanted), 'FIRST 1 ("n3.a", "n2.a")');
  const removed = expectRule(picture(text, { spec, state: () => ordered }), 'sync.changed');
  assert.equal(quorumOf(removed), '1 of n2.a n3.a; waits for FIRST 1 ("n3.a")');
});

test('facts and set are frozen while a term is attempted, a switchover runs, or people froze the cluster', () => {
  const attempt = picture(ALONE.replace('quorum 1/n2', 'quorum 1/n2 attempt 4 vote'));
  const decision = decideCluster(attempt, NOW);
  assert.ok(decision.rule.startsWith('attempt.') || decision.rule.startsWith('failover.'), decision.rule);
  assert.equal(quorumOf(decision.state ?? attempt.state), '1 of n2.a; waits for ANY 1 ("n2.a")');
  expectRule(picture(ALONE.replace('term 3', 'frozen term 3')), 'cluster.steady');
});

const LOST = `term 3 primary n1 lease n1/3 quorum 1/n2,n3
  n1 dead @0/5000
  n2 standby @0/5000 sees:n1=down
  n3 standby @0/4000 sees:n1=down`;

test('a lost primary: the voters are asked at once, while its lease still stands (quorum path)', () => {
  const view = picture(LOST);
  const state = expectRule(view, 'primary.lost');
  assert.equal(goalsOf(state, view.spec), 'n1:fenced n2:vote n3:vote');
  assert.deepEqual([state.attempt?.path, state.quorum], ['quorum', view.state.quorum]);
});

test('WAL that no standby ever got, and that nobody acknowledged, keeps no failover back (Z65)', () => {
  expectRule(picture(LOST.replace('n1 dead @0/5000', 'n1 dead @9/0')), 'primary.lost');
  expectRule(picture(LOST, { state: (state) => ({ ...state, primaryLsn: lsnOf('9/0') }) }), 'primary.lost');
});

/** n1 serves by its last word, which is so old. */
function silentFor(ageMs: number, text: string): ReturnType<typeof picture> {
  const view = picture(text);
  const seen = view.reports[id('n1')];
  assert.ok(seen !== undefined);
  return { ...view, reports: { ...view.reports, [id('n1')]: { ...seen, ageMs } } };
}

test('an agent that missed two reports is enough, if two others see its primary down; alone it is not (H12, Z8)', () => {
  const serving = LOST.replace('n1 dead', 'n1 primary');
  expectRule(silentFor(1200, serving), 'primary.lost');
  expectRule(silentFor(1200, serving.replace('@0/4000 sees:n1=down', '@0/4000 sees:n1=primary')), 'failover.blocked-viewpoints');
});

test('one missed report is enough where as many see it down as are needed, and its last word was that it is open: an agent that lives had told', () => {
  const serving = LOST.replace('n1 dead', 'n1 primary');
  expectRule(silentFor(800, serving), 'primary.lost');
  expectRule(silentFor(700, serving), 'cluster.steady');
  expectRule(silentFor(800, serving.replace('@0/4000 sees:n1=down', '@0/4000')), 'cluster.steady');
  expectRule(silentFor(800, serving.replace('n1 primary', 'n1 starting')), 'primary.restarting');
  expectRule(silentFor(800, serving.replace(' quorum 1/n2,n3', '')), 'cluster.steady');
});

test('with too few voters to be heard no attempt is begun; the missing are named (Q7, I6)', () => {
  const decision = expectDecision(picture(LOST.replace('n3 standby', 'n3 dead')), 'failover.blocked-quorum');
  assert.match(decision.why, /1 of 2 needed voters; missing: n3/);
  assert.equal(decision.state?.attempt ?? null, null);
});

test('a primary whose new term was never established is not replaced by a guess', () => {
  expectRule(picture(LOST.replace('lease n1/3 ', ''), { state: unestablished }), 'failover.blocked-quorum');
  const lowered = (state: ClusterState): ClusterState => loweredSince(9000)(unestablished(state));
  expectRule(picture(LOST.replace('lease n1/3 ', ''), { state: lowered }), 'primary.lost');
  expectRule(
    picture(LOST.replace('lease n1/3 ', ''), { state: lowered, spec: { durability: { mode: 'quorum', k: 1, minSync: 1 } } }),
    'failover.blocked-quorum',
  );
});

const quorumPath: Picture = { state: (state) => ({ ...state, attempt: state.attempt === null ? null : { ...state.attempt, path: 'quorum' } }) };
const VOTES = `term 3 primary n1 lease n1/3 quorum 1/n2,n3 attempt 4 vote
  n1 dead @0/900000
  n2 detached vote4@0/5000
  n3 detached vote4@0/4000`;

test('the most advanced of enough detached voters is promoted although the lease stands, whatever the old primary had beside (Z57)', () => {
  const view = picture(VOTES, quorumPath);
  const state = expectRule(view, 'attempt.promote');
  assert.equal(goalsOf(state, view.spec), 'n1:fenced n2:promote n3:vote');
  assert.deepEqual([state.attempt?.lostBytes, state.attempt?.sync], [0, { method: 'any', k: 1, members: ['n3.a'] }]);
  assert.deepEqual(state.quorum, view.state.quorum, 'the facts of the old term stand until the new one is open');
});

test('one detached voter of two is not enough, at any time, with any number of votes', () => {
  expectRule(picture(VOTES.replace('vote4@0/4000', 'vote4?'), quorumPath), 'attempt.waiting-votes');
  const decision = expectDecision(picture(VOTES.replace('vote4@0/4000', 'vote4?'), quorumPath), 'failover.blocked-quorum', later(5000));
  assert.match(decision.why, /1 of 2 needed voters; missing: n3/);
});

test('the lease path needs the quorum too', () => {
  expectRule(picture(VOTES.replace('lease n1/3 ', '').replace('vote4@0/4000', 'inc:b vote4@0/4000')), 'failover.blocked-quorum', later(5000));
  expectRule(picture(VOTES.replace('lease n1/3 ', '').replace('0/900000', '0/5000')), 'attempt.promote');
});

test('a voter whose directory was rebuilt since does not count (Z58)', () => {
  expectRule(picture(VOTES.replace('n3 detached', 'n3 detached inc:b'), quorumPath), 'failover.blocked-quorum', later(5000));
});

test('a voter whose promotion was not completed keeps nobody back by the timeline that it began (I4, Z38)', () => {
  const text = `term 3 primary n1 lease n1/3 quorum 1/n2,n3 attempt 5 vote
    n1 dead @0/5000
    n2 detached tl2 fork1@0/5000 vote5@0/5100 refuses4
    n3 detached vote5@0/5000`;
  assert.equal(expectRule(picture(text, quorumPath), 'attempt.promote', later(5000)).attempt?.candidate, 'n3');
  expectRule(picture(text.replace('vote5@0/5000', 'vote5@0/4F00'), quorumPath), 'failover.blocked-quorum', later(5000));
});

test('a voter that is ahead and may not be promoted stands in the way of the one behind (Z62, I4)', () => {
  expectRule(picture(VOTES.replace('n2 detached', 'n2 detached prio0'), quorumPath), 'failover.blocked-quorum', later(5000));
});

test('lowered protection is no leave to lose what standbys acknowledged before (I4)', () => {
  const floor = (state: ClusterState): ClusterState => ({
    ...loweredSince(9000)(unestablished(state)),
    quorum: { ...loweredSince(9000)(unestablished(state)).quorum, floor: { timeline: makeTimeline(1), lsn: lsnOf('0/4800') }, floorPending: false },
  });
  const text = LOST.replace('lease n1/3 ', '');
  expectRule(picture(text, { state: floor }), 'primary.lost');
  const behind = text.replace('n2 standby @0/5000', 'n2 standby @0/4700');
  assert.match(expectDecision(picture(behind, { state: floor }), 'failover.blocked-quorum').why, /n2 at 0\/4700.* lacks commits .*up to 0\/4800/);
  const pending = (state: ClusterState): ClusterState => ({ ...floor(state), quorum: { ...floor(state).quorum, floorPending: true } });
  expectRule(picture(text, { state: pending }), 'failover.blocked-quorum');
});

test('the floor is the position at which nobody was waited for any more', () => {
  const lowered = expectRule(picture(ALONE), 'sync.lowered');
  assert.equal(lowered.quorum.floorPending, true);
  expectRule(picture(ALONE.replace('n1 primary', 'n1 primary notinforce'), { state: () => lowered }), 'cluster.steady');
  const settled = expectRule(picture(ALONE.replace('n1 primary', 'n1 primary inforce@0/5000'), { state: () => lowered }), 'sync.established');
  assert.deepEqual(settled.quorum.floor, { timeline: 1, lsn: lsnOf('0/5000') });
  assert.equal(settled.quorum.floorPending, false);
});

test('the new term opens with nothing promised, waiting for the voters that follow', () => {
  const ordered = `term 3 primary n1 lease n2/4 quorum 1/n2,n3 attempt 4 promote:n2
    n1 dead
    n2 primary tl2 fork1@0/5000 lease4 open
    n3 detached vote4@0/4000`;
  const order = (state: ClusterState): ClusterState => ({
    ...state,
    attempt: state.attempt === null ? null : { ...state.attempt, path: 'quorum', sync: { method: 'any', k: 1, members: ['n3.a'] } },
  });
  const view = picture(ordered, { state: order });
  const state = expectRule(view, 'attempt.opened', later(500));
  assert.equal(quorumOf(state), '0 of -; waits for ANY 1 ("n3.a")');
  assert.equal(goalsOf(state, view.spec), 'n1:fenced n2:primary n3:stream');
  assert.equal(state.quorum.lowered, null);
});

test('the old primary opens the new term itself: its voters attach again, and its facts stand', () => {
  const text = `term 3 primary n1 quorum 1/n2,n3 attempt 4 vote
    n1 crashed @0/5000
    n2 detached vote4@0/5000
    n3 dead`;
  const view = picture(text, quorumPath);
  const state = expectRule(view, 'attempt.abandoned-for-restart', later(5000));
  assert.equal(goalsOf(state, view.spec), 'n1:primary n2:stream n3:stream');
  assert.deepEqual(state.quorum, view.state.quorum);
});

test('a candidate on the quorum path is not taken for the holder of the old lease', () => {
  const text = `term 3 primary n1 lease n1/3 quorum 1/n2,n3 attempt 4 promote:n2
    n1 dead
    n2 dead
    n3 detached vote4@0/5000`;
  expectRule(picture(text, quorumPath), 'attempt.candidate-lost');
  expectRule(picture(text.replace('lease n1/3', 'lease n2/4'), quorumPath), 'attempt.waiting-open');
});

test('a crash takes the quorum path: what was acknowledged is safe without the crashed directory', () => {
  const text = `term 3 primary n1 lease n1/3 quorum 1/n2,n3
    n1 crashed lease3 @0/9000
    n2 standby @0/5000
    n3 standby @0/5000`;
  const state = expectRule(picture(text), 'crash.failover');
  assert.equal(state.attempt?.path, 'quorum');
  expectRule(picture(text.replace('n3 standby', 'n3 dead')), 'crash.restart');
});

test('positions are read of the picture as they are written', () => {
  assert.equal(picture(VOTES).reports[id('n2')]?.report.vote?.position?.lsn, lsnOf('0/5000'));
  assert.equal(NOW.wall, WALL);
});
