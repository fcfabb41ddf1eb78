/** People's commands as tasks in the store: written by one guarded transaction, carried out by the controller and the agents. */
import { randomBytes } from 'node:crypto';
import { formatWall } from '../base/clock.ts';
import { decodeJson, encodeJson } from '../core/decode.ts';
import { type ClusterId, type Now, makeClusterId, makeNodeId, makeRevision } from '../core/ids.ts';
import { err, ok } from '../core/result.ts';
import { findNode } from '../core/spec.ts';
import { type Task, type TaskRequest, task as taskDecoder, taskRequest } from '../core/state.ts';
import { type CancelEffect, cancelEffect } from '../core/cluster/cancel.ts';
import { describeRequest, isExclusive, nodeOf } from '../core/cluster/tasks.ts';
import type { ClusterView } from '../core/view.ts';
import { SERVER_ROOT, clusterKeys } from '../store/keys.ts';
import type { Compare, Op } from '../store/store.ts';
import { type Problem, makeApiFailure } from '../api/errors.ts';
import type { TaskView } from '../api/schema.ts';
import { type ApiResult, type Handler, type ServerContext, storeFailure, unknownCluster, viewOf } from './context.ts';
import { planTask } from './plan.ts';
import { listClusters, listTasks } from './view.ts';
import { switchoverNotes } from './workload.ts';

/** Lost races before we give up: two people never race this often. */
const MAX_RACES = 8;
/** Tasks answered by a list. */
const MAX_LISTED = 200;

export interface NewTask {
  readonly cluster: ClusterId;
  readonly request: TaskRequest;
  readonly reason: string;
  readonly by: string;
  /** Null: a random one. */
  readonly id: string | null;
  /** Part of the same transaction, e.g. the spec of a new cluster. */
  readonly alongside?: {
    readonly compares: readonly Compare[];
    readonly ops: readonly Op[];
    readonly refusedBecause: () => ReturnType<typeof makeApiFailure>;
  };
}

/** Written with every new task of the cluster: who compares it knows that no task was added since. */
export function taskGate(cluster: ClusterId): string {
  return `${SERVER_ROOT}task-gate/${cluster}`;
}

/**
 * Writes a pending task, or answers the task with the same id if there is one (a repeated request).
 * `task.conflict`: another unfinished task needs the cluster, or the same node.
 * Invariant: of two conflicting requests at the same moment one is refused.
 * Because: every new task of a cluster also writes its gate key, and compares the revision at which the gate was read before the tasks were listed.
 * Broken if: the tasks are listed before the gate is read.
 */
export async function writeTask(context: ServerContext, wanted: NewTask): Promise<ApiResult<Task>> {
  const keys = clusterKeys(wanted.cluster);
  const gate = taskGate(wanted.cluster);
  const id = wanted.id ?? newTaskId(context.clock.now());
  const created: Task = {
    version: 1,
    id,
    request: wanted.request,
    reason: wanted.reason,
    by: wanted.by,
    createdWallMs: context.clock.now().wall,
    status: 'pending',
    cancelRequested: false,
    steps: [],
    notes: {},
    problems: [],
    finishedWallMs: null,
    result: null,
  };
  for (let race = 0; race < MAX_RACES; race++) {
    const gateRead = await context.store.get(gate);
    if (!gateRead.ok) return err(storeFailure(gateRead.error, 'creating the task'));
    const listing = await context.store.list(keys.tasks);
    if (!listing.ok) return err(storeFailure(listing.error, 'creating the task'));
    const tasks = listing.value.kvs.flatMap((kv) => {
      const decoded = decodeJson(taskDecoder, kv.value);
      return decoded.ok ? [decoded.value] : [];
    });
    const same = tasks.find((one) => one.id === id);
    if (same !== undefined) return ok(same);
    const busy = tasks.find((one) => (one.status === 'pending' || one.status === 'running') && conflicts(wanted.request, one.request));
    if (busy !== undefined) return err(conflict(wanted.request, busy));

    const written = await context.store.txn(
      [
        { target: 'mod', key: gate, op: '=', revision: gateRead.value?.modRevision ?? makeRevision(0) },
        { target: 'create', key: keys.task(id), op: '=', revision: makeRevision(0) },
        ...(wanted.alongside?.compares ?? [{ target: 'create', key: keys.spec, op: '>', revision: makeRevision(0) } as const]),
      ],
      [{ kind: 'put', key: keys.task(id), value: encodeJson(created) }, { kind: 'put', key: gate, value: id }, ...(wanted.alongside?.ops ?? [])],
    );
    if (!written.ok) return await settleUnknown(context, wanted.cluster, id, storeFailure(written.error, 'creating the task'));
    if (written.value.succeeded) return ok(created);
    const spec = await context.store.get(keys.spec);
    if (!spec.ok) return err(storeFailure(spec.error, 'creating the task'));
    if (wanted.alongside !== undefined && spec.value !== null) return err(wanted.alongside.refusedBecause());
    if (wanted.alongside === undefined && spec.value === null) return err(unknownCluster(context, wanted.cluster));
  }
  return err(makeApiFailure('server.busy', { what: 'the task lost its race against others too often', remedy: 'Ask again.' }));
}

