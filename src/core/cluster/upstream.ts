/**
 * From whom each standby streams: the primary, or another standby (cascading) when its settings name one. Pure.
 *
 *   wished    what the settings say, while that is another standby
 *   planned   the primary instead, while the wished one is not in order (`state.cascades`)
 *   now       the primary still, as long as the facts or a synchronous set name the node
 *
 * *Invariant:* no commit waits for, and no promise counts on, a standby that is told to stream from another standby (§4.4).
 * *Because:* what a cascading standby has flushed, its upstream acknowledges to nobody; so it leaves every set and the facts first, each in its own
 * safe order, and only then its goal changes. *Broken if:* the goal changes at the request.
 */
import type { NodeId, Now } from '../ids.ts';
import { slotName } from '../slot-name.ts';
import { findNode } from '../spec.ts';
import type { Cascade, ClusterState } from '../state.ts';
import type { ClusterView } from '../view.ts';
import { isContained } from './lineage.ts';
import { activityFor, elapsedMs, fresh, isAvailable, isForeignSystem, isStreaming, lineageOf, live } from './observe.ts';
import { nodeOfVoter } from './sync-set.ts';

/** An upstream that lost its own stream mostly has it again within half a second (a reload, a restart of its walreceiver); longer means older reads. */
const PATIENCE_MS = 2000;
/** In order for this long, an upstream is gone back to: one that flaps must not carry its followers with it. */
const SETTLE_MS = 5000;
/** After the follower itself could not stream from it (WAL missing, refused): to try again each few seconds would only interrupt its stream. */
const FAILED_SETTLE_MS = 60_000;
/** Tries of the agent before the primary is followed instead. */
const FOLLOW_TRIES = 2;

/** The standby that the settings name for this node; null: the primary, also when the one that is named is the primary now. */
export function wishedUpstream(view: ClusterView, node: NodeId): NodeId | null {
  const { primary } = view.state;
  const wish = findNode(view.spec, node)?.upstream ?? null;
  if (wish === null || node === primary || wish === primary || wish === node) return null;
  return findNode(view.spec, wish)?.kind === 'data' ? wish : null;
}

/** Whom it is to stream from once nothing counts on it any more; null: there is no primary. */
export function plannedUpstream(view: ClusterView, node: NodeId): NodeId | null {
  const wish = wishedUpstream(view, node);
  return wish === null || view.state.cascades[node]?.away === true ? view.state.primary : wish;
}

/** Whom its goal is to name now; null: there is no primary. */
export function upstreamNow(view: ClusterView, node: NodeId): NodeId | null {
  const planned = plannedUpstream(view, node);
  return planned !== view.state.primary && isNamed(view.state, node) ? view.state.primary : planned;
}

/** It streams from the primary itself, or is to. */
export function isDirect(view: ClusterView, node: NodeId): boolean {
  return plannedUpstream(view, node) === view.state.primary;
}

/** The facts, or a set that some process of the primary may act on, name this node. */
export function isNamed({ quorum }: Pick<ClusterState, 'quorum'>, node: NodeId): boolean {
  return [quorum.voters, quorum.wanted.members, ...quorum.mayStand.map((set) => set.members)].some((voters) =>
    voters.some((voter) => nodeOfVoter(voter) === node),
  );
}

/** Whom it streams from by its own word; while its agent is silent, by the word of whom it streams from. Null: nobody. */
function upstreamSeen(view: ClusterView, node: NodeId): NodeId | null {
  const report = live(view, node);
  if (report !== null) return report.postgres.state === 'running' && report.postgres.role === 'standby' ? report.postgres.streamingFrom : null;
  const sender = view.spec.nodes.find((one) =>
    live(view, one.id)?.postgres.walsenders.some((walsender) => walsender.node === node && walsender.state === 'streaming'),
  );
  return sender?.id ?? null;
}

/** It streams from the primary, directly or by way of other standbys that do; a delayed one may have to wait for its delay first. False while it is silent. */
export function isAttached(view: ClusterView, node: NodeId): boolean {
  let at: NodeId | null = live(view, node) === null ? null : node;
  for (let hops = 0; hops <= view.spec.nodes.length && at !== null; hops++) {
    // One that waits with what it has for its delay is where it is meant to be.
    if (waitsForDelay(view, at)) return true;
    at = upstreamSeen(view, at);
    if (at !== null && at === view.state.primary) return true;
  }
  return false;
}

