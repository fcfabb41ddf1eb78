/**
 * `node remove`: a standby or a witness leaves while everything goes on. Its journal is the machine:
 *
 *   pending ──checks──> drain ──nothing counts on it──> stop ──stopped (data dropped)──> unregister ──slot gone──> done
 *                         └──cancelled, or something holds it──> full member again
 *
 * Point of no return: `stop`. Until then nothing was done to the node itself.
 */
import type { NodeId, Now } from '../../ids.ts';
import { slotName } from '../../slot-name.ts';
import { type ClusterSpec, type NodeSpec, findNode } from '../../spec.ts';
import type { Task } from '../../state.ts';
import type { ClusterView, Outcome, Rule } from '../../view.ts';
import { type Assessment, assessedRules } from '../assessed-rules.ts';
import { withGoal } from '../goals.ts';
import { describeDurability } from '../node-add-checks.ts';
import { checkRemove, heldBy, specWithout } from '../node-remove-checks.ts';
import { elapsedMs, live } from '../observe.ts';
import { type TaskOf, addStep, cancel, fail, finish, refuse, start, stepSince } from '../tasks.ts';
import { hasSlot, leftOver } from './scale-out.ts';

/** Electorate, synchronous set and route change within seconds; a proxy that does not answer for a minute keeps the node in. */
const DRAIN_LIMIT_MS = 60_000;
/** A stop ladder ends long before; a large directory takes a while to delete. */
const STOP_LIMIT_MS = 600_000;
/** Members look after their slots every five seconds. */
const SLOT_LIMIT_MS = 30_000;

type RemoveTask = TaskOf<'nodeRemove'>;

function isRemove(task: Task): task is RemoveTask {
  return task.request.kind === 'nodeRemove';
}

function isQuiet(view: ClusterView): boolean {
  return view.state.phase === 'running' && view.state.attempt === null && view.state.switchover === null && view.state.primary !== null;
}

function assess(view: ClusterView, now: Now): Assessment | null {
  for (const task of view.tasks) {
    if (!isRemove(task)) continue;
    const spoken = task.status === 'pending' ? begin(view, now, task) : task.status === 'running' && isQuiet(view) ? goOn(view, now, task) : null;
    if (spoken !== null) return spoken;
  }
  return isQuiet(view) ? settleOrphan(view) : null;
}

/** One step a decision: the next one rests on what this one wrote. */
const say = (rule: string, why: string, outcome: Omit<Outcome, 'why'>): Assessment => ({ rule, outcome: { why, ...outcome } });

function withMembership(spec: ClusterSpec, node: NodeId, membership: NodeSpec['membership']): ClusterSpec {
  return { ...spec, nodes: spec.nodes.map((one) => (one.id === node ? { ...one, membership } : one)) };
}

function begin(view: ClusterView, now: Now, task: RemoveTask): Assessment {
  const { node } = task.request;
  const problems = checkRemove(view, task.request);
  if (problems.length > 0)
    return say('node.remove-refused', `node remove refused: ${problems.map((problem) => problem.text).join(' ')}`, {
      tasks: [refuse(task, now, problems)],
    });
  const spec = withMembership(view.spec, node, 'leaving');
  const text = `${node} is being removed on request of ${task.by}; ${describeDurability(view.spec, spec)}`;
  return say('node.remove', text, {
    spec,
    tasks: [start(task, now, 'drain', describeDurability(view.spec, spec))],
    events: [{ level: 'info', node, text, detail: { reason: task.reason } }],
  });
}

function goOn(view: ClusterView, now: Now, task: RemoveTask): Assessment | null {
  switch (task.steps.at(-1)?.name) {
    case 'drain':
      return drain(view, now, task);
    case 'stop':
      return stop(view, now, task);
    default:
      return unregistered(view, now, task);
  }
}

/**
 * *Invariant:* no acknowledged commit and no promotion ever counts on a node that was told to leave (I4, I7). *Because:* it is stopped only when no
 * published fact, no set that may be in force, no electorate and no route names it, each of which changes in its own safe order while it still runs.
 * *Broken if:* the node is stopped, or left out of the spec, first.
 */
