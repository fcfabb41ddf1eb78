/** Clusters come and go: created or adopted by a task, unregistered without touching any data. */
import { join } from 'node:path';
import { formatWall, now as clockNow } from '../base/clock.ts';
import { makeDirectory, writeFileAtomic } from '../base/files.ts';
import { describeRequest } from '../core/cluster/tasks.ts';
import { decodeJson, encodeJson } from '../core/decode.ts';
import { makeClusterId, makeRevision } from '../core/ids.ts';
import { err, ok } from '../core/result.ts';
import { type ClusterSpec, clusterSpec } from '../core/spec.ts';
import { type Task, task as taskDecoder } from '../core/state.ts';
import { clusterKeys } from '../store/keys.ts';
import type { KeyValue } from '../store/store.ts';
import { type Problem, makeApiFailure } from '../api/errors.ts';
import { type Handler, storeFailure, unknownCluster } from './context.ts';
import { readReports } from './reports.ts';
import { decodeSpec } from './spec.ts';
import { taskGate, viewTask, writeTask } from './tasks.ts';

export const createCluster: Handler<'createCluster'> = async (context, { query, body, caller }) => {
  const decoded = decodeSpec(body);
  if (!decoded.ok) return decoded;
  const spec = decoded.value;
  const keys = clusterKeys(spec.name);
  const exists = (): ReturnType<typeof makeApiFailure> =>
    makeApiFailure('cluster.exists', { what: `cluster "${spec.name}" exists`, remedy: 'Change it with `pgherd meta edit`, or take another name.' });
  const present = await context.store.get(keys.spec);
  if (!present.ok) return err(storeFailure(present.error, 'creating the cluster'));
  if (present.value !== null) return err(exists());

  const outlook = await foresee(context, spec);
  if (query.dryRun) return ok({ cluster: spec.name, dryRun: true, task: null, ...outlook });
  await context.secrets.ensure(spec.name);
  const written = await writeTask(context, {
    cluster: spec.name,
    request: { kind: 'create' },
    reason: '',
    by: caller.name,
    id: null,
    alongside: {
      compares: [{ target: 'create', key: keys.spec, op: '=', revision: makeRevision(0) }],
      ops: [{ kind: 'put', key: keys.spec, value: encodeJson(spec) }],
      refusedBecause: exists,
    },
  });
  return written.ok ? ok({ cluster: spec.name, dryRun: false, task: viewTask(spec.name, written.value), ...outlook }) : written;
};

interface Outlook {
  readonly kind: 'create' | 'adopt' | 'unknown';
  readonly plan: string[];
  readonly problems: Problem[];
}

/** What the create task will meet, from the agents that have reported so far. The task itself looks again; this is for people. */
async function foresee(context: Parameters<Handler<'createCluster'>>[0], spec: ClusterSpec): Promise<Outlook> {
  const reports = await readReports(context, spec.name);
  const data = spec.nodes.filter((node) => node.kind === 'data');
  const problems: Problem[] = data
    .filter((node) => !reports.has(node.id))
    .map((node) => ({
      code: 'node.no-agent',
      text: `the agent of ${node.id} (${node.host}) has not reported`,
      remedy: `On that host: \`pgherd agent join\`, then start \`pgherd agent\`. The task waits for it.`,
    }));
  const filled = data.filter((node) => !['absent', undefined].includes(reports.get(node.id)?.postgres.state));
  if (filled.length > 0) {
    const primary = filled.find((node) => reports.get(node.id)?.postgres.role === 'primary' && reports.get(node.id)?.postgres.state === 'running');
    if (primary === undefined)
      problems.push({
        code: 'adopt.no-primary',
        text: 'nodes have data, but none runs as a primary',
        remedy: 'Start the one that is to be the primary.',
      });
    return {
      kind: 'adopt',
      plan: [
        `${filled.map((node) => node.id).join(', ')} ${filled.length === 1 ? 'has' : 'have'} data: nothing is initialised there`,
        ...(primary === undefined ? [] : [`take over ${primary.id} as the primary without a restart`]),
        ...data.filter((node) => node !== primary).map((node) => `${node.id}: standby, kept if it streams from the primary, cloned if it is empty`),
      ],
      problems,
    };
  }
  if (problems.length > 0) return { kind: 'unknown', plan: ['wait for the missing agents', ...createPlan(data)], problems };
  return { kind: 'create', plan: createPlan(data), problems };
}

function createPlan(data: ClusterSpec['nodes']): string[] {
  const [first, ...rest] = [...data].sort((a, b) => b.priority - a.priority);
  if (first === undefined) return [];
  return [`${first.id}: initdb, then primary of term 1`, ...rest.map((node) => `${node.id}: base backup from ${first.id}, then standby`)];
}