/** A delayed standby that has WAL to wait with: it does not stream before that is replayed. */
export function waitsForDelay(view: ClusterView, node: NodeId): boolean {
  const report = live(view, node);
  return report?.postgres.state === 'running' && report.postgres.waitsForDelay && (findNode(view.spec, node)?.delayMs ?? 0) > 0;
}

interface Trouble {
  readonly text: string;
  /** Nothing is gained by waiting. */
  readonly urgent: boolean;
  readonly settleMs: number;
}

/** Why `node` should not stream from `upstream` now, as the end of a sentence that begins with the upstream; null: nothing is in the way. */
function troubleOf(view: ClusterView, node: NodeId, upstream: NodeId): Trouble | null {
  const goal = view.state.goals[node] ?? null;
  const follows = goal?.kind === 'standby' && goal.via === 'stream' && goal.upstream === upstream;
  const urgent = (text: string, settleMs = SETTLE_MS): Trouble => ({ text, urgent: true, settleMs });
  if (!isAvailable(view, upstream)) return urgent('is in maintenance, stopped on request, or being added or removed');
  if ((findNode(view.spec, upstream)?.delayMs ?? 0) > 0) return urgent('is delayed on purpose');
  const report = fresh(view, upstream);
  // An agent that is restarted is no reason to move, as long as the stream goes on.
  if (report === null) return follows && isStreaming(live(view, node), upstream) && isAttached(view, node) ? null : urgent('does not report');
  const { state, role } = report.postgres;
  if (state !== 'running' || role !== 'standby') return urgent(`runs no standby (PostgreSQL is ${state})`);
  const verdict = lineageOf(view, report);
  if (isForeignSystem(view, report) || (verdict !== null && !isContained(verdict))) return urgent('is not on the history of the primary');
  if (!isAttached(view, upstream)) return { text: 'does not stream itself', urgent: !follows, settleMs: SETTLE_MS };
  // The slot first, so that no WAL is missing after the change (Z66); an agent makes slots for every member within seconds.
  if (!follows && !report.slots.some((slot) => slot.name === slotName(node) && slot.walStatus !== 'lost'))
    return urgent(`has not made the slot ${slotName(node)} yet`);
  const own = live(view, node);
  const activity = own === null ? null : activityFor(own, goal);
  if (follows && activity?.kind === 'failed' && (!activity.retrying || activity.attempts >= FOLLOW_TRIES))
    return urgent(`cannot be followed: ${activity.message} (${activity.code})`, FAILED_SETTLE_MS);
  return null;
}

export interface UpstreamChange {
  readonly node: NodeId;
  /** Null: forgotten, the wished upstream is in order. */
  readonly entry: Cascade | null;
  /** For people; null: nothing that they would notice changes. */
  readonly text: string | null;
  readonly back: boolean;
}

/** The next note about the upstream of this node; null: nothing changes. */
export function assessUpstream(view: ClusterView, now: Now, node: NodeId): UpstreamChange | null {
  const present = view.state.cascades[node] ?? null;
  const wish = wishedUpstream(view, node);
  const note = (entry: Cascade | null, text: string | null, back = false): UpstreamChange => ({ node, entry, text, back });
  if (wish === null) return present === null ? null : note(null, null);
  const trouble = troubleOf(view, node, wish);
  if (trouble === null) return present === null ? null : inOrderAgain(now, present, { node, wish });
  const waited = present === null ? 0 : elapsedMs(now, present.sinceWallMs);
  const away = present?.away === true || trouble.urgent || waited >= PATIENCE_MS;
  if (present !== null && present.away === away && present.healthySinceWallMs === null) return null;
  const entry: Cascade = {
    away,
    reason: trouble.text,
    sinceWallMs: present?.away === true || present?.away === away ? present.sinceWallMs : now.wall,
    healthySinceWallMs: null,
    settleMs: trouble.settleMs,
  };
  const left = away && present?.away !== true;
  return note(entry, left ? `${node} streams from the primary ${view.state.primary ?? ''}, since ${wish} ${trouble.text}` : null);
}

function inOrderAgain(now: Now, present: Cascade, { node, wish }: { readonly node: NodeId; readonly wish: NodeId }): UpstreamChange | null {
  if (!present.away) return { node, entry: null, text: null, back: false };
  if (present.healthySinceWallMs === null) return { node, entry: { ...present, healthySinceWallMs: now.wall }, text: null, back: false };
  if (elapsedMs(now, present.healthySinceWallMs) < present.settleMs) return null;
  return { node, entry: null, text: `${node} may stream from ${wish} again`, back: true };
}
