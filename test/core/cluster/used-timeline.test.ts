import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { usedTimeline } from '../../../src/core/cluster/used-timeline.ts';
import { makeNodeId, makeTerm, makeTimeline } from '../../../src/core/ids.ts';
import type { Attempt, ClusterState, TermRecord } from '../../../src/core/state.ts';

type Facts = Pick<ClusterState, 'timeline' | 'terms' | 'attempt'>;

const opened = (timeline: number | null): TermRecord => ({ timeline: timeline === null ? null : makeTimeline(timeline) }) as TermRecord;
const attempt = (...orderedBefore: readonly string[]): Attempt =>
  ({ mayHaveOpened: orderedBefore.map((node, index) => ({ node: makeNodeId(node), term: makeTerm(index + 2) })) }) as unknown as Attempt;
const facts = (change: Partial<Facts> = {}): Facts => ({ timeline: makeTimeline(3), terms: [opened(2), opened(3)], attempt: null, ...change });

describe('the timelines that members may have opened', () => {
  test('are those of the opened terms, also where a later term went back behind one of them (Z53)', () => {
    assert.equal(usedTimeline(facts()), 3);
    assert.equal(usedTimeline(facts({ terms: [opened(2), opened(7), opened(3)] })), 7);
  });

  test('end one higher for each candidate that was ordered and was not seen to its end', () => {
    assert.equal(usedTimeline(facts({ attempt: attempt() })), 3);
    assert.equal(usedTimeline(facts({ attempt: attempt('n2', 'n3') })), 5);
  });

  test('are not known before the first', () => {
    assert.equal(usedTimeline(facts({ timeline: null, terms: [opened(null)], attempt: attempt('n2') })), null);
  });
});
