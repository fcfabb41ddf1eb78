/** Where clients go: recomputed after every decision; the epoch rises with each change. */
import type { NodeId } from '../ids.ts';
import type { ClusterState } from '../state.ts';
import type { ClusterView } from '../view.ts';
import { isContained } from './lineage.ts';
import { fresh, isAvailable, isForeignSystem, isOfThisStore, isOpen, lineageOf, live, newestKnownTerm, otherDataNodes } from './observe.ts';
import { isAttached } from './upstream.ts';

/**
 * The state with its route. The writer is the primary of the newest opened term, and nobody while an unplanned attempt is open: the old one
 * is taken out before another is promoted (Q28). Readers stream from the primary,
 * directly or by way of other standbys, on its lineage (I12, H41, I24); a delayed standby is none.
 */
export function publishRoute(view: ClusterView): ClusterState {
  const { state } = view;
  const { attempt, switchover, phase, route } = state;
  const unplanned = attempt !== null && attempt.path !== 'planned';
  const stopped = phase === 'stopping' || phase === 'stopped';
  const writer = unplanned || stopped || isForgotten(view) ? null : state.primary;
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
 * The store was restored, and a member knows a newer term than the one whose primary it names: that one is not the primary any more, as far as anybody knows.
 *
 * *Invariant:* a proxy is not sent to a primary of a term that was followed by another one (I16). *Because:* members never forget a term, and the primary that is
 * open confirms the store with its first report. *Broken if:* every primary were taken out until it has reported: clients of a healthy one would lose what is under way.
 */
function isForgotten(view: ClusterView): boolean {
  const { state } = view;
  if (isOfThisStore(view) || state.primary === null) return false;
  return newestKnownTerm(view) > state.primaryTerm && !isOpen(live(view, state.primary), state.primaryTerm);
}

/**
 * While an attempt or a switchover is open the standbys are detached: who read before goes on as long as it can be heard. So it is when one does not stream any
 * more and the primary does not contradict: then the primary may be what is gone, and its last report may stand for another while (H41).
 *
 * Invariant: a standby that a living primary has lost gets no reads (§4.1, I24).
 * Because: the primary's own report lists its walsenders, and one that is missing there ended while the primary went on; what it wrote since is on no such standby.
 *   A primary that died has no time to report the loss, and one that is cut off keeps the walsender for at most `wal_sender_timeout` (5 s).
 * Broken if: all readers were kept whenever none streams: the only standby of two nodes would serve ever older reads for as long as it is cut off; or if
 *   one were dropped at its own word: the last one to notice the loss of the primary, often the next primary, would be left with all reads.
 */
export function readersOf(view: ClusterView): readonly NodeId[] {
  const { state } = view;
  const changing = state.attempt !== null || state.switchover !== null;
  const readers: NodeId[] = [];
  for (const node of otherDataNodes(view)) {
    const report = fresh(view, node.id);
    if (report === null || node.delayMs > 0 || !isAvailable(view, node.id) || isForeignSystem(view, report) || state.draining?.node === node.id)
      continue;
    const verdict = lineageOf(view, report);
    if (verdict !== null && !isContained(verdict)) continue;
    const was = state.route.readers.includes(node.id) && report.postgres.state === 'running' && report.postgres.role === 'standby';
    const kept = was && (changing || !isMissed(view, node.id));
    if (kept || (verdict !== null && isAttached(view, node.id))) readers.push(node.id);
  }
  return readers;
}

/**
 * Whom it is to stream from runs, and says itself that this standby does not stream from it; or that one is missed in its turn. False while nothing can
 * be heard of it.
 */
function isMissed(view: ClusterView, node: NodeId): boolean {
  let at = node;
  for (let hops = 0; hops < view.spec.nodes.length; hops++) {
    const goal = view.state.goals[at];
    const upstream = goal?.kind === 'standby' ? goal.upstream : view.state.primary;
    const report = upstream === null ? null : fresh(view, upstream);
    if (upstream === null || report === null || report.postgres.state !== 'running') return false;
    if (upstream === view.state.primary && report.postgres.role !== 'primary') return false;
    if (!report.postgres.walsenders.some((sender) => sender.node === at && sender.state === 'streaming')) return true;
    if (upstream === view.state.primary) return false;
    at = upstream;
  }
  return false;
}
