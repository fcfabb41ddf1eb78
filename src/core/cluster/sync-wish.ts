/** Which synchronous set fits the standbys that are there now. Pure; one reading of one snapshot. */
import type { NodeId, Now } from '../ids.ts';
import { bytesBetween, formatLsn } from '../lsn.ts';
import type { NodeReport, Position } from '../report.ts';
import { type ClusterSpec, type NodeSpec, durabilityOf, findNode, isNear } from '../spec.ts';
import type { ClusterState, SyncSet } from '../state.ts';
import type { ClusterView } from '../view.ts';
import { comparePositions } from './lineage.ts';
import { dataNodes, isAvailable, isDue, isStreaming, live } from './observe.ts';
import { NO_SET, nodeOfVoter, voterName } from './sync-set.ts';
import { isAttached, isDirect, wishedUpstream } from './upstream.ts';

/**
 * A member that acknowledged nothing for this long, although there was WAL to acknowledge, is lost. Writes wait for it meanwhile; a standby that
 * connects anew (a reload, a restart of its walreceiver) takes about half a second, and to lower the protection for that would be worse.
 */
export const SILENT_MS = 800;
/** Farther behind, a standby that is asked for its acknowledgement would hold writes until it has caught up. One WAL segment. */
export const JOIN_LAG_BYTES = 16_777_216;
/** After protection was lowered it is not raised for this long, so that a standby that comes and goes does not stop writes each time (Z63). */
export const RAISE_AFTER_MS = 3000;

export interface SyncWish {
  readonly set: SyncSet;
  /** Why it waits for fewer than the spec asks; null: it does not. */
  readonly lowered: string | null;
}

/** Fewer copies than this are never waited for; 0: the cluster may go on alone. */
export function floorOf(spec: ClusterSpec): number {
  const { mode, strict, k, minSync } = durabilityOf(spec);
  return mode === 'async' ? 0 : strict ? k : minSync;
}

/** Commits wait for standbys, but nobody besides the primary is known to hold what was acknowledged: the term is new, or the store was set back. */
export function isUnestablished(view: ClusterView): boolean {
  const { quorum } = view.state;
  return durabilityOf(view.spec).mode !== 'async' && quorum.k === 0 && (quorum.lowered === null || quorum.floorPending || floorOf(view.spec) > 0);
}

/**
 * *Invariant:* a commit that standbys acknowledged is on every later primary also after protection was lowered, unless a person gives it up (I4).
 * *Because:* lowering is a promise for later commits only; the earlier ones lie before the position at which nobody was waited for any more, or at which
 * the term was opened, and who is promoted without a quorum must have that position. *Broken if:* lowered protection is taken for asynchronous mode.
 */
export function isBelowFloor(view: ClusterView, position: Position): boolean {
  const { k, floor } = view.state.quorum;
  return durabilityOf(view.spec).mode !== 'async' && k === 0 && floor !== null && comparePositions(position, floor) < 0;
}

export function floorText(view: ClusterView, candidate: string): string {
  const { floor } = view.state.quorum;
  return `${candidate} lacks commits that standbys acknowledged before protection was lowered (up to ${floor === null ? '' : formatLsn(floor.lsn)}); "pgherd failover --accept-loss" gives them up`;
}

export function unestablishedText(view: ClusterView): string {
  return `no standby is known to hold every acknowledged commit of term ${view.state.primaryTerm}; "pgherd failover --accept-loss" promotes in spite of that`;
}

/** Null when the primary's agent cannot be heard: then nothing is changed. */
export function wishedSet(view: ClusterView, now: Now): SyncWish | null {
  const { spec, state } = view;
  const primary = state.primary === null ? null : live(view, state.primary);
  if (primary === null || primary.postgres.state !== 'running' || primary.postgres.role !== 'primary') return null;
  const { mode, k } = durabilityOf(spec);
  if (mode === 'async') return { set: NO_SET, lowered: null };
  const ranked = rankStandbys(view, primary);
  const electable = ranked.filter((one) => one.electable).map((one) => one.voter);
  const acknowledging = ranked.map((one) => one.voter);
  const wantedK = wishedK(view, now, acknowledging.length);
  const held = acknowledging.length >= k ? (state.quorum.lowered?.reason ?? null) : null;
  // Where writes wait all the same, whichever member comes back first lets them go on, without another set.
  const counted = acknowledging.length < wantedK ? [...electable, ...acknowledging, ...returning(view)] : electable;
  const chosen = mode === 'quorum' ? [...new Set(counted)] : electable.slice(0, wantedK);
  for (const more of [acknowledging, state.quorum.wanted.members]) {
    for (const voter of more) if (chosen.length < wantedK && !chosen.includes(voter)) chosen.push(voter);
  }
  const set: SyncSet = wantedK === 0 ? NO_SET : { method: mode === 'quorum' ? 'any' : 'first', k: wantedK, members: chosen };
  return { set, lowered: wantedK < k ? (held ?? loweredReason(view, acknowledging.length)) : null };
}

