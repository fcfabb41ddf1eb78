/** Cascading and delayed standbys: from whom they stream, and where they do not count. */
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { cancelEffect } from '../../../src/core/cluster/cancel.ts';
import { showCluster, showLag } from '../../../src/core/cluster/describe.ts';
import { rankCandidates } from '../../../src/core/cluster/election.ts';
import { withGoal } from '../../../src/core/cluster/goals.ts';
import { checkFollow, planFollow } from '../../../src/core/cluster/node-follow-checks.ts';
import { heldBy, specWithout } from '../../../src/core/cluster/node-remove-checks.ts';
import { knownPositions, positionsAfter } from '../../../src/core/cluster/positions.ts';
import { publishRoute } from '../../../src/core/cluster/route.ts';
import { checkSwitchover } from '../../../src/core/cluster/switchover-checks.ts';
import { openingSet, wishedSet } from '../../../src/core/cluster/sync-wish.ts';
import { isAttached, plannedUpstream, upstreamNow } from '../../../src/core/cluster/upstream.ts';
import { type NodeId, makeWallMs } from '../../../src/core/ids.ts';
import type { NodeReport, Walsender } from '../../../src/core/report.ts';
import { slotName } from '../../../src/core/slot-name.ts';
import { type NodeSpec, checkSpec } from '../../../src/core/spec.ts';
import type { Task } from '../../../src/core/state.ts';
import type { ClusterView } from '../../../src/core/view.ts';
import { NOW, type Picture, WALL, id, later, lsnOf, makeSpec, makeTask, picture } from './picture.ts';
import { expectDecision } from './rule-case.ts';
import { changeReport, running } from './scale-views.ts';

const n1 = id('n1');
const n2 = id('n2');
const n3 = id('n3');
const n4 = id('n4');
const head = 'term 3 primary n1 lease n1/3';
const THREE = `${head}
  n1 primary @0/5000
  n2 standby @0/5000
  n3 standby @0/5000`;
const QUORUM = THREE.replace('n1/3', 'n1/3 quorum 1/n2,n3');

function withSpec(view: ClusterView, node: NodeId, change: Partial<NodeSpec>): ClusterView {
  return { ...view, spec: { ...view.spec, nodes: view.spec.nodes.map((one) => (one.id === node ? { ...one, ...change } : one)) } };
}

function changePostgres(view: ClusterView, node: NodeId, change: Partial<NodeReport['postgres']>): ClusterView {
  return changeReport(view, node, (report) => ({ ...report, postgres: { ...report.postgres, ...change } }));
}

const sender = (node: NodeId, lsn = '0/5000'): Walsender => ({
  node,
  state: 'streaming',
  sentLsn: lsnOf(lsn),
  writeLsn: lsnOf(lsn),
  flushLsn: lsnOf(lsn),
  replayLsn: lsnOf(lsn),
  replayLagMs: null,
  syncState: 'async',
  voter: `${node}.a`,
});

/** Every member has a slot for each other one. */
function withSlots(view: ClusterView): ClusterView {
  let changed = view;
  for (const node of view.spec.nodes) {
    const slots = view.spec.nodes.map((one) => ({ name: slotName(one.id), active: false, retainedBytes: 0, walStatus: 'reserved' }));
    if (view.reports[node.id] !== undefined) changed = changeReport(changed, node.id, (report) => ({ ...report, slots }));
  }
  return changed;
}

/** n3 is to stream from n2 by its settings. */
const wished = (text = THREE, extra: Picture = {}): ClusterView => withSpec(withSlots(picture(text, extra)), n3, { upstream: n2 });

/** n3 streams from n2, as it was told to. */
function cascading(text = THREE, extra: Picture = {}): ClusterView {
  const view = wished(text, extra);
  const state = withGoal(view.state, n3, view.state.primaryTerm, { kind: 'standby', upstream: n2, via: 'stream' });
  const streams = changePostgres({ ...view, state }, n3, { streamingFrom: n2 });
  return changePostgres(changePostgres(streams, n2, { walsenders: [sender(n3)] }), n1, { walsenders: [sender(n2)] });
}

const follow = (upstream: NodeId | null, node = n3): Task => makeTask({ kind: 'nodeFollow', node, upstream });
const upstreamGoal = (view: { readonly state: ClusterView['state'] | null }, node = n3): string => {
  const goal = view.state?.goals[node];
  return goal?.kind === 'standby' ? goal.upstream : (goal?.kind ?? 'none');
};

