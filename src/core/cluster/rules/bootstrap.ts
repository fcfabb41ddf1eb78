/** From nothing to a running cluster: initdb and clones, or adoption of servers that already run. */
import { type NodeId, type Now, makeTerm } from '../../ids.ts';
import { FOREIGN_FILES, type NodeReport } from '../../report.ts';
import type { Attempt, ClusterState } from '../../state.ts';
import type { ClusterView, Outcome, Rule } from '../../view.ts';
import { PLAIN_ATTEMPT, openTerm } from '../attempts.ts';
import { withGoal } from '../goals.ts';
import { activityFor, dataNodes, gaveUp, isOpen, isStreaming, live } from '../observe.ts';
import { type Problem, addStep, fail, findTask, finish, hasStep, refuse, start } from '../tasks.ts';

const FIRST = makeTerm(1);

interface Plan {
  readonly kind: 'create' | 'adopt';
  readonly primary: NodeId;
}

/** Highest priority first, then the order of the spec; priority 0 only if nobody else is there. */
function firstNode(view: ClusterView): NodeId | null {
  return dataNodes(view.spec).toSorted((a, b) => b.priority - a.priority)[0]?.id ?? null;
}

function silentNodes(view: ClusterView): readonly NodeId[] {
  return dataNodes(view.spec)
    .filter((node) => live(view, node.id) === null)
    .map((node) => node.id);
}

/**
 * What is to be done once every data node reports; problems when it must not be done.
 *
 * *Invariant:* if any node has data, nobody runs initdb (I10, Q24). *Because:* a volume that is not mounted, or a cluster that was
 * unregistered, looks like a fresh one from the other nodes. *Broken if:* a silent node is taken for an empty one.
 */
export function planBootstrap(view: ClusterView): { readonly plan: Plan | null; readonly problems: readonly Problem[] } {
  const reports = dataNodes(view.spec).flatMap((node) => live(view, node.id) ?? []);
  const alien = reports.flatMap((report) => report.problems.filter((one) => one.code === FOREIGN_FILES).map((one) => ({ node: report.node, one })));
  if (alien.length > 0)
    return {
      plan: null,
      problems: alien.map(({ node, one }) => ({ code: 'init.not-empty', text: `${node}: ${one.text}.`, remedy: `On that host ${one.remedy}.` })),
    };
  const withData = reports.filter((report) => report.postgres.state !== 'absent');
  const first = firstNode(view);
  if (withData.length === 0) return { plan: first === null ? null : { kind: 'create', primary: first }, problems: [] };
  const problems = adoptionProblems(withData);
  const primary = withData.find(isRunningPrimary);
  return { plan: problems.length === 0 && primary !== undefined ? { kind: 'adopt', primary: primary.node } : null, problems };
}

function isRunningPrimary(report: NodeReport): boolean {
  return report.postgres.state === 'running' && report.postgres.role === 'primary';
}

function adoptionProblems(withData: readonly NodeReport[]): readonly Problem[] {
  const problems: Problem[] = [];
  const primaries = withData.filter(isRunningPrimary);
  const names = withData.map((report) => report.node).join(', ');
  if (primaries.length === 0) {
    problems.push({
      code: 'adopt.no-primary',
      text: `${names} ${withData.length === 1 ? 'has' : 'have'} a data directory, but no primary runs.`,
      remedy: 'Start the servers that are to be adopted, or move the directories aside to create a new cluster.',
    });
  }
  if (primaries.length > 1) {
    problems.push({
      code: 'adopt.two-primaries',
      text: `${primaries.map((report) => report.node).join(' and ')} both accept writes.`,
      remedy: 'Decide which one holds the truth; stop the others and move their directories aside.',
    });
  }
  const [primary] = primaries;
  if (primary === undefined || primaries.length > 1) return problems;
  for (const report of withData) {
    if (report.node === primary.node) continue;
    const reason = strayReason(report, primary);
    if (reason !== null)
      problems.push({
        code: 'adopt.not-a-standby',
        text: `${report.node} ${reason}.`,
        remedy: `Make it stream from ${primary.node}, or move its data directory aside so that it is cloned.`,
      });
  }
  return problems;
}

function strayReason(report: NodeReport, primary: NodeReport): string | null {
  const pg = report.postgres;
  if (pg.systemIdentifier !== primary.postgres.systemIdentifier)
    return `belongs to another cluster (system identifier ${pg.systemIdentifier ?? 'unknown'}, ${primary.node} has ${primary.postgres.systemIdentifier ?? 'unknown'})`;
  if (pg.state !== 'running') return `has data but its server is ${pg.state}`;
  if (pg.streamingFrom !== primary.node) return `does not stream from ${primary.node}`;
  return null;
}

