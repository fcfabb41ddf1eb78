/** Commands that take several looks: start, stop, restart, rejoin of a node, and of the whole cluster. Done only when seen in reports. */
import type { NodeId, Now } from '../../ids.ts';
import type { NodeReport } from '../../report.ts';
import type { ClusterState, Task } from '../../state.ts';
import type { ClusterView, Outcome, Rule } from '../../view.ts';
import { cancelEffect } from '../cancel.ts';
import { type Via, withGoal, without, withoutRestart, isPromotionUnfinished } from '../goals.ts';
import { isContained } from '../lineage.ts';
import { activityFor, dataNodes, elapsedMs, gaveUp, isMaintenance, isOfThisStore, isOpen, lineageOf, live, otherDataNodes } from '../observe.ts';
import { fittingVia, isTwinSuspect } from '../recovery.ts';
import { climbLadder } from '../rejoin-ladder.ts';
import { isAttached, upstreamNow } from '../upstream.ts';
import { type RequestKind, addStep, cancel, describeRequest, fail, findTask, finish, hasStep, requestWords, start, stepSince } from '../tasks.ts';
import { checkNode } from './commands.ts';
import { restartInPlace } from './primary-lost.ts';
import { serverMark } from './rolling.ts';

/** In a restored store nobody takes a lease before it is confirmed, which takes a report of each member; a person who has to decide is not kept out by the start. */
const CONFIRM_LIMIT_MS = 10_000;
/** A stop ladder ends long before; a start waits for recovery. Too early only ends the task, not the work. */
const STOP_LIMIT_MS = 120_000;
const START_LIMIT_MS = 600_000;
/** A clone of a large database takes hours; the task follows as long as the agent works on it, and this long when it does not. */
const REJOIN_IDLE_LIMIT_MS = 300_000;

type Serves = 'yes' | 'no';

/** Open when it is the primary, streaming when it is not. */
function serves(view: ClusterView, node: NodeId): Serves {
  const report = live(view, node);
  const { primary, primaryTerm } = view.state;
  return (node === primary ? isOpen(report, primaryTerm) : isAttached(view, node)) ? 'yes' : 'no';
}

function isDown(report: NodeReport | null): boolean {
  return (
    report === null ||
    report.postgres.state === 'stopped' ||
    report.postgres.state === 'absent' ||
    report.postgres.state === 'incomplete' ||
    report.postgres.state === 'crashed'
  );
}

function failureOf(view: ClusterView, node: NodeId): string | null {
  const report = live(view, node);
  const goal = view.state.goals[node] ?? null;
  if (report === null) return `the agent of ${node} fell silent`;
  if (!gaveUp(report, goal)) return null;
  const activity = activityFor(report, goal);
  return activity?.kind === 'failed' ? `${node}: ${activity.message} (${activity.code})` : `${node} gave up`;
}

function pendingFor<K extends 'nodeStop' | 'nodeStart' | 'nodeRestart' | 'nodeRejoin'>(
  view: ClusterView,
  kind: K,
): (Task & { readonly request: { readonly kind: K; readonly node: NodeId } }) | null {
  const task = findTask(view, kind as RequestKind, 'pending');
  if (task === null || !('node' in task.request) || checkNode(view, task.request.node, task.request).length > 0) return null;
  return task as never;
}

/**
 * *Invariant:* no directory that may hold WAL past a fork is started to stream. *Because:* at its second start it has the primary's history file, and
 * replays along that over pages that hold more: PostgreSQL does not always notice (I9). *Broken if:* a node that cannot be heard is told to stream.
 */
function mustBeCompared(view: ClusterView, node: NodeId): boolean {
  const report = live(view, node);
  const verdict = report === null ? null : lineageOf(view, report);
  return report === null || (verdict !== null && !isContained(verdict));
}

