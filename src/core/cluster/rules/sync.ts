/** The synchronous set follows who is alive and caught up, one step at a time (architecture 4.4). */
import { durabilityOf } from '../../spec.ts';
import type { Now } from '../../ids.ts';
import type { ClusterState } from '../../state.ts';
import type { ClusterView, Rule } from '../../view.ts';
import { type Assessment, assessedRules } from '../assessed-rules.ts';
import { isOfThisStore, live } from '../observe.ts';
import { type InForce, type SyncMove, type SyncProgress, NO_SET, nextSyncMove, renderSyncNames, sameFacts, sameSet } from '../sync-set.ts';
import { type SyncWish, wishedSet } from '../sync-wish.ts';

/**
 * *Invariant:* the facts of a term are frozen while another one is attempted or planned. *Because:* detaching for a vote looks like the loss of a standby,
 * and lowering the set for it would let the old primary acknowledge what the voters no longer receive. A restored store that is not confirmed may have forgotten
 * such an attempt. *Broken if:* the set follows while votes are, or may be, asked.
 */
function isQuiet(view: ClusterView): boolean {
  const { state } = view;
  return isOfThisStore(view) && state.phase === 'running' && state.attempt === null && state.switchover === null && state.frozen === null;
}

function assess(view: ClusterView, now: Now): Assessment | null {
  if (!isQuiet(view)) return null;
  const wish = wishedSet(view, now);
  if (wish === null) return null;
  const { quorum } = view.state;
  const forgotten = republish(view);
  if (forgotten !== null) return forgotten;
  const progress = progressOf(quorum);
  const move = nextSyncMove(progress, wish.set, inForce(view));
  if (move.kind !== 'none') return moved(view, now, progress, move, wish);
  return settleFloor(view) ?? settleLowered(view, now, wish);
}

export function progressOf(quorum: ClusterState['quorum']): SyncProgress {
  return {
    facts: { k: quorum.k, voters: quorum.voters },
    wanted: quorum.wanted,
    mayStand: quorum.mayStand.length === 0 ? [quorum.wanted] : quorum.mayStand,
  };
}

/**
 * The primary's agent acts on a newer order than the state knows: the store was set back. Agents follow rising orders only, so the wanted set is asked
 * anew above it; what is promised is not known until it is in force.
 */
function republish(view: ClusterView): Assessment | null {
  const { primary, primaryTerm, quorum } = view.state;
  const report = primary === null ? null : live(view, primary);
  if (report?.sync == null || report.leaseTerm !== primaryTerm || report.sync.revision <= quorum.revision) return null;
  const revision = report.sync.revision + 1;
  const why = `${primary} acts on a newer order than the store knows; the set is asked for anew`;
  const next = {
    ...quorum,
    revision,
    wantedRevision: revision,
    k: 0,
    voters: [],
    mayStand: [NO_SET, quorum.wanted],
    lowered: null,
    floorPending: true,
  };
  return {
    rule: 'sync.changed',
    outcome: { why, state: { ...view.state, quorum: next }, events: [{ level: 'warn', node: primary, text: why, detail: {} }], then: 'continue' },
  };
}

/** The agent's word that the wanted set is in force, and which members hold all WAL of that moment. */
function inForce(view: ClusterView): InForce | null {
  const { primary, quorum } = view.state;
  const report = primary === null ? null : live(view, primary);
  if (report?.sync == null || report.sync.revision !== quorum.wantedRevision || report.leaseTerm !== view.state.primaryTerm) return null;
  const { inForceLsn } = report.sync;
  if (inForceLsn === null) return null;
  const caughtUp = report.postgres.walsenders.flatMap((one) =>
    one.voter !== null && one.flushLsn !== null && one.flushLsn >= inForceLsn ? [one.voter] : [],
  );
  return { caughtUp };
}

