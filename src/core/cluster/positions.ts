/**
 * How far each standby has WAL. Members keep a slot ready for every other member (agent/postgres/slots.ts): whoever is promoted, or followed by another
 * standby, must still have what that one lacks. A member knows only its own walsenders, so the others' positions stand in the state.
 *
 * *Invariant:* no slot that is kept ready is advanced past what its node is known to have on the present history (Z69). *Because:* positions are written
 * from reports of nodes on that history, and are cut at the fork when a term opens another timeline. *Broken if:* the position of a diverged node counts.
 */
import type { ClusterState } from '../state.ts';
import type { Relation } from '../timeline.ts';
import type { ClusterView } from '../view.ts';
import { isContained } from './lineage.ts';
import { dataNodes, isForeignSystem, lineageOf, live } from './observe.ts';

/**
 * The last known position of each data node but the primary; one that cannot be heard keeps its last. Left out: one without any, and one that is copied or
 * rewound, since what it will need then begins before what it had.
 */
export function knownPositions(view: ClusterView): ClusterState['positions'] {
  const found: Record<string, ClusterState['positions'][string]> = {};
  for (const node of dataNodes(view.spec)) {
    const goal = view.state.goals[node.id];
    if (node.id === view.state.primary || (goal?.kind === 'standby' && goal.via !== 'stream')) continue;
    const report = live(view, node.id);
    const verdict = report === null ? null : lineageOf(view, report);
    const trusted = report !== null && verdict !== null && isContained(verdict) && !isForeignSystem(view, report);
    const pg = report?.postgres;
    const own = !trusted || pg === undefined || pg.state !== 'running' || pg.role !== 'standby' ? null : (pg.receivedLsn ?? pg.replayedLsn);
    const position = own ?? view.state.positions[node.id];
    if (position !== undefined) found[node.id] = position;
  }
  return found;
}

/** What of the positions still holds on a timeline that lies so against the one of which they were noted. */
export function positionsAfter(positions: ClusterState['positions'], relation: Relation): ClusterState['positions'] {
  if (relation.kind !== 'descendant' && relation.kind !== 'parted') return positions;
  const { forkLsn } = relation;
  return Object.fromEntries(Object.entries(positions).map(([node, lsn]) => [node, lsn < forkLsn ? lsn : forkLsn]));
}
