/**
 * A store that is not the one in which the state was decided, or that has forgotten terms (architecture 4.10). What it forgot is learned from the
 * agents, which never forget a term; until then nobody becomes a primary by its word: agents take no lease, and no attempt goes on.
 */
import { type NodeId, type Now, type Term, makeTerm, makeWallMs } from '../../ids.ts';
import type { NodeReport } from '../../report.ts';
import { findNode } from '../../spec.ts';
import { type Attempt, OF_A_BACKUP, type Task } from '../../state.ts';
import type { ClusterView, Rule } from '../../view.ts';
import { PLAIN_ATTEMPT, REPUBLISHED, openTerm } from '../attempts.ts';
import { isDue, isForeignSystem, isOfThisStore, isOpen, live, newestKnownTerm } from '../observe.ts';
import { isElectionRuledOut } from '../quorum.ts';
import { quorumAfterRestore } from '../sync-wish.ts';
import { fail, finish, taskById } from '../tasks.ts';

/** Reports of all members come within two intervals after a restore; longer only keeps a person waiting. */
const CONFIRM_WAIT_MS = 5000;

/**
 * A member that is open in a term of which the state knows nothing; null when there is none, or when an attempt for that term or a newer one is open. An
 * attempt that came back with a restored store is open no more when its own term has a primary: nobody else ever gives it an end.
 */
function openInUnknownTerm(view: ClusterView): { readonly report: NodeReport; readonly term: Term } | null {
  const { state } = view;
  // Before the first opening the bootstrap's own rules take it from there.
  if (state.primary === null) return null;
  let found: { readonly report: NodeReport; readonly term: Term } | null = null;
  for (const node of view.spec.nodes) {
    const report = live(view, node.id);
    const term = report?.leaseTerm ?? null;
    if (report === null || term === null || term <= state.primaryTerm || !isOpen(report, term) || isForeignSystem(view, report)) continue;
    const { attempt } = state;
    if (attempt !== null && (attempt.term > term || (attempt.term === term && isOfThisStore(view)))) continue;
    if (found === null || term > found.term) found = { report, term };
  }
  return found;
}

/**
 * Everybody can be heard and nobody knows a term that the state does not know as opened, or as ordered to be opened.
 *
 * *Invariant:* a term is ordered for one candidate only. *Because:* whatever came after an order (a refusal, an undo, another candidate) began with a newer
 * term, which somebody who can be heard would know; so the backup's order is the last one, and its candidate may go on or be replaced like any other.
 * *Broken if:* an attempt that was still collecting votes counted too: its term may have been given to anybody since, and would be given again.
 */
function nobodyKnowsMore(view: ClusterView): boolean {
  const { attempt, primaryTerm } = view.state;
  const newest = attempt?.phase === 'promote' ? attempt.term : primaryTerm;
  return view.spec.nodes.every((node) => live(view, node.id) !== null) && newestKnownTerm(view) <= newest;
}

/** The running commands that came back with the attempt and the switchover of a restored state. */
function commandsOfBackup(view: ClusterView): readonly Task[] {
  const { attempt, switchover } = view.state;
  const ids = new Set([attempt?.taskId ?? null, switchover?.taskId ?? null]);
  return [...ids].flatMap((id) => {
    const task = taskById(view, id);
    return task?.status === 'running' ? [task] : [];
  });
}

/** The commands whose place in the state is given up: they end here, by what is seen of their effect. */
function endedTasks(view: ClusterView, now: Now, primary: NodeId): readonly Task[] {
  const { attempt, switchover } = view.state;
  return commandsOfBackup(view).map((task) => {
    if (primary === (switchover?.to ?? attempt?.candidate))
      return finish(task, now, `${primary} is the primary; the store was restored in the middle of it`);
    return fail(task, now, {
      code: 'task.restored',
      text: `The store was restored in the middle of it, and ${primary} is the primary.`,
      remedy: 'Look at "pgherd show", and ask again if it is still wanted.',
    });
  });
}

/**
 * The primary of the newest term that the state knows is open, and nobody was elected beside it in the time that the store forgot.
 *
 * *Invariant:* an attempt of the backup goes on only where its term was not given to anybody since. *Because:* on the lease path a candidate is ordered when
 * the old lease has ended, and its holder has closed by then: one that is open now was never replaced. The quorum path elects beside it, by votes of P
 * members; where F of them say that they gave none (F + P > M), no P did. *Broken if:* an open primary alone is believed where standbys acknowledge.
 */
function isPrimaryUnreplaced(view: ClusterView): boolean {
  const { primary, primaryTerm, attempt, quorum } = view.state;
  if (primary === null || !isOpen(live(view, primary), primaryTerm)) return false;
  const electsBeside = quorum.k > 0 || quorum.wanted.k > 0 || attempt?.path === 'quorum' || attempt?.acceptTwoPrimaries === true;
  if (!electsBeside) return true;
  return isElectionRuledOut(view.state, (member) => {
    const report = live(view, member);
    return report !== null && (report.vote?.term ?? 0) <= primaryTerm;
  });
}

