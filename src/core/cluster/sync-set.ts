/**
 * The algebra of synchronous sets and published facts. Pure.
 *
 * A *set* (method, k, members) is what the primary's PostgreSQL waits for: a commit is acknowledged once k of the members have flushed it.
 * The *facts* (k, voters) are a claim about the past: every acknowledged commit is on the primary and on at least k of the voters.
 * A *voter* is a standby with its data directory: `NODE.INCARNATION`, which is also its application_name (Z58).
 *
 * *Invariant:* the published facts are true at every moment, whatever step was the last one that was carried out.
 * *Because:* `implies(a, b)` says that a commit on a.k of a.members is on at least b.k of b.members, since at most |a.members − b.members| of its copies
 *   lie outside of b; facts are made weaker in the write that asks for a weaker set, to facts that every mixture of the sets implies that may still be in force; they are
 *   made stronger only when one set alone can be in force and k of its members hold all WAL of that moment.
 * *Broken if:* a set is dropped from `mayStand` because the file was written, or because `SHOW` has the new text: each walsender acts on its own copy.
 */
import { type NodeId, parseNodeId } from '../ids.ts';
import type { Facts, SyncSet } from '../state.ts';

export const NO_SET: SyncSet = { method: 'any', k: 0, members: [] };
export const NO_FACTS: Facts = { k: 0, voters: [] };

/** Stands in a set that waits for a standby that is not there yet. It is no voter's name (those hold a dot), so nobody can answer for it. */
const NOBODY = 'pgherd_nobody';

export function voterName(node: NodeId, incarnation: string): string {
  return `${node}.${incarnation}`;
}

/** Null for a text that is no voter. */
export function nodeOfVoter(voter: string): NodeId | null {
  const [node = '', incarnation] = voter.split('.');
  return incarnation === undefined || incarnation === '' ? null : parseNodeId(node);
}

/**
 * The value of synchronous_standby_names. Always quoted and with a method, since an unquoted dash or upper case letter switches the setting off (Z54).
 * Empty for k = 0. *Source:* PostgreSQL manual 20.6.2, syncrep_gram.y.
 */
export function renderSyncNames(set: SyncSet): string {
  if (set.k === 0) return '';
  const names = set.members.length === 0 ? [NOBODY] : set.members;
  return `${set.method === 'any' ? 'ANY' : 'FIRST'} ${set.k} (${names.map((name) => `"${name.replaceAll('"', '""')}"`).join(', ')})`;
}

/** True when every commit that is on `a.k` of `a.members` is on at least `b.k` of `b.voters`. */
export function implies(a: { readonly k: number; readonly members: readonly string[] }, b: Facts): boolean {
  const inside = new Set(b.voters);
  const outside = a.members.filter((member) => !inside.has(member)).length;
  return b.k <= Math.max(0, a.k - outside);
}

/** What is waited for at the least while some processes act on one of the sets and some on another: each counts by its own k, and who counts is the others' word. */
export function mixtureOf(sets: readonly SyncSet[]): { readonly k: number; readonly members: readonly string[] } {
  return { k: Math.min(...sets.map((set) => set.k)), members: union(...sets.map((set) => set.members)) };
}

/** The strongest facts that the present ones and any mixture of the sets imply, over the union of their members. */
export function coveringFacts(facts: Facts, sets: readonly SyncSet[]): Facts {
  const mixture = mixtureOf(sets);
  const k = Math.min(facts.k, mixture.k);
  return k === 0 ? NO_FACTS : { k, voters: union(facts.voters, mixture.members) };
}

function union(...lists: readonly (readonly string[])[]): readonly string[] {
  return [...new Set(lists.flat())];
}

export function sameSet(a: SyncSet, b: SyncSet): boolean {
  if (a.k === 0 && b.k === 0) return true;
  if (a.method !== b.method || a.k !== b.k || a.members.length !== b.members.length) return false;
  return a.method === 'first' ? a.members.every((member, index) => member === b.members[index]) : a.members.every((one) => b.members.includes(one));
}

export function sameFacts(a: Facts, b: Facts): boolean {
  return a.k === b.k && a.voters.length === b.voters.length && a.voters.every((voter) => b.voters.includes(voter));
}

