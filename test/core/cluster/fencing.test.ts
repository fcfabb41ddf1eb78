import assert from 'node:assert/strict';
import { test } from 'node:test';
import { decideCluster } from '../../../src/core/cluster/decide.ts';
import { FENCE_LOST_MS, FENCE_RETRY_MS, FENCE_TRIES, FENCE_VALID_MS, type FenceResult } from '../../../src/core/cluster/fencing.ts';
import { makeTerm } from '../../../src/core/ids.ts';
import type { ClusterState } from '../../../src/core/state.ts';
import type { ClusterView, Decision } from '../../../src/core/view.ts';
import { NOW, id, later, picture } from './picture.ts';

const LOST = `
  term 3 primary n1 lease n1/3 lsn 0/4000
  n1 dead
  n2 standby @0/4000 sees:n1=down
  n3 standby @0/4000 sees:n1=down
`;
const WITHOUT_LEASE = LOST.replace(' lease n1/3', '');
type Fencing = 'off' | 'automatic' | 'required';

const view = (text: string, fencing: Fencing, more: Partial<ClusterView> = {}): ClusterView => {
  const drawn = picture(text);
  return { ...drawn, spec: { ...drawn.spec, fencing }, ...more };
};
const asked = (decision: Decision): NonNullable<ClusterState['fence']> => {
  assert.equal(decision.rule, 'fence.ask');
  return decision.state?.fence ?? assert.fail('no order');
};
/** The view after the order, with what the command said. */
const after = (text: string, fencing: Fencing, result: Partial<FenceResult> | null): ClusterView => {
  const first = view(text, fencing);
  const state = decideCluster(first, NOW).state ?? assert.fail('nothing was decided');
  const order = state.fence ?? assert.fail('no order');
  return { ...first, state, fenceResult: result === null ? null : { id: order.id, ok: true, text: '', ageMs: 100, ...result } };
};

test('fencing is off: the lease is waited for, and no command is asked for', () => {
  const decision = decideCluster(view(LOST, 'off'), NOW);
  assert.equal(decision.rule, 'failover.blocked-lease');
  assert.equal(decision.state?.fence ?? null, null);
});

test('a lost primary that would be replaced is fenced before its lease ends (H14)', () => {
  for (const fencing of ['automatic', 'required'] as const) {
    const order = asked(decideCluster(view(LOST, fencing), NOW));
    assert.deepEqual({ node: order.node, term: order.term, tries: order.tries }, { node: 'n1', term: 3, tries: 1 });
  }
});

test('one viewpoint, no candidate, a frozen cluster: nobody is turned off', () => {
  for (const text of [
    LOST.replace('@0/4000 sees:n1=down', '@0/4000 sees:n1=standby'),
    LOST.replace('@0/4000 sees:n1=down', '@0/4000 sees:n1=primary'),
    LOST.replace('term 3', 'term 3 frozen'),
    LOST.replaceAll('@0/4000 sees', '@0/4000 prio0 sees'),
  ]) {
    const decision = decideCluster(view(text, 'required'), NOW);
    assert.match(decision.rule, /^failover\.blocked-/, text);
    assert.equal(decision.state?.fence ?? null, null, text);
  }
});

test('while the command runs, nothing is promoted and it is not asked for again', () => {
  const decision = decideCluster(after(LOST, 'automatic', null), later(1000));
  assert.equal(decision.rule, 'failover.blocked-lease');
  const required = decideCluster({ ...after(LOST, 'required', null), writeLease: null, writeLeaseGoneMs: 9000 }, later(1000));
  assert.equal(required.rule, 'failover.blocked-fence');
});

test('its success opens the next term at once, and takes the lease out of the store with it', () => {
  const decision = decideCluster(after(LOST, 'automatic', {}), later(1000));
  assert.equal(decision.rule, 'primary.lost');
  assert.equal(decision.state?.term, 4);
  assert.equal(decision.dropLease, true);
});

test('an answer to another order, and an old one, prove nothing', () => {
  const other = decideCluster(after(LOST, 'automatic', { id: 'another' }), later(1000));
  assert.equal(other.rule, 'failover.blocked-lease');
  const old = decideCluster(after(LOST, 'automatic', { ageMs: FENCE_VALID_MS + 1 }), later(9000));
  assert.equal(asked(old).askedWallMs, later(9000).wall);
});