function begin(view: ClusterView, now: Now, plan: Plan): Outcome {
  const task = findTask(view, 'create', 'running') ?? findTask(view, 'create', 'pending');
  const kind = plan.kind;
  const why = kind === 'create' ? `no node has data; ${plan.primary} is initialised` : `${plan.primary} is adopted as the primary, without a restart`;
  const state = withGoal({ ...view.state, phase: kind === 'create' ? 'creating' : 'adopting', term: FIRST }, plan.primary, FIRST, { kind });
  return {
    why,
    state,
    tasks: task === null ? [] : [start(task, now, kind === 'create' ? `create ${plan.primary}` : `adopt ${plan.primary}`)],
    events: [{ level: 'info', node: plan.primary, text: why, detail: {} }],
  };
}

/** The node whose goal is `create` or `adopt`. */
function founder(state: ClusterState): NodeId | null {
  for (const [node, goal] of Object.entries(state.goals)) if (goal.kind === 'create' || goal.kind === 'adopt') return node as NodeId;
  return null;
}

function founded(view: ClusterView, now: Now): Outcome | null {
  if (view.state.phase !== 'creating' && view.state.phase !== 'adopting') return null;
  const node = founder(view.state);
  const report = node === null ? null : live(view, node);
  if (node === null || report === null || !isOpen(report, FIRST)) return null;
  const attempt: Attempt = {
    ...PLAIN_ATTEMPT,
    term: FIRST,
    path: 'planned',
    phase: 'promote',
    rule: 'bootstrap.opened',
    reason: view.state.phase === 'creating' ? 'cluster created' : 'cluster adopted',
    candidate: node,
    startedWallMs: now.wall,
    outageFromWallMs: now.wall,
  };
  const { state, opened } = openTerm(view, now, report, attempt);
  const record = { ...opened, outageMs: null };
  const task = findTask(view, 'create', 'running');
  const why = `${node} is the primary of term 1`;
  return {
    why,
    state: { ...state, terms: [record] },
    opened: record,
    tasks: task === null ? [] : [addStep(task, now, 'standbys', why)],
    events: [{ level: 'info', node, text: why, detail: {} }],
  };
}

function failed(view: ClusterView, now: Now): Outcome | null {
  if (view.state.phase !== 'creating' && view.state.phase !== 'adopting') return null;
  const node = founder(view.state);
  const report = node === null ? null : live(view, node);
  if (node === null || report === null || !gaveUp(report, view.state.goals[node] ?? null)) return null;
  const activity = activityFor(report, view.state.goals[node] ?? null);
  const message = activity?.kind === 'failed' ? `${activity.step}: ${activity.message} (${activity.code})` : 'failed';
  const task = findTask(view, 'create', 'running');
  const why = `${node} could not be ${view.state.phase === 'creating' ? 'created' : 'adopted'}: ${message}`;
  const state = withGoal({ ...view.state, phase: 'new' }, node, FIRST, { kind: 'none' });
  return {
    why,
    state: { ...state, goals: {} },
    tasks:
      task === null
        ? []
        : [
            fail(task, now, {
              code: 'create.failed',
              text: why,
              remedy: 'Correct the cause, then run "pgherd init" again; nothing that had data was touched.',
            }),
          ],
    events: [{ level: 'error', node, text: why, detail: {} }],
  };
}

/** Told once for each new message, so that a try a minute later does not fill the journal. */
function troubled(view: ClusterView, now: Now): Outcome | null {
  const task = findTask(view, 'create', 'running');
  if (task === null) return null;
  const { phase, goals } = view.state;
  const waitedFor = phase === 'running' ? dataNodes(view.spec).map((node) => node.id) : [founder(view.state)];
  for (const node of waitedFor) {
    const report = node === null ? null : live(view, node);
    const activity = node === null || report === null ? null : activityFor(report, goals[node] ?? null);
    if (activity?.kind !== 'failed' || !activity.retrying) continue;
    const why = `${node}: ${activity.step}: ${activity.message} (${activity.code})`;
    if (task.steps.some((step) => step.detail === why)) continue;
    const told = { why, tasks: [addStep(task, now, 'retry', why)], events: [{ level: 'warn' as const, node, text: why, detail: {} }] };
    return phase === 'running' ? { ...told, then: 'continue' } : told;
  }
  return null;
}