/** One step from a set towards another: a member more, then another k, then the order, then a member less. The same object when there is none left. */
export function stepTowards(from: SyncSet, to: SyncSet): SyncSet {
  if (sameSet(from, to)) return from;
  if (to.k === 0) return NO_SET;
  if (from.k === 0) return to;
  const missing = to.members.find((member) => !from.members.includes(member));
  if (missing !== undefined) return { ...from, members: [...from.members, missing] };
  if (from.k !== to.k) return { ...from, k: to.k };
  const extra = from.members.filter((member) => !to.members.includes(member));
  const ordered: SyncSet = { method: to.method, k: from.k, members: [...to.members, ...extra] };
  if (!sameSet(from, ordered)) return ordered;
  const [gone] = extra;
  return { ...from, members: from.members.filter((member) => member !== gone) };
}

/** What the controller has published and asked for. */
export interface SyncProgress {
  readonly facts: Facts;
  readonly wanted: SyncSet;
  /** Every set that a process of the primary may still act on; `wanted` is one of them. */
  readonly mayStand: readonly SyncSet[];
}

/** The primary's agent found `wanted` in force in every process, and these members hold all WAL of that moment. */
export interface InForce {
  readonly caughtUp: readonly string[];
}

export type SyncMove =
  | { readonly kind: 'none' }
  /** Asked at once with weaker facts, or with facts that hold as they are. */
  | { readonly kind: 'ask'; readonly progress: SyncProgress }
  /** Nothing is asked; the facts become what is in force. */
  | { readonly kind: 'strengthen'; readonly progress: SyncProgress };

/** Sets that may be in force at once without a word from the agent; more are not asked for. */
const MAX_UNCONFIRMED = 6;

/**
 * The next move towards `desired`; every prefix of the moves keeps the invariant of this file.
 * Without a confirmation only moves that let writes go on are made (a member more, a smaller k); removals and a larger k wait for it.
 */
export function nextSyncMove(now: SyncProgress, desired: SyncSet, inForce: InForce | null): SyncMove {
  const settled: SyncProgress = inForce === null ? now : { ...now, mayStand: [now.wanted] };
  if (inForce !== null) {
    const { wanted } = now;
    const stronger: Facts = wanted.k === 0 ? NO_FACTS : { k: wanted.k, voters: wanted.members };
    const holding = wanted.members.filter((member) => inForce.caughtUp.includes(member)).length;
    if (!sameFacts(now.facts, stronger) && (wanted.k === 0 || (wanted.members.length >= wanted.k && holding >= wanted.k)))
      return { kind: 'strengthen', progress: { ...settled, facts: stronger } };
  }
  const next = stepTowards(now.wanted, desired);
  if (next === now.wanted) return { kind: 'none' };
  const letsWritesGoOn = next.k < now.wanted.k || next.members.length > now.wanted.members.length;
  if (inForce === null && (!letsWritesGoOn || now.mayStand.length >= MAX_UNCONFIRMED)) return { kind: 'none' };
  const mayStand = [...settled.mayStand.filter((set) => !sameSet(set, next)), next];
  const facts = implies(mixtureOf(mayStand), now.facts) ? now.facts : coveringFacts(now.facts, mayStand);
  return { kind: 'ask', progress: { facts, wanted: next, mayStand } };
}

/** True when the facts hold whatever mixture of the sets is in force. */
export function isSound(progress: SyncProgress): boolean {
  return implies(mixtureOf(progress.mayStand), progress.facts) && progress.mayStand.some((set) => sameSet(set, progress.wanted));
}

export interface QuorumCount {
  /** Detached voters that a promotion needs: |voters| − k + 1; more than there are when k = 0. */
  readonly needed: number;
  readonly have: readonly string[];
  readonly missing: readonly string[];
  readonly enough: boolean;
}

/**
 * *Invariant:* the most advanced of `needed` detached voters holds every commit that was or will be acknowledged by the old primary.
 * *Because:* an acknowledged commit is on k voters, and any |voters| − k + 1 of them share a member with any k of them; with so many detached fewer than k
 *   are left to acknowledge more than the others had confirmed before. *Broken if:* a rebuilt data directory counted as the voter that it replaced: that is
 *   why voters have an incarnation.
 */
export function countQuorum(facts: Facts, detached: readonly string[]): QuorumCount {
  const needed = facts.voters.length - facts.k + 1;
  const have = facts.voters.filter((voter) => detached.includes(voter));
  return { needed, have, missing: facts.voters.filter((voter) => !have.includes(voter)), enough: facts.k > 0 && have.length >= needed };
}
