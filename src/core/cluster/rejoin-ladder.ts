/** A person's `rejoin` whose way was left to us: from one rung of the ladder to the next. */
import type { Now } from '../ids.ts';
import type { ClusterState, Task } from '../state.ts';
import type { ClusterView, Outcome } from '../view.ts';
import { withGoal } from './goals.ts';
import { activityFor, live } from './observe.ts';
import { nextVia } from './recovery.ts';
import { addStep } from './tasks.ts';

export interface Climbed {
  readonly task: Task;
  readonly state: ClusterState;
  readonly event: NonNullable<Outcome['events']>[number];
}

/**
 * The next rung, when the agent gave the present one up for good: a rewind that cannot work is followed by a copy, which sets the directory aside. Also where
 * no rule may touch the directory: the person's word covers the whole ladder. Null: nothing of that; with `--via` a failure is the end.
 */
export function climbLadder(view: ClusterView, now: Now, task: Task): Climbed | null {
  const { request } = task;
  const { primary, primaryTerm, goals } = view.state;
  if (request.kind !== 'nodeRejoin' || request.via !== null || primary === null || task.cancelRequested) return null;
  const { node } = request;
  const via = nextVia(view, now, node);
  const report = live(view, node);
  const activity = report === null ? null : activityFor(report, goals[node] ?? null);
  if (via === null || activity?.kind !== 'failed') return null;
  const copied = via === 'clone' ? { source: request.source, rateKb: request.rateKb } : {};
  const state = withGoal(view.state, node, primaryTerm, { kind: 'standby', upstream: primary, via, ...copied }, 'anew');
  const text = `${node} is taken back by ${via} on request of ${task.by}: ${activity.message} (${activity.code})`;
  return { task: addStep(task, now, via, '', 'failed'), state, event: { level: 'warn', node, text, detail: {} } };
}