function completed(view: ClusterView, now: Now): Outcome | null {
  const task = findTask(view, 'create', 'running');
  const { primary } = view.state;
  if (task === null || view.state.phase !== 'running' || primary === null || !hasStep(task, 'standbys')) return null;
  const waiting = dataNodes(view.spec).filter((node) => node.id !== primary && !node.maintenance && !isStreaming(live(view, node.id), primary));
  if (waiting.length > 0) return null;
  const why = `${view.spec.name} runs: ${primary} is the primary, every standby streams`;
  return { why, tasks: [finish(task, now, why)], then: 'continue' };
}

export const bootstrapRules: readonly Rule[] = [
  {
    id: 'bootstrap.refused',
    when: 'a `create` command for a cluster that exists, or for nodes whose data cannot be adopted',
    why: 'Two writable servers, a foreign directory or a stopped one need a person; nothing is wiped (I10, Q25).',
    decide: (view, now) => {
      const task = findTask(view, 'create', 'pending') ?? findTask(view, 'create', 'running');
      if (task === null) return null;
      if (view.state.phase !== 'new') {
        if (task.status === 'running') return null;
        const problem = {
          code: 'create.exists',
          text: `The cluster ${view.spec.name} exists (phase ${view.state.phase}, primary ${view.state.primary ?? 'none'}).`,
          remedy: 'Add nodes with "pgherd node add".',
        };
        return { why: problem.text, tasks: [refuse(task, now, [problem])] };
      }
      if (silentNodes(view).length > 0) return null;
      const { problems } = planBootstrap(view);
      return problems.length === 0 ? null : { why: problems.map((problem) => problem.text).join(' '), tasks: [refuse(task, now, problems)] };
    },
  },
  {
    id: 'bootstrap.waiting-agents',
    when: 'a `create` command, and not every data node reports yet',
    why: 'A silent node may hold data; it is never taken for an empty one (I10).',
    decide: (view, now) => {
      const task = findTask(view, 'create', 'pending') ?? findTask(view, 'create', 'running');
      const silent = silentNodes(view);
      if (task === null || view.state.phase !== 'new' || silent.length === 0) return null;
      const why = `waiting for the agent of ${silent.join(', ')}`;
      return { why, tasks: task.status === 'pending' ? [start(task, now, 'agents', why)] : [] };
    },
  },
  {
    id: 'bootstrap.create',
    when: 'every data node reports, and none has data',
    why: 'The node of the highest priority runs initdb; the others are cloned from it.',
    decide: (view, now) => beginIf(view, now, 'create'),
  },
  {
    id: 'bootstrap.adopt',
    when: 'every data node reports, exactly one runs as a primary, and all others with data stream from it',
    why: 'Running servers are taken over without a restart.',
    decide: (view, now) => beginIf(view, now, 'adopt'),
  },
  {
    id: 'bootstrap.failed',
    when: 'the first node gave up on creation or adoption',
    why: 'The task names the step; the cluster is as new, and can be tried again.',
    decide: failed,
  },
  {
    id: 'bootstrap.retried',
    when: 'a node that the creation waits for failed, and tries again',
    why: 'Who waits for the command reads there what it waits for, and can take the cause away.',
    decide: troubled,
  },
  {
    id: 'bootstrap.opened',
    when: 'the first node is open in term 1',
    why: 'Only a primary that is open is named as such (H29); the standbys are cloned from it, or go on streaming.',
    decide: founded,
  },
  {
    id: 'bootstrap.completed',
    when: 'every standby streams',
    why: 'A command is done when its effect was seen (I10 of users: success only after streaming).',
    decide: completed,
  },
  {
    id: 'bootstrap.waiting',
    when: 'the cluster is being created or adopted, or was not asked for',
    why: 'No other rule has a say before there is a primary.',
    decide: (view) => {
      if (view.state.phase === 'new') return { why: 'no cluster was created yet' };
      return view.state.phase === 'creating' || view.state.phase === 'adopting'
        ? { why: `${founder(view.state) ?? 'nobody'} is being ${view.state.phase === 'creating' ? 'created' : 'adopted'}` }
        : null;
    },
  },
];

function beginIf(view: ClusterView, now: Now, kind: Plan['kind']): Outcome | null {
  const task = findTask(view, 'create', 'pending') ?? findTask(view, 'create', 'running');
  if (task === null || view.state.phase !== 'new' || silentNodes(view).length > 0) return null;
  const { plan } = planBootstrap(view);
  return plan !== null && plan.kind === kind ? begin(view, now, plan) : null;
}
