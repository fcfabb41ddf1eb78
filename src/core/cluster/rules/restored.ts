/**
 * A store that is not the one in which the state was decided, or that has forgotten terms (architecture 4.10). What it forgot is learned from the
 * agents, which never forget a term; until then nobody becomes a primary by its word: agents take no lease, and no attempt goes on.
 */
import { type NodeId, type Term, makeTerm } from '../../ids.ts';
import type { NodeReport } from '../../report.ts';
import { findNode } from '../../spec.ts';
import type { Attempt } from '../../state.ts';
import type { ClusterView, Rule } from '../../view.ts';
import { PLAIN_ATTEMPT, openTerm } from '../attempts.ts';
import { isForeignSystem, isOpen, live } from '../observe.ts';

/** The newest term that a member which can be heard ever saw; 0 when none. */
function newestKnown(view: ClusterView): Term {
  let newest = 0;
  for (const node of view.spec.nodes) {
    const report = live(view, node.id);
    newest = Math.max(newest, report?.highestTerm ?? 0, report?.vote?.term ?? 0, report?.leaseTerm ?? 0);
  }
  return makeTerm(newest);
}

/** A member that is open in a term of which the state knows nothing; null when there is none, or when an attempt for that term or a newer one is open. */
function openInUnknownTerm(view: ClusterView): { readonly report: NodeReport; readonly term: Term } | null {
  const { state } = view;
  // Before the first opening the bootstrap's own rules take it from there.
  if (state.primary === null) return null;
  let found: { readonly report: NodeReport; readonly term: Term } | null = null;
  for (const node of view.spec.nodes) {
    const report = live(view, node.id);
    const term = report?.leaseTerm ?? null;
    if (report === null || term === null || term <= state.primaryTerm || !isOpen(report, term) || isForeignSystem(view, report)) continue;
    if (state.attempt !== null && state.attempt.term >= term) continue;
    if (found === null || term > found.term) found = { report, term };
  }
  return found;
}

/** Everybody can be heard and nobody knows a term that the state does not know as opened. */
function nobodyKnowsMore(view: ClusterView): boolean {
  return view.spec.nodes.every((node) => live(view, node.id) !== null) && newestKnown(view) <= view.state.primaryTerm;
}

function isPrimaryOpen(view: ClusterView, primary: NodeId | null): boolean {
  return primary !== null && isOpen(live(view, primary), view.state.primaryTerm);
}

export const restoredRules: readonly Rule[] = [
  {
    id: 'housekeeping.republished',
    when: 'a member is open in a newer term than the state knows, and no attempt for it is open',
    why: 'The store was restored from before that term; the primary brings back term, place and lineage, and keeps its clients (architecture 4.10, Z14).',
    decide: (view, now) => {
      const found = openInUnknownTerm(view);
      if (found === null || findNode(view.spec, found.report.node)?.kind !== 'data') return null;
      const { report, term } = found;
      const reason = `the store has forgotten term ${term}, in which ${report.node} is open`;
      const attempt: Attempt = {
        ...PLAIN_ATTEMPT,
        term,
        path: 'manual',
        phase: 'promote',
        rule: 'housekeeping.republished',
        reason,
        candidate: report.node,
        startedWallMs: now.wall,
        outageFromWallMs: now.wall,
      };
      const forgetful = { ...view, state: { ...view.state, attempt: null, switchover: null } };
      const { state, opened } = openTerm(forgetful, now, report, attempt);
      return {
        why: reason,
        state: { ...state, term: makeTerm(Math.max(state.term, term)), incarnation: view.incarnation },
        opened,
        events: [{ level: 'warn', node: report.node, text: `${reason}; it is taken from there`, detail: {} }],
        then: 'continue',
      };
    },
  },
  {
    id: 'housekeeping.incarnation',
    when: 'the store is another one than before, or was restored, and either the primary of the newest known term is open in it, or all members can be heard and none knows a newer term',
    why: 'Then no newer term was forgotten. Otherwise a person decides, by a failover by hand (architecture 4.10).',
    decide: (view) => {
      const { state } = view;
      if (state.incarnation === view.incarnation) return null;
      if (state.phase !== 'new' && !isPrimaryOpen(view, state.primary) && !nobodyKnowsMore(view)) return null;
      return {
        why: `the store's incarnation is ${view.incarnation}`,
        state: { ...state, incarnation: view.incarnation },
        events: [
          {
            level: 'warn',
            node: state.primary,
            text: `the store was restored or made anew (incarnation ${view.incarnation}); term ${state.primaryTerm} is confirmed`,
            detail: {},
          },
        ],
        then: 'continue',
      };
    },
  },
  {
    id: 'housekeeping.terms',
    when: 'a member has seen a newer term than the state holds',
    why: 'A term is never used twice, and agents refuse a lower one: without this every order of a restored store would be refused for ever.',
    decide: (view) => {
      const newest = newestKnown(view);
      if (newest <= view.state.term) return null;
      return {
        why: `term ${newest} was seen by a member; the next one is ${newest + 1}`,
        state: { ...view.state, term: newest },
        events: [
          {
            level: 'warn',
            node: null,
            text: `the store knew term ${view.state.term}, members know term ${newest}: terms go on from there`,
            detail: {},
          },
        ],
        then: 'continue',
      };
    },
  },
];