/** The answer of the write was lost: the key itself tells. */
async function settleUnknown(
  context: ServerContext,
  cluster: ClusterId,
  id: string,
  failure: ReturnType<typeof storeFailure>,
): Promise<ApiResult<Task>> {
  if (failure.code !== 'store.unknown') return err(failure);
  const read = await context.store.get(clusterKeys(cluster).task(id));
  const decoded = read.ok && read.value !== null ? decodeJson(taskDecoder, read.value.value) : null;
  return decoded?.ok === true ? ok(decoded.value) : err(failure);
}

/**
 * Which commands cannot run at the same time. What needs the cluster for itself excludes what touches a node; two commands for the
 * same node exclude each other. Emergencies (failover, stop) wait for no node's command: a stuck rebuild must not block them.
 * Freezing is always possible.
 */
export function conflicts(wanted: TaskRequest, running: TaskRequest): boolean {
  if (isExclusive(wanted) && isExclusive(running)) return true;
  const node = nodeOf(wanted);
  const other = nodeOf(running);
  if (node !== null && other !== null) return node === other;
  if (isExclusive(running)) return node !== null;
  if (isExclusive(wanted)) return other !== null && wanted.kind !== 'failover' && wanted.kind !== 'clusterStop';
  return false;
}

function conflict(request: TaskRequest, busy: Task): ReturnType<typeof makeApiFailure> {
  const text = `task ${busy.id} (${describeRequest(busy.request)}, by ${busy.by}, ${busy.status}) is not finished`;
  return makeApiFailure('task.conflict', {
    what: `${describeRequest(request)} is refused`,
    cause: text,
    remedy: `Wait for it (\`pgherd task log ${busy.id}\`), or cancel it (\`pgherd task cancel ${busy.id}\`).`,
    problems: [{ code: 'task.conflict', text, remedy: `pgherd task log ${busy.id}` }],
  });
}