function withRole(view: ClusterView, state: ClusterState, now: Now, node: NodeId): ClusterState {
  if (node === state.primary) return restartInPlace(state, now, node);
  if (state.primary === null) return state;
  if (mustBeCompared(view, node))
    return withGoal(state, node, state.primaryTerm, { kind: 'fenced', reason: 'it is compared with the primary first' });
  // A node that is marked is compared with the primary first; the ladder gives it its rung.
  if (isPromotionUnfinished(state.recovery[node]))
    return withGoal(state, node, state.primaryTerm, {
      kind: 'fenced',
      reason: 'its promotion was not completed; it is compared with the primary first',
    });
  return withGoal(state, node, state.primaryTerm, {
    kind: 'standby',
    upstream: upstreamNow({ ...view, state }, node) ?? state.primary,
    via: 'stream',
  });
}

function stopNode(view: ClusterView, now: Now): Outcome | null {
  const task = pendingFor(view, 'nodeStop');
  if (task === null) return null;
  const { node } = task.request;
  const reason = task.reason === '' ? `stopped by ${task.by}` : task.reason;
  const overrides = { ...view.state.overrides, [node]: { kind: 'stopped' as const, reason, by: task.by, sinceWallMs: now.wall } };
  const state = withGoal({ ...view.state, overrides }, node, view.state.primaryTerm, { kind: 'stopped', reason });
  return {
    why: `${node} is stopped on request of ${task.by}`,
    state,
    tasks: [start(task, now, 'stop')],
    events: [{ level: 'info', node, text: `${node} is stopped on request of ${task.by}`, detail: { reason } }],
    then: 'continue',
  };
}

function startNode(view: ClusterView, now: Now): Outcome | null {
  const task = pendingFor(view, 'nodeStart');
  if (task === null) return null;
  const { node } = task.request;
  // The mark of a promotion that was not completed outlives every command but a rewind or a clone: numbers do not tell its timeline from the primary's.
  const { recovery } = view.state;
  const marked = isPromotionUnfinished(recovery[node]);
  const base: ClusterState = { ...view.state, overrides: without(view.state.overrides, node), recovery: marked ? recovery : without(recovery, node) };
  const state = serves(view, node) === 'yes' ? base : withRole(view, base, now, node);
  return { why: `${node} is started on request of ${task.by}`, state, tasks: [start(task, now, 'start')], then: 'continue' };
}

function restartNode(view: ClusterView, now: Now): Outcome | null {
  const task = pendingFor(view, 'nodeRestart');
  if (task === null) return null;
  const { node } = task.request;
  return {
    why: `${node} is restarted on request of ${task.by}`,
    state: orderRestart(view, now, node, task.id),
    tasks: [start(task, now, `restart ${node}`, startMark(live(view, node)))],
    then: 'continue',
  };
}

function orderRestart(view: ClusterView, now: Now, node: NodeId, request: string): ClusterState {
  const { state } = view;
  if (node === state.primary) return restartInPlace(state, now, node, request);
  const goal = state.goals[node];
  if (state.primary === null) return state;
  if (goal?.kind === 'fenced') return withRole(view, state, now, node);
  const via: Via = goal?.kind === 'standby' ? goal.via : 'stream';
  const upstream = via === 'stream' ? (upstreamNow(view, node) ?? state.primary) : state.primary;
  return withGoal(state, node, state.primaryTerm, { kind: 'standby', upstream, via, restart: request }, 'anew');
}

/** Kept as the detail of the step, so that another start can be told from it. */
function startMark(report: NodeReport | null): string {
  return serverMark(report) ?? '';
}

function wasRestarted(view: ClusterView, node: NodeId, task: Task): boolean {
  const mark = task.steps.findLast((step) => step.name === `restart ${node}`)?.detail ?? '';
  return serves(view, node) === 'yes' && startMark(live(view, node)) !== mark;
}

/** It serves by an order of a later term, which does not name the request: nobody will restart it. */
function isOvertaken(view: ClusterView, node: NodeId, task: Task): boolean {
  const goal = view.state.goals[node];
  if (serves(view, node) === 'no' || (goal?.kind !== 'primary' && goal?.kind !== 'standby')) return false;
  return goal.restart !== task.id;
}

