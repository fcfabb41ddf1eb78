/**
 * What an acknowledgement promises where commits wait for standbys. Looked at when the server says "done", not when the client hears it.
 *
 * I1 *Invariant:* once a node is open in a higher term, nobody acknowledges in a lower one. On the quorum path the old primary may still be writable for
 *    the rest of its lease (architecture 4.5); what it may not do is acknowledge a row that the newer primary lacks.
 * I4 *Invariant:* a row that was acknowledged while the published facts named voters is on every later primary, also after protection was lowered, unless
 *    a person gave it up.
 * I6 *Invariant:* with published facts a promotion is ordered only while more than |voters| − k voters are detached, unless a person accepted the loss; and a
 *    final position is the end of that member's WAL.
 * I7 *Invariant:* the published facts are true: what the primary acknowledges is durable on k of the voters, in the very directories that are meant.
 * I25 *Invariant:* once a cluster had as many copies as its settings never go below (k where strict, else minSync), what its primary acknowledges is durable on as many
 *    other nodes, whoever was lost (architecture 4.4).
 * I8 *Invariant:* a primary that was started again in its term is open only when k members of the set that it waits for hold what it recovered: rows that a
 *    crash released are visible to nobody before. (With the firewall; without it nobody can be kept out. A candidate that is promoted anew, since its opening was not
 *    recorded, opens with what it has, as every candidate does.)
 */
import { decodeShared } from '../../src/core/decode.ts';
import { nodeReport } from '../../src/core/report.ts';
import { nodeOfVoter, renderSyncNames } from '../../src/core/cluster/sync-set.ts';
import { durabilityOf } from '../../src/core/spec.ts';
import type { ClusterState } from '../../src/core/state.ts';
import type { Clients, Commit } from '../clients.ts';
import { setting } from '../model/postgres/core.ts';
import { NAMES } from '../model/postgres/sync-doors.ts';
import type { WalRecord } from '../model/postgres/wal.ts';
import { type World, nodeOf } from '../world/world.ts';
import { Violation } from './violation.ts';
import type { SettingChecks } from './settings.ts';
import type { WriterChecks } from './writers.ts';

export interface AcknowledgementChecks {
  /** Acknowledged under facts with voters. */
  isProtected(commit: number): boolean;
  /** Acknowledged while its server waited for whom somebody had named by hand. */
  isUnprotected(commit: number): boolean;
  /** A person gives up what the term's primary has not. */
  isLossAccepted(term: number): boolean;
  /** Each state that was written, in order. */
  takeState(state: ClusterState): Violation | null;
  /** Each report that was written while an attempt was open. */
  takeReport(text: string): void;
  /** The first acknowledgement that broke something; null: none. */
  broken(): Violation | null;
}

