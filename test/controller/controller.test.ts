import assert from 'node:assert/strict';
import { afterEach, test } from 'node:test';
import { realClock } from '../../src/base/clock.ts';
import { createLogger } from '../../src/base/log.ts';
import { runController } from '../../src/controller/controller.ts';
import { runControllers } from '../../src/controller/controllers.ts';
import { decodeJson, encodeJson } from '../../src/core/decode.ts';
import { type ClusterState, type Task, clusterEvent, clusterState, task as taskDecoder } from '../../src/core/state.ts';
import { makeClusterId, makeRevision } from '../../src/core/ids.ts';
import { type ClusterSpec, clusterSpec } from '../../src/core/spec.ts';
import { createClusterCache } from '../../src/controller/cache.ts';
import { buildTransaction } from '../../src/controller/write.ts';
import { clusterKeys } from '../../src/store/keys.ts';
import { id, makeTask, picture } from '../core/cluster/picture.ts';
import { type MemoryStore, createMemoryStore } from './memory-store.ts';

const CLUSTER = makeClusterId('demo');
const keys = clusterKeys(CLUSTER);
const log = createLogger({ role: 'test', stream: { write: () => undefined }, pretty: false });
const stops: { abort: AbortController; ended: Promise<void> }[] = [];

afterEach(async () => {
  for (const one of stops.splice(0)) {
    one.abort.abort();
    await one.ended;
  }
});

function run(memory: MemoryStore, name = 'c1'): { abort: AbortController; ended: Promise<void> } {
  const abort = new AbortController();
  const started = { abort, ended: runController({ store: memory.store, cluster: CLUSTER, clock: realClock, log, name, signal: abort.signal }) };
  stops.push(started);
  return started;
}

