/** Nodes come and go under writes: nobody waits, nobody sees an error, and the death of the server in the middle changes nothing. */
import { monoMs } from '../../src/base/clock.ts';
import { sendSignal, waitUntil } from '../../src/demo/children.ts';
import { joinNode } from '../../src/demo/processes.ts';
import type { Scenario } from '../scenario.ts';
import { SPARE, type Stage } from '../stage.ts';
import { calm, expectServing, waitShowHealthy } from '../steps.ts';

/** A tenth of a gigabyte: the copy takes long enough to be met in its middle. */
const BALLAST_ROWS = 100_000;
const ADD_LIMIT_MS = 60_000;
/** The copy of the slow scenarios takes about ten seconds at this rate. */
const SLOW_RATE = '12M';

const undisturbed = { outageMs: 250, clientErrors: 0, lostRows: 0, rejoinMs: null } as const;
/** All hosts of the lab share one disk and its processors: a copy and the start of a server delay a write that no other part of the cluster waits for. */
const besideCopy = { ...undisturbed, outageMs: 500 } as const;

async function prepare(stage: Stage): Promise<readonly string[]> {
  const { herd, primary } = stage;
  await herd.sql(
    primary,
    `create table ballast as select g, repeat(md5(g::text), 30) as t from generate_series(1, ${BALLAST_ROWS}) g`,
    herd.login.database,
  );
  const [spare] = herd.plan.spares ?? [];
  if (spare === undefined) return ['there is no spare host'];
  const refused = await joinNode(herd, spare);
  if (refused !== null) return [`${SPARE} could not join: ${refused.cause}`];
  const ready = await waitUntil(async () => (await herd.verb(['node', 'add', SPARE, '--dry-run', '--json'], 5000)).code === 0, 20_000, 200);
  return ready ? [] : [`${SPARE} was not ready to be added: ${(await herd.verb(['node', 'add', SPARE, '--dry-run'], 5000)).stdout}`];
}

/** Everything that says that the node is one: it streams from the primary, votes, and serves reads. */
async function checkMember(stage: Stage, node: string, isMember: boolean): Promise<readonly string[]> {
  const wrong: string[] = [];
  if (!(await waitShowHealthy(stage, 20_000))) wrong.push('the cluster is not healthy');
  const meta = await stage.herd.verb(['meta', 'get', '--all', '--json'], 10_000);
  const found = JSON.parse(meta.code === 0 ? meta.stdout : '{}') as {
    spec?: { nodes: { id: string; membership: string }[] };
    state?: { electorate: { members: string[]; former: string[] }; route: { readers: string[] } };
  };
  const entry = found.spec?.nodes.find((one) => one.id === node);
  if ((entry?.membership === 'full') !== isMember) wrong.push(`${node} is ${entry?.membership ?? 'not'} in the settings`);
  if (found.state?.electorate.members.includes(node) !== isMember) wrong.push(`the electorate is ${found.state?.electorate.members.join()}`);
  if (found.state?.route.readers.includes(node) !== isMember) wrong.push(`reads go to ${found.state?.route.readers.join()}`);
  const [slot] = await stage.herd.sql(stage.primary, `select count(*)::int as n from pg_replication_slots where slot_name = 'pgherd_${node}'`);
  if (slot?.['n'] !== (isMember ? 1 : 0)) wrong.push(`the primary has ${String(slot?.['n'])} slots of ${node}`);
  return wrong;
}

async function sameRows(stage: Stage, node: string): Promise<readonly string[]> {
  const count = async (at: string): Promise<unknown> =>
    (await stage.herd.sql(at, 'select count(*)::int as n from ballast', stage.herd.login.database))[0]?.['n'];
  const rows = await count(node);
  return rows === BALLAST_ROWS ? [] : [`${node} has ${String(rows)} of ${BALLAST_ROWS} rows`];
}

export const nodeAdd: Scenario = {
  name: 'node-add',
  about: 'a fourth node is added while clients write: slot, copy of a standby, reads and votes; nobody waits',
  expect: besideCopy,
  proxies: 1,
  run: async (stage) => {
    const wrong = [...(await prepare(stage))];
    const faultMs = monoMs();
    const added = await stage.herd.verb(['node', 'add', SPARE, '--timeout', `${ADD_LIMIT_MS / 1000}s`], ADD_LIMIT_MS + 5000);
    const tookMs = Math.round(monoMs() - faultMs);
    if (added.code !== 0) wrong.push(`node add ended with exit code ${added.code}: ${added.stderr.trim().slice(-600)}`);
    wrong.push(...(await checkMember(stage, SPARE, true)), ...(await sameRows(stage, SPARE)));
    wrong.push(...(await expectServing(stage, { afterMs: monoMs(), limitMs: 5000 })));
    await calm();
    return { faultMs, rejoinMs: null, wrong, detail: `added in ${tookMs} ms` };
  },
};

/** Waits until the copy of the spare host moves bytes. */
function waitCopying(stage: Stage): Promise<boolean> {
  return waitUntil(
    async () => {
      const tasks = await stage.herd.verb(['show', '--json'], 5000);
      if (tasks.code !== 0) return false;
      const shown = JSON.parse(tasks.stdout) as { nodes: { id: string; activity?: { step: string; doneBytes: number | null } | null }[] };
      const activity = shown.nodes.find((one) => one.id === SPARE)?.activity;
      return activity?.step === 'clone' && (activity.doneBytes ?? 0) > 0;
    },
    20_000,
    100,
  );
}