describe('the settings of a node', () => {
  const spec = (nodes: readonly object[], extra: object = {}): readonly string[] =>
    checkSpec(makeSpec(nodes, extra)).map((problem) => `${problem.path}: ${problem.message}`);
  const node = (name: string, more: object = {}): object => ({ id: name, host: name, ...more });

  test('an upstream is another data node, and nobody streams from itself', () => {
    assert.deepEqual(spec([node('n1'), node('n2'), node('n3', { upstream: 'n2' })]), []);
    assert.deepEqual(spec([node('n1'), node('n2', { upstream: 'n9' })]), ['nodes[1].upstream: there is no node "n9"']);
    assert.deepEqual(spec([node('n1'), node('w', { kind: 'witness' }), node('n2', { upstream: 'w' })]), [
      'nodes[2].upstream: w is a witness and holds no data',
    ]);
    assert.deepEqual(spec([node('n1'), node('n2', { upstream: 'n3' }), node('n3', { upstream: 'n2' })]), [
      'nodes[1].upstream: n2 would stream from itself, by way of n3',
      'nodes[2].upstream: n3 would stream from itself, by way of n2',
    ]);
    assert.deepEqual(spec([node('n1'), node('n2', { upstream: 'n2' })]), ['nodes[1].upstream: n2 would stream from itself, by way of n2']);
  });

  test('a delayed standby is not counted where commits wait for standbys', () => {
    const three = [node('n1'), node('n2'), node('n3', { delayMs: 3_600_000 })];
    assert.deepEqual(spec(three, { durability: { mode: 'quorum', k: 1 } }), []);
    assert.match(spec(three, { durability: { mode: 'quorum', k: 2 } })[0] ?? '', /^durability\.k: k 2 needs 2 standbys/);
    assert.match(spec([node('n1', { delayMs: 1 })])[0] ?? '', /every data node is delayed/);
  });

  test('who follows a node that is removed follows the primary', () => {
    assert.equal(specWithout(wished().spec, n2).nodes.find((one) => one.id === n3)?.upstream, null);
  });
});

describe('the preconditions of node follow', () => {
  const codes = (view: ClusterView, upstream: NodeId | null = n2, node = n3): readonly string[] =>
    checkFollow(view, { kind: 'nodeFollow', node, upstream }).map((one) => one.code.replace('node-follow.', ''));
  const dead = THREE.replace('n2 standby @0/5000', 'n2 dead');
  const cases: readonly (readonly [string, readonly string[], readonly string[]])[] = [
    ['a standby that is in order', codes(picture(THREE)), []],
    ['the primary, whoever it is', codes(picture(THREE), null), []],
    ['the one that is the primary now, by its name', codes(picture(THREE), n1), ['upstream-is-primary']],
    ['itself', codes(picture(THREE), n3), ['self']],
    ['a node that is not there', codes(picture(THREE), id('n9')), ['unknown']],
    ['an upstream that is gone', codes(picture(dead)), ['upstream']],
    ['an upstream that is delayed', codes(withSpec(picture(THREE), n2, { delayMs: 60_000 })), ['upstream']],
    ['a circle', codes(withSpec(picture(THREE), n2, { upstream: n3 })), ['spec', 'spec']],
    ['the primary as the one that is to follow', codes(picture(THREE), n2, n1), ['is-primary']],
    ['a node that is silent', codes(picture(THREE.replace('n3 standby @0/5000', 'n3 dead'))), ['silent']],
    ['a node in maintenance', codes(picture(`${THREE} maint`)), ['maintenance']],
    ['while a term is opened', codes(picture(THREE.replace(head, `${head} attempt 4 vote`))), ['attempt']],
    ['one of two voters', codes(picture(QUORUM)), []],
    ['the only voter that is there', codes(picture(QUORUM.replace('n2 standby', 'n2 standby prio100')), n2, n3), []],
  ];
  for (const [name, found, expected] of cases) test(`${name}: ${expected.join() || 'allowed'}`, () => assert.deepEqual(found, expected));

  test('not when a commit would be left with fewer standbys than it waits for', () => {
    const two = picture(QUORUM, { spec: { durability: { mode: 'quorum', k: 2, strict: true } } });
    const [problem] = checkFollow(two, { kind: 'nodeFollow', node: n3, upstream: n2 });
    assert.match(problem?.text ?? '', /1 standbys stream from the primary itself, and a commit waits for 2: writes would wait/);
  });

  test('the dry run names the steps', () => {
    const plan = planFollow(withSlots(picture(QUORUM)), { kind: 'nodeFollow', node: n3, upstream: n2 }).join('\n');
    assert.match(plan, /^leave the set: no commit waits for n3/);
    assert.match(plan, /n3 streams from n2 instead of n1 by a reload; the slot pgherd_n3 is on n2 already/);
  });
});

