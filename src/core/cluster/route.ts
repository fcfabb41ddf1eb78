/** Where clients go: recomputed after every decision; the epoch rises with each change. */
import type { NodeId } from '../ids.ts';
import type { ClusterState } from '../state.ts';
import type { ClusterView } from '../view.ts';
import { isContained } from './lineage.ts';
import { fresh, isAvailable, isForeignSystem, isStreaming, lineageOf, otherDataNodes } from './observe.ts';

/**
 * The state with its route. The writer is the primary of the newest opened term, and nobody while an unplanned attempt is open: the old one
 * is taken out before another is promoted (Q28). Readers stream from the primary on its lineage (I12, H41, I24).
 */
export function publishRoute(view: ClusterView): ClusterState {
  const { state } = view;
  const { attempt, switchover, phase, route } = state;
  const unplanned = attempt !== null && attempt.path !== 'planned';
  const stopped = phase === 'stopping' || phase === 'stopped';
  const writer = unplanned || stopped ? null : state.primary;
  const readers = stopped ? [] : readersOf(view);
  const hold = (switchover !== null && switchover.phase !== 'checkpoint') || (attempt !== null && attempt.path === 'planned');
  if (
    writer === route.writer &&
    hold === route.hold &&
    readers.length === route.readers.length &&
    readers.every((node, index) => node === route.readers[index])
  )
    return state;
  // The hold's own rule raised the epoch already, so that proxies acknowledge exactly that one.
  return { ...state, route: { epoch: route.epoch + 1, writer, readers, hold } };
}

/**
 * While an attempt is open the standbys are detached: who read before goes on as long as it can be heard. So it is when none of them streams any more: then
 * it is the primary that is gone, whose report may stand for another while. Proxies bound the lag by themselves (H41).
 */
export function readersOf(view: ClusterView): readonly NodeId[] {
  const { state } = view;
  const cutOff = otherDataNodes(view).every((node) => !isStreaming(fresh(view, node.id), state.primary));
  const changing = state.attempt !== null || state.switchover !== null || cutOff;
  const readers: NodeId[] = [];
  for (const node of otherDataNodes(view)) {
    const report = fresh(view, node.id);
    if (report === null || !isAvailable(view, node.id) || isForeignSystem(view, report)) continue;
    const kept = changing && state.route.readers.includes(node.id) && report.postgres.state === 'running' && report.postgres.role === 'standby';
    const verdict = lineageOf(view, report);
    if (kept || (isStreaming(report, state.primary) && verdict !== null && isContained(verdict))) readers.push(node.id);
  }
  return readers;
}
