/**
 * The restart of node after node. Standbys one by one, each in good order again before the next; then the primary by a switchover, so that writes wait
 * and do not fail. The task keeps in `notes` which server of each node is to be replaced (`started/NODE`), so that another controller goes on where this
 * one stopped, and a failover in between changes nothing: who runs another server is done.
 *
 * Settings that no standby may have lower than its primary (Z37):
 *   raised   standbys first; the switchover then promotes one that has them.
 *   lowered  the primary first, in place under a hold of the proxies: only WAL of a primary that runs with less lets a standby run with less.
 *   both     standbys, the primary in place, standbys again.
 */
import type { NodeId, Now } from '../../ids.ts';
import type { NodeReport, PostgresState } from '../../report.ts';
import type { ClusterState, Task } from '../../state.ts';
import type { ClusterView, Outcome, Rule } from '../../view.ts';
import { type Via, withGoal, withoutRestart } from '../goals.ts';
import { activityFor, elapsedMs, gaveUp, live } from '../observe.ts';
import { describeChanges, lowered, minimumChanges, notInOrder, raised, rollingStandbys } from '../restart-order.ts';
import { chooseSuccessor } from '../switchover-checks.ts';
import { type TaskOf, addStep, cancel, fail, findTask, finish, hasStep, start, stepSince } from '../tasks.ts';
import { upstreamNow } from '../upstream.ts';
import { beginSwitchover } from './switchover.ts';

/** A start waits for recovery; longer than that a person should look. Too early only ends the task, not the work. */
const NODE_LIMIT_MS = 600_000;
/** The same while nobody is starting: an agent that fell silent, a stream that does not come. Meanwhile no other operation can begin. */
const IDLE_LIMIT_MS = 60_000;
/** A standby learns of a lowered setting by replay, and says within seconds that it needs a restart. */
const LOWERED_LIMIT_MS = 30_000;

const WORKING: ReadonlySet<PostgresState> = new Set(['starting', 'stopping', 'cloning', 'rewinding']);

/** Reads that are under way when a proxy learns that their standby goes; longer ones are ended by its stop. */
const READS_END_MS = 1000;
/** A proxy that hangs does not keep the restart from going on; its report vanishes 3 s after its last sign of life. */
const DRAIN_LIMIT_MS = 5000;

type RollingTask = TaskOf<'clusterRestart'>;

/** The rolling restart that waits or runs; null when there is none. */
function findRolling(view: ClusterView): RollingTask | null {
  const task = findTask(view, 'clusterRestart', 'pending') ?? findTask(view, 'clusterRestart', 'running');
  return task?.request.rolling === true ? task : null;
}

/** Which server a node runs, so that another start can be told from it. Null: its agent is silent. */
export function serverMark(report: NodeReport | null): string | null {
  return report === null ? null : `server of ${report.postgres.startedAt ?? 0}, process ${report.postgres.postmasterPid ?? 0}`;
}

const noteOf = (node: NodeId): string => `started/${node}`;

function withMarks(view: ClusterView, task: RollingTask, nodes: readonly NodeId[]): RollingTask {
  const marks = nodes.map((node) => [noteOf(node), serverMark(live(view, node)) ?? ''] as const);
  return { ...task, notes: { ...task.notes, ...Object.fromEntries(marks) } };
}

function isRestarted(view: ClusterView, node: NodeId, task: Task): boolean {
  const report = live(view, node);
  return report !== null && report.postgres.state === 'running' && serverMark(report) !== task.notes[noteOf(node)];
}

function rolling(view: ClusterView, now: Now): Outcome | null {
  const task = findRolling(view);
  const { primary, phase, attempt, switchover } = view.state;
  if (task === null || primary === null || phase !== 'running' || attempt !== null || switchover !== null) return null;
  if (task.status === 'running') return nextStep(view, now, task, primary);
  const standbys = rollingStandbys(view);
  const changes = minimumChanges(view);
  const down = lowered(changes);
  const order = down.length > 0 && raised(changes).length === 0 ? [primary, ...standbys] : [...standbys, primary];
  const why = down.length === 0 ? '' : `; ${primary} in place, since a standby may not have less than its primary (${describeChanges(down)})`;
  const begun = start(task, now, 'check', `in this order: ${order.join(', ')}${why}`) as RollingTask;
  return nextStep(view, now, withMarks(view, begun, order), primary);
}

/** Who takes part, in the order in which they are restarted. The primary comes first when its settings are only lowered. */
function participants(
  view: ClusterView,
  task: RollingTask,
  primary: NodeId,
): { readonly standbys: readonly NodeId[]; readonly primaryFirst: boolean } {
  const changes = minimumChanges(view);
  const standbys = rollingStandbys(view).filter((node) => noteOf(node) in task.notes);
  const primaryFirst = !isRestarted(view, primary, task) && lowered(changes).length > 0 && raised(changes).length === 0;
  return { standbys, primaryFirst };
}

