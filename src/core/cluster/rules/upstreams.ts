/**
 * Cascading standbys: `node follow --upstream`, and the fall back to the primary while an upstream is not in order. The journal of the command:
 *
 *   pending ──checks──> leave the set ──no commit counts on it──> follow ──streams from it──> done
 *                             └─────── cancelled, or not there in time ──────┴──> the settings of before
 *
 * What is asked stands in the settings of the node, so that it survives failovers. Undo is possible until it is done.
 */
import type { NodeId, Now } from '../../ids.ts';
import { parseNodeId } from '../../ids.ts';
import { type ClusterSpec, findNode } from '../../spec.ts';
import type { ClusterState, Task } from '../../state.ts';
import type { ClusterView, Outcome, Rule } from '../../view.ts';
import { type Assessment, assessedRules } from '../assessed-rules.ts';
import { withGoal, without } from '../goals.ts';
import { checkFollow, withUpstream } from '../node-follow-checks.ts';
import { dataNodes, elapsedMs, isAvailable, isStreaming, live } from '../observe.ts';
import { type TaskOf, addStep, cancel, fail, finish, refuse, start, stepSince } from '../tasks.ts';
import { type UpstreamChange, assessUpstream, isNamed, plannedUpstream, upstreamNow } from '../upstream.ts';

/** A set changes within seconds; one that cannot do without the node keeps it where it is. */
const LEAVE_LIMIT_MS = 60_000;
/** A reload and a new walreceiver take half a second; the slot on the new upstream, if it is missing, five more, and the pause before it is trusted five. */
const FOLLOW_LIMIT_MS = 60_000;
/** Kept in the task's notes: the upstream of before, empty for the primary. */
const BEFORE = 'upstream-before';

type FollowTask = TaskOf<'nodeFollow'>;

function isFollow(task: Task): task is FollowTask {
  return task.request.kind === 'nodeFollow';
}

function isQuiet(view: ClusterView): boolean {
  return view.state.phase === 'running' && view.state.attempt === null && view.state.switchover === null && view.state.primary !== null;
}

const say = (rule: string, why: string, outcome: Omit<Outcome, 'why'>): Assessment => ({ rule, outcome: { why, ...outcome } });

function assess(view: ClusterView, now: Now): Assessment | null {
  for (const task of view.tasks) {
    if (!isFollow(task)) continue;
    const spoken = task.status === 'pending' ? begin(view, now, task) : task.status === 'running' && isQuiet(view) ? goOn(view, now, task) : null;
    if (spoken !== null) return spoken;
  }
  return null;
}

function begin(view: ClusterView, now: Now, task: FollowTask): Assessment {
  const { node, upstream } = task.request;
  const problems = checkFollow(view, task.request);
  if (problems.length > 0)
    return say('node.follow-refused', `node follow refused: ${problems.map((one) => one.text).join(' ')}`, { tasks: [refuse(task, now, problems)] });
  const before = findNode(view.spec, node)?.upstream ?? '';
  const text = `${node} is to stream from ${upstream ?? `the primary, now ${view.state.primary ?? ''}`} on request of ${task.by}`;
  const begun = start(task, now, 'leave the set', isNamed(view.state, node) && upstream !== null ? 'no commit may wait for it first' : '');
  return say('node.follow', text, {
    spec: withUpstream(view.spec, node, upstream),
    // What was wrong with another upstream says nothing of this one.
    state: { ...view.state, cascades: without(view.state.cascades, node) },
    tasks: [{ ...begun, notes: { ...begun.notes, [BEFORE]: before } }],
    events: [{ level: 'info', node, text, detail: { reason: task.reason } }],
  });
}

function goOn(view: ClusterView, now: Now, task: FollowTask): Assessment | null {
  const { node, upstream } = task.request;
  if (findNode(view.spec, node) === null) return end(view, now, task, `${node} is no node of this cluster any more`);
  if (findNode(view.spec, node)?.upstream !== upstream) return end(view, now, task, `the settings of ${node} were changed meanwhile`);
  if (node === view.state.primary) return end(view, now, task, `${node} became the primary`);
  if (task.cancelRequested) return undo(view, now, task, null);
  // The one that was asked for may have become the primary meanwhile: then it is followed as that.
  const target = upstream ?? view.state.primary;
  if (target === null) return null;
  if (isThere(view, node, target)) {
    const text = `${node} streams from ${target}`;
    return say('node.followed', text, { tasks: [finish(task, now, text)], events: [{ level: 'info', node, text, detail: {} }] });
  }
  const waitedMs = elapsedMs(now, stepSince(task));
  if (task.steps.at(-1)?.name === 'leave the set') {
    if (upstreamNow(view, node) !== target) {
      if (waitedMs <= LEAVE_LIMIT_MS) return null;
      return undo(view, now, task, waitingFor(view, node, target));
    }
    return say('node.follow-ordered', `${node} follows ${target}`, {
      state: order(view, node, target),
      tasks: [addStep(task, now, 'follow', target)],
    });
  }
  return waitedMs <= FOLLOW_LIMIT_MS ? null : undo(view, now, task, waitingFor(view, node, target));
}