describe('node follow, step by step', () => {
  test('refused, with the reason', () => {
    const decision = expectDecision(picture(THREE, { tasks: [follow(n1)] }), 'node.follow-refused');
    assert.equal(decision.tasks[0]?.status, 'refused');
    assert.equal(decision.spec, null);
  });

  test('asked: the settings change first, the stream does not', () => {
    const decision = expectDecision(withSlots(picture(QUORUM, { tasks: [follow(n2)] })), 'node.follow');
    assert.equal(decision.spec?.nodes.find((one) => one.id === n3)?.upstream, n2);
    assert.equal(upstreamGoal(decision), 'n1');
    assert.equal(decision.tasks[0]?.steps.at(-1)?.name, 'leave the set');
  });

  const request = { kind: 'nodeFollow', node: n3, upstream: n2 } as const;
  const leaving = { tasks: [running(request, 'leave the set')] };

  test('as long as the facts name it, its goal does not change; the set lets go of it', () => {
    const view = wished(QUORUM, leaving);
    assert.equal(upstreamNow(view, n3), n1);
    assert.deepEqual(wishedSet(view, NOW)?.set.members, ['n2.a']);
    const decision = expectDecision(view, 'sync.changed');
    assert.equal(upstreamGoal({ state: decision.state ?? view.state }), 'n1');
  });

  test('when nothing names it any more, it is told to follow', () => {
    const view = wished(QUORUM.replace('n2,n3', 'n2'), leaving);
    const decision = expectDecision(view, 'node.follow-ordered');
    assert.equal(upstreamGoal(decision), 'n2');
    assert.equal(decision.tasks[0]?.steps.at(-1)?.name, 'follow');
    const frozen = { ...view, state: { ...view.state, frozen: { reason: '', by: 'anna', sinceWallMs: NOW.wall, untilWallMs: null } } };
    assert.equal(upstreamGoal(expectDecision(frozen, 'node.follow-ordered')), 'n2', 'a person’s word, also while automatic actions are frozen');
  });

  test('done when it streams from there', () => {
    const decision = expectDecision(cascading(THREE, { tasks: [running(request, 'follow')] }), 'node.followed');
    assert.equal(decision.tasks[0]?.status, 'done');
  });

  test('cancelled, or too late: the settings of before', () => {
    const task = { ...running(request, 'follow'), notes: { 'upstream-before': '' } };
    const cancelled = expectDecision(wished(THREE, { tasks: [{ ...task, cancelRequested: true }] }), 'node.follow-undone');
    assert.equal(cancelled.tasks[0]?.status, 'cancelled');
    assert.equal(cancelled.spec?.nodes.find((one) => one.id === n3)?.upstream, null);
    const late = expectDecision(wished(THREE, { tasks: [task] }), 'node.follow-undone', later(61_000));
    assert.equal(late.tasks[0]?.status, 'failed');
    assert.match(late.tasks[0]?.problems[0]?.text ?? '', /n3 does not stream from n2 after 60 s; n3 streams from the primary as before/);
    assert.equal(cancelEffect(wished().state, task).kind, 'undo');
  });

  test('an upstream of before comes back by the cancellation', () => {
    const text = `${THREE}\n  n4 standby @0/5000`;
    const task = { ...running(request, 'follow'), notes: { 'upstream-before': 'n4' }, cancelRequested: true };
    const decision = expectDecision(wished(text, { tasks: [task] }), 'node.follow-undone');
    assert.equal(decision.spec?.nodes.find((one) => one.id === n3)?.upstream, n4);
  });
});