function rejoinNode(view: ClusterView, now: Now): Outcome | null {
  const pending = pendingFor(view, 'nodeRejoin');
  const { primary } = view.state;
  if (pending === null || pending.request.kind !== 'nodeRejoin' || primary === null) return null;
  const task = findTask(view, 'nodeRejoin', 'pending');
  const report = task === null ? null : live(view, task.request.node);
  if (task === null || report === null) return null;
  const { node } = task.request;
  // A stream or a rewind of a twin would not see where the two part.
  const twin = isTwinSuspect({ view, node, report });
  const via = twin ? 'clone' : (task.request.via ?? fittingVia(view, report));
  const recovery = twin ? view.state.recovery : without(view.state.recovery, node);
  const base: ClusterState = { ...view.state, overrides: without(view.state.overrides, node), recovery };
  const state = withGoal(
    base,
    node,
    base.primaryTerm,
    via === 'clone'
      ? { kind: 'standby', upstream: primary, via, source: task.request.source, rateKb: task.request.rateKb }
      : { kind: 'standby', upstream: via === 'stream' ? (upstreamNow({ ...view, state: base }, node) ?? primary) : primary, via },
    serves(view, node) === 'yes' && via === 'stream' ? 'as-is' : 'anew',
  );
  return {
    why: `${node} is taken back by ${via} on request of ${task.by}`,
    state,
    tasks: [start(task, now, via)],
    events: [{ level: 'info', node, text: `${node} is taken back by ${via} on request of ${task.by}`, detail: {} }],
    // No rule below may judge the new order by reports of before it: a node that streams now would count as taken back.
  };
}

/** `node stop` is undone by a start; its task ends at once, and the start is seen in `show`. */
function stopUndone(view: ClusterView, now: Now): Outcome | null {
  const task = findTask(view, 'nodeStop', 'running');
  if (task === null || !task.cancelRequested) return null;
  const { node } = task.request;
  const text = `node stop ${node} was cancelled: it is started again`;
  const state = withRole(view, { ...view.state, overrides: without(view.state.overrides, node) }, now, node);
  return { why: text, state, tasks: [cancel(task, now, text)], events: [{ level: 'info', node, text, detail: {} }], then: 'continue' };
}

/** A stop of everything that nobody carries on: the state was set back, or a person's failover came first. Nothing may wait for it for ever (Q38). */
function stopOvertaken(view: ClusterView, now: Now): Outcome | null {
  const task = findTask(view, 'clusterStop', 'running') ?? restartTask(view, 'running', 'all');
  if (task === null || view.state.phase === 'stopping' || hasStep(task, 'start')) return null;
  const text = `${describeRequest(task.request)} did not end as planned; the cluster is ${view.state.phase}`;
  return {
    why: text,
    tasks: [fail(task, now, { code: 'cluster-stop.overtaken', text: `${text}.`, remedy: 'See "pgherd events", then ask again.' })],
    then: 'continue',
  };
}

/** Ends the commands for one node whose effect, or failure, is seen. */
function nodeDone(view: ClusterView, now: Now): Outcome | null {
  const tasks: Task[] = [];
  const events: NonNullable<Outcome['events']>[number][] = [];
  const whys: string[] = [];
  let state = view.state;
  for (const task of view.tasks) {
    if (task.status !== 'running' || !('node' in task.request)) continue;
    const climbed = climbLadder({ ...view, state }, now, task);
    if (climbed !== null) {
      tasks.push(climbed.task);
      events.push(climbed.event);
      whys.push(climbed.event.text);
      state = climbed.state;
      continue;
    }
    const ended = judge(view, now, task);
    if (ended === null) continue;
    tasks.push(ended);
    whys.push(ended.result ?? ended.problems.at(-1)?.text ?? '');
    state = withoutRestart(state, task.request.node);
  }
  if (tasks.length === 0) return null;
  const why = whys.join('; ');
  return { why, tasks, ...(state === view.state ? {} : { state }), ...(events.length === 0 ? {} : { events }), then: 'continue' };
}