async function until(what: string, done: () => boolean, limitMs = 5000): Promise<void> {
  const end = Date.now() + limitMs;
  while (!done()) {
    if (Date.now() > end) throw new Error(`not within ${limitMs} ms: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
}

/** Puts spec, state and reports of a picture into the store; the state has at least the revision that the reports say they read. */
function load(memory: MemoryStore, text: string, tasks: readonly Task[] = []): void {
  const view = picture(text);
  for (let revision = 0; revision < view.stateRevision; revision++) memory.put(keys.spec, encodeJson(view.spec));
  if (view.state.phase !== 'new') memory.put(keys.state, encodeJson(view.state));
  for (const seen of Object.values(view.reports)) if (seen.alive) memory.put(keys.report(seen.report.node), encodeJson(seen.report));
  if (view.writeLease !== null) memory.put(keys.writeLease, encodeJson({ version: 1, ...view.writeLease }));
  for (const task of tasks) memory.put(keys.task(task.id), encodeJson(task));
}

function stateOf(memory: MemoryStore): ClusterState | null {
  const kv = memory.kvs.get(keys.state);
  const decoded = kv === undefined ? null : decodeJson(clusterState, kv.value);
  return decoded?.ok === true ? decoded.value : null;
}

function taskOf(memory: MemoryStore, name: string): Task | null {
  const decoded = decodeJson(taskDecoder, memory.kvs.get(keys.task(name))?.value ?? '');
  return decoded.ok ? decoded.value : null;
}

function events(memory: MemoryStore): readonly string[] {
  return [...memory.kvs.values()]
    .filter((kv) => kv.key.startsWith(keys.events))
    .sort((a, b) => (a.key < b.key ? -1 : 1))
    .flatMap((kv) => {
      const decoded = decodeJson(clusterEvent, kv.value);
      return decoded.ok ? [decoded.value.rule] : [];
    });
}

const STEADY = 'term 3 primary n1 lease n1/3\nn1 primary @0/5000\nn2 standby\nn3 standby';

test('a command becomes a state, an event and a task that goes on, in one transaction (Q2)', async () => {
  const memory = createMemoryStore();
  load(memory, 'term 0\nn1 absent\nn2 absent', [makeTask({ kind: 'create' })]);
  run(memory);
  await until('creating', () => stateOf(memory)?.phase === 'creating');
  assert.deepEqual([stateOf(memory)?.goals[id('n1')]?.kind, taskOf(memory, 't1')?.status], ['create', 'running']);
  assert.equal(memory.kvs.get(keys.state)?.modRevision, memory.kvs.get(keys.task('t1'))?.modRevision);
  assert.ok(events(memory).includes('bootstrap.create'));
});

test('a node that is added or removed changes the spec in the transaction of its task, and only on the spec that was read', async () => {
  const memory = createMemoryStore();
  load(memory, STEADY, [makeTask({ kind: 'nodeRemove', node: id('n3'), dropData: false })]);
  run(memory);
  const specOf = (): ClusterSpec | null => {
    const decoded = decodeJson(clusterSpec, memory.kvs.get(keys.spec)?.value ?? '');
    return decoded.ok ? decoded.value : null;
  };
  await until('leaving', () => specOf()?.nodes.at(-1)?.membership === 'leaving');
  assert.equal(memory.kvs.get(keys.spec)?.modRevision, memory.kvs.get(keys.task('t1'))?.modRevision);

  const raced = createMemoryStore();
  load(raced, STEADY);
  const view = picture(STEADY);
  const leadership = { key: 'k', lease: 'l', revision: 1 } as never;
  const cache = createClusterCache(keys);
  cache.replace([...raced.kvs.values()], makeRevision(5), realClock.now());
  const decision = { rule: 'r', why: '', state: null, spec: view.spec, events: [], tasks: [], opened: null, again: null, dropLease: false };
  const { compares, ops } = buildTransaction(keys, cache, leadership, decision);
  assert.ok(
    compares.some((compare) => compare.target === 'mod' && compare.key === keys.spec && compare.revision === raced.kvs.get(keys.spec)?.modRevision),
  );
  assert.deepEqual(
    ops.map((op) => (op.kind === 'put' ? op.key : op.kind)),
    [keys.spec],
  );
});

test('a steady cluster is not written again', async () => {
  const memory = createMemoryStore();
  load(memory, STEADY);
  run(memory);
  await until('route', () => stateOf(memory)?.route.writer === 'n1');
  const { writes } = memory;
  for (let i = 0; i < 5; i++) memory.put(keys.report(id('n2')), memory.kvs.get(keys.report(id('n2')))?.value ?? '');
  await new Promise((resolve) => setTimeout(resolve, 700));
  assert.equal(memory.writes, writes);
});

test('a decision that loses its race is thrown away; a cancel that came between is not overwritten (Q3)', async () => {
  const memory = createMemoryStore();
  load(memory, STEADY, [makeTask({ kind: 'nodeStop', node: id('n3') })]);
  memory.beforeWrite = (ops) => {
    if (!ops.some((op) => op.kind === 'put' && op.key === keys.task('t1'))) return;
    memory.beforeWrite = null;
    memory.put(keys.task('t1'), encodeJson(makeTask({ kind: 'nodeStop', node: id('n3') }, { cancelRequested: true })));
  };
  run(memory);
  await until('cancelled', () => taskOf(memory, 't1')?.status === 'cancelled');
  assert.equal(stateOf(memory)?.goals[id('n3')]?.kind, 'standby');
});

test('a lease taken between the reading and the promote order voids the order (I1)', async () => {
  const memory = createMemoryStore();
  load(memory, 'term 3 primary n1 attempt 4 vote\nn1 dead @0/5000\nn2 detached vote4@0/5000\nn3 detached vote4@0/5000');
  let raced = false;
  memory.beforeWrite = (ops) => {
    const text = ops.map((op) => (op.kind === 'put' ? op.value : '')).join();
    if (raced || !text.includes('"phase":"promote"')) return;
    raced = true;
    memory.put(keys.writeLease, encodeJson({ version: 1, term: 3, holder: 'n1' }));
  };
  run(memory);
  await until('raced', () => raced);
  await until('blocked', () => stateOf(memory)?.decided.rule === 'failover.blocked-lease');
  assert.equal(stateOf(memory)?.attempt?.phase, 'vote');
  memory.remove(keys.writeLease);
  await until('promoted', () => stateOf(memory)?.attempt?.phase === 'promote');
});

test('an unknown outcome is read again, not repeated', async () => {
  const memory = createMemoryStore();
  load(memory, STEADY, [makeTask({ kind: 'freeze', forMs: null })]);
  memory.beforeWrite = (ops) => {
    if (ops.some((op) => op.kind === 'put' && op.key === keys.state)) memory.unknownWrites = 1;
    memory.beforeWrite = null;
  };
  run(memory);
  await until('frozen', () => taskOf(memory, 't1')?.status === 'done');
  await new Promise((resolve) => setTimeout(resolve, 400));
  assert.equal(events(memory).filter((rule) => rule === 'command.freeze').length, 1);
});

test('two controllers: one decides; when it resigns, the other does at once', async () => {
  const memory = createMemoryStore();
  load(memory, STEADY);
  const first = run(memory, 'c1');
  await until('elected', () => memory.kvs.get(keys.controller)?.value.includes('c1') === true);
  run(memory, 'c2');
  first.abort.abort();
  await first.ended;
  await until('taken over', () => memory.kvs.get(keys.controller)?.value.includes('c2') === true);
  memory.put(keys.task('t9'), encodeJson(makeTask({ kind: 'freeze', forMs: null }, { id: 't9' })));
  await until('decides', () => taskOf(memory, 't9')?.status === 'done');
});

test('bytes that cannot be read become an event; a bad state is never overwritten', async () => {
  const memory = createMemoryStore();
  load(memory, STEADY);
  memory.put(keys.report(id('n2')), '{"half');
  run(memory);
  await until('told', () => events(memory).includes('controller.unreadable'));
  memory.put(keys.state, 'garbage');
  const before = memory.kvs.get(keys.state)?.modRevision;
  memory.put(keys.task('t1'), encodeJson(makeTask({ kind: 'freeze', forMs: null })));
  await until('told of the state', () => events(memory).filter((rule) => rule === 'controller.unreadable').length >= 2);
  assert.equal(memory.kvs.get(keys.state)?.modRevision, before);
});

test('after a lost watch everything is listed again, and nothing is judged before news had time to come', async () => {
  const memory = createMemoryStore();
  load(memory, 'term 3 primary n1\nn1 dead @0/5000\nn2 standby sees:n1=down\nn3 standby sees:n1=down');
  run(memory);
  await until('watching', () => stateOf(memory)?.decided.rule === 'failover.blocked-watch');
  memory.loseWatches();
  await until('attempt', () => stateOf(memory)?.attempt !== null && stateOf(memory)?.attempt !== undefined);
  assert.equal(stateOf(memory)?.term, 4);
});

test('a controller whose watch lost an event lists again, once the watch says that it told everything (Z3)', async () => {
  const memory = createMemoryStore();
  load(memory, STEADY);
  const loaded = memory.kvs.get(keys.state)?.modRevision;
  run(memory);
  await until('it has listed, and decided', () => memory.kvs.get(keys.state)?.modRevision !== loaded);
  // Somebody raises the spec, and the controller never hears of it: each of its decisions is compared with the old one.
  memory.loseEvents = (key) => key === keys.spec;
  memory.put(keys.spec, memory.kvs.get(keys.spec)?.value ?? '');
  let lost = 0;
  memory.beforeWrite = (ops) => {
    if (ops.some((op) => op.kind === 'put' && op.key === keys.task('t1'))) lost += 1;
  };
  memory.put(keys.task('t1'), encodeJson(makeTask({ kind: 'freeze', forMs: null })));
  await until('decisions lose', () => lost >= 5);
  assert.equal(taskOf(memory, 't1')?.status, 'pending', 'what won may still be on its way');
  memory.confirmWatches();
  await until('frozen', () => taskOf(memory, 't1')?.status === 'done');
});

test('events and finished tasks are bounded (I22)', async () => {
  const memory = createMemoryStore();
  load(memory, STEADY);
  for (let i = 0; i < 1090; i++) memory.put(keys.event(i, 0), '{}');
  for (let i = 0; i < 210; i++) memory.put(keys.task(`old${i}`), encodeJson(makeTask({ kind: 'unfreeze' }, { id: `old${i}`, status: 'done' })));
  memory.put(keys.task('t1'), encodeJson(makeTask({ kind: 'freeze', forMs: null })));
  run(memory);
  const count = (prefix: string): number => [...memory.kvs.keys()].filter((key) => key.startsWith(prefix)).length;
  await until('trimmed', () => count(keys.events) <= 1001 && count(keys.tasks) <= 202);
});

test('clusters come and go with their spec', async () => {
  const memory = createMemoryStore();
  const abort = new AbortController();
  stops.push({ abort, ended: runControllers({ store: memory.store, clock: realClock, log, name: 'c1', signal: abort.signal }) });
  load(memory, STEADY);
  await until('elected', () => memory.kvs.has(keys.controller));
  memory.remove(keys.spec);
  await until('resigned', () => !memory.kvs.has(keys.controller));
  memory.put(keys.spec, encodeJson(picture(STEADY).spec));
  await until('elected again', () => memory.kvs.has(keys.controller));
});