export const createTask: Handler<'createTask'> = async (context, { params, body, caller }) => {
  const cluster = makeClusterId(params.cluster);
  const request = taskRequest(body.request, 'request');
  if (!request.ok)
    return err(
      makeApiFailure('request.invalid', {
        what: `request is not valid: ${request.error.path}`,
        cause: request.error.message,
        remedy: 'See /api/v1/openapi.json.',
      }),
    );
  if (request.value.kind === 'create') {
    return err(
      makeApiFailure('request.invalid', {
        what: 'a cluster is created with its spec',
        remedy: 'Use POST /clusters (`pgherd init -f cluster.yaml`).',
      }),
    );
  }
  const found = await viewOf(context, cluster);
  if (!found.ok) return found;
  // A node that is to be added is none yet; the rule says what is wrong with it.
  const unknown = request.value.kind === 'nodeAdd' ? null : unknownNode(found.value.view.spec, request.value);
  if (unknown !== null) {
    const ids = found.value.view.spec.nodes.map((node) => node.id);
    return err(
      makeApiFailure('node.not-found', {
        what: `cluster "${cluster}" has no node "${unknown}"`,
        cause: `its nodes: ${ids.join(', ')}`,
        remedy: 'Name one of them.',
      }),
    );
  }
  const { plan, problems } = planTask(found.value, { request: request.value, by: caller.name }, context.clock.now());
  if (body.dryRun) {
    const running = found.value.view.tasks.find((one) => conflicts(request.value, one.request));
    const all: readonly Problem[] = running === undefined ? problems : [...conflict(request.value, running).problems, ...problems];
    const moves = request.value.kind === 'switchover' && all.length === 0;
    const notes = moves ? await switchoverNotes(context, found.value) : [];
    return ok({ dryRun: true, task: null, plan: [...plan, ...notes], problems: [...all] });
  }
  const written = await writeTask(context, { cluster, request: request.value, reason: body.reason, by: caller.name, id: body.requestId });
  if (!written.ok) return written;
  return ok({ dryRun: false, task: viewTask(cluster, written.value), plan: [...plan], problems: [...problems] });
};

export const tasks: Handler<'tasks'> = (context) => {
  const all = listClusters(context.cache).flatMap((cluster) => listTasks(context.cache, cluster).map((one) => viewTask(cluster, one)));
  return ok(all.sort((a, b) => (a.createdAt < b.createdAt ? 1 : -1)).slice(0, MAX_LISTED));
};

export const clusterTasks: Handler<'clusterTasks'> = async (context, { params }) => {
  const found = await viewOf(context, params.cluster);
  if (!found.ok) return found;
  const cluster = makeClusterId(params.cluster);
  return ok(
    [...listTasks(context.cache, cluster)]
      .reverse()
      .slice(0, MAX_LISTED)
      .map((one) => viewTask(cluster, one)),
  );
};

export const task: Handler<'task'> = async (context, { params }) => {
  const found = await findTask(context, params.id);
  if (!found.ok) return found;
  const view = await viewOf(context, found.value.cluster);
  const progress = view.ok ? progressOf(view.value.view, found.value.task, context.clock.now()) : null;
  return ok({ ...viewTask(found.value.cluster, found.value.task), progress });
};

/** Sets the flag that the controller obeys between two steps; a finished task is refused. */
export const cancelTask: Handler<'cancelTask'> = async (context, { params }) => {
  for (let race = 0; race < MAX_RACES; race++) {
    const found = await findTask(context, params.id);
    if (!found.ok) return found;
    const { cluster, task: current, revision } = found.value;
    if (current.status !== 'pending' && current.status !== 'running') {
      return err(
        makeApiFailure('task.finished', {
          what: `task ${params.id} is finished already`,
          cause: `it is ${current.status}`,
          remedy: 'See `pgherd task show`.',
        }),
      );
    }
    const effect = await effectOf(context, cluster, current);
    if (effect?.kind === 'too-late') {
      return err(
        makeApiFailure('task.too-late', {
          what: `${describeRequest(current.request)} (task ${params.id}) cannot be cancelled any more`,
          cause: effect.text,
          now: 'The task goes on.',
          remedy: `Watch it with \`pgherd task log ${params.id}\`.`,
        }),
      );
    }
    const changed: Task = { ...current, cancelRequested: true };
    const key = clusterKeys(cluster).task(current.id);
    const written = await context.store.txn(
      [{ target: 'mod', key, op: '=', revision: makeRevision(revision) }],
      [{ kind: 'put', key, value: encodeJson(changed) }],
    );
    if (!written.ok) return err(storeFailure(written.error, 'cancelling the task'));
    if (written.value.succeeded) return ok(viewTask(cluster, changed));
  }
  return err(makeApiFailure('server.busy', { what: 'the task changes faster than it can be cancelled', remedy: 'Ask again.' }));
};

