import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { higherTimeline, reserveTimeline, usedTimeline } from '../../../src/core/cluster/reserved-timeline.ts';
import { type Timeline, makeTimeline } from '../../../src/core/ids.ts';
import type { ClusterState, TermRecord } from '../../../src/core/state.ts';
import type { ClusterView } from '../../../src/core/view.ts';
import { picture } from './picture.ts';

const tl = (timeline: number | null): Timeline | null => (timeline === null ? null : makeTimeline(timeline));
const opened = (timeline: number | null): TermRecord => ({ timeline: tl(timeline) }) as TermRecord;

/** A steady cluster of three on timeline 1. */
function reserved(
  change: Partial<Pick<ClusterState, 'reservedTimeline' | 'timeline' | 'terms'>>,
  lines = 'n1 primary\nn2 standby\nn3 standby',
): number | null {
  const view: ClusterView = picture(`term 3 primary n1 lease n1/3\n${lines}`);
  const state = { ...view.state, terms: [], ...change };
  return reserveTimeline({ ...view, state }, state).reservedTimeline;
}

describe('the number of the next timeline', () => {
  test('is above those of the opened terms, also where a later term went back behind one of them (Z53)', () => {
    assert.equal(reserved({ timeline: makeTimeline(3), terms: [opened(2), opened(3)] }), 4);
    assert.equal(reserved({ timeline: makeTimeline(3), terms: [opened(2), opened(7), opened(3)] }), 8);
  });

  test('is above what was reserved before, whatever became of it', () => {
    assert.equal(reserved({ timeline: makeTimeline(3), reservedTimeline: makeTimeline(5) }), 6);
  });

  test('is above a timeline that a member was seen on, dead or alive', () => {
    assert.equal(reserved({ timeline: makeTimeline(1) }, 'n1 primary\nn2 standby\nn3 stopped tl4 fork1@0/5000 @0/5600'), 5);
  });

  test('leaves the candidate to go past the one below it', () => {
    assert.equal(usedTimeline({ reservedTimeline: makeTimeline(4) }), 3);
    assert.equal(usedTimeline({ reservedTimeline: null }), null);
  });

  test('rises to what PostgreSQL took', () => {
    assert.deepEqual(
      [higherTimeline(tl(4), tl(6)), higherTimeline(tl(4), tl(3)), higherTimeline(null, tl(2)), higherTimeline(tl(4), null)],
      [6, 4, 2, 4],
    );
  });
});
