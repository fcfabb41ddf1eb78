/** Which number the next timeline gets. PostgreSQL only knows of those whose history it has seen, and gives a number twice otherwise (Z18, Z53). */
import { type Timeline, makeTimeline } from '../ids.ts';
import type { ClusterState } from '../state.ts';
import type { ClusterView } from '../view.ts';
import { isForeignSystem, lastKnown } from './observe.ts';

/**
 * `state` with a number for the timeline of the candidate that is being ordered to promote: above every number that was reserved before, that a term opened,
 * or that a member of this cluster was seen on. Unchanged while no timeline is known. What a restored store forgot is not counted: `mayHoldTwin` stays on guard.
 *
 * *Invariant:* no two promotions take one number. *Because:* a member without an agent streams on from a node that changed to the other timeline of its
 * number, and neither PostgreSQL nor anybody else stops it. *Broken if:* a number is given back because the candidate is believed to have opened nothing:
 * its request may have worked inside the server before that was ended, and a standby of it may have followed.
 */
export function reserveTimeline(view: ClusterView, state: ClusterState): ClusterState {
  const seen = view.spec.nodes.flatMap((node) => lastKnown(view, node.id) ?? []).filter((report) => !isForeignSystem(view, report));
  const known = [
    state.reservedTimeline,
    state.timeline,
    ...state.terms.map((term) => term.timeline),
    ...seen.map((report) => report.postgres.timeline),
  ];
  const taken = known.filter((timeline) => timeline !== null);
  return taken.length === 0 ? state : { ...state, reservedTimeline: makeTimeline(Math.max(...taken) + 1) };
}

/** The highest number that the candidate must go past; null: whatever PostgreSQL takes. */
export function usedTimeline({ reservedTimeline }: Pick<ClusterState, 'reservedTimeline'>): Timeline | null {
  return reservedTimeline === null ? null : makeTimeline(reservedTimeline - 1);
}

/** After an opening: a directory that held other histories took a higher number than the one that was reserved. */
export function higherTimeline(a: Timeline | null, b: Timeline | null): Timeline | null {
  return a === null || (b !== null && b > a) ? b : a;
}
