/**
 * `node add`: a host whose agent joined becomes a member while everything goes on. Its journal is the machine:
 *
 *   pending ──checks──> reach ──every way works, slot is there──> copy | rewind | stream ──close──> take in ──counted──> done
 *                         └───────── cancelled, or failed too often ─────────┴──> undo ──> unregister ──> cancelled | failed
 *
 * Point of no return: `take in`. Before it the node is in the spec as `joining`: everybody knows its address, and it counts nowhere.
 * Every step looks at reports only, so that a controller that takes over, or comes back, goes on where the last one was.
 */
import type { NodeId, Now } from '../../ids.ts';
import { bytesBetween } from '../../lsn.ts';
import type { NodeReport } from '../../report.ts';
import { slotName } from '../../slot-name.ts';
import { type ClusterSpec, type NodeSpec, findNode } from '../../spec.ts';
import type { ClusterState, Task } from '../../state.ts';
import type { ClusterView, Outcome, Rule } from '../../view.ts';
import { type Assessment, assessedRules } from '../assessed-rules.ts';
import { chooseSource, refuseSource } from '../copy-source.ts';
import { type Via, withGoal, without } from '../goals.ts';
import { type AddRequest, bytesToCopy, checkAdd, describeDurability, mebibytes, nodeToAdd } from '../node-add-checks.ts';
import { specWithout } from '../node-remove-checks.ts';
import { activityFor, elapsedMs, endOfWal, fresh, gaveUp, hasRead, isStreaming, live } from '../observe.ts';
import { fittingVia, isTwinSuspect } from '../recovery.ts';
import { JOIN_LAG_BYTES } from '../sync-wish.ts';
import { type Problem, type TaskOf, addStep, cancel, fail, finish, hasStep, refuse, start, stepSince } from '../tasks.ts';

/** Agents look for a new member every half second, and ask it with each probe; a way that is closed stays closed. */
const REACH_LIMIT_MS = 30_000;
/** Tries of the same step by the agent, with a growing pause: about half a minute. */
const MAX_ATTEMPTS = 6;
/** A host that restarts is back by then; its copy begins anew. Longer, and the slot would only keep WAL for nobody. */
const SILENT_LIMIT_MS = 900_000;
/** Everything that counts members has read the new ones within seconds. */
const COUNTED_LIMIT_MS = 60_000;
/** Deleting a large copy takes a while; after that the node is unregistered all the same, and the rest is said. */
const UNDO_LIMIT_MS = 300_000;

type AddTask = TaskOf<'nodeAdd'>;

function isAdd(task: Task): task is AddTask {
  return task.request.kind === 'nodeAdd';
}

/** `node` is being added, and was told to copy (or to stream, when it has data of this cluster): the ladder cares for it. */
export function isCopying(view: ClusterView, node: NodeId): boolean {
  const task = view.tasks.find((one) => isAdd(one) && one.request.node === node && one.status === 'running');
  return task !== undefined && ['copy', 'rewind', 'stream', 'catch up'].includes(lastStep(task));
}

function lastStep(task: Task): string {
  return task.steps.at(-1)?.name ?? '';
}

function isQuiet(view: ClusterView): boolean {
  return view.state.phase === 'running' && view.state.attempt === null && view.state.switchover === null && view.state.primary !== null;
}

function assess(view: ClusterView, now: Now): Assessment | null {
  for (const task of view.tasks) {
    if (!isAdd(task)) continue;
    const spoken = task.status === 'pending' ? begin(view, now, task) : task.status === 'running' && isQuiet(view) ? goOn(view, now, task) : null;
    if (spoken !== null) return spoken;
  }
  return isQuiet(view) ? undoOrphan(view) : null;
}

/** One step a decision: the next one rests on what this one wrote. */
const say = (rule: string, why: string, outcome: Omit<Outcome, 'why'>): Assessment => ({ rule, outcome: { why, ...outcome } });

