import { monoMs } from '../../src/base/clock.ts';
import { sendSignal, waitUntil } from '../../src/demo/children.ts';
import type { Scenario } from '../scenario.ts';
import { calm, explanation, waitShowHealthy } from '../steps.ts';
import { NODES, type Stage } from '../stage.ts';

const TASK_LIMIT_MS = 150_000;
/** As an init system would: not at once. */
const DOWN_MS = 1000;

interface TaskSeen {
  readonly id: string;
  readonly status: string;
  readonly result: string | null;
  readonly steps: readonly { readonly name: string }[];
  readonly problems: readonly { readonly text: string }[];
}

function readTask(output: string): TaskSeen | null {
  try {
    return JSON.parse(output) as TaskSeen;
  } catch {
    // The server was killed under the question.
    return null;
  }
}

async function killServer(stage: Stage): Promise<void> {
  const server = stage.herd.server();
  if (server === null) return;
  sendSignal(server.pid, 'SIGKILL');
  await server.gone;
  await calm(DOWN_MS);
  stage.herd.startServer();
}

/** Follows the task, and kills the server once in each step. Returns the finished task, and the steps in which it was killed. */
async function killInEachStep(stage: Stage, id: string): Promise<{ readonly task: TaskSeen | null; readonly killedIn: readonly string[] }> {
  const killedIn: string[] = [];
  let task: TaskSeen | null = null;
  const isOver = async (): Promise<boolean> => {
    const shown = await stage.herd.verb(['task', 'show', id, '--json'], 5000);
    const seen = shown.code === 0 ? readTask(shown.stdout) : null;
    if (seen === null) return false;
    task = seen;
    if (seen.status !== 'pending' && seen.status !== 'running') return true;
    const step = seen.steps.at(-1)?.name ?? 'pending';
    if (killedIn.includes(step)) return false;
    killedIn.push(step);
    await killServer(stage);
    return false;
  };
  await waitUntil(isOver, TASK_LIMIT_MS, 20);
  return { task, killedIn };
}

export const rollingServerDies: Scenario = {
  name: 'rolling-server-dies',
  about:
    'the server, and with it store and controller, is killed once in each step of a rolling restart that is seen, with quorum commit: the task goes on to its end',
  expect: { outageMs: null, clientErrors: null, lostRows: 0, rejoinMs: null },
  spec: { durability: { mode: 'quorum', k: 1 } },
  run: async (stage) => {
    const before = new Map(NODES.map((node) => [node, stage.herd.postmaster(node)]));
    const faultMs = monoMs();
    const asked = await stage.herd.verb(['cluster', 'restart', '--rolling', '--no-wait', '--json'], 20_000);
    const id = readTask(asked.stdout)?.id;
    if (asked.code !== 0 || id === undefined) throw new Error(`cluster restart ended with ${asked.code}: ${asked.stderr}`);
    const { task, killedIn } = await killInEachStep(stage, id);
    const wrong: string[] = [];
    if (task?.status !== 'done')
      wrong.push(`the task is ${task?.status ?? 'unknown'}: ${JSON.stringify(task?.problems ?? [])}`, ...(await explanation(stage)));
    for (const node of NODES) if (stage.herd.postmaster(node) === before.get(node)) wrong.push(`${node} was not restarted`);
    if (killedIn.length < 3) wrong.push(`the server was killed in ${killedIn.length} steps only`);
    if (!(await waitShowHealthy(stage, 30_000))) wrong.push('the cluster is not healthy afterwards');
    await calm();
    return { faultMs, rejoinMs: null, wrong, detail: `server killed in: ${killedIn.join(', ')}; ${task?.result ?? ''}` };
  },
};
