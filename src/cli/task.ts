/** Asking for an operation and following it: the task lives on the server, this is only a window on it. */
import type { Command } from 'commander';
import { addMono } from '../core/ids.ts';
import type { Body, BodyIn } from '../api/routes.ts';
import type { TaskAnswer, TaskView } from '../api/schema.ts';
import { requestWords } from '../core/cluster/tasks.ts';
import type { Api } from './api.ts';
import { type Question, confirm, shellQuote } from './confirm.ts';
import { readDuration } from './context.ts';
import { type CliResult, EXIT, type Outcome, cliError } from './exit.ts';
import { type ProgressLine, makeProgress } from './output/progress.ts';
import { formatDuration } from './output/units.ts';
import { renderPlan } from './render/plan.ts';
import type { Session } from './session.ts';

export type TaskRequestIn = BodyIn<'createTask'>['request'];

export interface TaskFlags {
  readonly yes?: boolean;
  readonly dryRun?: boolean;
  /** commander's `--no-wait`. */
  readonly wait?: boolean;
  readonly timeout?: string;
  readonly reason?: string;
}

/** How long a verb follows its task unless told: longer than the operation's own limits, so that its own refusal arrives first. */
export const QUICK_TIMEOUT = '60s';
/** Copies of databases and rolling restarts; the task goes on after it anyway. */
export const LONG_TIMEOUT = '1h';

/** The flags that every verb with a task has. */
export function taskOptions(command: Command, defaults: { timeout: string }): Command {
  return command
    .option('--reason <text>', 'why, kept in the history and the audit log')
    .option('--yes', 'do not ask')
    .option('--dry-run', 'show what would be done and what would refuse it, change nothing')
    .option('--no-wait', 'return as soon as the task is accepted')
    .option('--timeout <duration>', 'stop waiting after this long; the task goes on (exit 5)', defaults.timeout);
}

export interface Operation {
  readonly request: TaskRequestIn;
  /** Asked before anything is sent; absent: the operation harms nobody. */
  readonly question?: Omit<Question, 'yes' | 'command'> & { readonly command: readonly string[] };
}

/** Sends the request and follows its task to the end (or the limit, or Ctrl+C). */
export async function runOperation(session: Session, flags: TaskFlags, operation: Operation): Promise<Outcome> {
  const timeout = readDuration('--timeout', flags.timeout ?? QUICK_TIMEOUT);
  if (!timeout.ok) return timeout;
  const cluster = await session.cluster();
  if (!cluster.ok) return cluster;
  const api = session.api();
  if (!api.ok) return api;
  const { question } = operation;
  if (question !== undefined && flags.dryRun !== true) {
    const command = ['pgherd', ...question.command, '-c', cluster.value, '--yes'].map(shellQuote).join(' ');
    const agreed = await confirm(session, { ...question, command, yes: flags.yes === true });
    if (!agreed.ok) return agreed;
  }
  const body: BodyIn<'createTask'> = {
    request: operation.request,
    reason: flags.reason ?? '',
    dryRun: flags.dryRun === true,
    requestId: session.newRequestId(),
  };
  const answer = await api.value.call('createTask', { params: { cluster: cluster.value }, body: body as Body<'createTask'> });
  if (!answer.ok) return answer;
  return finishOperation(session, api.value, { answer: answer.value, wait: flags.wait !== false, timeoutMs: timeout.value });
}

export interface Accepted {
  readonly answer: TaskAnswer;
  readonly wait: boolean;
  readonly timeoutMs: number;
}

/** A dry run prints its plan (exit 3 when something would refuse it); an accepted task is followed. */
export async function finishOperation(session: Session, api: Api, accepted: Accepted): Promise<Outcome> {
  const { answer } = accepted;
  if (answer.task === null) {
    session.show(answer, () => renderPlan(answer, { style: session.view.style, width: session.view.width ?? 100 }));
    return { ok: true, value: answer.problems.length > 0 ? EXIT.refused : EXIT.done };
  }
  if (!accepted.wait) {
    const { id } = answer.task;
    const words = taskWords(answer.task);
    session.show(answer.task, () => `task ${id} (${words}) accepted; watch it with: pgherd task log ${id}`);
    return { ok: true, value: EXIT.done };
  }
  return followTask(session, api, { task: answer.task, timeoutMs: accepted.timeoutMs });
}

const POLL_MS = 200;

/** Prints each step once until the task has ended. Lost answers do not end it: the task does not need us. */
export async function followTask(session: Session, api: Api, options: { task: TaskView; timeoutMs: number }): Promise<Outcome> {
  const { io, view } = session;
  const progress = makeProgress(io.stderr, view.errorStyle, view.quiet);
  const stop = new AbortController();
  const release = io.onInterrupt(() => stop.abort());
  const deadline = addMono(io.clock.now().mono, options.timeoutMs);
  const printed = new Map<string, string>();
  let task = options.task;
  let lostSaid = false;
  try {
    for (;;) {
      printSteps(task, printed, progress, session);
      if (isFinished(task)) return endOf(session, task);
      const now = io.clock.now().mono;
      if (stop.signal.aborted) return leave(session, task, 'interrupted');
      if (now >= deadline) return leave(session, task, 'timeout', options.timeoutMs);
      showBytes(task, progress, session);
      await io.clock.sleep(Math.min(POLL_MS, deadline - now), stop.signal);
      const next = await api.call('task', { params: { id: task.id } });
      if (next.ok) {
        task = next.value;
        lostSaid = false;
      } else if (next.error.failure.retryable) {
        if (!lostSaid) progress.line(`the server does not answer (${next.error.failure.code}); the task goes on, waiting to see it again`);
        lostSaid = true;
      } else return next;
    }
  } finally {
    progress.clear();
    release();
  }
}