function begin(view: ClusterView, now: Now, task: AddTask): Assessment {
  const problems = checkAdd(view, task.request);
  const node = nodeToAdd(view, task.request);
  if (problems.length > 0 || node === null)
    return say('node.add-refused', `node add refused: ${problems.map((problem) => problem.text).join(' ')}`, {
      tasks: [refuse(task, now, problems)],
    });
  const text = `${node.id} (${node.host}:${node.port}) is being added on request of ${task.by}`;
  return say('node.add', text, {
    spec: { ...view.spec, nodes: [...view.spec.nodes, node] },
    tasks: [start(task, now, 'reach', `${node.host}:${node.port}`)],
    events: [{ level: 'info', node: node.id, text, detail: { reason: task.reason } }],
  });
}

function goOn(view: ClusterView, now: Now, task: AddTask): Assessment | null {
  const { node } = task.request;
  const spec = findNode(view.spec, node);
  const step = lastStep(task);
  if (step === 'undo' || step === 'unregister') return undo(view, now, task, spec);
  // A person took it out of the settings by hand meanwhile.
  if (spec === null) return endUndo(view, now, task, 'it is in the settings of the cluster no more');
  if (step === 'take in') return counted(view, now, task, spec);
  if (task.cancelRequested) return beginUndo(view, now, task, null);
  return step === 'reach' ? reach(view, now, task, spec) : copying(view, now, task, spec);
}

/** Ways that do not work yet, and slots that are not there yet, each in words. */
export function missingWays(view: ClusterView, node: NodeSpec): readonly string[] {
  const { primary } = view.state;
  const report = fresh(view, node.id);
  if (report === null || primary === null) return [`the agent of ${node.id} does not report`];
  const missing: string[] = [];
  const seen = report.probes[primary];
  const target = findNode(view.spec, primary);
  if (seen?.verdict !== 'primary')
    missing.push(
      `${node.id} does not reach PostgreSQL of ${primary} (${target?.internalHost ?? target?.host}:${target?.port})${seen?.error == null ? '' : `: ${seen.error}`}`,
    );
  for (const other of view.spec.nodes) {
    const theirs = other.id === node.id || other.membership !== 'full' ? null : fresh(view, other.id);
    if (theirs === null) continue;
    if (report.probes[other.id]?.agentAlive !== true) missing.push(`${node.id} does not reach the agent of ${other.id}`);
    if (theirs.probes[node.id]?.agentAlive !== true) missing.push(`${other.id} does not reach the agent of ${node.id}`);
  }
  const slots = fresh(view, primary)?.slots ?? [];
  if (node.kind === 'data' && !slots.some((slot) => slot.name === slotName(node.id) && slot.walStatus !== 'lost'))
    missing.push(`${primary} has not made the slot ${slotName(node.id)} yet`);
  return missing;
}

/**
 * *Invariant:* no WAL is missing between the copy and the start (S76, Z66). *Because:* the order to copy is given only when the primary reports the
 * slot, which keeps WAL from then on, and the agent begins no copy of a source that has not replayed up to there.
 * *Broken if:* the order is given when the slot is only asked for.
 */
function reach(view: ClusterView, now: Now, task: AddTask, node: NodeSpec): Assessment | null {
  const missing = missingWays(view, node);
  if (missing.length > 0) {
    if (elapsedMs(now, stepSince(task)) <= REACH_LIMIT_MS) return null;
    const text = `After ${REACH_LIMIT_MS / 1000} s: ${missing.join('; ')}.`;
    return beginUndo(view, now, task, {
      code: 'node-add.unreachable',
      text,
      remedy: 'Open these ways (firewall, listen addresses, names), then add the node again.',
    });
  }
  if (node.kind === 'witness') return takeIn(view, now, task, node);
  const report = live(view, node.id);
  if (report === null) return null;
  const empty = report.postgres.state === 'absent' || report.postgres.state === 'incomplete';
  return orderCopy(view, now, task, node, empty ? 'clone' : fittingVia(view, report));
}