/** Silent members that may come back as the voters that they are. */
function returning(view: ClusterView): readonly string[] {
  const { wanted } = view.state.quorum;
  return dataNodes(view.spec).flatMap((node) => {
    const member = wanted.members.find((voter) => nodeOfVoter(voter) === node.id);
    if (member === undefined || !isAvailable(view, node.id) || node.delayMs > 0 || !isDirect(view, node.id)) return [];
    const incarnation = live(view, node.id)?.postgres.incarnation ?? null;
    return incarnation === null || member === voterName(node.id, incarnation) ? [member] : [];
  });
}

function wishedK(view: ClusterView, now: Now, present: number): number {
  const { spec, state } = view;
  const { k } = durabilityOf(spec);
  const wish = Math.min(k, Math.max(floorOf(spec), present));
  const { lowered, wanted } = state.quorum;
  const early = lowered !== null && wanted.k < wish && !isDue(now, (lowered.sinceWallMs + RAISE_AFTER_MS) as Now['wall'], RAISE_AFTER_MS);
  return early ? Math.max(wanted.k, floorOf(spec)) : wish;
}

function loweredReason(view: ClusterView, present: number): string {
  const { spec, state } = view;
  const others = dataNodes(spec).filter((node) => node.id !== state.primary);
  const away = others.filter((node) => !isAttached(view, node.id)).map((node) => node.id);
  const aside = others.filter((node) => !away.includes(node.id) && (node.delayMs > 0 || !isDirect(view, node.id))).map((node) => node.id);
  const what = present === 0 ? 'no standby acknowledges' : `${present} of ${durabilityOf(spec).k} needed standbys acknowledge`;
  const missing = away.length === 0 ? '' : `; not streaming: ${away.join(', ')}`;
  return `${what}${missing}${aside.length === 0 ? '' : `; delayed or behind another standby: ${aside.join(', ')}`}`;
}

interface Standby {
  readonly voter: string;
  /** It could vote and be promoted, so that counting on it does not stand in the way of a failover (Z62). */
  readonly electable: boolean;
}

/** Standbys that acknowledge, best first: present members before new ones, then priority, then name. */
function rankStandbys(view: ClusterView, primary: NodeReport): readonly Standby[] {
  const { state } = view;
  const members = new Set(state.quorum.wanted.members);
  const home = state.primary === null ? null : (findNode(view.spec, state.primary)?.location ?? null);
  const found: { readonly standby: Standby; readonly member: boolean; readonly priority: number; readonly node: NodeId }[] = [];
  for (const node of dataNodes(view.spec)) {
    if (node.id === state.primary || !isAvailable(view, node.id)) continue;
    const voter = acknowledgingVoter(view, node, primary);
    if (voter === null) continue;
    const electable = node.priority > 0 && isNear(view.spec, node, home) && live(view, node.id) !== null;
    found.push({ standby: { voter, electable }, member: members.has(voter), priority: node.priority, node: node.id });
  }
  found.sort(
    (a, b) =>
      Number(b.standby.electable) - Number(a.standby.electable) ||
      Number(b.member) - Number(a.member) ||
      b.priority - a.priority ||
      (a.node < b.node ? -1 : 1),
  );
  return found.map((one) => one.standby);
}

/**
 * The name under which this node acknowledges to the primary now; null when it does not, or is too far behind to be waited for.
 * A member stays one until it is silent for SILENT_MS; another one must stream, from this primary, by both sides' word.
 */
function acknowledgingVoter(view: ClusterView, node: NodeSpec, primary: NodeReport): string | null {
  const goal = view.state.goals[node.id];
  if (goal?.kind !== 'standby' || goal.upstream !== view.state.primary) return null;
  // One that is to be delayed, or to stream from another standby, leaves the set first (§4.4).
  if (node.delayMs > 0 || !isDirect(view, node.id)) return null;
  const own = live(view, node.id);
  const incarnation = own?.postgres.incarnation ?? null;
  const member = view.state.quorum.wanted.members.find((voter) => nodeOfVoter(voter) === node.id) ?? null;
  if (member !== null && (incarnation === null || member === voterName(node.id, incarnation))) {
    const silence = primary.sync?.silence.find((one) => one.voter === member)?.ms ?? 0;
    return silence >= SILENT_MS ? null : member;
  }
  if (own === null || incarnation === null || goal.via !== 'stream' || !isStreaming(own, view.state.primary)) return null;
  const voter = voterName(node.id, incarnation);
  const sender = primary.postgres.walsenders.find((one) => one.voter === voter);
  const { flushLsn } = primary.postgres;
  if (sender?.state !== 'streaming' || sender.flushLsn === null || flushLsn === null) return null;
  return bytesBetween({ from: sender.flushLsn, to: flushLsn }) > JOIN_LAG_BYTES ? null : voter;
}