/** By the state as it is known here; null when it is not known. The controller judges once more when it comes to it. */
async function effectOf(context: ServerContext, cluster: ClusterId, current: Task): Promise<CancelEffect | null> {
  const found = await viewOf(context, cluster);
  return found.ok ? cancelEffect(found.value.view.state, current) : null;
}

/** Read from the store itself: the caller may have created the task a millisecond ago. */
async function findTask(
  context: ServerContext,
  id: string,
): Promise<ApiResult<{ readonly cluster: ClusterId; readonly task: Task; readonly revision: number }>> {
  if (/^[A-Za-z0-9_-]{1,64}$/.test(id)) {
    for (const cluster of listClusters(context.cache)) {
      const read = await context.store.get(clusterKeys(cluster).task(id));
      if (!read.ok) return err(storeFailure(read.error, 'reading the task'));
      const decoded = read.value === null ? null : decodeJson(taskDecoder, read.value.value);
      if (decoded?.ok === true && read.value !== null) return ok({ cluster, task: decoded.value, revision: read.value.modRevision });
    }
  }
  return err(
    makeApiFailure('task.not-found', {
      what: `there is no task "${id}"`,
      cause: 'finished tasks are kept for some time only',
      remedy: 'See `pgherd task list`.',
    }),
  );
}

export async function findTaskCluster(context: ServerContext, id: string): Promise<ApiResult<ClusterId>> {
  const found = await findTask(context, id);
  return found.ok ? ok(found.value.cluster) : found;
}

export function viewTask(cluster: string, one: Task): TaskView {
  return {
    id: one.id,
    cluster,
    kind: one.request.kind,
    request: { ...one.request },
    reason: one.reason,
    by: one.by,
    createdAt: formatWall(one.createdWallMs),
    status: one.status,
    cancelRequested: one.cancelRequested,
    steps: one.steps.map((step) => ({ name: step.name, state: step.state, at: formatWall(step.atWallMs), detail: step.detail })),
    problems: one.problems.map((problem) => ({ ...problem })),
    finishedAt: one.finishedWallMs === null ? null : formatWall(one.finishedWallMs),
    result: one.result,
    progress: null,
  };
}

function movedBytes(view: ClusterView, node: string): { step: string; doneBytes: number; totalBytes: number | null; sinceWallMs: number } | null {
  const seen = view.reports[makeNodeId(node)];
  const activity = seen?.alive === true ? seen.report.activity : null;
  return activity?.kind === 'busy' && activity.doneBytes !== null ? { ...activity, doneBytes: activity.doneBytes } : null;
}

/** Below this the rate is a guess: no time rather than a wrong one. */
const ETA_AFTER_MS = 2000;

/** Bytes that the task's node moves now (a task of the whole cluster: the first node that moves any), and how long the rest takes at the rate so far; null when nothing moves. */
export function progressOf(view: ClusterView, one: Task, now: Now): TaskView['progress'] {
  if (one.status !== 'running') return null;
  const own = nodeOf(one.request);
  const node = (own === null ? Object.keys(view.reports) : [own]).find((name) => movedBytes(view, name) !== null);
  const activity = node === undefined ? null : movedBytes(view, node);
  if (node === undefined || activity === null) return null;
  const { step, doneBytes, totalBytes } = activity;
  const elapsedMs = now.wall - activity.sinceWallMs;
  const known = totalBytes !== null && doneBytes > 0 && elapsedMs >= ETA_AFTER_MS;
  return { node, step, doneBytes, totalBytes, etaMs: known ? Math.round((Math.max(0, totalBytes - doneBytes) / doneBytes) * elapsedMs) : null };
}

function unknownNode(spec: Parameters<typeof findNode>[0], request: TaskRequest): string | null {
  const named = 'node' in request ? request.node : 'to' in request ? request.to : null;
  return named !== null && findNode(spec, named) === null ? named : null;
}

/** Sorts by time: base 36 of the wall clock, then 5 random bytes. */
function newTaskId(now: Now): string {
  return `${now.wall.toString(36)}-${randomBytes(5).toString('hex')}`;
}