function orderCopy(view: ClusterView, now: Now, task: AddTask, node: NodeSpec, via: Via): Assessment | null {
  const { state } = view;
  const { primary } = state;
  const { request } = task;
  const report = live(view, node.id);
  if (primary === null) return null;
  const named = request.source !== null && refuseSource(view, request.source) === null ? { node: request.source, why: 'as asked' } : null;
  const source = via === 'clone' ? (named ?? chooseSource(view, node)) : null;
  if (via === 'clone' && source === null) return null;
  const size = bytesToCopy(view);
  const text =
    source === null
      ? `${node.id} has data of this cluster: it is taken in by ${via} from ${primary}`
      : `${size === null ? '' : `${mebibytes(size)} `}from ${source.node} (${source.why})${request.rateKb === null ? '' : `, at most ${request.rateKb} KiB a second`}`;
  return say('node.add-copy', `${node.id}: ${text}`, {
    state: withGoal(
      // A directory that may hold a timeline of its own stays marked until it was copied over.
      report !== null && isTwinSuspect({ view, node: node.id, report }) ? state : { ...state, recovery: without(state.recovery, node.id) },
      node.id,
      state.primaryTerm,
      { kind: 'standby', upstream: primary, via, source: source?.node ?? null, rateKb: request.rateKb },
      'anew',
      // *Invariant:* no goal of this command has the id of one that the agent carried out before (it would take the copy for done). *Because:* ids count
      // on from the time of the request. *Broken if:* they begin at 0 again when the node was forgotten in between.
      task.createdWallMs,
    ),
    tasks: [addStep(task, now, via === 'clone' ? 'copy' : via, text)],
  });
}

function copying(view: ClusterView, now: Now, task: AddTask, node: NodeSpec): Assessment | null {
  const { state } = view;
  const goal = state.goals[node.id] ?? null;
  const report = live(view, node.id);
  if (report === null) {
    const silentMs = view.reports[node.id]?.ageMs ?? 0;
    if (silentMs <= SILENT_LIMIT_MS) return null;
    return beginUndo(view, now, task, problem(`The agent of ${node.id} has been silent for ${Math.round(silentMs / 1000)} s.`, node.id));
  }
  const activity = activityFor(report, goal);
  if (activity?.kind === 'failed') {
    const attempts = Math.max(activity.attempts, (state.recovery[node.id]?.attempts ?? 0) * 2);
    if (attempts >= MAX_ATTEMPTS || goal?.kind === 'fenced')
      return beginUndo(view, now, task, problem(`${node.id}: ${activity.message} (${activity.code}; ${attempts} tries)`, node.id));
    return lostSource(view, now, task, node, report);
  }
  if (goal?.kind === 'fenced') return beginUndo(view, now, task, problem(`${node.id} ${goal.reason}.`, node.id));
  if (goal?.kind !== 'standby' || goal.via !== 'stream' || !isStreaming(report, state.primary)) return null;
  const lag = lagOf(view, report);
  if (lag === null) return null;
  if (lag <= JOIN_LAG_BYTES) return takeIn(view, now, task, node);
  if (lastStep(task) === 'catch up') return null;
  const text = `${mebibytes(lag)} behind ${state.primary}`;
  return say('node.add-copied', `${node.id} streams, ${text}`, { tasks: [addStep(task, now, 'catch up', text)] });
}

/** The member that is copied went away or fell behind: another one is taken, since the agent would try the same one again. */
function lostSource(view: ClusterView, now: Now, task: AddTask, node: NodeSpec, report: NodeReport): Assessment | null {
  const goal = view.state.goals[node.id];
  if (goal?.kind !== 'standby' || goal.via !== 'clone' || gaveUp(report, goal)) return null;
  const from = goal.source ?? goal.upstream;
  const refused = refuseSource(view, from);
  if (refused === null) return null;
  const again = orderCopy(view, now, task, node, 'clone');
  return again === null ? null : { ...again, outcome: { ...again.outcome, why: `${from} ${refused}; ${again.outcome.why}` } };
}