describe('while its upstream is not in order, a cascading standby streams from the primary', () => {
  test('steady: it streams from n2, serves reads, and nobody waits for it', () => {
    const view = cascading(QUORUM.replace('n2,n3', 'n2'));
    assert.equal(upstreamNow(view, n3), n2);
    assert.ok(isAttached(view, n3));
    assert.deepEqual(wishedSet(view, NOW)?.set.members, ['n2.a']);
    assert.deepEqual(publishRoute(view).route.readers, ['n2', 'n3']);
    const [, , shown] = showCluster(view, NOW).nodes;
    assert.deepEqual([shown?.upstream, shown?.wantedUpstream, shown?.streaming], ['n2', 'n2', true]);
    assert.equal(showLag(view)[2]?.state, 'streaming', 'the figures are those of n2');
    assert.equal(showLag(view)[2]?.slot, 'pgherd_n3');
  });

  const lost: readonly (readonly [string, ClusterView])[] = [
    ['its agent and its server are gone', cascading(THREE.replace('n2 standby @0/5000', 'n2 dead'))],
    ['its server is stopped', cascading(THREE.replace('n2 standby @0/5000', 'n2 stopped @0/5000'))],
    ['it is in maintenance', cascading(THREE.replace('n2 standby @0/5000', 'n2 standby @0/5000 maint'))],
  ];
  for (const [name, view] of lost) {
    // The follower notices, too: its stream has ended.
    const broken = name.includes('maintenance') ? view : changePostgres(view, n3, { streamingFrom: null });
    test(`at once when ${name}`, () => {
      const decision = expectDecision(broken, 'standby.stream');
      assert.ok(decision.events.some((event) => event.rule === 'standby.upstream-lost' && event.node === n3));
      assert.equal(upstreamGoal(decision), 'n1');
      assert.equal(decision.state?.cascades[n3]?.away, true);
    });
  }

  test('an agent that is restarted is no reason, as long as the stream goes on', () => {
    const view = cascading();
    const seen = view.reports[n2];
    assert.ok(seen !== undefined);
    const restarted = { ...view, reports: { ...view.reports, [n2]: { ...seen, alive: false, ageMs: 5000 } } };
    assert.equal(plannedUpstream({ ...restarted, state: expectDecision(restarted, 'cluster.steady').state ?? restarted.state }, n3), n2);
  });

  test('after two seconds when the upstream has lost its own stream, and not before', () => {
    const view = changePostgres(cascading(), n2, { streamingFrom: null });
    const first = expectDecision(view, 'housekeeping.upstreams');
    assert.deepEqual([first.state?.cascades[n3]?.away, upstreamGoal(first)], [false, 'n2']);
    const waiting = { ...view, state: first.state ?? view.state };
    assert.equal(upstreamGoal({ state: expectDecision(waiting, 'cluster.steady', later(1900)).state ?? waiting.state }), 'n2');
    const left = expectDecision(waiting, 'standby.stream', later(2100));
    assert.deepEqual([left.state?.cascades[n3]?.away, upstreamGoal(left)], [true, 'n1']);
    const healed = { ...cascading(), state: waiting.state };
    assert.equal(
      expectDecision(healed, 'housekeeping.upstreams', later(500)).state?.cascades[n3],
      undefined,
      'forgotten when it streams again in time',
    );
  });

  const away = (view: ClusterView, more: object = {}): ClusterView => ({
    ...view,
    state: {
      ...withGoal(view.state, n3, view.state.primaryTerm, { kind: 'standby', upstream: n1, via: 'stream' }),
      cascades: {
        [n3]: { away: true, reason: 'is gone', sinceWallMs: makeWallMs(WALL - 60_000), healthySinceWallMs: null, settleMs: 5000, ...more },
      },
    },
  });

  test('back when the upstream has been in order for five seconds', () => {
    const noted = expectDecision(away(wished()), 'housekeeping.upstreams');
    assert.equal(noted.state?.cascades[n3]?.healthySinceWallMs, NOW.wall);
    const healthy = away(wished(), { healthySinceWallMs: NOW.wall });
    assert.equal(upstreamGoal({ state: expectDecision(healthy, 'cluster.steady', later(4900)).state ?? healthy.state }), 'n1');
    const back = expectDecision(healthy, 'standby.stream', later(5100));
    assert.ok(back.events.some((event) => event.rule === 'standby.upstream-back'));
    assert.equal(upstreamGoal(back), 'n2');
  });

  test('not back before the slot is there', () => {
    const view = changeReport(away(wished(), { healthySinceWallMs: NOW.wall }), n2, (report) => ({ ...report, slots: [] }));
    const decision = expectDecision(view, 'housekeeping.upstreams', later(60_000));
    assert.equal(decision.state?.cascades[n3]?.healthySinceWallMs, null);
  });

  test('meanwhile it counts like any other; show says why', () => {
    const view = away(wished(QUORUM));
    assert.deepEqual(wishedSet(view, NOW)?.set.members, ['n2.a', 'n3.a']);
    const problems = showCluster(view, NOW).problems.filter((one) => one.code === 'node.upstream-away');
    assert.match(problems[0]?.text ?? '', /^n3 streams from the primary n1 since .*: n2 is gone\.$/);
  });

  test('one that cannot follow streams from the primary; it is not copied because WAL is missing elsewhere', () => {
    const view = changePostgres(cascading(), n3, { streamingFrom: null });
    const failed = changeReport(view, n3, (report) => ({
      ...report,
      activity: {
        kind: 'failed',
        goalId: view.state.goals[n3]?.id ?? '',
        step: 'follow',
        code: 'follow.wal-removed',
        message: 'requested WAL segment 000000010000000000000005 has already been removed',
        attempts: 1,
        atWallMs: NOW.wall,
        retrying: false,
      },
    }));
    const decision = expectDecision(failed, 'standby.stream');
    const goal = decision.state?.goals[n3];
    assert.deepEqual(goal?.kind === 'standby' ? [goal.upstream, goal.via] : goal?.kind, ['n1', 'stream']);
    assert.equal(decision.state?.cascades[n3]?.settleMs, 60_000);
  });

  test('frozen: nothing moves', () => {
    const view = changePostgres(cascading(THREE.replace(head, `${head} frozen`).replace('n2 standby @0/5000', 'n2 dead')), n3, {
      streamingFrom: null,
    });
    assert.equal(upstreamGoal({ state: expectDecision(view, 'cluster.steady').state ?? view.state }), 'n2');
  });

  test('a node that left the cluster takes the note about its upstream with it', () => {
    const n9 = id('n9');
    const view = picture(THREE, {
      state: (state) => ({
        ...withGoal(state, n9, state.primaryTerm, { kind: 'standby', upstream: n2, via: 'stream' }),
        cascades: { [n9]: { away: true, reason: 'is gone', sinceWallMs: NOW.wall, healthySinceWallMs: null, settleMs: 5000 } },
      }),
    });
    assert.deepEqual(expectDecision(view, 'housekeeping.removed-node').state?.cascades, {});
  });

  test('the upstream became the primary: it is followed as that', () => {
    const view = cascading();
    const promoted = { ...view, state: { ...view.state, primary: n2 } };
    assert.equal(upstreamNow(promoted, n3), n2);
    assert.equal(plannedUpstream(promoted, n3), n2);
  });
});