/** `task list --json`; null when the server does not answer. */
async function addTask(stage: Stage): Promise<{ readonly id: string; readonly status: string; readonly result: string | null } | null> {
  const listed = await stage.herd.verb(['task', 'list', '--json'], 5000);
  if (listed.code !== 0) return null;
  const tasks = JSON.parse(listed.stdout) as { id: string; kind: string; status: string; result: string | null }[];
  return tasks.find((one) => one.kind === 'nodeAdd') ?? null;
}

export const nodeAddServerDies: Scenario = {
  name: 'node-add-server-dies',
  about: 'the server is killed in the middle of the copy of a new node, and started again: the task goes on to its end',
  expect: besideCopy,
  run: async (stage) => {
    const { herd } = stage;
    const wrong = [...(await prepare(stage))];
    const faultMs = monoMs();
    const asked = await herd.verb(['node', 'add', SPARE, '--no-wait', '--rate', SLOW_RATE], 10_000);
    if (asked.code !== 0) wrong.push(`node add was not accepted: ${asked.stderr}`);
    if (!(await waitCopying(stage))) wrong.push('the copy did not begin');
    const server = herd.server();
    if (server !== null) sendSignal(server.pid, 'SIGKILL');
    await server?.gone;
    await calm(2000);
    herd.startServer();
    const ended = await waitUntil(async () => ['done', 'failed', 'cancelled'].includes((await addTask(stage))?.status ?? ''), ADD_LIMIT_MS, 200);
    const task = await addTask(stage);
    if (!ended || task?.status !== 'done') wrong.push(`the task is ${task?.status ?? 'gone'}: ${task?.result ?? ''}`);
    wrong.push(...(await checkMember(stage, SPARE, true)), ...(await sameRows(stage, SPARE)));
    const clones = herd.agent(SPARE) === null ? 0 : await countClones(stage);
    if (clones !== 1) wrong.push(`${clones} copies were begun`);
    await calm();
    return { faultMs, rejoinMs: null, wrong, detail: `done ${Math.round(monoMs() - faultMs)} ms after it was asked for` };
  },
};

/** How often the agent of the spare host began to copy, by its own log. */
async function countClones(stage: Stage): Promise<number> {
  const log = await stage.herd.verb(['log', SPARE, '--source', 'agent', '--grep', 'acting', '-n', '1000', '--json'], 10_000);
  return log.stdout.split('"action":"clone"').length - 1 + (log.stdout.split('"action": "clone"').length - 1);
}

export const nodeAddAgentDies: Scenario = {
  name: 'node-add-agent-dies',
  about:
    'the agent of a new node is killed in the middle of its copy, and started again: the copy begins anew; then it is cancelled, and nothing of it stays',
  expect: besideCopy,
  run: async (stage) => {
    const { herd } = stage;
    const wrong = [...(await prepare(stage))];
    const faultMs = monoMs();
    await herd.verb(['node', 'add', SPARE, '--no-wait', '--rate', SLOW_RATE], 10_000);
    if (!(await waitCopying(stage))) wrong.push('the copy did not begin');
    const agent = herd.agent(SPARE);
    if (agent !== null) sendSignal(agent.pid, 'SIGKILL');
    await agent?.gone;
    herd.startAgent(SPARE);
    if (!(await waitCopying(stage))) wrong.push('the copy did not begin anew');
    const task = await addTask(stage);
    const cancelled = await herd.verb(['task', 'cancel', task?.id ?? ''], 10_000);
    if (cancelled.code !== 0) wrong.push(`it could not be cancelled: ${cancelled.stderr}`);
    const ended = await waitUntil(async () => (await addTask(stage))?.status === 'cancelled', ADD_LIMIT_MS, 200);
    if (!ended) wrong.push(`the task is ${(await addTask(stage))?.status ?? 'gone'}`);
    wrong.push(...(await checkMember(stage, SPARE, false)));
    await calm();
    return { faultMs, rejoinMs: null, wrong, detail: (await addTask(stage))?.result ?? '' };
  },
};

export const nodeRemove: Scenario = {
  name: 'node-remove',
  about: 'a standby is removed under synchronous writes and comes back: out of every count before it is stopped, in again without a copy',
  // With three nodes a commit waits for one of two standbys; it must never wait for the one that leaves.
  spec: { durability: { mode: 'quorum', k: 1 } },
  expect: undisturbed,
  run: async (stage) => {
    const { herd } = stage;
    const [gone] = stage.standbys;
    const wrong: string[] = [];
    const faultMs = monoMs();
    const refused = await herd.verb(['node', 'remove', stage.primary, '--yes'], 10_000);
    if (refused.code !== 3) wrong.push(`removing the primary ended with exit code ${refused.code}`);
    const removed = await herd.verb(['node', 'remove', gone, '--yes', '--timeout', `${ADD_LIMIT_MS / 1000}s`], ADD_LIMIT_MS + 5000);
    if (removed.code !== 0) wrong.push(`node remove ended with exit code ${removed.code}: ${removed.stderr.trim().slice(-600)}`);
    if (herd.postmaster(gone) !== null) wrong.push(`PostgreSQL of ${gone} runs on`);
    wrong.push(...(await checkMember(stage, gone, false)));
    const removedMs = Math.round(monoMs() - faultMs);
    await calm();
    const backMs = monoMs();
    const back = await herd.verb(['node', 'add', gone, '--timeout', `${ADD_LIMIT_MS / 1000}s`], ADD_LIMIT_MS + 5000);
    if (back.code !== 0) wrong.push(`node add ended with exit code ${back.code}: ${back.stderr.trim().slice(-600)}`);
    wrong.push(...(await checkMember(stage, gone, true)));
    await calm();
    return { faultMs, rejoinMs: null, wrong, detail: `removed in ${removedMs} ms, back in ${Math.round(monoMs() - backMs)} ms` };
  },
};
