/** The proxy's own decision: who may get writes now, who gets reads with which weight, whether new transactions wait. Pure. */
import type { NodeId, Term } from '../ids.ts';
import { makeTerm } from '../ids.ts';
import { compareLineage, compareVote, isContained } from '../cluster/lineage.ts';
import { endOf } from '../cluster/observe.ts';
import { bytesBetween } from '../lsn.ts';
import type { Member, NodeReport } from '../report.ts';
import type { ClusterState } from '../state.ts';

export interface RouteFacts {
  readonly state: ClusterState | null;
  readonly members: ReadonlyMap<NodeId, Member>;
  readonly reports: ReadonlyMap<NodeId, NodeReport>;
  /** Of the store that these were read from; null: none was. */
  readonly incarnation: string | null;
  /** The newest term of this database that this proxy ever knew as opened; it outlives a store that was restored. */
  readonly newestTerm: Term;
  /** Since the store confirmed last that nothing newer exists; Infinity: never. */
  readonly ageMs: number;
  /** The newest answer of a node's agent that it is the primary of `term`, still good for `forMs`; null: none is. */
  readonly confirmed: { readonly node: NodeId; readonly term: Term; readonly forMs: number } | null;
  /** What people told this proxy: weight of a node for reads; 0 is drained. */
  readonly weights: ReadonlyMap<NodeId, number>;
  /** Nodes that do not answer this proxy. */
  readonly down: ReadonlySet<NodeId>;
}

export interface RouteLimits {
  /** Older knowledge closes the way to the primary. */
  readonly staleMs: number;
  /** A standby that is further behind gets no reads. */
  readonly maxReadLagBytes: number;
  readonly primaryReads: 'never' | 'last-resort' | 'always';
}

export interface RouteTarget {
  readonly node: NodeId;
  readonly host: string;
  readonly port: number;
}

export interface Reader extends RouteTarget {
  readonly weight: number;
  /** By the newest reports; null when unknown. */
  readonly lagBytes: number | null;
}

export interface Route {
  /** Of the published route; 0 before the first. */
  readonly epoch: number;
  /** Term of the primary. */
  readonly term: Term;
  /** Null: nobody may get writes; `closed` says why. */
  readonly writer: RouteTarget | null;
  readonly closed: string | null;
  /** Sorted by node; those with weight 0 are left out. */
  readonly readers: readonly Reader[];
  /** Sorted; reads that are under way there are not waited for. */
  readonly unreachable: readonly NodeId[];
  /** New transactions wait; running ones go on. */
  readonly hold: boolean;
  /** Who is to be the primary after the hold that is to come, or has begun, so that connections can be made beforehand; null: nobody. */
  readonly next: RouteTarget | null;
}

export const NO_ROUTE: Route = {
  epoch: 0,
  term: makeTerm(0),
  writer: null,
  closed: 'the state of the cluster is not known yet',
  readers: [],
  unreachable: [],
  hold: false,
  next: null,
};

/**
 * Invariant: nobody gets writes but the writer of the newest published route, or the candidate that has opened the term after it; and only while that
 *   knowledge is fresh (§4.8, I16).
 * Because: the controller takes the old primary out of the route before another may be promoted (Q28), a term is opened by its lease's holder alone,
 *   and a proxy that hears neither the store nor the primary's own agent for `staleMs` closes. A restored store may name the primary of an older term: until the
 *   controller has confirmed the state (§4.10), what members and this proxy itself know of newer terms closes the way to it.
 * Broken if: an agent's answer of an older term counted, or one of a newer term did not close the way to the older primary.
 */