/** The verb that asked for it: `node rebuild`, `switchover`. */
export function taskWords(task: TaskView): string {
  return requestWords({ kind: task.kind, via: task.request['via'] });
}

export function isFinished(task: TaskView): boolean {
  return task.status !== 'pending' && task.status !== 'running';
}

const MARKS = { running: '…', done: '✓', failed: '✗', undone: '↶' } as const;
const TONES = { running: 'accent', done: 'good', failed: 'bad', undone: 'warn' } as const;

function printSteps(task: TaskView, printed: Map<string, string>, progress: ProgressLine, session: Session): void {
  for (const [index, step] of task.steps.entries()) {
    const key = `${index} ${step.name}`;
    const said = `${step.state} ${step.detail}`;
    if (printed.get(key) === said) continue;
    printed.set(key, said);
    if (step.state === 'running' && session.io.stderr.isTTY) {
      progress.update({ label: stepText(step), doneBytes: null, totalBytes: null }, session.io.clock.now().mono);
    } else progress.line(`${session.view.errorStyle.paint(TONES[step.state], MARKS[step.state])} ${stepText(step)}`);
  }
}

function stepText(step: TaskView['steps'][number]): string {
  return step.detail === '' ? step.name : `${step.name}: ${step.detail}`;
}

/** The bar of the node that moves bytes; nothing when none does. */
function showBytes(task: TaskView, progress: ProgressLine, session: Session): void {
  if (task.progress === null) return;
  const { node, step, doneBytes, totalBytes } = task.progress;
  progress.update({ label: `${node} ${step}`, doneBytes, totalBytes }, session.io.clock.now().mono);
}

function endOf(session: Session, task: TaskView): Outcome {
  const took = task.finishedAt === null ? null : Date.parse(task.finishedAt) - Date.parse(task.createdAt);
  if (task.status === 'done') {
    session.show(
      task,
      () =>
        `${session.view.style.paint('good', 'done')} ${taskWords(task)}${task.result === null || task.result === '' ? '' : `: ${task.result}`} (${formatDuration(took)}, task ${task.id})`,
    );
    return { ok: true, value: EXIT.done };
  }
  if (session.view.format !== 'table') session.show(task, () => '');
  return taskFailure(task);
}

function taskFailure(task: TaskView): Outcome {
  const [first] = task.problems;
  const base = { cause: first === undefined ? (task.result ?? '') : '', retryable: false };
  switch (task.status) {
    case 'refused':
      return cliError(
        EXIT.refused,
        {
          ...base,
          code: 'task.refused',
          what: `${taskWords(task)} was refused`,
          now: 'nothing was changed',
          remedy: 'remove what stands in the way, then run the command again',
        },
        task.problems,
      );
    case 'cancelled':
      return cliError(
        EXIT.failed,
        {
          ...base,
          code: 'task.cancelled',
          what: `${taskWords(task)} was cancelled`,
          now: 'the steps that were done were undone as far as the log says',
          remedy: `see: pgherd task show ${task.id}`,
        },
        task.problems,
      );
    default:
      return cliError(
        EXIT.failed,
        {
          ...base,
          code: 'task.failed',
          what: `${taskWords(task)} failed`,
          now: 'the cluster is watched and healed by its rules',
          remedy: `see: pgherd task show ${task.id} and pgherd explain -c ${task.cluster}`,
        },
        task.problems,
      );
  }
}

/** Ctrl+C and the time limit end the same way: exit 5, and how to watch the task. */
function leave(session: Session, task: TaskView, why: 'interrupted' | 'timeout', timeoutMs = 0): Outcome {
  if (session.view.format !== 'table') session.show(task, () => '');
  return cliError(EXIT.timeLimit, {
    code: why === 'timeout' ? 'task.time-limit' : 'task.left',
    what: why === 'timeout' ? `${taskWords(task)} has not finished within ${formatDuration(timeoutMs)}` : `no longer watching ${taskWords(task)}`,
    cause: lastStep(task),
    now: `the task goes on (${task.id})`,
    remedy: `pgherd task log ${task.id} (or stop it: pgherd task cancel ${task.id})`,
    retryable: false,
  });
}

function lastStep(task: TaskView): string {
  const step = task.steps.at(-1);
  return step === undefined ? `it is ${task.status}` : `last step: ${stepText(step)} (${step.state})`;
}

/** The task, or the refusal that no such task exists. */
export async function readTask(api: Api, id: string): Promise<CliResult<TaskView>> {
  return api.call('task', { params: { id } });
}