describe('where a cascading standby does not count', () => {
  test('reads end when its upstream is missed by the primary, whatever it says itself', () => {
    const view = changePostgres(changePostgres(cascading(), n1, { walsenders: [] }), n2, { streamingFrom: null });
    const was = { ...view, state: { ...view.state, route: { ...view.state.route, readers: [n2, n3] } } };
    assert.deepEqual(publishRoute(was).route.readers, []);
  });

  test('a direct standby of the same position comes first; a farther position counts more', () => {
    const options = { positions: { kind: 'report' }, acceptLoss: false, target: null } as const;
    const first = (view: ClusterView): string | undefined => rankCandidates(view, NOW, options).eligible[0]?.node;
    assert.equal(first(withSpec(wished(), n3, { priority: 1000 })), 'n2');
    assert.equal(first(wished(THREE.replace('n3 standby @0/5000', 'n3 standby @0/6000'))), 'n3');
  });

  test('it is no candidate of a switchover before it streams from the primary', () => {
    const [problem] = checkSwitchover(cascading(), n3);
    assert.equal(problem?.text, 'n3 streams from n2, not from n1.');
    assert.match(problem?.remedy ?? '', /node follow n3 --upstream primary/);
  });

  test('a term opens with it only when there are too few others', () => {
    const voted = THREE.replaceAll('standby @0/5000', 'detached vote4@0/5000').replace(head, 'term 3 primary n1 attempt 4 vote quorum 1/n2,n3');
    assert.deepEqual(openingSet(withSpec(picture(`${voted}\n n4 detached @0/5000 vote4@0/5000`), n3, { upstream: n2 }), n4, 4).members, ['n2.a']);
    assert.deepEqual(openingSet(withSpec(picture(voted), n3, { upstream: n1 }), n2, 4).members, ['n3.a'], 'nobody else is there');
  });

  test('a node is removed only when nobody follows it any more', () => {
    assert.ok(heldBy(cascading(), n2).includes('n3 still follows it'));
    assert.ok(!heldBy(picture(THREE), n2).some((text) => text.includes('follows')));
  });
});