export function decideRoute(facts: RouteFacts, limits: RouteLimits): Route {
  const { state } = facts;
  if (state === null) return NO_ROUTE;
  const { epoch } = state.route;
  const opened = openedAhead(state, facts.reports);
  const term = opened === null ? state.primaryTerm : opened.term;
  const named = opened === null ? state.route.writer : opened.node;
  const hold = state.route.hold && opened === null;
  const writer = named === null ? null : targetOf(facts, named);
  const closed = closedBecause(facts, limits, { named, term, known: writer !== null });
  const { switchover } = state;
  const coming = switchover !== null && (hold || (switchover.phase === 'checkpoint' && opened === null));
  const next = coming ? targetOf(facts, switchover.to) : null;
  return {
    epoch,
    term,
    writer: closed === null ? writer : null,
    closed,
    readers: readersOf(facts, limits, {
      writer: closed === null && !hold ? writer : null,
      leaving: next?.node ?? opened?.node ?? state.attempt?.candidate ?? null,
      hold,
      opened,
    }),
    unreachable: [...facts.down].sort(),
    hold,
    next,
  };
}

interface Opened {
  readonly node: NodeId;
  readonly term: Term;
}

/**
 * The candidate says that it is open in the attempt's term: clients that connect to it directly are let in by now, and the controller's word for it, which
 * comes some ten milliseconds later, can say nothing else.
 * Because: a term's number is used once, so that no older report can carry it, and `open` is said only after the lease of that term was confirmed.
 */
function openedAhead(state: ClusterState, reports: RouteFacts['reports']): Opened | null {
  const { attempt } = state;
  if (attempt === null || attempt.candidate === null || attempt.term <= state.primaryTerm) return null;
  const report = reports.get(attempt.candidate);
  const open = report?.open === true && report.leaseTerm === attempt.term;
  return open && report.postgres.role === 'primary' && report.postgres.state === 'running' ? { node: attempt.candidate, term: attempt.term } : null;
}

/**
 * The readers of the old primary may go on under the one that has opened its term.
 *
 * *Invariant:* a session reads nothing from a standby whose WAL is not the new primary's (I17). *Because:* what a session has seen is a position, and a standby
 *   that holds more of the old primary's WAL than the new primary had has passed that position with other rows. After a planned stop the new one has it all, and
 *   the old primary itself always has; after a loss it is the standby's final position in its vote for this term that counts, since it streams from nobody from then on.
 * *Broken if:* all readers are kept until the controller's word comes, an older report is believed, or a candidate between the two may
 *   have opened.
 */
function hasHistoryOf(facts: RouteFacts, node: NodeId, opened: Opened): boolean {
  const attempt = facts.state?.attempt ?? null;
  if (attempt?.mayHaveOpened.length === 0 && (attempt.path === 'planned' || opened.node === facts.state?.primary)) return true;
  const report = facts.reports.get(node);
  const primary = facts.reports.get(opened.node)?.postgres;
  const vote = report?.vote ?? null;
  if (report === undefined || vote?.term !== opened.term || !vote.final || vote.position === null || primary === undefined) return false;
  if (primary.timeline === null) return false;
  return isContained(compareVote(report, { timeline: primary.timeline, history: primary.history }));
}

function closedBecause(
  facts: RouteFacts,
  limits: RouteLimits,
  { named, term, known }: { readonly named: NodeId | null; readonly term: Term; readonly known: boolean },
): string | null {
  const { state, confirmed, ageMs } = facts;
  if (state === null) return NO_ROUTE.closed;
  if (named === null) return state.attempt === null ? 'the cluster has no primary now' : `a primary for term ${state.attempt.term} is being chosen`;
  if (!known) return `the address of ${named} is not known`;
  if (confirmed !== null && confirmed.term > term)
    return `${confirmed.node} is the primary of term ${confirmed.term}, which this proxy knows nothing of yet`;
  const forgotten = forgottenTerm(facts, named, term);
  if (forgotten !== null) return `the store was restored from before term ${forgotten}, and who is the primary now is not known yet`;
  const vouched = confirmed !== null && confirmed.node === named && confirmed.term === term && confirmed.forMs > 0;
  if (ageMs > limits.staleMs && !vouched)
    return Number.isFinite(ageMs)
      ? `neither the store nor the agent of ${named} was heard for ${Math.round(ageMs)} ms`
      : 'the store was not heard yet';
  return null;
}

/**
 * The newest term that was opened, or seen by a member, and that a restored store does not know; null: there is none, the controller has confirmed the state
 * since, or the newer term was only seen, and the named primary is open in its own and says so in this very store.
 */
