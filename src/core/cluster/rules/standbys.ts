/** Nodes that are not the primary: each rule takes the nodes whose next step of the recovery ladder it names. */
import type { Now } from '../../ids.ts';
import type { NodeSpec } from '../../spec.ts';
import type { ClusterState } from '../../state.ts';
import type { ClusterView, Outcome, Rule } from '../../view.ts';
import { without, withGoal } from '../goals.ts';
import { isLeftAlone, otherDataNodes } from '../observe.ts';
import { isCopying } from './scale-out.ts';
import { type RecoveryRule, nextRecoveryStep } from '../recovery.ts';

const LEVELS: Readonly<Record<RecoveryRule, 'info' | 'warn' | 'error' | null>> = {
  'standby.stream': 'info',
  'standby.rewind': 'warn',
  'standby.clone': 'warn',
  'standby.retry': 'warn',
  'standby.back': 'info',
  'standby.checking': null,
  'standby.fenced': 'warn',
  'standby.quarantined': 'error',
  'standby.waits-for-person': 'warn',
};

function isQuiet(view: ClusterView): boolean {
  return view.state.phase === 'running' && view.state.attempt === null && view.state.switchover === null;
}

function take(view: ClusterView, now: Now, id: RecoveryRule): Outcome | null {
  if (!isQuiet(view)) return null;
  let state: ClusterState = view.state;
  const whys: string[] = [];
  const events: NonNullable<Outcome['events']>[number][] = [];
  for (const node of otherDataNodes(view)) {
    if (isLeftAlone(view, node.id) || !isOnLadder(view, node)) continue;
    const step = nextRecoveryStep(view, node, now);
    if (step.kind !== 'step' || step.rule !== id) continue;
    const recovery = step.progress === null ? without(state.recovery, node.id) : { ...state.recovery, [node.id]: step.progress };
    state = recovery === state.recovery ? state : { ...state, recovery };
    if (step.wanted !== null) state = withGoal(state, node.id, state.primaryTerm, step.wanted, step.repeat);
    whys.push(step.why);
    const level = LEVELS[id];
    if (level !== null) events.push({ level, node: node.id, text: step.why, detail: {} });
  }
  return whys.length === 0 || state === view.state ? null : { why: whys.join('; '), state, events, then: 'continue' };
}

/** One that is being added is on it from the order to copy until its undo; one that is being removed, until it is told to stop. */
function isOnLadder(view: ClusterView, node: NodeSpec): boolean {
  if (node.membership === 'joining') return isCopying(view, node.id);
  return view.state.goals[node.id]?.kind !== 'removed';
}

const rule = (id: RecoveryRule, when: string, why: string): Rule => ({ id, when, why, decide: (view, now) => take(view, now, id) });

export const standbyRules: readonly Rule[] = [
  rule(
    'standby.back',
    'a node that was being taken back streams from the primary',
    'Success is seen in the stream, not in an exit code (I10, H57); its back-off is forgotten.',
  ),
  rule(
    'standby.fenced',
    'a node that is not the primary accepts writes, or ran as a primary when it returned',
    'A returned old primary is made harmless before anything else (H20, I1); freeze does not stop a fence.',
  ),
  rule(
    'standby.quarantined',
    "a node's system identifier is foreign, or no term of this cluster opened its timeline",
    'It may be the only copy of what somebody wrote: fenced, shown, never wiped by a rule (Q9, I9, I11).',
  ),
  rule(
    'standby.waits-for-person',
    'the recovery policy leaves this node to a person',
    'Under `manual`, and under `standby` for what was no standby, the exact command is shown.',
  ),
  rule('standby.checking', 'a node is back and has not yet had its looks', 'A node that flaps must not be rewound between two crashes.'),
  rule(
    'standby.stream',
    'a node holds nothing that the primary has not',
    'Streaming alone brings it here; every goal names upstream and term (I11).',
  ),
  rule(
    'standby.rewind',
    "a node has WAL past the fork, or left the cluster's timelines in a promotion that was not completed",
    'The lost part is set aside, then the directory is rewound (H21, H42, I17); the position is reported before (Q11).',
  ),
  rule(
    'standby.clone',
    'a node has no data, an incomplete directory, or could not be taken back otherwise',
    'The last rung; what was there is set aside first (H22, H44, Z48).',
  ),
  rule('standby.retry', 'the agent gave up on its goal', 'The pause doubles from one second to one minute, and is kept in the state (H58, L3).'),
];
