/** The dry run of a command: the same pure decision that the controller will make, on the cluster as it is now. */
import { decideCluster } from '../core/cluster/decide.ts';
import { describeCandidate, describeRejected, missingBytes, rankCandidates } from '../core/cluster/election.ts';
import { planAdd } from '../core/cluster/node-add-checks.ts';
import { planFollow } from '../core/cluster/node-follow-checks.ts';
import { planRemove } from '../core/cluster/node-remove-checks.ts';
import { dataNodes, primaryEnd } from '../core/cluster/observe.ts';
import { describeRequest } from '../core/cluster/tasks.ts';
import { type NodeId, type Now, makeTimeline } from '../core/ids.ts';
import type { Task, TaskRequest } from '../core/state.ts';
import type { ClusterView } from '../core/view.ts';
import type { Problem } from '../api/errors.ts';
import { WATCH_STALE_MS } from './freshness.ts';
import type { ServerView } from './view.ts';

const DRY_RUN_ID = 'dry-run';

export interface TaskPlan {
  readonly plan: readonly string[];
  /** What would refuse it now; empty when nothing would. */
  readonly problems: readonly Problem[];
}

/**
 * `plan` begins with the command itself. When it would be refused, nothing more is in it: what the rules would do meanwhile is not its work. Other rules
 * may come first (a failover that is under way): then the plan says so. `by`: who asks.
 */
export function planTask({ view }: ServerView, { request, by }: { readonly request: TaskRequest; readonly by: string }, now: Now): TaskPlan {
  const trial: Task = {
    version: 1,
    id: DRY_RUN_ID,
    request,
    reason: '',
    by,
    createdWallMs: now.wall,
    status: 'pending',
    cancelRequested: false,
    steps: [],
    notes: {},
    problems: [],
    finishedWallMs: null,
    result: null,
  };
  const watched = { ...view, watchedMs: Math.max(view.watchedMs, WATCH_STALE_MS * 10), tasks: [...view.tasks, trial] };
  const decision = decideCluster(watched, now);
  const outcome = decision.tasks.find((one) => one.id === DRY_RUN_ID);
  if (outcome === undefined)
    return { plan: [describeRequest(request), `first: ${decision.rule}${decision.why === '' ? '' : ` (${decision.why})`}`], problems: [] };
  if (outcome.problems.length > 0) return { plan: [describeRequest(request)], problems: outcome.problems };
  if (request.kind === 'nodeAdd') return { plan: [describeRequest(request), ...planAdd(watched, request)], problems: [] };
  if (request.kind === 'nodeRemove') return { plan: [describeRequest(request), ...planRemove(watched, request)], problems: [] };
  if (request.kind === 'nodeFollow') return { plan: [describeRequest(request), ...planFollow(watched, request)], problems: [] };
  const { switchover } = decision.state ?? view.state;
  if (request.kind === 'switchover' && switchover !== null)
    return { plan: [describeRequest(request), ...planSwitchover(watched, switchover)], problems: [] };
  if (request.kind === 'failover') return { plan: [describeRequest(request), ...planFailover(watched, request, now)], problems: [] };
  const steps = outcome.steps.map((step) => (step.detail === '' ? step.name : `${step.name}: ${step.detail}`));
  const events = decision.events.map((event) => event.text);
  return { plan: [describeRequest(request), ...new Set([...steps, ...events])], problems: [] };
}

/** The whole way, with what was checked: each precondition that does not hold would have refused it. */
function planSwitchover(view: ClusterView, { from, to }: { readonly from: NodeId; readonly to: NodeId }): readonly string[] {
  const { state } = view;
  const position = view.reports[to]?.report.postgres.receivedLsn ?? null;
  const missing =
    position === null
      ? null
      : missingBytes({ timeline: state.timeline ?? makeTimeline(1), lsn: position }, { timeline: state.timeline, lsn: primaryEnd(view) });
  const others = dataNodes(view.spec).filter((node) => node.id !== to && state.goals[node.id]?.kind !== 'stopped');
  const proxies = Object.keys(view.proxyAcks);
  return [
    `check: ${to} streams from ${from} on timeline ${state.timeline}${missing === null ? '' : `, ${missing} bytes behind`}; its settings allow it`,
    `checkpoint: on ${from}, while it serves`,
    proxies.length === 0
      ? 'hold: there is no proxy; clients without one are cut off when the primary stops'
      : `hold: the proxies (${proxies.join(', ')}) let running transactions end and keep new ones waiting`,
    `stop: ${from}; ${to} has its last record. Until here the way back is to go on as before`,
    `promote: ${to} opens term ${state.term + 1}. Before that the way back is to start ${from} again`,
    `follow: ${others.map((node) => node.id).join(', ')} stream from ${to}${proxies.length === 0 ? '' : '; the proxies go on there'}`,
  ];
}

/** What is fenced, who would be promoted by what the nodes report now, and why each other one would not. The votes decide in the end. */
function planFailover(view: ClusterView, request: Extract<TaskRequest, { kind: 'failover' }>, now: Now): readonly string[] {
  const { eligible, rejected } = rankCandidates(view, now, {
    positions: { kind: 'report' },
    acceptLoss: request.acceptLoss,
    target: request.to,
  });
  const { primary } = view.state;
  const [best, ...others] = eligible;
  const missing = best === undefined ? null : missingBytes(best.position, { timeline: view.state.timeline, lsn: primaryEnd(view) });
  const loss = missing === null ? 'how much is lost is not known' : missing === 0 ? 'nothing known is lost' : `${missing} bytes of WAL may be lost`;
  return [
    ...(primary === null ? [] : [`fence: ${primary} accepts no more writes; its sessions end`]),
    'vote: the others detach and say what they have',
    ...(best === undefined ? [] : [`promote: ${describeCandidate(best)}, unless another one has more by then; ${loss}`]),
    ...(others.length === 0 ? [] : [`next in line: ${others.map(describeCandidate).join('; ')}`]),
    ...(rejected.length === 0 ? [] : [`not promoted: ${describeRejected(rejected)}`]),
  ];
}
