/** One decision of one snapshot. Pure: the same snapshot yields the same decision (I20). */
import type { Now } from '../ids.ts';
import { invariant } from '../result.ts';
import type { ClusterEvent, ClusterState, Task, TermRecord } from '../state.ts';
import type { ClusterView, Decision, Outcome } from '../view.ts';
import { publishRoute } from './route.ts';
import { rules } from './rules.ts';

/** Passing states of which `state.decided` takes no note: each write would wake every agent, and void a lease that is just being taken. */
const TRANSIENT: ReadonlySet<string> = new Set([
  'attempt.waiting-open',
  'attempt.waiting-votes',
  'primary.restarting',
  'cluster.steady',
  'switchover.waiting',
]);

interface Progress {
  view: ClusterView;
  rule: string;
  why: string;
  events: ClusterEvent[];
  tasks: Map<string, Task>;
  opened: TermRecord | null;
  again: number | null;
  dropLease: boolean;
}

/**
 * Asks each rule in order, the next one on what the last one changed; stops at the first that says so.
 * `state` is null when it would be written unchanged. `rule` and `why` are those of the last rule that spoke.
 */
export function decideCluster(view: ClusterView, now: Now): Decision {
  const progress: Progress = { view, rule: 'cluster.steady', why: '', events: [], tasks: new Map(), opened: null, again: null, dropLease: false };
  for (const rule of rules) {
    const outcome = rule.decide(progress.view, now);
    if (outcome === null) continue;
    apply(progress, rule.id, outcome, now);
    if (outcome.then !== 'continue') break;
  }
  const settled = publishRoute(progress.view);
  const state = noteDecision(settled, progress, now);
  invariant(state.term >= view.state.term && state.primaryTerm >= view.state.primaryTerm, 'a term never decreases (I3)');
  return {
    rule: progress.rule,
    why: progress.why,
    state: state === view.state ? null : state,
    spec: progress.view.spec === view.spec ? null : progress.view.spec,
    events: progress.events.map((event) => ({ ...event, term: state.term })),
    tasks: [...progress.tasks.values()],
    opened: progress.opened,
    again: progress.again,
    dropLease: progress.dropLease,
  };
}

function apply(progress: Progress, id: string, outcome: Outcome, now: Now): void {
  const state = outcome.state ?? progress.view.state;
  const spec = outcome.spec ?? progress.view.spec;
  let { tasks } = progress.view;
  for (const task of outcome.tasks ?? []) {
    progress.tasks.set(task.id, task);
    tasks = tasks.map((one) => (one.id === task.id ? task : one));
  }
  progress.view = { ...progress.view, spec, state, tasks };
  for (const event of outcome.events ?? []) progress.events.push({ ...event, rule: id, atWallMs: now.wall, term: state.term });
  if (outcome.opened !== undefined) progress.opened = outcome.opened;
  if (outcome.dropLease === true) progress.dropLease = true;
  if (outcome.again !== undefined) progress.again = progress.again === null ? outcome.again : Math.min(progress.again, outcome.again);
  // `cluster.steady` speaks only when no other rule did; upkeep only when no rule of weight follows.
  if (id === 'cluster.steady' && progress.why !== '') return;
  const weighty = progress.why !== '' && !progress.rule.startsWith('housekeeping.');
  if (weighty && (TRANSIENT.has(id) || id.startsWith('housekeeping.'))) return;
  progress.rule = id;
  progress.why = outcome.why;
}

/** `decided` changes with a new rule or reason. A steady cluster keeps the last one, unless that one said that something stood in the way. */
function noteDecision(state: ClusterState, progress: Progress, now: Now): ClusterState {
  const { rule, why } = progress;
  const { decided } = state;
  if (rule.startsWith('housekeeping.') || (decided.rule === rule && decided.why === why)) return state;
  const wasBlocked = decided.rule.includes('.blocked-') || decided.rule === 'bootstrap.waiting-agents';
  if (TRANSIENT.has(rule) && !(rule === 'cluster.steady' && wasBlocked)) return state;
  return { ...state, decided: { rule, why, atWallMs: now.wall } };
}