function drain(view: ClusterView, now: Now, task: RemoveTask): Assessment | null {
  const { node, dropData } = task.request;
  if (findNode(view.spec, node) === null)
    return say('node.removed', `${node} left the settings of the cluster`, { tasks: [addStep(task, now, 'unregister')] });
  // A failover may have made it the primary meanwhile.
  if (task.cancelRequested || node === view.state.primary) {
    const why = task.cancelRequested ? `node remove ${node} is cancelled; it is a member as before` : `${node} became the primary; it stays`;
    const ended = task.cancelRequested
      ? cancel(task, now, why)
      : fail(task, now, { code: 'node-remove.is-primary', text: why, remedy: 'Move the role, then remove it again.' }, 'undone');
    return say('node.remove-undone', why, { spec: withMembership(view.spec, node, 'full'), tasks: [ended] });
  }
  const held = heldBy(view, node);
  if (held.length > 0) {
    if (elapsedMs(now, stepSince(task)) <= DRAIN_LIMIT_MS) return null;
    const text = `${node} is still needed after ${DRAIN_LIMIT_MS / 1000} s: ${held.join('; ')}.`;
    return say('node.remove-undone', text, {
      spec: withMembership(view.spec, node, 'full'),
      tasks: [
        fail(task, now, { code: 'node-remove.held', text, remedy: `${node} is a member as before; see "pgherd show", then try again.` }, 'undone'),
      ],
    });
  }
  const silent = live(view, node) === null;
  return say('node.remove-stop', `nothing counts on ${node}; it is stopped${dropData ? ', and its data removed' : ''}`, {
    state: withGoal(view.state, node, view.state.primaryTerm, { kind: 'removed', dropData, reason: `removed by ${task.by}` }),
    tasks: [addStep(task, now, 'stop', silent ? `the agent of ${node} does not report: a PostgreSQL that may run there goes on` : '')],
  });
}

function stop(view: ClusterView, now: Now, task: RemoveTask): Assessment | null {
  const { node } = task.request;
  const left = findNode(view.spec, node)?.kind === 'witness' ? null : leftOver(view, node);
  const waits = left !== null && live(view, node) !== null && elapsedMs(now, stepSince(task)) <= STOP_LIMIT_MS;
  if (waits) return null;
  return say('node.remove-unregister', `${node} leaves the settings of the cluster`, {
    spec: specWithout(view.spec, node),
    tasks: [addStep(task, now, 'unregister', left ?? '')],
    events: [{ level: 'info', node, text: `${node} is no member any more${left === null ? '' : `: ${left}`}`, detail: {} }],
  });
}

function unregistered(view: ClusterView, now: Now, task: RemoveTask): Assessment | null {
  const { node } = task.request;
  const slot = hasSlot(view, node);
  if (slot && elapsedMs(now, stepSince(task)) <= SLOT_LIMIT_MS) return null;
  const left = task.steps.at(-1)?.detail ?? '';
  const text = `${node} is removed${left === '' ? '' : `; ${left}`}${slot ? `; the slot ${slotName(node)} is still in use, and is dropped when it is not` : ''}`;
  return say('node.removed', text, { tasks: [finish(task, now, text)] });
}

/** In the spec as leaving, and no task that says so. Before its order to stop it is a member again; after it, it goes. */
function settleOrphan(view: ClusterView): Assessment | null {
  for (const node of view.spec.nodes) {
    if (node.membership !== 'leaving' || view.tasks.some((task) => isRemove(task) && task.request.node === node.id)) continue;
    const why = `${node.id} was being removed, and no task is at it any more`;
    if (view.state.goals[node.id]?.kind !== 'removed') return say('node.remove-undone', why, { spec: withMembership(view.spec, node.id, 'full') });
    if (leftOver(view, node.id) === null || live(view, node.id) === null)
      return say('node.remove-unregister', why, { spec: specWithout(view.spec, node.id) });
  }
  return null;
}

const rule = assessedRules(assess);

export const scaleInRules: readonly Rule[] = [
  rule(
    'node.remove-refused',
    '`node remove` was asked, and a precondition does not hold',
    'Each one is named: the primary, a member that the quorum needs, a standby without which writes would wait.',
  ),
  rule(
    'node.remove',
    '`node remove` was asked, and every precondition holds',
    'It is taken out of every count first; nothing is done to the node itself yet (I7).',
  ),
  rule('node.remove-undone', 'the command was cancelled while it drained, or something still needs the node', 'It is a member as before.'),
  rule(
    'node.remove-stop',
    'no reads go to the node, no commit waits for it, and its vote does not count',
    'Only then it may stop: nobody counts on what it has or says (I4).',
  ),
  rule(
    'node.remove-unregister',
    'the node is stopped, and its data removed if that was asked; or nobody is there to do it',
    'What is left is said, never hidden (H39).',
  ),
  rule('node.removed', 'the slot of the node is gone', 'A slot of a removed node would fill the disk of the primary (H24, I15).'),
];
