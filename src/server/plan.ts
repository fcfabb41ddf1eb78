/** The dry run of a command: the same pure decision that the controller will make, on the cluster as it is now. */
import { decideCluster } from '../core/cluster/decide.ts';
import { describeRequest } from '../core/cluster/tasks.ts';
import type { Now } from '../core/ids.ts';
import type { Task, TaskRequest } from '../core/state.ts';
import type { Problem } from '../api/errors.ts';
import { WATCH_STALE_MS } from './freshness.ts';
import type { ServerView } from './view.ts';

const DRY_RUN_ID = 'dry-run';

export interface TaskPlan {
  readonly plan: readonly string[];
  /** What would refuse it now; empty when nothing would. */
  readonly problems: readonly Problem[];
}

/** `plan` begins with the command itself. Other rules may come first (a failover that is under way): then the plan says so. */
export function planTask({ view }: ServerView, request: TaskRequest, now: Now): TaskPlan {
  const trial: Task = {
    version: 1,
    id: DRY_RUN_ID,
    request,
    reason: '',
    by: '',
    createdWallMs: now.wall,
    status: 'pending',
    cancelRequested: false,
    steps: [],
    problems: [],
    finishedWallMs: null,
    result: null,
  };
  const watched = { ...view, watchedMs: Math.max(view.watchedMs, WATCH_STALE_MS * 10), tasks: [...view.tasks, trial] };
  const decision = decideCluster(watched, now);
  const outcome = decision.tasks.find((one) => one.id === DRY_RUN_ID);
  if (outcome === undefined)
    return { plan: [describeRequest(request), `first: ${decision.rule}${decision.why === '' ? '' : ` (${decision.why})`}`], problems: [] };
  const steps = outcome.steps.map((step) => (step.detail === '' ? step.name : `${step.name}: ${step.detail}`));
  const events = decision.events.map((event) => event.text);
  return { plan: [describeRequest(request), ...new Set([...steps, ...events])], problems: outcome.problems };
}