function judge(view: ClusterView, now: Now, task: Task): Task | null {
  const { request } = task;
  if (!('node' in request)) return null;
  const { node } = request;
  const sinceMs = elapsedMs(now, stepSince(task));
  const broken = failureOf(view, node) ?? notTakenIn(view, node, sinceMs);
  const problem = (text: string): Task =>
    fail(task, now, { code: `${requestWords(request).replaceAll(' ', '-')}.failed`, text, remedy: `See "pgherd log ${node}".` });
  const { phase } = view.state;
  // A stop of the cluster overtakes it. Waiting for its limit would keep the cluster from being started again.
  if (request.kind !== 'nodeStop' && (phase === 'stopping' || phase === 'stopped')) return problem('the cluster was stopped meanwhile');
  switch (request.kind) {
    case 'nodeStop':
      if (live(view, node) !== null && isDown(live(view, node))) return finish(task, now, `${node} is stopped`);
      return broken !== null ? problem(broken) : sinceMs > STOP_LIMIT_MS ? problem(`${node} did not stop within ${STOP_LIMIT_MS} ms`) : null;
    case 'nodeStart':
      if (serves(view, node) === 'yes') return finish(task, now, `${node} serves`);
      return broken !== null ? problem(broken) : sinceMs > START_LIMIT_MS ? problem(`${node} does not serve after ${START_LIMIT_MS} ms`) : null;
    case 'nodeRestart':
      if (wasRestarted(view, node, task)) return finish(task, now, `${node} was restarted and serves`);
      if (isOvertaken(view, node, task))
        return problem(`the order was overtaken: ${node} serves in term ${view.state.primaryTerm}, and was not restarted`);
      return broken !== null ? problem(broken) : sinceMs > START_LIMIT_MS ? problem(`${node} does not serve after ${START_LIMIT_MS} ms`) : null;
    case 'nodeRejoin': {
      if (isBack(view, node)) return finish(task, now, `${node} streams from ${live(view, node)?.postgres.streamingFrom ?? view.state.primary}`);
      if (broken !== null) return problem(broken);
      const report = live(view, node);
      const works = report !== null && activityFor(report, view.state.goals[node] ?? null)?.kind === 'busy';
      return !works && sinceMs > REJOIN_IDLE_LIMIT_MS
        ? problem(`${node} does not stream from ${view.state.primary} after ${REJOIN_IDLE_LIMIT_MS} ms`)
        : null;
    }
    default:
      return null;
  }
}

/** It waits for a person, or for its looks: long enough for those, and not for as long as a start may take. */
const FENCED_LIMIT_MS = 30_000;

function notTakenIn(view: ClusterView, node: NodeId, sinceMs: number): string | null {
  if (sinceMs <= FENCED_LIMIT_MS) return null;
  if (node === view.state.primary) return standbysMissing(view, node);
  const goal = view.state.goals[node];
  return goal?.kind === 'fenced' ? `${node} is not taken in: it ${goal.reason}` : null;
}

/** A primary that opens only with standbys which themselves wait for a person: the person is kept out by the start no longer. */
function standbysMissing(view: ClusterView, primary: NodeId): string | null {
  const { state } = view;
  const report = live(view, primary);
  const runs = report?.leaseTerm === state.primaryTerm && report.postgres.role === 'primary' && report.postgres.state === 'running';
  const { k } = state.quorum.wanted;
  const others = otherDataNodes(view).filter((other) => state.goals[other.id]?.kind === 'standby');
  if (!runs || isOpen(report, state.primaryTerm) || others.length >= k) return null;
  return `${primary} opens when ${k} of its standbys hold what it recovered, and only ${others.length} may follow it`;
}

/** The goal says `stream` (a done rewind or clone becomes that), and it does. */
function isBack(view: ClusterView, node: NodeId): boolean {
  const goal = view.state.goals[node];
  return serves(view, node) === 'yes' && goal?.kind === 'standby' && goal.via === 'stream';
}

function stoppable(view: ClusterView): readonly NodeId[] {
  return dataNodes(view.spec)
    .filter((node) => !isMaintenance(view, node.id))
    .map((node) => node.id);
}

function stopCluster(view: ClusterView, now: Now): Outcome | null {
  const task = findTask(view, 'clusterStop', 'pending') ?? restartTask(view, 'pending', 'all');
  const { primary } = view.state;
  if (task === null || view.state.phase !== 'running' || view.state.attempt !== null || primary === null) return null;
  const reason = `${describeRequest(task.request)} by ${task.by}`;
  const state = withGoal({ ...view.state, phase: 'stopping' }, primary, view.state.primaryTerm, { kind: 'stopped', reason });
  return {
    why: `the cluster stops, the primary ${primary} first, so that every standby has its last record`,
    state,
    tasks: [start(task, now, `stop ${primary}`)],
    events: [{ level: 'info', node: primary, text: reason, detail: {} }],
  };
}

