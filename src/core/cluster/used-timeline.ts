/** Which timeline numbers are taken. PostgreSQL only knows of those whose history it has seen, and gives a number twice otherwise (Z18, Z53). */
import { type Timeline, makeTimeline } from '../ids.ts';
import type { ClusterState } from '../state.ts';

/**
 * The highest number that a member may have opened: that of every opened term, and one more for each candidate that was ordered to promote and was not
 * seen to its end, in their order. Null while no timeline is known. What a restored store forgot is not among them: `mayHoldTwin` stays on guard.
 *
 * *Invariant:* a promotion takes a number above it. *Because:* a member without an agent streams on from a node that changed to the other timeline of
 * its number, and neither PostgreSQL nor anybody else stops it. *Broken if:* only the timelines are counted whose history the candidate has.
 */
export function usedTimeline(state: Pick<ClusterState, 'timeline' | 'terms' | 'attempt'>): Timeline | null {
  const opened = [state.timeline, ...state.terms.map((term) => term.timeline)].filter((timeline) => timeline !== null);
  if (opened.length === 0) return null;
  return makeTimeline(Math.max(...opened) + (state.attempt?.mayHaveOpened.length ?? 0));
}
