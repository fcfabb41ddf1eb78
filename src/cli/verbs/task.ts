import { Command, Option } from 'commander';
import type { TaskView } from '../../api/schema.ts';
import { readDuration } from '../context.ts';
import { EXIT } from '../exit.ts';
import { cell, oneLine, renderTable } from '../output/table.ts';
import { formatTime } from '../output/units.ts';
import { renderProblems } from '../render/plan.ts';
import { type Host, type Session, act } from '../session.ts';
import { LONG_TIMEOUT, followTask, readTask, taskWords } from '../task.ts';

const STATUS_TONES = { pending: 'accent', running: 'accent', done: 'good', failed: 'bad', refused: 'warn', cancelled: 'dim' } as const;

export function taskCommand(host: Host): Command {
  return new Command('task')
    .description('long operations: they live on the server and survive this program')
    .addCommand(listCommand(host))
    .addCommand(showCommand(host))
    .addCommand(logCommand(host))
    .addCommand(cancelCommand(host));
}

function listCommand(host: Host): Command {
  return new Command('list')
    .description('tasks of all clusters (or of -c), newest first')
    .addOption(new Option('--status <status>', 'only those').choices(Object.keys(STATUS_TONES)))
    .option('--search <text>', 'only those with this text in their command, steps, problems, result, reason or name of a person')
    .action(
      act(host, async (session, self) => {
        const filter = self.opts<TaskFilter>();
        const api = session.api();
        if (!api.ok) return api;
        const { cluster } = session.flags;
        const tasks = cluster === undefined ? await api.value.call('tasks', {}) : await api.value.call('clusterTasks', { params: { cluster } });
        if (!tasks.ok) return tasks;
        const found = tasks.value.filter((task) => fits(task, filter));
        session.show(found, () => (found.length === 0 ? 'no tasks' : renderTasks(found, session)));
        return { ok: true, value: EXIT.done };
      }),
    );
}

interface TaskFilter {
  readonly status?: string;
  readonly search?: string;
}

/** Case does not count. */
function fits(task: TaskView, { status, search }: TaskFilter): boolean {
  if (status !== undefined && task.status !== status) return false;
  if (search === undefined) return true;
  const steps = task.steps.flatMap((step) => [step.name, step.detail]);
  const problems = task.problems.flatMap((problem) => [problem.code, problem.text]);
  const texts = [task.id, task.cluster, taskWords(task), task.by, task.reason, task.result ?? '', ...steps, ...problems];
  return texts.some((text) => text.toLowerCase().includes(search.toLowerCase()));
}

const COLUMNS = [
  { head: 'TASK', min: 12 },
  { head: 'CLUSTER', min: 8, rank: 3 },
  { head: 'KIND' },
  { head: 'STATUS' },
  { head: 'BY', min: 6, rank: 4 },
  { head: 'CREATED', rank: 2 },
  { head: 'LAST STEP', min: 16, rank: 1 },
] as const;

function renderTasks(tasks: readonly TaskView[], session: Session): string {
  const rows = tasks.map((task) => [
    cell(task.id),
    cell(task.cluster),
    cell(taskWords(task)),
    cell(task.status, STATUS_TONES[task.status]),
    cell(task.by),
    cell(formatTime(task.createdAt)),
    cell(task.result ?? task.steps.at(-1)?.name ?? null),
  ]);
  return renderTable(COLUMNS, rows, session.view);
}

function showCommand(host: Host): Command {
  return new Command('show')
    .description('one task with its steps')
    .argument('<task>', 'task id')
    .action(
      act(host, async (session, self) => {
        const api = session.api();
        if (!api.ok) return api;
        const task = await readTask(api.value, self.processedArgs[0] as string);
        if (!task.ok) return task;
        session.show(task.value, () => renderTask(task.value, session));
        return { ok: true, value: EXIT.done };
      }),
    );
}

function renderTask(task: TaskView, session: Session): string {
  const { style } = session.view;
  const lines = [
    `${style.paint('bold', task.id)}  ${taskWords(task)} of ${task.cluster}  ${style.paint(STATUS_TONES[task.status], task.status)}${task.cancelRequested && task.finishedAt === null ? ' (asked to stop)' : ''}`,
    `by ${task.by} at ${formatTime(task.createdAt)}${task.reason === '' ? '' : `: ${oneLine(task.reason)}`}`,
  ];
  for (const step of task.steps)
    lines.push(`  ${formatTime(step.at)}  ${step.state.padEnd(7)}  ${oneLine(step.name)}${step.detail === '' ? '' : `: ${oneLine(step.detail)}`}`);
  if (task.result !== null && task.result !== '') lines.push(oneLine(task.result));
  lines.push(...renderProblems(task.problems, { style, width: Math.min(session.view.width ?? 100, 100) }));
  return lines.join('\n');
}

function logCommand(host: Host): Command {
  return new Command('log')
    .description('the steps of a task, followed until it ends; exits as the task does')
    .argument('<task>', 'task id')
    .option('--timeout <duration>', 'stop watching after this long; the task goes on (exit 5)', LONG_TIMEOUT)
    .action(
      act(host, async (session, self) => {
        const timeout = readDuration('--timeout', self.opts<{ timeout: string }>().timeout);
        if (!timeout.ok) return timeout;
        const api = session.api();
        if (!api.ok) return api;
        const task = await readTask(api.value, self.processedArgs[0] as string);
        if (!task.ok) return task;
        return followTask(session, api.value, { task: task.value, timeoutMs: timeout.value });
      }),
    );
}

function cancelCommand(host: Host): Command {
  return new Command('cancel')
    .description('ask a task to stop at its next safe point and to undo what it can')
    .argument('<task>', 'task id')
    .action(
      act(host, async (session, self) => {
        const api = session.api();
        if (!api.ok) return api;
        const task = await api.value.call('cancelTask', { params: { id: self.processedArgs[0] as string } });
        if (!task.ok) return task;
        session.show(task.value, () => `task ${task.value.id} was asked to stop; watch it with: pgherd task log ${task.value.id}`);
        return { ok: true, value: EXIT.done };
      }),
    );
}