/**
 * A newer revision of the state than the store has, by a member that read it there; null when it has all, or when it was said already.
 *
 * *Invariant:* what is decided on is not older than what somebody acted on. *Because:* a report is written after what it names was read, and both come by
 * one watch in the order of their revisions, so in one history of a store no report is ahead of its state. *Broken if:* reports and state were read from
 * two moments of the store.
 */
function forgottenRevision(view: ClusterView): { readonly node: NodeId; readonly revision: number } | null {
  const { setBack } = view.state;
  const said = setBack?.incarnation === view.incarnation ? setBack.revision : 0;
  let found: { readonly node: NodeId; readonly revision: number } | null = null;
  if (view.stateRevision === 0) return null;
  for (const node of view.spec.nodes) {
    const report = live(view, node.id);
    if (report?.incarnation !== view.incarnation) continue;
    const revision = Math.max(report.newestRevision, report.stateRevision);
    if (revision > Math.max(said, view.stateRevision, found?.revision ?? 0)) found = { node: node.id, revision };
  }
  return found;
}

export const restoredRules: readonly Rule[] = [
  {
    id: 'housekeeping.set-back',
    when: 'a member has read a newer state in this very store than it holds now',
    why: 'Its files were replaced by older ones (a copy, an image of its machine). It counts as one that was restored from a backup: what it forgot is learned from the agents (architecture 4.10).',
    decide: (view) => {
      const found = forgottenRevision(view);
      if (found === null) return null;
      const { state, incarnation, stateRevision } = view;
      const why = `${found.node} read revision ${found.revision} of the state in this store, which is at ${stateRevision}: its data was set back`;
      return {
        why,
        state: {
          ...state,
          setBack: { incarnation, revision: found.revision },
          incarnation: isOfThisStore(view) ? `${OF_A_BACKUP}${incarnation}` : state.incarnation,
        },
        events: [{ level: 'error', node: state.primary, text: why, detail: {} }],
        then: 'continue',
      };
    },
  },
  {
    id: REPUBLISHED,
    when: 'a member is open in a newer term than the state knows, and no attempt for it is open; one that came back with a restored store does not count',
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
        rule: REPUBLISHED,
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
        tasks: endedTasks(view, now, report.node),
        events: [{ level: 'warn', node: report.node, text: `${reason}; it is taken from there`, detail: {} }],
        then: 'continue',
      };
    },
  },
  {
    id: 'housekeeping.incarnation',
    when: 'the store is another one than before, or was restored, and either the primary of the newest known term is open in it and nobody can have been elected beside it, or all members can be heard and none knows a term that was neither opened nor ordered',
    why: 'Then no newer term was forgotten. Otherwise a person decides, by a failover by hand (architecture 4.10).',
    decide: (view) => {
      const { state } = view;
      if (isOfThisStore(view)) return null;
      if (state.phase !== 'new' && !isPrimaryUnreplaced(view) && !nobodyKnowsMore(view)) return null;
      return {
        why: `the store's incarnation is ${view.incarnation}`,
        // What is not known of the time since the backup is not known of the attempt either.
        state: {
          ...state,
          incarnation: view.incarnation,
          quorum: quorumAfterRestore(state.quorum),
          attempt: state.attempt === null ? null : { ...state.attempt, afterRestore: true },
        },
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
    id: 'housekeeping.restored-command',
    when: 'the store was restored in the middle of a failover or switchover that was asked for, and for 5 s nobody can say whether a newer term was opened since',
    why: 'It cannot go on before that is known, and while it runs it would keep out the failover by hand that decides (architecture 4.10).',
    decide: (view, now) => {
      const { state } = view;
      const { rule, atWallMs } = state.decided;
      if (isOfThisStore(view) || rule !== 'failover.blocked-store') return null;
      if (!isDue(now, makeWallMs(atWallMs + CONFIRM_WAIT_MS), CONFIRM_WAIT_MS)) return null;
      const tasks = commandsOfBackup(view).map((task) =>
        fail(task, now, {
          code: 'task.restored',
          text: 'The store was restored in the middle of it, and whether a newer term was opened since is not known.',
          remedy: 'Start the agents of all members, or decide with "pgherd failover"; see "pgherd explain".',
        }),
      );
      return tasks.length === 0 ? null : { why: 'the store was restored in the middle of a command', tasks, again: 50 };
    },
  },
  {
    id: 'housekeeping.terms',
    when: 'a member has seen a newer term than the state holds',
    why: 'A term is never used twice, and agents refuse a lower one: without this every order of a restored store would be refused for ever.',
    decide: (view) => {
      const newest = newestKnownTerm(view);
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
