/** Journals of people's commands. Pure: each function returns the changed task. */
import type { Now } from '../ids.ts';
import type { Task, TaskRequest } from '../state.ts';
import type { ClusterView } from '../view.ts';

const MAX_STEPS = 200;

export interface Problem {
  readonly code: string;
  readonly text: string;
  readonly remedy: string;
}

export type RequestKind = TaskRequest['kind'];
export type RequestOf<K extends RequestKind> = Extract<TaskRequest, { kind: K }>;
export type TaskOf<K extends RequestKind> = Task & { readonly request: RequestOf<K> };

function hasKind<K extends RequestKind>(task: Task, kind: K): task is TaskOf<K> {
  return task.request.kind === kind;
}

/** The oldest task of this kind and status; null when there is none. */
export function findTask<K extends RequestKind>(view: ClusterView, kind: K, status: 'pending' | 'running'): TaskOf<K> | null {
  for (const task of view.tasks) if (task.status === status && hasKind(task, kind)) return task;
  return null;
}

export function taskById(view: ClusterView, id: string | null): Task | null {
  return id === null ? null : (view.tasks.find((task) => task.id === id) ?? null);
}

export function start(task: Task, now: Now, step: string, detail = ''): Task {
  return { ...addStep(task, now, step, detail), status: 'running' };
}

/** For the history: who, and why. `kernel patching (switchover by ann)`; without a reason only who. */
export function wordedReason(what: string, task: Pick<Task, 'reason' | 'by'>): string {
  const who = `${what} by ${task.by}`;
  return task.reason === '' ? who : `${task.reason} (${who})`;
}

/** Ends the step that runs as done and begins another. */
export function addStep(task: Task, now: Now, name: string, detail = '', before: 'done' | 'failed' = 'done'): Task {
  const steps = closeSteps(task, now, before);
  return { ...task, steps: [...steps, { name, state: 'running' as const, atWallMs: now.wall, detail }].slice(-MAX_STEPS) };
}

export function hasStep(task: Task, name: string): boolean {
  return task.steps.some((step) => step.name === name);
}

/** When the step that runs began; the creation of the task when none does. */
export function stepSince(task: Task): number {
  return task.steps.at(-1)?.atWallMs ?? task.createdWallMs;
}

export function finish(task: Task, now: Now, result: string): Task {
  return { ...task, status: 'done', steps: closeSteps(task, now, 'done'), finishedWallMs: now.wall, result };
}

export function fail(task: Task, now: Now, problem: Problem, stepState: 'failed' | 'undone' = 'failed'): Task {
  return { ...task, status: 'failed', steps: closeSteps(task, now, stepState), problems: [...task.problems, problem], finishedWallMs: now.wall };
}

/** A precondition does not hold: nothing was done. */
export function refuse(task: Task, now: Now, problems: readonly Problem[]): Task {
  return { ...task, status: 'refused', problems: [...task.problems, ...problems], finishedWallMs: now.wall };
}

export function cancel(task: Task, now: Now, result: string): Task {
  return { ...task, status: 'cancelled', steps: closeSteps(task, now, 'undone'), finishedWallMs: now.wall, result };
}

function closeSteps(task: Task, now: Now, state: 'done' | 'failed' | 'undone'): Task['steps'] {
  return task.steps.map((step) =>
    step.state === 'running' ? { ...step, state, detail: step.detail, atWallMs: state === 'done' ? step.atWallMs : now.wall } : step,
  );
}

/** The words of the command line for each kind of request; people never see the names of the code. */
const REQUEST_WORDS: Readonly<Record<RequestKind, string>> = {
  create: 'init',
  switchover: 'switchover',
  failover: 'failover',
  nodeStop: 'node stop',
  nodeStart: 'node start',
  nodeRestart: 'node restart',
  nodeRejoin: 'node rejoin',
  nodeMaintenance: 'node maintenance',
  nodeFollow: 'node follow',
  nodeAdd: 'node add',
  nodeRemove: 'node remove',
  clusterStop: 'cluster stop',
  clusterStart: 'cluster start',
  clusterRestart: 'cluster restart',
  freeze: 'freeze',
  unfreeze: 'unfreeze',
};

/** The verb that asks for it, without its arguments. An unknown kind (of a newer version) is returned as it is. */
export function requestWords(request: { readonly kind: string; readonly via?: unknown }): string {
  if (request.kind === 'nodeRejoin' && request.via === 'clone') return 'node rebuild';
  if (request.kind === 'nodeRejoin' && request.via === 'stream') return 'node follow';
  return Object.hasOwn(REQUEST_WORDS, request.kind) ? REQUEST_WORDS[request.kind as RequestKind] : request.kind;
}

/** As a person would type it: `node rebuild n2`, `switchover --to n3`, `cluster restart`. */
export function describeRequest(request: TaskRequest): string {
  const words = requestWords(request);
  if (request.kind === 'nodeMaintenance') return `${words} ${request.node} ${request.on ? 'on' : 'off'}`;
  if (request.kind === 'nodeFollow') return `${words} ${request.node} --upstream ${request.upstream ?? 'primary'}`;
  if ('node' in request) return `${words} ${request.node}`;
  return 'to' in request && request.to !== null ? `${words} to ${request.to}` : words;
}

/** Needs the cluster for itself. */
export function isExclusive(request: TaskRequest): boolean {
  return ['create', 'switchover', 'failover', 'clusterStop', 'clusterStart', 'clusterRestart'].includes(request.kind);
}

export function nodeOf(request: TaskRequest): string | null {
  return 'node' in request ? request.node : null;
}