/** A person's word holds while automatic actions are frozen, too: the goal is given here and not left to the ladder. */
function order(view: ClusterView, node: NodeId, upstream: NodeId): ClusterState {
  const goal = view.state.goals[node];
  if (goal?.kind !== 'standby' || goal.via !== 'stream') return view.state;
  return withGoal(view.state, node, view.state.primaryTerm, { kind: 'standby', upstream, via: 'stream' });
}

function isThere(view: ClusterView, node: NodeId, upstream: NodeId): boolean {
  const goal = view.state.goals[node];
  return goal?.kind === 'standby' && goal.via === 'stream' && goal.upstream === upstream && isStreaming(live(view, node), upstream);
}

function waitingFor(view: ClusterView, node: NodeId, target: NodeId): string {
  const seconds = LEAVE_LIMIT_MS / 1000;
  const away = view.state.cascades[node];
  if (away !== undefined && plannedUpstream(view, node) !== target) return `${target} ${away.reason}, for ${seconds} s`;
  if (target !== view.state.primary && isNamed(view.state, node)) return `commits still may wait for ${node} after ${seconds} s`;
  return `${node} does not stream from ${target} after ${seconds} s`;
}

/** Null: cancelled. The settings of before, and the stream that goes with them. */
function undo(view: ClusterView, now: Now, task: FollowTask, why: string | null): Assessment {
  const { node } = task.request;
  const before = parseNodeId(task.notes[BEFORE] ?? '');
  const back = before !== null && findNode(view.spec, before)?.kind === 'data' ? before : null;
  const spec: ClusterSpec = withUpstream(view.spec, node, back);
  const text = `${why === null ? `node follow ${node} is cancelled` : why}; ${node} streams from ${back ?? 'the primary'} as before`;
  const problem = { code: 'node-follow.failed', text: `${text}.`, remedy: `See "pgherd show" and "pgherd log ${node}", then ask again.` };
  return say('node.follow-undone', text, {
    spec,
    state: { ...view.state, cascades: without(view.state.cascades, node) },
    tasks: [why === null ? cancel(task, now, text) : fail(task, now, problem, 'undone')],
    events: [{ level: why === null ? 'info' : 'warn', node, text, detail: {} }],
  });
}

function end(_view: ClusterView, now: Now, task: FollowTask, why: string): Assessment {
  return say('node.follow-undone', why, {
    tasks: [fail(task, now, { code: 'node-follow.overtaken', text: `${why}.`, remedy: 'See "pgherd show".' })],
  });
}

/** The nodes whose note about their upstream changes, one assessment for the three rules. */
function changes(view: ClusterView, now: Now): readonly UpstreamChange[] {
  if (!isQuiet(view) || view.state.frozen !== null) return [];
  return dataNodes(view.spec).flatMap((node) => {
    if (node.id === view.state.primary || (!isAvailable(view, node.id) && view.state.cascades[node.id] === undefined)) return [];
    return assessUpstream(view, now, node.id) ?? [];
  });
}

function noted(view: ClusterView, now: Now, which: (change: UpstreamChange) => boolean, level: 'info' | 'warn'): Outcome | null {
  const found = changes(view, now).filter(which);
  if (found.length === 0) return null;
  let { cascades } = view.state;
  for (const { node, entry } of found) cascades = entry === null ? without(cascades, node) : { ...cascades, [node]: entry };
  const texts = found.flatMap((change) => change.text ?? []);
  const events = found.flatMap((change) => (change.text === null ? [] : [{ level, node: change.node, text: change.text, detail: {} }]));
  const why = texts.length > 0 ? texts.join('; ') : `the upstream of ${found.map((change) => change.node).join(', ')} is watched`;
  return { why, state: { ...view.state, cascades }, events, then: 'continue' };
}

const rule = assessedRules(assess);

export const upstreamRules: readonly Rule[] = [
  rule(
    'node.follow-refused',
    '`node follow --upstream` was asked, and a precondition does not hold',
    'Each one is named: a circle, an upstream that is not in order, a commit that would wait.',
  ),
  rule(
    'node.follow',
    '`node follow --upstream` was asked, and every precondition holds',
    'It becomes a setting of the node; the node leaves every synchronous set before its stream moves (I4).',
  ),
  rule('node.follow-ordered', 'no commit counts on the node any more, and its new upstream is in order', 'By reload, without a restart (S51, S54).'),
  rule('node.followed', 'the node streams from whom it was asked to', 'Done means seen (I10).'),
  rule('node.follow-undone', 'the command was cancelled, or the stream did not come', 'The settings of before hold again.'),
  {
    id: 'housekeeping.upstreams',
    when: 'the upstream of a cascading standby begins to be out of order, or in order again',
    why: 'Noted in the state, so that another controller does not begin to count anew.',
    decide: (view, now) => noted(view, now, (change) => change.text === null, 'info'),
  },
  {
    id: 'standby.upstream-lost',
    when: 'the upstream of a cascading standby is gone, or has not streamed itself for two seconds',
    why: 'The standby streams from the primary meanwhile: its slot there was kept, so that no WAL is missing (Q35).',
    decide: (view, now) => noted(view, now, (change) => change.text !== null && !change.back, 'warn'),
  },
  {
    id: 'standby.upstream-back',
    when: 'the upstream of a cascading standby has been in order again for some seconds',
    why: 'What the settings ask holds again; one that flaps does not carry its followers with it.',
    decide: (view, now) => noted(view, now, (change) => change.back, 'info'),
  },
];
