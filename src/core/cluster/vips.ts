/** Who is to hold the read address. The write address needs no choice: it is where the write lease is open (core/node/vips.ts). */
import type { NodeId, Now } from '../ids.ts';
import { bytesBetween } from '../lsn.ts';
import { type NodeSpec, findNode } from '../spec.ts';
import type { ClusterView } from '../view.ts';
import { endOfWal, elapsedMs, fresh, isOpen, live, primaryEnd } from './observe.ts';
import { readersOf } from './route.ts';

/** As far behind as the proxies let a reader be by default: about a second of heavy writing. */
export const READ_LAG_BYTES = 16_777_216;
/**
 * The address of a node that still serves reads is moved for a better place at most this often: a standby that flaps must not carry all readers with it.
 * A node that serves none any more loses it at once.
 */
export const READ_SETTLE_MS = 5000;

export type ReadChoice =
  | { readonly kind: 'keep' }
  /** A better place exists; the last move was a moment ago. */
  | { readonly kind: 'wait' }
  | { readonly kind: 'move'; readonly to: NodeId; readonly why: string };

/**
 * Standbys that stream and are not far behind come first; the primary only when there is none (H40). Whoever has the address keeps it as long as that is true.
 * While nobody can serve reads, nothing changes.
 */
export function chooseReadHolder(view: ClusterView, now: Now): ReadChoice {
  const present = view.state.vips.read;
  const readers = readersOf(view);
  const healthy = readers.filter((node) => (lagOf(view, node) ?? 0) <= (node === present?.node ? READ_LAG_BYTES : READ_LAG_BYTES / 2));
  if (present !== null && healthy.includes(present.node)) return { kind: 'keep' };
  const best =
    healthy
      .map((node) => findNode(view.spec, node))
      .filter((node) => node !== null)
      .sort(byPlace(view))[0] ?? null;
  const wanted = best?.id ?? openPrimary(view);
  if (wanted === null || wanted === present?.node) return { kind: 'keep' };
  const serves = present !== null && (readers.includes(present.node) || present.node === openPrimary(view));
  const waited = present === null ? Number.POSITIVE_INFINITY : elapsedMs(now, present.sinceWallMs);
  if (serves && waited < READ_SETTLE_MS) return { kind: 'wait' };
  return { kind: 'move', to: wanted, why: because(view, wanted, present?.node ?? null) };
}

/** The primary's own location first, then the one that is the least likely to be promoted, so that it moves less; then the spec's order. */
function byPlace(view: ClusterView): (a: NodeSpec, b: NodeSpec) => number {
  const home = view.state.primary === null ? null : (findNode(view.spec, view.state.primary)?.location ?? null);
  const far = (node: NodeSpec): number => (node.location === home ? 0 : 1);
  return (a, b) => far(a) - far(b) || a.priority - b.priority || view.spec.nodes.indexOf(a) - view.spec.nodes.indexOf(b);
}

function openPrimary(view: ClusterView): NodeId | null {
  const { primary, primaryTerm } = view.state;
  return primary !== null && isOpen(live(view, primary), primaryTerm) ? primary : null;
}

/** Bytes that the node has not replayed of what the primary is known to have; null when it cannot be told. */
function lagOf(view: ClusterView, node: NodeId): number | null {
  const report = fresh(view, node);
  const end = primaryEnd(view);
  const replayed = report?.postgres.replayedLsn ?? null;
  if (report === null || end === null || replayed === null || endOfWal(report)?.timeline !== view.state.timeline) return null;
  return Math.max(0, bytesBetween({ from: replayed, to: end }));
}

function because(view: ClusterView, to: NodeId, from: NodeId | null): string {
  const left = from === null ? '' : from === view.state.primary ? `; ${from} is the primary` : `; ${from} ${whyNot(view, from)}`;
  return to === view.state.primary ? `no standby can serve reads: ${to} is the primary${left}` : `${to} streams from the primary${left}`;
}

function whyNot(view: ClusterView, node: NodeId): string {
  if (findNode(view.spec, node) === null) return 'is no member any more';
  if (fresh(view, node) === null) return 'does not report';
  const lag = lagOf(view, node);
  return lag !== null && lag > READ_LAG_BYTES ? `is ${lag} bytes behind` : 'does not stream';
}
