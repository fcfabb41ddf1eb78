/** Which member a new copy is taken from. Pure. */
import type { NodeId } from '../ids.ts';
import { bytesBetween } from '../lsn.ts';
import { type NodeSpec, findNode } from '../spec.ts';
import type { ClusterView } from '../view.ts';
import { isContained } from './lineage.ts';
import { fresh, isAvailable, isForeignSystem, isOpen, lineageOf, live, otherDataNodes, primaryEnd } from './observe.ts';
import { JOIN_LAG_BYTES } from './sync-wish.ts';
import { isAttached } from './upstream.ts';

export interface CopySource {
  readonly node: NodeId;
  /** For people: why this one. */
  readonly why: string;
}

/**
 * Null when `node` can be copied now; else why not, as the end of a sentence.
 * A standby that is far behind would make a copy that begins far behind; one that does not stream may be on its way to another timeline.
 */
export function refuseSource(view: ClusterView, node: NodeId): string | null {
  const spec = findNode(view.spec, node);
  if (spec === null) return 'is not a node of this cluster';
  if (spec.kind === 'witness') return 'is a witness and holds no data';
  if (node === view.state.primary) return isOpen(live(view, node), view.state.primaryTerm) ? null : 'is the primary, and is not open';
  const report = fresh(view, node);
  if (report === null) return 'does not report';
  if (!isAvailable(view, node)) return 'is in maintenance, stopped, or being added or removed';
  if (spec.delayMs > 0) return 'is delayed on purpose';
  if (!isAttached(view, node)) return `does not stream from ${view.state.primary ?? 'a primary'}`;
  const verdict = lineageOf(view, report);
  if (isForeignSystem(view, report) || verdict === null || !isContained(verdict)) return 'is not on the history of the primary';
  const end = primaryEnd(view);
  const { replayedLsn } = report.postgres;
  if (end === null || replayedLsn === null) return 'does not say how far it is';
  const lag = Math.max(0, bytesBetween({ from: replayedLsn, to: end }));
  return lag > JOIN_LAG_BYTES ? `is ${lag} bytes behind the primary` : null;
}

/** How many copies are being taken from it now, by the goals. */
function copiesFrom(view: ClusterView, node: NodeId): number {
  return Object.values(view.state.goals).filter((goal) => goal.kind === 'standby' && goal.via === 'clone' && (goal.source ?? goal.upstream) === node)
    .length;
}

function loadOf(view: ClusterView, node: NodeId): number {
  const host = live(view, node)?.host ?? null;
  return host === null ? 0 : host.load / Math.max(1, host.cpus);
}

/**
 * The least busy standby that is fit, else the primary; null when neither is. A standby is preferred at any load: what reading its files costs is taken from
 * reads, not from writes. Then the same location (a copy between sites is slow and may cost money), fewer copies under way, less load for each processor,
 * lower priority (the next primary is spared), name.
 */
export function chooseSource(view: ClusterView, target: Pick<NodeSpec, 'id' | 'location'>): CopySource | null {
  const fit = otherDataNodes(view)
    .filter((node) => node.id !== target.id && refuseSource(view, node.id) === null)
    .toSorted(
      (a, b) =>
        distance(a, target) - distance(b, target) ||
        copiesFrom(view, a.id) - copiesFrom(view, b.id) ||
        loadOf(view, a.id) - loadOf(view, b.id) ||
        a.priority - b.priority ||
        (a.id < b.id ? -1 : 1),
    );
  const [best] = fit;
  if (best !== undefined) return { node: best.id, why: fit.length === 1 ? 'the only standby that is fit' : 'the least busy standby' };
  const { primary } = view.state;
  return primary !== null && refuseSource(view, primary) === null ? { node: primary, why: 'no standby is fit, so the primary' } : null;
}

function distance(node: NodeSpec, target: Pick<NodeSpec, 'location'>): 0 | 1 {
  return target.location === null || node.location === target.location ? 0 : 1;
}