/** The oldest task under `prefix` that is not finished; null when there is none. One that cannot be read is nobody's work any more. */
function unfinishedTask(kvs: readonly KeyValue[], prefix: string): Task | null {
  for (const kv of kvs) {
    const decoded = kv.key.startsWith(prefix) ? decodeJson(taskDecoder, kv.value) : null;
    if (decoded?.ok === true && (decoded.value.status === 'pending' || decoded.value.status === 'running')) return decoded.value;
  }
  return null;
}

/**
 * Unregisters. What was known is kept in a file; PostgreSQL and its data are not touched.
 * `task.conflict` while a task is not finished; `cluster.live-nodes`; `cluster.unconfirmed`; `spec.conflict` when something changed meanwhile.
 */
export const removeCluster: Handler<'removeCluster'> = async (context, { params, query }) => {
  const cluster = makeClusterId(params.cluster);
  const keys = clusterKeys(cluster);
  // Read before the tasks are listed: a task that is written meanwhile changes it, and the removal is not done.
  const gate = await context.store.get(taskGate(cluster));
  if (!gate.ok) return err(storeFailure(gate.error, 'removing the cluster'));
  const listing = await context.store.list(keys.prefix);
  if (!listing.ok) return err(storeFailure(listing.error, 'removing the cluster'));
  const spec = listing.value.kvs.find((kv) => kv.key === keys.spec);
  if (spec === undefined) return err(unknownCluster(context, cluster));
  if (query.confirm !== cluster) {
    return err(
      makeApiFailure('cluster.unconfirmed', {
        what: `removing "${cluster}" needs its name as a confirmation`,
        remedy: `Ask again with ?confirm=${cluster}.`,
      }),
    );
  }
  const busy = unfinishedTask(listing.value.kvs, keys.tasks);
  // No controller works on a cluster whose spec cannot be read: its tasks would stand in the way for ever.
  if (busy !== null && decodeJson(clusterSpec, spec.value).ok) {
    const text = `task ${busy.id} (${describeRequest(busy.request)}, by ${busy.by}, ${busy.status}) is not finished`;
    return err(
      makeApiFailure('task.conflict', {
        what: `"${cluster}" is not removed while one of its tasks runs`,
        cause: text,
        remedy: `Wait for it (\`pgherd task log ${busy.id}\`), or cancel it (\`pgherd task cancel ${busy.id}\`); then remove the cluster.`,
        problems: [{ code: 'task.conflict', text, remedy: `pgherd task log ${busy.id}` }],
      }),
    );
  }
  const live = listing.value.kvs
    .filter((kv) => kv.key.startsWith(keys.nodes) && kv.key.endsWith('/report'))
    .map((kv) => kv.key.slice(keys.nodes.length).split('/')[0] ?? '');
  if (live.length > 0 && !query.evenIfLive) {
    return err(
      makeApiFailure('cluster.live-nodes', {
        what: `nodes of "${cluster}" are alive: ${live.join(', ')}`,
        cause: 'their agents would stand without a cluster, and nothing would fail over any more',
        remedy: 'Stop the agents first (PostgreSQL goes on), or ask again with evenIfLive=true (`pgherd cluster remove --even-if-live`).',
        problems: live.map((node) => ({ code: 'node.live', text: `the agent of ${node} is alive`, remedy: 'Stop it first.' })),
      }),
    );
  }
  const directory = join(context.config.dataDirectory, 'removed');
  await makeDirectory(directory);
  const kept = join(directory, `${cluster}-${formatWall(clockNow().wall).replaceAll(/[:.]/g, '')}.json`);
  await writeFileAtomic(
    kept,
    `${JSON.stringify(
      listing.value.kvs.map(({ key, value }) => ({ key, value })),
      null,
      1,
    )}\n`,
  );
  const removed = await context.store.txn(
    [
      { target: 'mod', key: keys.spec, op: '=', revision: spec.modRevision },
      { target: 'mod', key: taskGate(cluster), op: '=', revision: gate.value?.modRevision ?? makeRevision(0) },
    ],
    [{ kind: 'delete-prefix', prefix: keys.prefix }],
  );
  if (!removed.ok) return err(storeFailure(removed.error, 'removing the cluster'));
  if (removed.value.succeeded) return ok({ cluster, removed: true, kept });
  return err(makeApiFailure('spec.conflict', { what: `"${cluster}" was changed by somebody else meanwhile`, remedy: 'Look at it, then ask again.' }));
};
