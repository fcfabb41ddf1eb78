/**
 * What the store is told, looked at with every commit.
 *
 * I3 *Invariant:* terms rise; a term is held by one node, and opened once.
 * I5 *Invariant:* a row that a client was told of is on every later primary, or its loss was said: a term whose record says "0 bytes lost" lost nothing.
 * I14 *Invariant:* the write lease of a new term goes only to a node that was ordered to open it, and never to one in maintenance.
 * I22 *Invariant:* what the controller leaves in the store is bounded.
 */
import { decodeJson } from '../../src/core/decode.ts';
import { type ClusterState, type TermRecord, clusterState, termRecord, writeLease } from '../../src/core/state.ts';
import type { WatchBatch } from '../../src/store/store.ts';
import type { Clients, Commit } from '../clients.ts';
import { type World, nodeOf } from '../world/world.ts';
import type { AcknowledgementChecks } from './acknowledgements.ts';
import { createCandidateChecks } from './candidates.ts';
import { createFailoverChecks } from './failovers.ts';
import { Violation } from './violation.ts';
import type { WriterChecks } from './writers.ts';

export interface RecordChecks {
  /** Rows whose loss was said. */
  readonly lost: ReadonlySet<number>;
  /** Its loss was said, or it is of a server for which the product promises nothing. */
  isGivenUp(row: number): boolean;
  /** Throws what a commit broke; commits are announced in the middle of a step. */
  raise(): void;
  /** At the end: every row that was told is on the primary, or its loss was said; no writable node answered without one. */
  finish(primary: string): void;
  /** Another store stands in the place of the one that was told everything so far. */
  storeReplaced(): void;
  readonly promotions: readonly { readonly term: number; readonly node: string; readonly at: number; readonly lostBytes: number | null }[];
}

const HOLDERS = new Set(['create', 'adopt', 'primary', 'promote', 'handover']);
const MAX_STATE_BYTES = 64 * 1024;
const MAX_EVENTS = 1000 + 200;
const REPORT = '/report';