function lagOf(view: ClusterView, report: NodeReport): number | null {
  const end = view.state.primary === null ? null : live(view, view.state.primary)?.postgres.flushLsn;
  const { replayedLsn } = report.postgres;
  return end == null || replayedLsn === null || endOfWal(report) === null ? null : Math.max(0, bytesBetween({ from: replayedLsn, to: end }));
}

function takeIn(view: ClusterView, now: Now, task: AddTask, node: NodeSpec): Assessment {
  const spec: ClusterSpec = {
    ...view.spec,
    nodes: view.spec.nodes.map((one) => (one.id === node.id ? { ...one, membership: 'full' as const } : one)),
  };
  const text = node.kind === 'witness' ? 'it votes' : `it serves reads and votes; ${describeDurability(view.spec, spec)}`;
  return say('node.add-taken-in', `${node.id} is a member: ${text}`, {
    spec,
    tasks: [addStep(task, now, 'take in', text)],
    events: [{ level: 'info', node: node.id, text: `${node.id} is a member: ${text}`, detail: {} }],
  });
}

/** Done is seen: it is in the electorate that the primary counts with, and in the read set. */
function counted(view: ClusterView, now: Now, task: AddTask, node: NodeSpec): Assessment | null {
  const { electorate, route, primary } = view.state;
  const votes = electorate.members.includes(node.id) && electorate.former.length === 0;
  const reads = node.kind === 'witness' || node.maintenance || route.readers.includes(node.id) || primary === node.id;
  if (votes && reads) {
    const text = node.kind === 'witness' ? `${node.id} votes` : `${node.id} streams from ${primary}, serves reads and votes`;
    return say('node.added', text, { tasks: [finish(task, now, text)] });
  }
  if (elapsedMs(now, stepSince(task)) <= COUNTED_LIMIT_MS) return null;
  const text = `${node.id} is a member, but ${votes ? 'it serves no reads' : 'its vote is not counted'} after ${COUNTED_LIMIT_MS / 1000} s.`;
  return say('node.added', text, {
    tasks: [fail(task, now, { code: 'node-add.not-counted', text, remedy: 'See "pgherd show"; the rules care for it.' })],
  });
}

function problem(text: string, node: NodeId): Problem {
  return { code: 'node-add.failed', text, remedy: `See "pgherd log ${node}"; then add it again.` };
}

/** Null: cancelled. What this task brought is taken back: a copy is deleted; data that was there before stays. */
function beginUndo(view: ClusterView, now: Now, task: AddTask, why: Problem | null): Assessment {
  const { node } = task.request;
  const told = why === null ? task : { ...task, problems: [...task.problems, why] };
  const text = why === null ? `node add ${node} is cancelled` : why.text;
  return say('node.add-undo', text, {
    state: leaveGoal(view, task, node),
    tasks: [addStep(told, now, 'undo', hasStep(task, 'copy') ? 'the copy is removed' : '')],
    events: [{ level: 'warn', node, text: `${node} is not added: ${text}`, detail: {} }],
  });
}

/** A node that was told nothing yet needs no order. */
function leaveGoal(view: ClusterView, task: AddTask | null, node: NodeId): ClusterState {
  const { state } = view;
  if (state.goals[node] === undefined) return state;
  const dropData = task !== null && hasStep(task, 'copy');
  return withGoal(state, node, state.primaryTerm, { kind: 'removed', dropData, reason: 'it is not added' });
}

function undo(view: ClusterView, now: Now, task: AddTask, spec: NodeSpec | null): Assessment | null {
  const { node } = task.request;
  if (spec !== null) {
    const left = leftOver(view, node);
    if (left !== null && elapsedMs(now, stepSince(task)) <= UNDO_LIMIT_MS && live(view, node) !== null) return null;
    return say('node.add-undone', `${node} leaves the settings of the cluster`, {
      spec: specWithout(view.spec, node),
      tasks: [addStep(task, now, 'unregister', left ?? '')],
    });
  }
  if (hasSlot(view, node) && elapsedMs(now, stepSince(task)) <= REACH_LIMIT_MS) return null;
  return endUndo(view, now, task, task.steps.at(-1)?.detail ?? '');
}