function moved(view: ClusterView, now: Now, before: SyncProgress, move: Exclude<SyncMove, { kind: 'none' }>, wish: SyncWish): Assessment {
  const { quorum } = view.state;
  const revision = quorum.revision + 1;
  const { facts, wanted, mayStand } = move.progress;
  const asked = move.kind === 'ask';
  const next: ClusterState['quorum'] = {
    ...quorum,
    revision,
    k: facts.k,
    voters: facts.voters,
    wanted,
    mayStand,
    floorPending: quorum.floorPending || (asked && wanted.k === 0 && before.mayStand.some((set) => set.k > 0)),
    wantedRevision: asked ? revision : quorum.wantedRevision,
    lowered: loweredAfter(quorum, now, { facts: facts.k, wanted: wanted.k, wish, asked: durabilityOf(view.spec).k }),
  };
  const state = { ...view.state, quorum: next };
  const primary = view.state.primary;
  if (!asked) {
    const why =
      facts.k === 0 ? 'commits are on the primary only' : `each commit is on ${facts.k} of ${facts.voters.map(short).join(', ')} besides ${primary}`;
    return { rule: 'sync.established', outcome: { why, state, events: [{ level: 'info', node: primary, text: why, detail: {} }], then: 'continue' } };
  }
  const names = renderSyncNames(wanted);
  const lowers = wanted.k < before.wanted.k;
  const raises = wanted.k > before.wanted.k;
  const id = lowers ? 'sync.lowered' : raises ? 'sync.raised' : sameSet(wanted, NO_SET) ? 'sync.lowered' : 'sync.changed';
  const why = lowers
    ? `${primary} waits for ${wanted.k} instead of ${before.wanted.k} standbys: ${wish.lowered ?? 'as the settings ask'}`
    : `${primary} waits for ${names}${sameFacts(facts, before.facts) ? '' : '; until it is in force less is promised'}`;
  const level = lowers && wish.lowered !== null ? ('error' as const) : ('info' as const);
  const detail = { names, k: String(facts.k), voters: facts.voters.join(' ') };
  return { rule: id, outcome: { why, state, events: [{ level, node: primary, text: why, detail }], then: 'continue' } };
}

function short(voter: string): string {
  return voter.split('.')[0] ?? voter;
}

/** Lowered while the set waits for fewer than asked; over only when the facts say that the asked number is reached. */
function loweredAfter(
  quorum: ClusterState['quorum'],
  now: Now,
  at: { readonly facts: number; readonly wanted: number; readonly wish: SyncWish; readonly asked: number },
): ClusterState['quorum']['lowered'] {
  const reason = at.wish.lowered;
  if (reason !== null && at.wanted < at.asked) return { sinceWallMs: quorum.lowered?.sinceWallMs ?? now.wall, reason };
  return quorum.lowered !== null && at.facts >= at.asked ? null : quorum.lowered;
}

/** Nobody is waited for any more, in every process: what standbys acknowledged lies before this moment. With facts the floor means nothing. */
function settleFloor(view: ClusterView): Assessment | null {
  const { quorum, primary } = view.state;
  const report = primary === null ? null : live(view, primary);
  if (!quorum.floorPending || report?.sync == null || report.sync.revision !== quorum.wantedRevision) return null;
  const { inForceLsn } = report.sync;
  const { timeline } = report.postgres;
  if (quorum.k === 0 && (quorum.wanted.k > 0 || inForceLsn === null || timeline === null)) return null;
  const floor = quorum.k > 0 || inForceLsn === null || timeline === null ? quorum.floor : { timeline, lsn: inForceLsn };
  const state = { ...view.state, quorum: { ...quorum, floor, floorPending: false } };
  return { rule: 'sync.established', outcome: { why: 'what standbys acknowledged is known to lie before this position', state, then: 'continue' } };
}

/** No step is left, but what is said of the protection is not what is. */
function settleLowered(view: ClusterView, now: Now, wish: SyncWish): Assessment | null {
  const { quorum } = view.state;
  const asked = durabilityOf(view.spec).mode === 'async' ? 0 : durabilityOf(view.spec).k;
  const lowered =
    asked === 0 || quorum.k >= asked
      ? null
      : wish.lowered === null || quorum.wanted.k >= asked
        ? quorum.lowered
        : { sinceWallMs: quorum.lowered?.sinceWallMs ?? now.wall, reason: wish.lowered };
  if (lowered?.reason === quorum.lowered?.reason) return null;
  const state = { ...view.state, quorum: { ...quorum, lowered } };
  if (lowered === null) return { rule: 'sync.established', outcome: { why: 'the protection is as asked', state, then: 'continue' } };
  const first = quorum.lowered === null;
  return {
    rule: 'sync.lowered',
    outcome: {
      why: `less is promised than asked: ${lowered.reason}`,
      state,
      events: first ? [{ level: 'warn', node: view.state.primary, text: `less is promised than asked: ${lowered.reason}`, detail: {} }] : [],
      then: 'continue',
    },
  };
}

const rule = assessedRules(assess);

export const syncRules: readonly Rule[] = [
  rule(
    'sync.lowered',
    'fewer standbys acknowledge than the set waits for, and `durability` may be lowered so far',
    'Writes must not wait for a standby that is gone unless somebody asked for exactly that; since when and why is shown until it is over (H34, H35, Q8, S28).',
  ),
  rule(
    'sync.raised',
    'enough standbys acknowledge again, some seconds after the protection was lowered',
    'It comes back by itself (S44); the facts say so only when the standbys hold what was written meanwhile.',
  ),
  rule(
    'sync.changed',
    'a standby joined or left the set',
    'One member at a time; weaker facts are in the same write as the weaker set, stronger ones only after it is in force (Z55, Z56, I7).',
  ),
  rule(
    'sync.established',
    'the set is in force in every process, and its members hold all WAL of that moment',
    'Only then the stronger facts are true, and a failover may rest on them (Q33, I4).',
  ),
];
