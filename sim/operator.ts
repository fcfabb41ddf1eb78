/** People: commands as tasks in the store, refused where the API would refuse them, so that only what can happen happens. */
import { decodeJson, encodeJson } from '../src/core/decode.ts';
import { isExclusive, nodeOf as nodeOfRequest } from '../src/core/cluster/tasks.ts';
import { type Task, type TaskRequest, task as taskDecoder, taskRequest } from '../src/core/state.ts';
import type { World } from './world/world.ts';
import { WALL_START_MS } from './world/host-clock.ts';

export interface Operator {
  /** False: the API would refuse it (another task has the cluster or the node), or it is no request. */
  ask(request: Readonly<Record<string, unknown>>): boolean;
  /** Somebody takes back the newest command that has not ended; without one nothing is done. */
  cancelNewest(): void;
  unfinished(): readonly Task[];
  find(id: string): Task | null;
}

export function createOperator(world: World): Operator {
  let count = 0;

  function tasks(): readonly Task[] {
    return world.store
      .keyspace()
      .list(world.keys.tasks, 10_000)
      .flatMap((kv) => {
        const decoded = decodeJson(taskDecoder, kv.value);
        return decoded.ok ? [decoded.value] : [];
      });
  }
  const unfinished = (): readonly Task[] => tasks().filter((one) => one.status === 'pending' || one.status === 'running');

  return {
    unfinished,
    cancelNewest: () => {
      const task = unfinished().at(-1);
      const found = task === undefined ? null : world.store.keyspace().get(world.keys.task(task.id));
      if (task === undefined || found === null) return;
      world.trace.add('operator', `cancels ${task.id}`);
      const compares = [{ target: 'mod' as const, key: found.key, op: '=' as const, revision: found.modRevision }];
      void world.office.store.txn(compares, [{ kind: 'put', key: found.key, value: encodeJson({ ...task, cancelRequested: true }) }]);
    },
    find: (id) => tasks().find((one) => one.id === id) ?? null,
    ask: (wanted) => {
      const decoded = decodeJson(taskRequest, JSON.stringify(wanted));
      if (!decoded.ok) return false;
      const request = decoded.value;
      if (unfinished().some((one) => conflicts(request, one.request))) return false;
      const id = `t${String(++count).padStart(3, '0')}`;
      const created: Task = {
        version: 1,
        id,
        request,
        reason: 'simulated',
        by: 'operator',
        createdWallMs: Math.round(WALL_START_MS + world.clock.now()) as Task['createdWallMs'],
        status: 'pending',
        cancelRequested: false,
        steps: [],
        notes: {},
        problems: [],
        finishedWallMs: null,
        result: null,
      };
      world.trace.add('operator', `${id}: ${JSON.stringify(request)}`);
      void world.office.store.txn([], [{ kind: 'put', key: world.keys.task(id), value: encodeJson(created) }]);
      return true;
    },
  };
}

/** As src/server/tasks.ts has it. */
function conflicts(wanted: TaskRequest, running: TaskRequest): boolean {
  if (isExclusive(wanted) && isExclusive(running)) return true;
  const node = nodeOfRequest(wanted);
  const other = nodeOfRequest(running);
  if (node !== null && other !== null) return node === other;
  if (isExclusive(running)) return node !== null;
  if (isExclusive(wanted)) return other !== null && wanted.kind !== 'failover' && wanted.kind !== 'clusterStop';
  return false;
}