function nextStep(view: ClusterView, now: Now, task: RollingTask, primary: NodeId): Outcome | null {
  const { standbys, primaryFirst } = participants(view, task, primary);
  const all = [...standbys, primary];
  const isNew = task.steps.at(-1)?.name === 'check';
  const underWay = /^restart (.+)$/.exec(task.steps.at(-1)?.name ?? '')?.[1] ?? null;
  const waiting = all.filter((node) => node === underWay && !isRestarted(view, node, task)).map((node) => `${node} is being restarted`);
  const trouble = [...waiting, ...all.map((node) => notInOrder(view, node)).filter((text) => text !== null)];
  if (trouble.length > 0 && !isNew) return wait(view, now, task, all, trouble);
  if (task.cancelRequested) return stopHere(view, now, task, all);
  const open = standbys.filter((node) => !isRestarted(view, node, task));
  const next = primaryFirst ? undefined : open[0];
  if (next !== undefined) return restartStandby(view, now, task, next);
  if (!isRestarted(view, primary, task)) return restartPrimary(view, now, task, { primary, standbys });
  const text = `every node was restarted; ${primary} is the primary of term ${view.state.primaryTerm}`;
  return {
    why: text,
    state: cleared(view.state, all),
    tasks: [finish(task, now, text)],
    events: [{ level: 'info', node: null, text: `rolling restart finished: ${text}`, detail: {} }],
  };
}

function cleared(state: ClusterState, nodes: readonly NodeId[]): ClusterState {
  return nodes.reduce(withoutRestart, undrained(state));
}

function undrained(state: ClusterState): ClusterState {
  return state.draining === null ? state : { ...state, draining: null };
}

/** Somebody is not in good order: the next node waits for it, and when it takes too long or gave up nothing more is touched. */
function wait(view: ClusterView, now: Now, task: RollingTask, all: readonly NodeId[], trouble: readonly string[]): Outcome | null {
  const broken = all.map((node) => failureOf(view, node)).find((text) => text !== null) ?? null;
  const works = all.some((node) => WORKING.has(live(view, node)?.postgres.state ?? 'absent'));
  const limitMs = works ? NODE_LIMIT_MS : IDLE_LIMIT_MS;
  if (broken === null && elapsedMs(now, stepSince(task)) <= limitMs) return null;
  const text = broken ?? `${trouble.join('; ')} after ${limitMs} ms`;
  return failed(view, now, task, all, { code: 'cluster-restart.failed', text });
}

function failureOf(view: ClusterView, node: NodeId): string | null {
  const report = live(view, node);
  const goal = view.state.goals[node] ?? null;
  if (report === null || !gaveUp(report, goal)) return null;
  const activity = activityFor(report, goal);
  return activity?.kind === 'failed' ? `${node}: ${activity.message} (${activity.code})` : `${node} gave up`;
}

function failed(
  view: ClusterView,
  now: Now,
  task: RollingTask,
  all: readonly NodeId[],
  { code, text, remedy }: { readonly code: string; readonly text: string; readonly remedy?: string },
): Outcome {
  const done = sortOut(view, task, all);
  const problem = {
    code,
    text: `${text}. ${done}`,
    remedy: remedy ?? 'Put it in order ("pgherd show", "pgherd log"), then ask again: nodes that need no restart are restarted again, too.',
  };
  return {
    why: text,
    state: cleared(view.state, all),
    tasks: [fail(task, now, problem)],
    events: [{ level: 'error', node: null, text: `the rolling restart stopped: ${problem.text}`, detail: {} }],
  };
}

function sortOut(view: ClusterView, task: RollingTask, all: readonly NodeId[]): string {
  const done = all.filter((node) => isRestarted(view, node, task));
  const left = all.filter((node) => !done.includes(node));
  return `Restarted: ${done.length === 0 ? 'none' : done.join(', ')}. Not restarted: ${left.length === 0 ? 'none' : left.join(', ')}.`;
}

function stopHere(view: ClusterView, now: Now, task: RollingTask, all: readonly NodeId[]): Outcome {
  const text = `cancelled between two nodes. ${sortOut(view, task, all)}`;
  return { why: text, state: cleared(view.state, all), tasks: [cancel(task, now, text)] };
}

