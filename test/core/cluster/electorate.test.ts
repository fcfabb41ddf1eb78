import assert from 'node:assert/strict';
import { test } from 'node:test';
import { decideCluster } from '../../../src/core/cluster/decide.ts';
import { publishElectorate } from '../../../src/core/cluster/quorum.ts';
import type { ClusterState } from '../../../src/core/state.ts';
import type { ClusterView } from '../../../src/core/view.ts';
import { NOW, id, later, makeTask, picture } from './picture.ts';
import { expectRule } from './rule-case.ts';

const three = (state: ClusterState): ClusterState => ({ ...state, electorate: { revision: 1, members: ['n1', 'n2', 'n3'].map(id), former: [] } });
const names = (state: ClusterState): readonly (readonly string[])[] => [state.electorate.members, state.electorate.former];

/** n2 is taken out while n1, which may live on its promise on the far side, is out of sight: n3 alone must not elect itself (4.7). */
test('a member that is set aside while the primary is out of sight goes on counting', () => {
  const text = `term 3 primary n1
    n1 dead @0/5000
    n2 dead maint @0/5000
    n3 standby sees:n1=down @0/5000`;
  const view = picture(text, { state: three });
  assert.deepEqual(names(publishElectorate(view)), [['n1', 'n2', 'n3'], []]);
  const opened = expectRule(view, 'primary.lost');
  const voted: ClusterView = {
    ...picture(text.replace('primary n1', 'primary n1 attempt 4 vote').replace('n3 standby', 'n3 detached vote4@0/5000'), { state: three }),
  };
  assert.deepEqual(opened.electorate.members, ['n1', 'n2', 'n3']);
  expectRule(voted, 'failover.blocked-votes', later(1000));
  const byHand = makeTask({ kind: 'failover', to: null, acceptLoss: true, acceptTwoPrimaries: false });
  assert.equal(decideCluster({ ...voted, tasks: [byHand] }, later(1000)).tasks[0]?.status, 'refused');
});

const OPEN = `term 3 primary n1 lease n1/3
  n1 primary @0/5000
  n2 standby maint @0/5000
  n3 standby @0/5000`;

test('with the primary open the electorate changes, in two steps: until the primary has read it, both sets must be won', () => {
  const unread = picture(OPEN.replace('n1 primary', 'n1 primary stale'), { state: three });
  const changed = publishElectorate(unread);
  assert.deepEqual(names(changed), [
    ['n1', 'n3'],
    ['n1', 'n2', 'n3'],
  ]);
  assert.equal(publishElectorate({ ...unread, state: changed }), changed, 'not settled before the primary has read it');
  const noLease = { ...picture(OPEN, { state: () => changed }), writeLease: null };
  assert.equal(publishElectorate(noLease), changed, 'nor while it holds no lease in this store');
  const settled = publishElectorate(picture(OPEN, { state: () => changed }));
  assert.deepEqual([names(settled), settled.electorate.revision], [[['n1', 'n3'], []], 2]);
});

test('a primary lost in the middle of a change: votes of the old and of the new members are needed', () => {
  const joint = (state: ClusterState): ClusterState => ({
    ...state,
    electorate: { revision: 2, members: [id('n1'), id('n3')], former: ['n1', 'n2', 'n3'].map(id) },
  });
  const text = `term 3 primary n1 attempt 4 vote
    n1 dead @0/5000
    n2 standby @0/5000
    n3 detached vote4@0/5000`;
  expectRule(picture(text, { state: joint }), 'failover.blocked-votes', later(5000));
  expectRule(picture(text.replace('n2 standby', 'n2 detached vote4@0/4000'), { state: joint }), 'attempt.promote', later(5000));
  // Votes of the former alone are not enough either.
  const added = (state: ClusterState): ClusterState => ({
    ...state,
    electorate: { revision: 2, members: ['n1', 'n2', 'n3', 'n4', 'n5'].map(id), former: [id('n1'), id('n2')] },
  });
  const five = `term 3 primary n1 attempt 4 vote
    n1 dead @0/5000
    n2 detached vote4@0/5000
    n3 dead
    n4 detached vote4@0/4000
    n5 dead`;
  expectRule(picture(five, { state: added }), 'failover.blocked-votes', later(5000));
});

test('the electorate of a cluster that does not run follows the spec at once', () => {
  const view = picture('term 3 primary n1 phase stopped\n n1 stopped @0/5000\n n2 stopped maint @0/5000\n n3 stopped @0/5000', { state: three });
  assert.deepEqual(names(decideCluster(view, NOW).state ?? view.state), [['n1', 'n3'], []]);
});

test('a member that is set aside can be brought back for its vote while an attempt waits for it', () => {
  const text = `term 3 primary n1 attempt 4 vote
    n1 dead @0/5000
    n2 standby goal:none @0/5000
    n3 detached vote4@0/5000`;
  const aside = (state: ClusterState): ClusterState => ({
    ...three(state),
    overrides: { [id('n2')]: { kind: 'maintenance', reason: '', by: 'anna', sinceWallMs: NOW.wall } },
  });
  expectRule(picture(text, { state: aside }), 'failover.blocked-votes', later(5000));
  const back = makeTask({ kind: 'nodeMaintenance', node: id('n2'), on: false });
  const decision = decideCluster(picture(text, { state: aside, tasks: [back] }), later(5000));
  assert.deepEqual([decision.tasks[0]?.status, decision.state?.goals[id('n2')]?.kind], ['done', 'vote']);
  const away = makeTask({ kind: 'nodeMaintenance', node: id('n3'), on: true });
  assert.equal(decideCluster(picture(text, { state: three, tasks: [away] }), later(5000)).tasks[0]?.status, 'refused');
});