/** What the agent has not done yet of its order to leave; null when nothing is left. */
export function leftOver(view: ClusterView, node: NodeId): string | null {
  const goal = view.state.goals[node];
  const report = live(view, node);
  if (goal?.kind !== 'removed') return null;
  if (report === null) return `the agent of ${node} does not report: what lies or runs there stays`;
  const activity = activityFor(report, goal);
  if (activity?.kind === 'done' || (report.activity.kind === 'idle' && hasRead(view, report) && report.postgres.state === 'absent')) return null;
  return activity?.kind === 'failed' ? `${activity.message} (${activity.code})` : `${node} is not done with leaving`;
}

/** The primary still has the slot of that node. */
export function hasSlot(view: ClusterView, node: NodeId): boolean {
  const report = view.state.primary === null ? null : live(view, view.state.primary);
  return report?.slots.some((slot) => slot.name === slotName(node)) === true;
}

function endUndo(view: ClusterView, now: Now, task: AddTask, left: string): Assessment {
  const { node } = task.request;
  const slot = hasSlot(view, node) ? `; the slot ${slotName(node)} is still in use, and is dropped when it is not` : '';
  const rest = left === '' ? '' : `: ${left}`;
  const text = `${node} is not a member; what was made for it is gone${rest}${slot}`;
  const [reason] = task.problems.slice(-1);
  const ended: Task = reason === undefined ? cancel(task, now, text) : { ...cancel(task, now, text), status: 'failed' };
  return say('node.add-undone', text, { tasks: [ended] });
}

/** In the spec as joining, and no task that says so: the task was lost with a store, or ended by hand. It counts nowhere, so that it can only go. */
function undoOrphan(view: ClusterView): Assessment | null {
  for (const node of view.spec.nodes) {
    if (node.membership !== 'joining' || view.tasks.some((task) => isAdd(task) && task.request.node === node.id)) continue;
    const state = leaveGoal(view, null, node.id);
    const why = `${node.id} was being added, and no task is at it any more`;
    if (state !== view.state) return say('node.add-undone', why, { state });
    if (leftOver(view, node.id) === null || live(view, node.id) === null)
      return say('node.add-undone', why, {
        spec: specWithout(view.spec, node.id),
        events: [{ level: 'warn', node: node.id, text: why, detail: {} }],
      });
  }
  return null;
}

const rule = assessedRules(assess);

export const scaleOutRules: readonly Rule[] = [
  rule(
    'node.add-refused',
    '`node add` was asked, and a precondition does not hold',
    'Each one is named with its remedy, before anything is touched (S65, H48).',
  ),
  rule(
    'node.add',
    '`node add` was asked, and every precondition holds',
    'The node becomes known to everybody (access rules, firewall, slots) and counts nowhere (S89, H47).',
  ),
  rule(
    'node.add-copy',
    'every way between the new node and the members works, and its slot is on the primary; or the member that was copied is gone',
    'The slot comes before the copy, so that no WAL is missing; the least busy standby is copied, not the primary.',
  ),
  rule('node.add-copied', 'the new node streams, and is still far behind', 'It serves nothing until it is close.'),
  rule(
    'node.add-taken-in',
    'the new node streams and is close to the primary',
    'Only now it is counted: votes, reads, synchronous set, each in its own safe order (I7).',
  ),
  rule('node.added', 'the new node votes and serves reads', 'Done means seen (H39, I10).'),
  rule(
    'node.add-undo',
    'the command was cancelled, or a step failed too often',
    'Nothing half made stays: the copy is removed, data that was there before is not (H44).',
  ),
  rule(
    'node.add-undone',
    'the node that is not added has left what it was given',
    'Node entry and slot go last, so that an interrupted undo goes on (H24).',
  ),
];

export type { AddRequest };