describe('a delayed standby', () => {
  const delayed = (text = THREE): ClusterView => withSpec(picture(text), n3, { delayMs: 3_600_000 });

  test('is never promoted, not even when it is the farthest', () => {
    for (const acceptLoss of [false, true]) {
      const ranking = rankCandidates(delayed(THREE.replace('n3 standby @0/5000', 'n3 standby @0/6000')), NOW, {
        positions: { kind: 'report' },
        acceptLoss,
        target: null,
      });
      assert.deepEqual(
        ranking.eligible.map((one) => one.node),
        ['n2'],
      );
      assert.match(ranking.rejected[0]?.reasons.join() ?? '', /delayed by 3600000 ms \(never promoted\)/);
    }
    assert.equal(checkSwitchover(delayed(), n3)[0]?.code, 'switchover.delayed');
  });

  test('serves no reads, and no commit waits for it', () => {
    assert.deepEqual(publishRoute(delayed()).route.readers, ['n2']);
    assert.deepEqual(wishedSet(delayed(QUORUM), NOW)?.set.members, ['n2.a']);
  });

  test('is not called slow for what it was asked to do', () => {
    const late = changePostgres(delayed(THREE.replaceAll('0/5000', '1/5000')), n3, { replayedLsn: lsnOf('0/5000') });
    const shown = showCluster(late, NOW);
    assert.equal(shown.nodes[2]?.delayMs, 3_600_000);
    assert.deepEqual(
      shown.problems.filter((one) => one.code === 'node.lag'),
      [],
    );
  });
});

describe('positions that are remembered for slots', () => {
  test('of each standby on the history of the primary; the last one of a node that is silent', () => {
    const view = picture(`${THREE.replace('n2 standby @0/5000', 'n2 standby @0/4000')}\n n4 dead`, {
      state: (state) => ({ ...state, positions: { n4: lsnOf('0/3000'), n9: lsnOf('0/1000') } }),
    });
    assert.deepEqual(knownPositions(view), { n2: lsnOf('0/4000'), n3: lsnOf('0/5000'), n4: lsnOf('0/3000') });
  });

  test('not of one that is copied, or has left the history', () => {
    assert.deepEqual(knownPositions(picture(THREE.replace('n3 standby @0/5000', 'n3 standby @0/5000 goal:clone'))), { n2: lsnOf('0/5000') });
    assert.deepEqual(knownPositions(picture(THREE.replace('n3 standby @0/5000', 'n3 standby @0/5000 tl2 fork1@0/4000'))), { n2: lsnOf('0/5000') });
  });

  test('are cut where a new timeline leaves the old one', () => {
    const positions = { n2: lsnOf('0/4000'), n3: lsnOf('0/6000') };
    for (const kind of ['descendant', 'parted'] as const)
      assert.deepEqual(positionsAfter(positions, { kind, forkLsn: lsnOf('0/5000') }), { n2: lsnOf('0/4000'), n3: lsnOf('0/5000') }, kind);
    assert.equal(positionsAfter(positions, { kind: 'same' }), positions);
  });

  test('are written with the position of the primary, and when a standby moved by a segment', () => {
    const known = (lsn: string) => ({ state: (state: ClusterView['state']) => ({ ...state, positions: { n2: lsnOf(lsn), n3: lsnOf('0/5000') } }) });
    assert.equal(expectDecision(picture(THREE, known('0/4000')), 'cluster.steady').state?.positions['n2'], lsnOf('0/4000'), 'not for each byte');
    const far = picture(THREE.replaceAll('0/5000', '0/2005000').replace(head, `${head} lsn 0/2005000`), known('0/5000'));
    const written = expectDecision(far, 'housekeeping.primary-position');
    assert.equal(written.state?.positions['n2'], lsnOf('0/2005000'));
  });
});