export function createAcknowledgementChecks(
  world: World,
  clients: Clients,
  { writers, settings }: { readonly writers: WriterChecks; readonly settings: SettingChecks },
): AcknowledgementChecks {
  const unprotected = new Set<number>();
  const guarded = new Set<number>();
  const accepted = new Set<number>();
  let ordered = 0;
  let attempted = 0;
  /** Newest term that was opened, or given to the old primary: who voted for it attached again, with its vote. */
  let settled = 0;
  /** Ordered to open the attempted term: what its WAL holds beyond its vote is its own. */
  let candidate: string | null = null;
  let broken: Violation | null = null;

  clients.onServed((commit, node) => {
    broken ??= check(commit, node);
  });

  function check(commit: Commit, node: string): Violation | null {
    if (writers.isExcepted(node)) return null;
    if (settings.isForeign(node)) {
      unprotected.add(commit.id);
      return null;
    }
    const newer = writers.supersededBy(node);
    if (newer !== null) {
      if (!isInherited(commit, newer))
        return new Violation('I1', `${node} acknowledged row ${commit.id} although ${newer.node} is open in a higher term`);
      guarded.add(commit.id);
    }
    const state = world.state();
    // What a restored store says is counted on only when the primary has confirmed it (architecture 4.10).
    if (state === null || state.incarnation !== world.store.incarnation()) return null;
    const few = state.primary === node ? checkFloor(commit, node, state.quorum.k) : null;
    if (few !== null) return few;
    if (state.quorum.k === 0 || state.primary !== node || state.quorum.term !== state.primaryTerm) return null;
    const holding = state.quorum.voters.filter((voter) => holds(voter, commit.id));
    if (holding.length < state.quorum.k) {
      const text = `${node} acknowledged row ${commit.id}, which ${holding.length} of (${state.quorum.voters.join(', ')}) hold; published: ${state.quorum.k} (revision ${state.quorum.revision})`;
      return new Violation('I7', text);
    }
    guarded.add(commit.id);
    return null;
  }

  /** It was reached once: a new cluster has no standby yet. */
  let hadFloor = false;

  function checkFloor(commit: Commit, node: string, published: number): Violation | null {
    const { mode, strict, k, minSync } = durabilityOf(world.settings());
    const floor = mode === 'async' ? 0 : strict ? k : minSync;
    hadFloor ||= published >= floor;
    if (floor === 0 || !hadFloor) return null;
    const copies = world.dataNodes.filter((other) => other.name !== node && other.database?.hasDurably(commit.id) === true).length;
    const text = `${node} acknowledged row ${commit.id}, which ${copies} others hold, and ${floor} are asked for ${strict ? 'strictly' : 'at the least'}`;
    return copies >= floor ? null : new Violation('I25', text);
  }

  /**
   * *Invariant:* whatever an old primary still acknowledges beside one of the quorum path was there before that one opened. *Because:* detached voters
   * answer nothing beyond their final position, and the most advanced of them is promoted; but what they had answered before may reach the walsender
   * later than the newer primary opens (a slow network, a process that stood still), and PostgreSQL counts it (test/sim/contract/facts.ts, decision 15).
   * A row of the old primary can be in the newer one's WAL only below the fork.
   */
  function isInherited(commit: Commit, newer: { readonly node: string; readonly byQuorum: boolean }): boolean {
    return newer.byQuorum && nodeOf(world, newer.node).database?.hasDurably(commit.id) === true;
  }

  /** The server and the term in which a node was open last. */
  const opened = new Map<string, { readonly run: unknown; readonly term: number; readonly timeline: number }>();
  writers.onOpen((node) => {
    const { database } = node;
    const term = node.guard.armed()?.term ?? 0;
    const run = database?.server.core.run ?? null;
    if (database === null || run === null) return;
    const before = opened.get(node.name);
    const timeline = database.server.disk.directory?.timeline.tli ?? 0;
    opened.set(node.name, { run, term, timeline });
    // Noted all the same: a server that stands still for a moment long after is not opened anew by that.
    if (writers.isExcepted(node.name) || settings.isForeign(node.name)) return;
    // Without the firewall nobody can be kept out, and the product says so.
    if (world.shape.firewall === 'off' || before === undefined || before.run === run) return;
    if (term === 0 || before.term !== term || before.timeline !== timeline) return;
    const quorum = node.agent()?.knowledge().state?.quorum ?? null;
    if (quorum === null || quorum.wanted.k === 0) return;
    const last = lastCommit(run.inserted);
    if (last === null) return;
    const { wanted, mayStand } = quorum;
    const holding = wanted.members.filter((voter) => holds(voter, last));
    // Another set may be asked for between the order to open and the opening: the one that the server waits for by then still stands.
    const loaded = setting(run.loaded, NAMES);
    const stands = mayStand.find((set) => set.k > 0 && renderSyncNames(set) === loaded);
    const isHeld = stands !== undefined && stands.members.filter((voter) => holds(voter, last)).length >= stands.k;
    if (holding.length < wanted.k && !isHeld)
      broken ??= new Violation(
        'I8',
        `${node.name} opened after a crash with row ${last}, which ${holding.length} of (${wanted.members.join(', ')}) hold`,
      );
  });

  function holds(voter: string, commit: number): boolean {
    const name = nodeOfVoter(voter);
    const database = name === null ? null : nodeOf(world, name).database;
    const directory = database?.server.disk.directory ?? null;
    return database !== null && directory !== null && `${name}.${directory.incarnation ?? ''}` === voter && database.hasDurably(commit);
  }

  function takeState({ attempt, quorum, primary, primaryTerm }: ClusterState): Violation | null {
    candidate = attempt?.phase === 'promote' ? attempt.candidate : null;
    // When the old primary is to open the term where it is, who voted attaches to it again.
    if (attempt !== null && candidate !== null && candidate === primary) settled = Math.max(settled, attempt.term);
    settled = Math.max(settled, primaryTerm);
    // A backup can bring back an attempt for a term that was settled since. It is none: a term is opened once (I3, architecture 4.10).
    attempted = attempt === null || attempt.term <= settled ? 0 : attempt.term;
    if (attempt === null) {
      votes.clear();
      return null;
    }
    if (attempt.acceptLoss) accepted.add(attempt.term);
    if (attempt.path === 'quorum') writers.openedByQuorum(attempt.term);
    // Nor is the order of such a term a new one: nobody follows it.
    if (attempt.phase !== 'promote' || attempt.term <= ordered) return null;
    ordered = attempt.term;
    const incomplete = attempt.candidate === null ? null : (nodeOf(world, attempt.candidate).database?.server.disk.incomplete ?? null);
    if (incomplete !== null)
      return new Violation('I13', `${attempt.candidate} is promoted for term ${attempt.term} with an incomplete ${incomplete}`);
    // The old primary itself has every row; a planned change waits until the next one has its last record.
    if (attempt.acceptLoss || attempt.path === 'planned' || quorum.k === 0 || attempt.candidate === primary) return null;
    const detached = quorum.voters.filter((voter) => isDetached(voter, attempt.term));
    if (detached.length > quorum.voters.length - quorum.k) return null;
    const text = `${attempt.candidate ?? 'nobody'} is promoted for term ${attempt.term} although only ${detached.length} are detached of (${quorum.voters.join(', ')}), ${quorum.k} of which acknowledge`;
    return new Violation('I6', text);
  }

  /** Final votes that were reported since the last promotion: a report may vanish before the decision that rested on it is written. */
  const votes = new Set<string>();

  function takeReport(text: string): void {
    const report = decodeShared(nodeReport, text);
    if (!report.ok || report.value.vote === null || !report.value.vote.final) return;
    votes.add(`${report.value.node}.${report.value.postgres.incarnation ?? ''} ${report.value.vote.term}`);
    broken ??= checkPosition(report.value.node, report.value.vote);
  }

  /** *Invariant:* a final position is the end of what is there, and stays it while its term is attempted (architecture 4.5). */
  function checkPosition(
    node: string,
    { term, position }: { readonly term: number; readonly position: { readonly lsn: bigint } | null },
  ): Violation | null {
    const server = nodeOf(world, node).database?.server ?? null;
    const end = server?.disk.directory?.end ?? null;
    if (
      position === null ||
      end === null ||
      term !== attempted ||
      node === candidate ||
      server?.core.run?.role !== 'standby' ||
      writers.wasPromotedByHand(node)
    )
      return null;
    if (BigInt(end.lsn) <= position.lsn) return null;
    return new Violation(
      'I6',
      `${node} voted for term ${term} with the final position ${position.lsn.toString(16)} and holds WAL up to ${end.lsn.toString(16)}`,
    );
  }

  /** It said so by a final vote, and it is so: nothing streams to it. */
  function isDetached(voter: string, term: number): boolean {
    const name = nodeOfVoter(voter);
    const link = name === null ? null : (nodeOf(world, name).database?.server.core.run?.receiver?.link ?? null);
    return votes.has(`${voter} ${term}`) && (link === null || link.receiverGone);
  }

  return {
    isUnprotected: (commit) => unprotected.has(commit),
    isProtected: (commit) => guarded.has(commit),
    isLossAccepted: (term) => accepted.has(term),
    takeState,
    takeReport,
    broken: () => broken,
  };
}

function lastCommit(end: WalRecord): number | null {
  let at: WalRecord | null = end;
  while (at !== null && at.commit === null) at = at.prev;
  return at?.commit ?? null;
}
