import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { decideCluster } from '../../../src/core/cluster/decide.ts';
import { votesNeeded } from '../../../src/core/state.ts';
import { goalsOf, later, picture } from './picture.ts';
import { expectDecision, expectRule } from './rule-case.ts';

/** Two data nodes and a witness: the smallest cluster that fails over by itself and never on the word of one. */
describe('two data nodes and a witness', () => {
  const LOST = `term 3 primary n1
    n1 dead
    n2 standby sees:n1=down
    w witness sees:n1=down`;

  test('three members vote: a promotion needs two, and a primary without the store two promises', () => {
    assert.deepEqual(votesNeeded(3), { promotion: 2, promises: 2 });
    assert.deepEqual(picture(LOST).state.electorate.members, ['n1', 'n2', 'w']);
  });

  test('the loss of the primary is seen by two, and the standby is promoted with the vote of the witness', () => {
    const opened = expectRule(picture(LOST), 'primary.lost');
    assert.equal(opened.attempt?.term, 4);
    const asked = expectRule({ ...picture(LOST), state: opened }, 'attempt.ask-votes');
    assert.equal(goalsOf(asked, picture(LOST).spec), 'n1:fenced n2:vote w:vote');
    const voted = picture(`term 3 primary n1 attempt 4 vote
      n1 dead
      n2 detached vote4@0/5000
      w witness vote4`);
    assert.equal(goalsOf(expectRule(voted, 'attempt.promote'), voted.spec), 'n1:fenced n2:promote w:vote');
  });

  test('one viewpoint is not enough: neither the standby nor the witness is believed alone', () => {
    const alone = picture(LOST.replace('w witness sees:n1=down', 'w witness sees:n1=primary'));
    assert.equal(expectDecision(alone, 'failover.blocked-viewpoints').state?.attempt ?? null, null);
    const other = picture(LOST.replace('n2 standby sees:n1=down', 'n2 standby sees:n1=primary'));
    assert.equal(expectDecision(other, 'failover.blocked-viewpoints').state?.attempt ?? null, null);
  });

  test('the vote of the standby alone promotes nobody: the primary may live with the promise of the witness (H18)', () => {
    const cut = picture(`term 3 primary n1 attempt 4 vote
      n1 dead
      n2 detached vote4@0/5000
      w dead witness`);
    assert.match(expectDecision(cut, 'failover.blocked-votes', later(5000)).why, /w/);
  });

  test('a lost witness, or a lost standby, changes nothing about who is the primary', () => {
    for (const text of [
      `term 3 primary n1 lease n1/3
        n1 primary
        n2 standby
        w dead witness`,
      `term 3 primary n1 lease n1/3
        n1 primary
        n2 dead
        w witness`,
    ]) {
      const view = picture(text);
      const state = decideCluster(view, later(0)).state ?? view.state;
      assert.deepEqual([state.primary, state.attempt, state.term], ['n1', null, 3]);
    }
  });

  test('a witness is never the last candidate: with the standby gone too nobody is promoted', () => {
    expectRule(
      picture(`term 3 primary n1
        n1 dead
        n2 dead
        w witness sees:n1=down`),
      'failover.blocked-no-candidate',
    );
  });

  test('a witness counts for no durability and holds no read address', () => {
    const view = picture(
      `term 3 primary n1 lease n1/3
        n1 primary
        n2 standby
        w witness`,
      { spec: { durability: null, vips: { read: { address: '10.0.0.9' } } } },
    );
    const state = decideCluster(view, later(0)).state ?? view.state;
    assert.equal(state.quorum.wanted.k, 0, 'two data nodes are asynchronous unless somebody asks');
    assert.equal(state.vips.read?.node, 'n2');
  });
});

describe('locations', () => {
  const far = `term 3 primary n1
    n1 dead loc:a
    n2 standby prio0 loc:a sees:n1=down
    n3 standby loc:b sees:n1=down`;

  test('a node of another location is promoted by itself only where the policy says so', () => {
    expectRule(picture(far), 'primary.lost');
    assert.match(
      expectDecision(picture(far, { spec: { crossLocation: 'manual' } }), 'failover.blocked-no-candidate').why,
      /n3: it is in b, the primary in a, and crossLocation is manual \(only "pgherd failover --to n3" promotes it\)/,
    );
  });

  test('the nearer of two that hold the same is promoted, the farther only when it holds more', () => {
    const votes = `term 3 primary n1 attempt 4 vote
      n1 dead loc:a
      n2 detached vote4@0/5000 prio1 loc:a
      n3 detached vote4@0/5000 prio900 loc:b`;
    assert.equal(expectRule(picture(votes), 'attempt.promote').attempt?.candidate, 'n2');
    assert.equal(
      expectRule(picture(votes.replace('n3 detached vote4@0/5000', 'n3 detached vote4@0/5001')), 'attempt.promote').attempt?.candidate,
      'n3',
    );
  });
});