function restartStandby(view: ClusterView, now: Now, task: RollingTask, node: NodeId): Outcome | null {
  const { state } = view;
  if (state.primary === null) return null;
  const late = elapsedMs(now, stepSince(task)) > LOWERED_LIMIT_MS;
  if (hasStep(task, LOWERED_STEP) && !late && !knowsLowered(view, node))
    return { why: `${node} has not yet replayed the lowered settings`, again: 200, then: 'continue' };
  const { draining } = state;
  if (draining?.node !== node) {
    const epoch = state.route.epoch + (state.route.readers.includes(node) ? 1 : 0);
    const drained: ClusterState = { ...state, draining: { node, epoch, sinceWallMs: now.wall } };
    return { why: `rolling restart: ${node} gets no new reads`, state: drained, tasks: [addStep(task, now, `drain ${node}`)], again: 50 };
  }
  if (!isDrained(view, now, draining)) return { why: `reads on ${node} end`, again: 50, then: 'continue' };
  const goal = state.goals[node];
  const via: Via = goal?.kind === 'standby' ? goal.via : 'stream';
  const request = `${task.id}-${node}-${task.steps.length}`;
  const upstream = via === 'stream' ? (upstreamNow(view, node) ?? state.primary) : state.primary;
  return {
    why: `rolling restart: ${node}`,
    state: withGoal(state, node, state.primaryTerm, { kind: 'standby', upstream, via, restart: request }, 'anew'),
    tasks: [addStep(task, now, `restart ${node}`)],
  };
}

/** Every live proxy has taken it out of its reads, and statements that were under way had their time. Without a proxy there is nobody to wait for. */
function isDrained(view: ClusterView, now: Now, { epoch, sinceWallMs }: NonNullable<ClusterState['draining']>): boolean {
  const acks = Object.values(view.proxyAcks);
  const sinceMs = elapsedMs(now, sinceWallMs);
  return acks.length === 0 || sinceMs >= DRAIN_LIMIT_MS || (acks.every((acknowledged) => acknowledged >= epoch) && sinceMs >= READS_END_MS);
}

/** Whoever drained it is gone: reads go there again. */
function drainedFor(view: ClusterView): Outcome | null {
  if (view.state.draining === null || findTask(view, 'clusterRestart', 'running') !== null) return null;
  return { why: `${view.state.draining.node} may get reads again`, state: undrained(view.state), then: 'continue' };
}

const LOWERED_STEP = 'lower settings';

/** It needs no lower value, or says that it will have one after a restart. */
function knowsLowered(view: ClusterView, node: NodeId): boolean {
  const primary = view.state.primary === null ? null : live(view, view.state.primary);
  const own = live(view, node)?.postgres;
  if (own === undefined || primary === null) return false;
  return Object.entries(primary.postgres.minimums).every(
    ([name, value]) => (own.minimums[name] ?? value) <= value || own.pendingRestart.includes(name),
  );
}

function restartPrimary(
  view: ClusterView,
  now: Now,
  task: RollingTask,
  { primary, standbys }: { readonly primary: NodeId; readonly standbys: readonly NodeId[] },
): Outcome | null {
  const all = [...standbys, primary];
  if (hasStep(task, 'checkpoint'))
    return failed(view, now, task, all, { code: 'cluster-restart.overtaken', text: `the role did not leave ${primary} as planned` });
  const state = cleared(view.state, standbys);
  const down = lowered(minimumChanges(view));
  if (down.length > 0 || standbys.length === 0) {
    // Standbys that were restarted by now run with the old values still, and are restarted once more.
    const noted = down.length > 0 ? addStep(withMarks(view, task, standbys), now, LOWERED_STEP, describeChanges(down)) : task;
    return {
      why: `rolling restart: ${primary}, in place${standbys.length === 0 ? ', since there is no standby' : ''}`,
      state: beginSwitchover({ ...view, state }, now, { task, to: primary, from: primary }),
      tasks: [addStep(noted, now, 'checkpoint', `${primary} is restarted in place while proxies hold`)],
      again: 50,
    };
  }
  const { to, problems } = chooseSuccessor(view, now);
  const [problem] = problems;
  if (to === null) {
    return elapsedMs(now, stepSince(task)) <= LOWERED_LIMIT_MS || problem === undefined ? null : failed(view, now, task, all, problem);
  }
  return {
    why: `rolling restart: ${primary} hands over to ${to}, and is restarted by that`,
    state: beginSwitchover({ ...view, state }, now, { task, to, from: primary }),
    tasks: [addStep(task, now, 'checkpoint', `switchover from ${primary} to ${to}`)],
    again: 50,
  };
}

export const rollingRules: readonly Rule[] = [
  {
    id: 'cluster.rolling',
    when: 'a rolling restart was asked, or goes on',
    why: 'One node at a time, each streaming and caught up before the next; the role moves by switchover, so that writes go on; it stops when somebody is not in good order.',
    decide: rolling,
  },
  {
    id: 'cluster.undrained',
    when: 'a standby gets no reads because of a restart that is over',
    why: 'It has its share of reads again, also when the restart was cancelled, failed or was overtaken (H41).',
    decide: drainedFor,
  },
];