/**
 * The set with which a candidate opens: the others that voted for the term, or in a planned change those that acknowledged to the old primary.
 *
 * *Invariant:* nobody acknowledges a commit of the new term before the state says that the term is open, unless the set is empty.
 * *Because:* each of these members is detached, or attached to the stopped old primary, until the opening gives it the candidate as its upstream.
 * *Broken if:* a goal names the candidate as an upstream before the term is open.
 */
export function openingSet(view: ClusterView, candidate: NodeId, term: number): SyncSet {
  const { spec, state } = view;
  const { mode, k } = durabilityOf(spec);
  if (mode === 'async') return NO_SET;
  const planned = state.switchover !== null;
  const members: string[] = [];
  const cascading: string[] = [];
  for (const node of dataNodes(spec)) {
    const report = node.id === candidate ? null : live(view, node.id);
    if (report === null || node.priority === 0 || node.delayMs > 0 || !isAvailable(view, node.id)) continue;
    const { incarnation } = report.postgres;
    if (incarnation === null || report.postgres.state !== 'running' || report.postgres.role !== 'standby') continue;
    const voter = voterName(node.id, incarnation);
    const counts = (report.vote?.term === term && report.vote.final) || (planned && state.quorum.wanted.members.includes(voter));
    const wish = wishedUpstream(view, node.id);
    if (counts) (wish === null || wish === candidate ? members : cascading).push(voter);
  }
  // Everybody follows the candidate at first; one that is to go on to another standby is counted on only where there is nobody else.
  for (const voter of cascading) if (members.length < k) members.push(voter);
  const size = Math.min(k, Math.max(floorOf(spec), members.length));
  if (size === 0) return NO_SET;
  return { method: mode === 'quorum' ? 'any' : 'first', k: size, members: mode === 'quorum' ? members : members.slice(0, size) };
}

/** More orders than a cluster gives between a backup and its restore: tens a day, where standbys come and go all the time. */
const FORGOTTEN_ORDERS = 1_000_000;

/**
 * What is left of the record of a backup when its store is confirmed: the set that was asked for last, asked for anew, and nothing promised.
 *
 * *Invariant:* facts are true whatever was decided after the backup. *Because:* the primary may have been asked for any set since, and what was acknowledged then
 * is on its members only; the agent follows an order only when its revision is above all that it saw, so that `inForce` speaks of this very set.
 * *Broken if:* the store counts on from the backup's revision: the agent's own later order of the same number would be taken for this one.
 */
export function quorumAfterRestore(quorum: ClusterState['quorum']): ClusterState['quorum'] {
  if (quorum.k === 0 && quorum.wanted.k === 0 && quorum.mayStand.length <= 1) return quorum;
  const revision = quorum.revision + FORGOTTEN_ORDERS;
  return { ...quorum, revision, wantedRevision: revision, k: 0, voters: [], mayStand: [NO_SET, quorum.wanted], lowered: null, floorPending: true };
}

/**
 * The record of a new term whose primary holds every acknowledged commit, and nobody else surely does. `restored`: the term is an old one that the store
 * forgot; nothing was lowered, it is only not known what was promised.
 */
export function openingQuorum(
  spec: ClusterSpec,
  state: ClusterState,
  now: Now,
  { set, restored, floor }: { readonly set: SyncSet; readonly restored: boolean; readonly floor: Position | null },
): ClusterState['quorum'] {
  const revision = state.quorum.revision + (restored ? FORGOTTEN_ORDERS : 1);
  const lowered = set.k < (durabilityOf(spec).mode === 'async' ? 0 : durabilityOf(spec).k);
  return {
    revision,
    term: state.primaryTerm,
    k: 0,
    voters: [],
    wanted: set,
    wantedRevision: revision,
    mayStand: [set],
    lowered: lowered && !restored ? { sinceWallMs: now.wall, reason: 'too few standbys followed when the term was opened' } : null,
    floor,
    floorPending: false,
  };
}