export function createRecordChecks(
  world: World,
  clients: Clients,
  { writers, acknowledgements }: { readonly writers: WriterChecks; readonly acknowledgements: AcknowledgementChecks },
): RecordChecks {
  const { isExcepted } = writers;
  const { keys, store } = world;
  const lost = new Set<number>();
  const holders = new Map<number, string>();
  const opened = new Map<number, string>();
  /** What each term had not when it opened. */
  const missedAt = new Map<number, readonly Commit[]>();
  const promotions: { term: number; node: string; at: number; lostBytes: number | null }[] = [];
  let term = 0;
  let broken: Violation | null = null;
  let state: ClusterState | null = null;
  let events = 0;

  const checkCandidate = createCandidateChecks(world, writers);
  const failovers = createFailoverChecks(world);

  const fail = (invariant: string, message: string): void => {
    broken ??= new Violation(invariant, message);
  };

  /** *Invariant* I3 is one of a store's own record: a restored one knows older terms. Who held and opened each stays known here. */
  function forgetState(): void {
    state = null;
    term = 0;
  }

  /** Older files have a state of their own, which nobody writes anew. */
  function takeStore(): void {
    state = world.state();
    term = state?.term ?? 0;
  }

  function takeState(text: string): void {
    if (text.length > MAX_STATE_BYTES) fail('I22', `the state has ${text.length} bytes`);
    const decoded = decodeJson(clusterState, text);
    if (!decoded.ok) {
      fail('I20', 'the controller wrote a state that cannot be read');
      return;
    }
    const before = state;
    state = decoded.value;
    checkChoice(state);
    broken ??= failovers.takeState(before, state);
    broken ??= acknowledgements.takeState(state);
    broken ??= checkCandidate(state);
    if (state.term < term) fail('I3', `the term went back from ${term} to ${state.term}`);
    term = Math.max(term, state.term);
  }

  /** Among the positions that the order rested on, nobody is ahead of the one that was chosen; a person may name another, or give rows up. */
  function checkChoice({ attempt }: ClusterState): void {
    if (attempt === null || attempt.phase !== 'promote' || attempt.candidate === null || attempt.target !== null || attempt.acceptLoss) return;
    const chosen = attempt.positions[attempt.candidate];
    if (chosen === undefined) return;
    for (const [node, position] of Object.entries(attempt.positions)) {
      const ahead = position.timeline > chosen.timeline || (position.timeline === chosen.timeline && position.lsn > chosen.lsn);
      if (ahead) fail('I5', `${attempt.candidate} was chosen for term ${attempt.term} although ${node} is ahead`);
    }
  }

  function takeLease(text: string): void {
    const decoded = decodeJson(writeLease, text);
    if (!decoded.ok) return;
    const { holder } = decoded.value;
    const former = holders.get(decoded.value.term);
    if (former !== undefined && former !== holder) fail('I3', `term ${decoded.value.term} was held by ${former} and is held by ${holder}`);
    holders.set(decoded.value.term, holder);
    const goal = state?.goals[holder];
    if (goal === undefined || goal.term !== decoded.value.term || !HOLDERS.has(goal.kind))
      fail('I14', `${holder} took the write lease of term ${decoded.value.term} with the goal ${goal?.kind ?? 'none'} of term ${goal?.term ?? 0}`);
    if (state?.overrides[holder]?.kind === 'maintenance') fail('I14', `${holder} is in maintenance and took the write lease`);
  }

  function takeTerm(text: string): void {
    const decoded = decodeJson(termRecord, text);
    if (!decoded.ok) return;
    const record = decoded.value;
    const former = opened.get(record.term);
    if (former !== undefined && former !== record.primary) fail('I3', `term ${record.term} was opened by ${former} and by ${record.primary}`);
    if (former !== undefined) {
      checkLateLoss(record);
      return;
    }
    opened.set(record.term, record.primary);
    promotions.push({ term: record.term, node: record.primary, at: world.clock.now(), lostBytes: record.lostBytes });
    // It may have crashed again before its opening was noted: what counts is its WAL.
    const missing = missingAt(record.primary, 'in its WAL');
    if (missing.length > 0 && record.lostBytes === 0)
      fail('I5', `term ${record.term} says that nothing was lost, and ${record.primary} has not ${describe(missing)}`);
    missedAt.set(record.term, missing);
    giveUp(record, missing);
  }

  /** What was not known at the opening is said when the old primary is back: nothing lost is not said of rows that clients had. */
  function checkLateLoss(record: TermRecord): void {
    const promotion = promotions.find((one) => one.term === record.term);
    if (promotion === undefined || promotion.lostBytes !== null || record.lostBytes !== 0) return;
    const gone = missedAt.get(record.term) ?? [];
    if (gone.length > 0) fail('I5', `term ${record.term} says after a while that nothing was lost, and ${record.primary} had not ${describe(gone)}`);
  }

  function giveUp(record: { readonly term: number; readonly primary: string }, missing: readonly Commit[]): void {
    const given = missing.filter((commit) => acknowledgements.isProtected(commit.id));
    if (given.length > 0 && !acknowledgements.isLossAccepted(record.term))
      fail('I4', `term ${record.term} was opened by ${record.primary} without ${describe(given)}, which standbys had acknowledged`);
    for (const commit of missing) lost.add(commit.id);
  }

  /** The answer of an old primary that was still on its way when a term was opened: what that term says of its loss holds for it too. */
  function takeLateAnswer(commit: Commit): void {
    const { servedAt } = commit;
    const present = promotions.at(-1);
    if (servedAt === null || present === undefined || servedAt >= present.at || nodeOf(world, present.node).database?.holds(commit.id) !== false)
      return;
    const told = promotions.findLast((promotion) => promotion.at > servedAt && promotion.lostBytes !== 0);
    if (told !== undefined) giveUp({ term: told.term, primary: told.node }, [commit]);
  }

  /** Told to a client, and not there; what was lost before is not counted again. */
  function missingAt(node: string, where: 'visible' | 'in its WAL'): readonly Commit[] {
    const { database } = nodeOf(world, node);
    if (database === null) return [];
    const has = where === 'visible' ? database.has : database.holds;
    return clients.acknowledged.filter((commit) => !lost.has(commit.id) && !excused.has(commit.id) && !has(commit.id));
  }

  // Rows and answers of a server for which the product promises nothing (see writers.ts).
  const excused = new Set<number>();
  const staleReads: { readonly wanted: number; readonly text: string }[] = [];
  clients.onAcknowledged((commit) => {
    if (acknowledgements.isUnprotected(commit.id) || (commit.acknowledged !== null && isExcepted(commit.acknowledged.node))) excused.add(commit.id);
    takeLateAnswer(commit);
  });
  const promisesNothing = (node: string): boolean => isExcepted(node) || writers.supersededBy(node) !== null;
  clients.onRead((read) => {
    if (read.role !== 'primary' || read.found || read.excepted || promisesNothing(read.node)) return;
    staleReads.push({
      wanted: read.wanted,
      text: `at ${Math.round(read.at)} ms ${read.node} answered as the primary without row ${read.wanted}, which was not lost`,
    });
  }, promisesNothing);

  store.onCommit((batch: WatchBatch) => {
    for (const event of batch.events) {
      if (event.kind === 'delete') {
        if (event.key.startsWith(keys.events)) events--;
        if (event.key === keys.state) forgetState();
        continue;
      }
      const { key, value } = event.kv;
      if (key === keys.state) takeState(value);
      else if (key === keys.writeLease) takeLease(value);
      else if (key.startsWith(keys.history)) takeTerm(value);
      else if (key.startsWith(keys.events)) events++;
      else if (key.startsWith(keys.nodes) && key.endsWith(REPORT)) {
        failovers.takeReport(key.slice(keys.nodes.length, -REPORT.length), value);
        if (state !== null && state.attempt !== null) acknowledgements.takeReport(value);
      }
    }
    if (events > MAX_EVENTS) fail('I22', `${events} events are kept`);
  });

  return {
    lost,
    isGivenUp: (row) => lost.has(row) || excused.has(row),
    promotions,
    storeReplaced: () => {
      takeStore();
      failovers.forget();
      events = 0;
    },
    raise: () => {
      broken ??= acknowledgements.broken();
      if (broken !== null) throw broken;
    },
    finish: (primary) => {
      const missing = missingAt(primary, 'visible');
      if (missing.length > 0) throw new Violation('I5', `${primary} has not ${describe(missing)}, and no term says that anything was lost`);
      for (const read of staleReads) if (!lost.has(read.wanted) && !excused.has(read.wanted)) throw new Violation('I1', read.text);
    },
  };
}

function describe(missing: readonly Commit[]): string {
  const first = missing[0] as Commit;
  return `${missing.length} acknowledged rows (first: ${first.id}, at ${Math.round(first.acknowledged?.at ?? 0)} ms by ${first.acknowledged?.node ?? '?'})`;
}
