import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { decideCluster } from '../../../src/core/cluster/decide.ts';
import { rankCandidates } from '../../../src/core/cluster/election.ts';
import { checkRemove, heldBy, planRemove } from '../../../src/core/cluster/node-remove-checks.ts';
import type { ClusterView } from '../../../src/core/view.ts';
import { NOW, id, later, makeTask, picture } from './picture.ts';
import { expectDecision } from './rule-case.ts';
import { REMOVE, changeReport, running, withMembership, withSlot } from './scale-views.ts';

const n1 = id('n1');
const n2 = id('n2');
const n3 = id('n3');
const THREE = `term 3 primary n1 lease n1/3
  n1 primary @0/5000
  n2 standby @0/5000
  n3 standby @0/5000`;
const codes = (view: ClusterView, request = REMOVE): readonly string[] =>
  checkRemove(view, request).map((one) => one.code.replace('node-remove.', ''));

describe('the preconditions of node remove', () => {
  const cases: readonly (readonly [string, ClusterView, typeof REMOVE, readonly string[]])[] = [
    ['a standby of three is not refused', picture(THREE), REMOVE, []],
    ['the primary', picture(THREE), { ...REMOVE, node: n1 }, ['is-primary']],
    ['an unknown name', picture(THREE), { ...REMOVE, node: id('n9') }, ['unknown']],
    ['one that is being added', withMembership(picture(THREE), n3, 'joining'), REMOVE, ['joining']],
    ['a cluster whose primary is not open', picture(THREE.replace('n1 primary', 'n1 crashed')), REMOVE, ['primary-not-open']],
    ['the last one that makes a quorum beside the primary', picture(THREE.replace('n2 standby @0/5000', 'n2 dead')), REMOVE, ['quorum']],
    ['a node that is gone is not refused', picture(THREE.replace('n2 standby @0/5000', 'n2 dead')), { ...REMOVE, node: n2 }, []],
    [
      'the data of a node that cannot be heard',
      picture(THREE.replace('n2 standby @0/5000', 'n2 dead')),
      { ...REMOVE, node: n2, dropData: true },
      ['silent'],
    ],
    [
      'data that the primary has not',
      picture(THREE.replace('n3 standby @0/5000', 'n3 stopped tl2 fork1@0/4000 @0/6000 goal:fenced')),
      { ...REMOVE, dropData: true },
      ['diverged'],
    ],
    ['a k that no standbys are left for', picture(THREE, { spec: { durability: { mode: 'quorum', k: 2 } } }), REMOVE, ['durability']],
    [
      'the last standby of a strict set',
      picture(THREE.replace('n2 standby @0/5000', 'n2 standby @0/5000 maint'), { spec: { durability: { mode: 'quorum', k: 1, strict: true } } }),
      REMOVE,
      [],
    ],
  ];
  for (const [name, view, request, expected] of cases)
    test(`${name}: ${expected.join() || 'allowed'}`, () => assert.deepEqual(codes(view, request), expected));

  test('the last standby that streams is kept where writes would wait without it', () => {
    const view = picture(THREE.replace('n2 standby @0/5000', 'n2 stopped @0/5000'), { spec: { durability: { mode: 'quorum', k: 1, minSync: 1 } } });
    assert.deepEqual(codes(view), ['min-sync']);
    assert.deepEqual(codes(view, { ...REMOVE, node: n2 }), []);
  });

  test('the dry run says what becomes of votes and durability', () => {
    const plan = planRemove(picture(THREE, { spec: { durability: null } }), REMOVE).join('\n');
    for (const part of [
      /durability becomes asynchronous \(it is quorum, 1 standby/,
      /2 members vote, 1 votes/,
      /its data directory stays/,
      /slot is dropped/,
    ])
      assert.match(plan, part);
  });
});

describe('node remove, step by step', () => {
  const draining = (text = THREE, more = {}): ClusterView => {
    const view = picture(text, { tasks: [running(REMOVE, 'drain', more)] });
    return withMembership(view, n3, 'leaving');
  };

  test('a refusal names every reason and touches nothing', () => {
    const decision = expectDecision(picture(THREE, { tasks: [makeTask({ ...REMOVE, node: n1 })] }), 'node.remove-refused');
    assert.deepEqual([decision.tasks[0]?.status, decision.spec], ['refused', null]);
  });

  test('first it is taken out of every count, while it still runs', () => {
    const decision = expectDecision(picture(THREE, { tasks: [makeTask(REMOVE)] }), 'node.remove');
    assert.equal(decision.spec?.nodes.at(-1)?.membership, 'leaving');
    assert.equal(decision.state?.goals[n3]?.kind ?? 'standby', 'standby');
    const next = decideCluster({ ...picture(THREE), spec: decision.spec ?? picture(THREE).spec, tasks: decision.tasks }, NOW);
    assert.deepEqual(
      [next.state?.electorate.members, next.state?.electorate.former],
      [
        ['n1', 'n2'],
        ['n1', 'n2', 'n3'],
      ],
    );
    assert.equal(next.state?.route.readers.includes(n3), false);
  });

  test('it is not stopped while its vote, its copy or its reads count', () => {
    const view = draining();
    const still = (change: Partial<ClusterView['state']>): readonly string[] => heldBy({ ...view, state: { ...view.state, ...change } }, n3);
    assert.deepEqual(still({}), []);
    assert.deepEqual(still({ electorate: { revision: 2, members: [n1, n2], former: [n1, n2, n3] } }), ['its vote counts']);
    assert.deepEqual(still({ quorum: { ...view.state.quorum, voters: ['n3.a'] } }), ['commits may wait for it']);
    assert.deepEqual(still({ quorum: { ...view.state.quorum, mayStand: [{ method: 'any', k: 1, members: ['n2.a', 'n3.a'] }] } }), [
      'commits may wait for it',
    ]);
    assert.deepEqual(still({ route: { epoch: 2, writer: n1, readers: [n3], hold: false } }), ['reads go to it']);
    const late = { ...view, proxyAcks: { p1: 1 }, state: { ...view.state, route: { epoch: 2, writer: n1, readers: [n2], hold: false } } };
    assert.match(heldBy(late, n3)[0] ?? '', /^p1 did not say/);
  });

  test('in synchronous replication it leaves the set before it is stopped (I4, I7)', () => {
    const view = withMembership(
      picture(THREE.replace('lease n1/3', 'lease n1/3 quorum 1/n2,n3'), { tasks: [running(REMOVE, 'drain')] }),
      n3,
      'leaving',
    );
    const decision = decideCluster(view, NOW);
    assert.equal(decision.state?.goals[n3]?.kind, 'standby');
    assert.equal(decision.tasks.length, 0);
    assert.deepEqual(decision.state?.quorum.wanted.members, ['n2.a']);
  });

  test('when nothing counts on it, it is stopped; its data only if that was asked', () => {
    const goal = expectDecision(draining(), 'node.remove-stop').state?.goals[n3];
    assert.equal(goal?.kind === 'removed' ? goal.dropData : null, false);
  });

  test('cancelled while it drains, it is a member as before; so it is when something holds it for a minute', () => {
    const cancelled = expectDecision(draining(THREE, { cancelRequested: true }), 'node.remove-undone');
    assert.deepEqual([cancelled.tasks[0]?.status, cancelled.spec?.nodes.at(-1)?.membership], ['cancelled', 'full']);
    const held = { ...draining(), proxyAcks: { p1: -1 } };
    assert.equal(decideCluster(held, NOW).tasks.length, 0);
    const failed = decideCluster(held, later(61_000));
    assert.deepEqual([failed.tasks[0]?.status, failed.spec?.nodes.at(-1)?.membership], ['failed', 'full']);
  });

  const stopping = (text = THREE.replace('n3 standby @0/5000', 'n3 stopped @0/5000')): ClusterView => {
    const view = withMembership(picture(text, { tasks: [running(REMOVE, 'stop', {}, ['drain'])] }), n3, 'leaving');
    const goals = { ...view.state.goals, [n3]: { kind: 'removed', id: 'r', term: view.state.term, dropData: false, reason: '' } as const };
    return { ...view, state: { ...view.state, goals } };
  };

  test('it leaves the settings when its agent says that it is done, or when nobody is there to say so', () => {
    assert.equal(decideCluster(stopping(), NOW).spec, null);
    const done = changeReport(stopping(), n3, (report) => ({ ...report, activity: { kind: 'done', goalId: 'r', detail: '' } }));
    assert.deepEqual(
      expectDecision(done, 'node.remove-unregister').spec?.nodes.map((node) => node.id),
      ['n1', 'n2'],
    );
    const dead = expectDecision(stopping(THREE.replace('n3 standby @0/5000', 'n3 dead')), 'node.remove-unregister');
    assert.match(dead.tasks[0]?.steps.at(-1)?.detail ?? '', /does not report/);
  });

  test('it is done when the primary has no slot of it; a slot in use is said', () => {
    const gone = picture(THREE, { tasks: [running(REMOVE, 'unregister', {}, ['drain', 'stop'])] });
    const without = { ...gone, spec: { ...gone.spec, nodes: gone.spec.nodes.filter((node) => node.id !== n3) } };
    assert.equal(expectDecision(without, 'node.removed').tasks[0]?.status, 'done');
    const slot = withSlot(without, 'pgherd_n3');
    assert.equal(decideCluster(slot, NOW).tasks.length, 0);
    assert.match(decideCluster(slot, later(31_000)).tasks[0]?.result ?? '', /the slot pgherd_n3 is still in use/);
  });

  test('leaving without a task: a member again before its order to stop, gone after it', () => {
    const orphan = withMembership(picture(THREE), n3, 'leaving');
    assert.equal(expectDecision(orphan, 'node.remove-undone').spec?.nodes.at(-1)?.membership, 'full');
    const ordered = stopping(THREE.replace('n3 standby @0/5000', 'n3 dead'));
    assert.equal(expectDecision({ ...ordered, tasks: [] }, 'node.remove-unregister').spec?.nodes.length, 2);
  });

  test('a failover in the middle asks it for its vote as long as it may count', () => {
    const text = `term 3 primary n1 attempt 4 vote goneMs 9000
      n1 dead
      n2 standby @0/5000
      n3 standby @0/5000 goal:stream`;
    const view = withMembership(picture(text, { tasks: [running(REMOVE, 'drain')] }), n3, 'leaving');
    const counting = { ...view, state: { ...view.state, electorate: { revision: 2, members: [n1, n2], former: [n1, n2, n3] } } };
    assert.equal(decideCluster(counting, NOW).state?.goals[n3]?.kind, 'vote');
  });

  test('while commits may wait for it, it can be promoted: when it alone has everything, and never before an equal one', () => {
    const rank = (n2Lsn: string, removed = false): readonly string[] => {
      const view = withMembership(picture(`term 3 primary n1 goneMs 9000\n n1 dead\n n2 standby @${n2Lsn}\n n3 standby @0/5000`), n3, 'leaving');
      const goals = { ...view.state.goals, [n3]: { kind: 'removed', id: 'r', term: view.state.term, dropData: false, reason: '' } as const };
      const stopped = { ...view, state: { ...view.state, goals } };
      return rankCandidates(removed ? stopped : view, NOW, { positions: { kind: 'report' }, acceptLoss: false, target: null }).eligible.map(
        (one) => one.node,
      );
    };
    assert.deepEqual(rank('0/4000'), ['n3', 'n2']);
    assert.deepEqual(rank('0/5000'), ['n2', 'n3']);
    assert.deepEqual(rank('0/4000', true), ['n2']);
  });

  test('one that was promoted meanwhile stays', () => {
    const view = { ...draining(), state: { ...draining().state, primary: n3 } };
    const decision = decideCluster(view, NOW);
    assert.equal(decision.spec?.nodes.at(-1)?.membership, 'full');
  });
});