/** A `clusterRestart` of the given manner. */
function restartTask(view: ClusterView, status: 'pending' | 'running', manner: 'rolling' | 'all'): Task | null {
  const task = findTask(view, 'clusterRestart', status);
  return task !== null && task.request.rolling === (manner === 'rolling') ? task : null;
}

function stopping(view: ClusterView, now: Now): Outcome | null {
  const { state } = view;
  if (state.phase !== 'stopping' || state.primary === null) return null;
  const task = findTask(view, 'clusterStop', 'running') ?? restartTask(view, 'running', 'all');
  const primary = live(view, state.primary);
  if (task?.cancelRequested === true && cancelEffect(state, task).kind === 'undo') {
    const text = `${describeRequest(task.request)} was cancelled: every node is started again`;
    return { why: text, state: startAll(view, now), tasks: [cancel(task, now, text)], events: [{ level: 'info', node: null, text, detail: {} }] };
  }
  if (!isDown(primary) || (primary === null && view.writeLease !== null)) {
    const late = task !== null && elapsedMs(now, stepSince(task)) > STOP_LIMIT_MS;
    const broken = failureOf(view, state.primary);
    if (!late && broken === null) return { why: `${state.primary} is stopping`, again: 100 };
    const text = broken ?? `${state.primary} did not stop within ${STOP_LIMIT_MS} ms`;
    return {
      why: text,
      state: restartInPlace({ ...state, phase: 'running' }, now, state.primary),
      tasks: task === null ? [] : [fail(task, now, { code: 'cluster-stop.failed', text, remedy: 'See "pgherd log".' }, 'undone')],
    };
  }
  let next = state;
  for (const node of stoppable(view))
    if (node !== state.primary) next = withGoal(next, node, state.primaryTerm, { kind: 'stopped', reason: 'the cluster is stopped' });
  if (next !== state)
    return {
      why: `${state.primary} is stopped; the standbys follow`,
      state: next,
      tasks: task === null ? [] : [addStep(task, now, 'stop standbys')],
      again: 100,
    };
  const left = stoppable(view).filter((node) => !isDown(live(view, node)));
  if (left.length > 0) {
    // The primary is stopped already: a standby that does not stop writes nothing, and must not keep the cluster from being started again (I15).
    const late = task === null || elapsedMs(now, stepSince(task)) > STOP_LIMIT_MS;
    if (!late) return { why: `${left.join(', ')} is stopping`, again: 100 };
    const text = `${left.join(', ')} did not stop within ${STOP_LIMIT_MS} ms; everything else is stopped`;
    return {
      why: text,
      state: { ...next, phase: 'stopped' },
      tasks:
        task === null
          ? []
          : [fail(task, now, { code: 'cluster-stop.incomplete', text, remedy: 'See "pgherd log"; "pgherd cluster start" starts the cluster.' })],
      events: [{ level: 'error', node: left[0] ?? null, text, detail: {} }],
    };
  }
  if (task !== null && task.request.kind === 'clusterRestart')
    return {
      why: 'everything is stopped; it is started again',
      state: startAll({ ...view, state: next }, now),
      tasks: [addStep(task, now, 'start')],
    };
  const text = 'every node is stopped';
  return {
    why: text,
    state: { ...next, phase: 'stopped' },
    tasks: task === null ? [] : [finish(task, now, text)],
    events: [{ level: 'info', node: null, text, detail: {} }],
  };
}

function startAll(view: ClusterView, now: Now): ClusterState {
  let state: ClusterState = { ...view.state, phase: 'running' };
  if (state.primary === null) return state;
  state = restartInPlace(state, now, state.primary);
  for (const node of stoppable(view))
    if (node !== state.primary && state.overrides[node]?.kind !== 'stopped') state = withRole(view, state, now, node);
  return state;
}