function forgottenTerm({ state, incarnation, newestTerm, reports }: RouteFacts, named: NodeId, term: Term): Term | null {
  if (state === null || state.incarnation === incarnation) return null;
  if (newestTerm > term) return newestTerm;
  // A term that members have only seen need not have been opened.
  const own = reports.get(named);
  if (incarnation !== null && own?.open === true && own.leaseTerm === term && own.incarnation === incarnation) return null;
  let newest = term;
  for (const { highestTerm } of reports.values()) if (highestTerm > newest) newest = highestTerm;
  return newest > term ? newest : null;
}

function targetOf(facts: RouteFacts, node: NodeId): RouteTarget | null {
  const member = facts.members.get(node);
  return member === undefined ? null : { node, host: member.host, port: member.port };
}

/**
 * Under a hold the old primary is about to stop, and the next one resets its clients' connections when it opens its term: neither serves reads then. Before the
 * hold, and when a candidate was chosen after a loss, its readers leave it already, if there are others.
 */
function readersOf(
  facts: RouteFacts,
  limits: RouteLimits,
  {
    writer,
    leaving,
    hold,
    opened,
  }: {
    readonly writer: RouteTarget | null;
    readonly leaving: NodeId | null;
    readonly hold: boolean;
    readonly opened: Opened | null;
  },
): readonly Reader[] {
  const { state } = facts;
  if (state === null) return [];
  let readers: Reader[] = [];
  for (const node of state.route.readers) {
    const target = targetOf(facts, node);
    const weight = facts.weights.get(node) ?? 1;
    if (target === null || weight <= 0 || facts.down.has(node)) continue;
    if (opened === null ? hasLeft(facts, node) : !hasHistoryOf(facts, node, opened)) continue;
    const lagBytes = lagOf(facts, node);
    if (lagBytes !== null && lagBytes > limits.maxReadLagBytes) continue;
    readers.push({ ...target, weight, lagBytes });
  }
  const staying = readers.filter((reader) => reader.node !== leaving);
  if (hold || staying.length > 0 || leaving === writer?.node) readers = staying;
  const withPrimary = limits.primaryReads === 'always' || (limits.primaryReads === 'last-resort' && readers.length === 0);
  const weight = writer === null ? 0 : (facts.weights.get(writer.node) ?? 1);
  if (withPrimary && writer !== null && weight > 0) readers.push({ ...writer, weight, lagBytes: 0 });
  return readers.sort((a, b) => (a.node < b.node ? -1 : 1));
}

/**
 * By its own report it is on a timeline that is not of the cluster's history: somebody promoted it, and it runs as a standby again while nobody is there to take
 * it out of the route. Its position says nothing of the rows that a session has seen (I17). A restored state may itself be the older one, and proves nothing.
 */
function hasLeft({ state, reports, incarnation }: RouteFacts, node: NodeId): boolean {
  const postgres = reports.get(node)?.postgres;
  const position = postgres === undefined ? null : endOf(postgres);
  if (state === null || state.timeline === null || state.incarnation !== incarnation || postgres === undefined || position === null) return false;
  return !isContained(compareLineage(position, postgres.history, { timeline: state.timeline, history: state.history }));
}

/** Behind the primary's flushed WAL as both last reported it; null when one of them is unknown. */
function lagOf(facts: RouteFacts, node: NodeId): number | null {
  const primary = facts.state?.primary ?? null;
  const end = primary === null ? null : (facts.reports.get(primary)?.postgres.flushLsn ?? null);
  const replayed = facts.reports.get(node)?.postgres.replayedLsn ?? null;
  return end === null || replayed === null ? null : Math.max(0, bytesBetween({ from: replayed, to: end }));
}

/** Picks by weight; `roll` is a number in [0, 1). Null when there is no reader. */
export function pickReader(readers: readonly Reader[], roll: number): Reader | null {
  let total = 0;
  for (const reader of readers) total += reader.weight;
  let at = roll * total;
  for (const reader of readers) {
    at -= reader.weight;
    if (at < 0) return reader;
  }
  return readers.at(-1) ?? null;
}
