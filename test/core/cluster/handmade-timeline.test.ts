import assert from 'node:assert/strict';
import { test } from 'node:test';
import { decideCluster } from '../../../src/core/cluster/decide.ts';
import { makeTimeline } from '../../../src/core/ids.ts';
import { NOW, id, lsnOf, picture } from './picture.ts';
import { expectRule } from './rule-case.ts';

test('a primary that somebody promoted by hand opens again in its own term: the lineage goes on from its timeline', () => {
  const text = `term 3 primary n1 lease n1/3
    n1 primary tl2 fork1@0/5000 @0/5100
    n2 standby tl2 fork1@0/5000 @0/5100
    n3 standby @0/6000`;
  const view = picture(text, { state: (one) => ({ ...one, timeline: makeTimeline(1), history: [], positions: { [id('n3')]: lsnOf('0/6000') } }) });
  const state = expectRule(view, 'housekeeping.timeline');
  assert.deepEqual([state.timeline, state.history, state.positions[id('n3')]], [2, [{ timeline: 1, forkLsn: lsnOf('0/5000') }], lsnOf('0/5000')]);
  assert.deepEqual([state.primaryLsn, Object.keys(state.recovery)], [lsnOf('0/5100'), []]);
  // Promoted by hand as well, from the same position: number and fork are the same, the WAL is not (Z53).
  const twin = text.replace('n3 standby @0/6000', 'n3 rogue tl2 fork1@0/5000 @0/5200');
  const marked = decideCluster(picture(twin, { state: (one) => ({ ...one, timeline: makeTimeline(1), history: [] }) }), NOW).state;
  assert.match(marked?.recovery[id('n3')]?.lastError ?? '', /^a promotion was not completed/);
  // A history that left the cluster's before is another one, and nobody follows it.
  const other = picture(text.replace('n1 primary tl2 fork1@0/5000', 'n1 primary tl3 fork1@0/4000 fork2@0/5000'), {
    state: (one) => ({ ...one, timeline: makeTimeline(2), history: [{ timeline: makeTimeline(1), forkLsn: lsnOf('0/4500') }] }),
  });
  assert.equal(decideCluster(other, NOW).state?.timeline ?? 2, 2);
});