test('a failure is believed as such: automatic waits for the lease, required for a person; both say why and try again a few times', () => {
  const failed = { ok: false, text: 'exit code 1: no route to the power controller' };
  const noted = (fencing: Fencing): ClusterView => {
    const before = after(LOST, fencing, failed);
    const decision = decideCluster(before, later(1000));
    assert.equal(decision.rule, 'fence.failed');
    // Also a server that only looks, and knows nothing of the command, can say why.
    return { ...before, state: decision.state ?? assert.fail('it was not written down'), fenceResult: null };
  };
  const automatic = decideCluster(noted('automatic'), later(1000));
  assert.equal(automatic.rule, 'failover.blocked-lease');
  assert.match(automatic.why, /no route to the power controller/);
  const expired = decideCluster({ ...noted('automatic'), writeLease: null, writeLeaseGoneMs: 9000 }, later(5000));
  assert.equal(expired.rule, 'primary.lost');
  assert.equal(expired.dropLease, false);
  const required = { ...noted('required'), writeLease: null, writeLeaseGoneMs: 9000 };
  assert.match(decideCluster(required, later(5000)).why, /fencing is required; see that n1 is off, then "pgherd failover" promotes without it/);

  const again = asked(decideCluster(required, later(FENCE_RETRY_MS + 1000)));
  assert.equal(again.tries, 2);
  const order = required.state.fence ?? assert.fail('no order');
  const last = { ...required, state: { ...required.state, fence: { ...order, tries: FENCE_TRIES } } };
  assert.equal(decideCluster(last, later(9e6)).rule, 'failover.blocked-fence');
});

test('a command whose controller died is run again by the next one', () => {
  const waiting = after(LOST, 'required', null);
  assert.equal(decideCluster(waiting, later(FENCE_LOST_MS - 1000)).rule, 'failover.blocked-fence');
  assert.equal(asked(decideCluster(waiting, later(FENCE_LOST_MS))).tries, 2);
});

test('without a lease only `required` asks; a primary that fenced itself, and detached voters, need no command in automatic mode', () => {
  const gone = { writeLease: null, writeLeaseGoneMs: 9000 };
  assert.equal(decideCluster(view(WITHOUT_LEASE, 'automatic', gone), NOW).rule, 'primary.lost');
  asked(decideCluster(view(WITHOUT_LEASE, 'required', gone), NOW));
  assert.equal(decideCluster(view(WITHOUT_LEASE.replace('n1 dead', 'n1 fenced'), 'required', gone), NOW).rule, 'crash.failover');
  const quorum = LOST.replace('term 3', 'term 3 quorum 1/n2,n3');
  assert.equal(decideCluster(view(quorum, 'automatic'), NOW).rule, 'primary.lost');
  asked(decideCluster(view(quorum, 'required'), NOW));
});

test('a primary that is open again ends the order: its answer says nothing of the next loss', () => {
  const open = picture(`
    term 3 primary n1 lease n1/3
    n1 primary @0/4000
    n2 standby @0/4000
    n3 standby @0/4000
  `);
  const fence = { id: '3-n1-1', node: id('n1'), term: makeTerm(3), tries: 1, askedWallMs: NOW.wall, failed: null };
  const decision = decideCluster({ ...open, state: { ...open.state, fence } }, NOW);
  assert.equal(decision.state?.fence, null);
  assert.equal(decision.rule, 'housekeeping.fence');
});

test('with a command an agent that missed two reports is judged before its report ends, as with published facts', () => {
  const silent = (fencing: Fencing): ClusterView => {
    const text = LOST.replace('n1 dead', 'n1 primary @0/4000');
    const drawn = view(text, fencing);
    const n1 = drawn.reports[id('n1')] ?? assert.fail('no report');
    return { ...drawn, reports: { ...drawn.reports, [id('n1')]: { ...n1, ageMs: 1500 } } };
  };
  asked(decideCluster(silent('automatic'), NOW));
  assert.equal(decideCluster(silent('off'), NOW).state?.fence ?? null, null);
});