function startCluster(view: ClusterView, now: Now): Outcome | null {
  const task = findTask(view, 'clusterStart', 'pending');
  if (task === null || view.state.phase !== 'stopped') return null;
  const text = `the cluster is started by ${task.by}, ${view.state.primary} as the primary`;
  return {
    why: text,
    state: startAll(view, now),
    tasks: [start(task, now, 'start')],
    events: [{ level: 'info', node: view.state.primary, text, detail: {} }],
  };
}

function clusterServes(view: ClusterView, now: Now): Outcome | null {
  const task = findTask(view, 'clusterStart', 'running') ?? restartTask(view, 'running', 'all');
  if (task === null || view.state.phase !== 'running' || !hasStep(task, 'start')) return null;
  const waiting = dataNodes(view.spec)
    .filter((node) => !isMaintenance(view, node.id) && view.state.overrides[node.id] === undefined && serves(view, node.id) === 'no')
    .map((node) => node.id);
  const sinceMs = elapsedMs(now, stepSince(task));
  const stuck = waiting.map((node) => notTakenIn(view, node, sinceMs)).filter((text) => text !== null);
  const unconfirmed = !isOfThisStore(view) && sinceMs > CONFIRM_LIMIT_MS;
  if (unconfirmed && waiting.length > 0) {
    const ended = fail(task, now, {
      code: 'cluster-start.store',
      text: `The store was restored, and nobody has confirmed that ${view.state.primary} of term ${view.state.primaryTerm} is the last primary.`,
      remedy: 'See "pgherd explain"; "pgherd failover" is the word that this store counts.',
    });
    return { why: 'the store was restored, and nobody confirms it', tasks: [ended], then: 'continue' };
  }
  if (waiting.length > stuck.length && sinceMs <= START_LIMIT_MS) return null;
  const ended =
    waiting.length === 0
      ? finish(task, now, 'the primary is open and every standby streams')
      : fail(task, now, {
          code: 'cluster-start.incomplete',
          text: stuck.length === waiting.length ? stuck.join('; ') : `${waiting.join(', ')} does not serve after ${START_LIMIT_MS} ms`,
          remedy: 'See "pgherd show".',
        });
  return { why: ended.result ?? 'the start is incomplete', tasks: [ended], then: 'continue' };
}

export const operationRules: readonly Rule[] = [
  { id: 'node.stop', when: '`node stop` was asked of a standby', why: 'It stays stopped until a person starts it.', decide: stopNode },
  { id: 'node.start', when: '`node start` was asked', why: 'It gets its role back: standby, or primary of the present term.', decide: startNode },
  {
    id: 'node.restart',
    when: '`node restart` was asked',
    why: 'The request is named in the goal, so that no other change ever restarts a server.',
    decide: restartNode,
  },
  {
    id: 'node.rejoin',
    when: '`node rejoin` or `node rebuild` was asked',
    why: 'A person may take back what no rule may: the directory is set aside, never deleted (I9).',
    decide: rejoinNode,
  },
  {
    id: 'node.stop-undone',
    when: '`node stop` was cancelled',
    why: 'It is undone by a start, whatever the stop has come to.',
    decide: stopUndone,
  },
  {
    id: 'node.done',
    when: 'the effect or the failure of a command for one node is seen',
    why: 'Done means seen in a report, not an exit code (H57, I10). A rejoin without `--via` goes on to the next rung first.',
    decide: nodeDone,
  },
  {
    id: 'cluster.stop',
    when: '`cluster stop`, or a restart of everything, was asked',
    why: 'The primary first: its standbys still receive the shutdown checkpoint.',
    decide: stopCluster,
  },
  {
    id: 'cluster.stopping',
    when: 'the cluster is stopping',
    why: 'No failover rule speaks; a primary that does not stop gets its role back.',
    decide: stopping,
  },
  {
    id: 'cluster.stop-overtaken',
    when: 'a stop of everything is not carried on by anybody',
    why: 'No lock outlives its holder: the task ends, and says how the cluster stands.',
    decide: stopOvertaken,
  },
  {
    id: 'cluster.start',
    when: '`cluster start` was asked',
    why: 'The last primary opens its own term again: it has the newest data (I29).',
    decide: startCluster,
  },
  {
    id: 'cluster.serves',
    when: 'a started cluster serves, or its time is over',
    why: 'Done means open and streaming; who does not serve is named.',
    decide: clusterServes,
  },
];
