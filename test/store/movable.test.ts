import assert from 'node:assert/strict';
import { test } from 'node:test';
import { makeRevision } from '../../src/core/ids.ts';
import { createMovableStore } from '../../src/store/movable.ts';
import type { WatchBatch } from '../../src/store/store.ts';
import { createMemoryStore } from '../controller/memory-store.ts';

function watcher(): {
  readonly keys: string[];
  readonly ends: string[];
  readonly handlers: Parameters<ReturnType<typeof createMemoryStore>['store']['watch']>[2];
} {
  const keys: string[] = [];
  const ends: string[] = [];
  return {
    keys,
    ends,
    handlers: {
      onBatch: (batch: WatchBatch) => keys.push(...batch.events.map((event) => (event.kind === 'put' ? event.kv.key : event.key))),
      onAlive: () => undefined,
      onEnd: (_reason, message) => ends.push(message),
    },
  };
}

const settled = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));

test('after a move every call goes to the next store, and watches of the former one end once, so that their owners list again', async () => {
  const [old, next] = [createMemoryStore(), createMemoryStore()];
  const movable = createMovableStore(old.store);
  const { store } = movable;
  await store.list('/a/');
  const first = watcher();
  store.watch('/a/', makeRevision(1), first.handlers);
  old.put('/a/1', 'old');
  await settled();
  movable.replace(next.store);
  old.put('/a/2', 'unheard');
  next.put('/a/3', 'next');
  await settled();
  assert.deepEqual([first.keys, first.ends], [['/a/1'], ['the store was moved']]);
  const read = await store.get('/a/3');
  assert.ok(read.ok && read.value?.value === 'next');
});

test('a watch from a revision of the former store does not begin in the next one before it was listed there', async () => {
  const [old, next] = [createMemoryStore(), createMemoryStore()];
  const movable = createMovableStore(old.store);
  const { store } = movable;
  await store.list('/a/');
  movable.replace(next.store);
  const early = watcher();
  store.watch('/a/', makeRevision(900), early.handlers);
  await settled();
  assert.deepEqual(early.ends, ['the store was moved since it was listed']);
  const listed = await store.list('/a/');
  assert.ok(listed.ok);
  const late = watcher();
  store.watch('/a/', listed.value.revision, late.handlers);
  next.put('/a/1', 'x');
  await settled();
  assert.deepEqual([late.keys, late.ends], [['/a/1'], []]);
});

test('a listing that a move overtook counts for neither store', async () => {
  const [old, next] = [createMemoryStore(), createMemoryStore()];
  let answer = (): void => undefined;
  const overtaken = new Promise<void>((resolve) => {
    answer = resolve;
  });
  const slow = {
    ...old.store,
    list: async (prefix: string) => {
      await overtaken;
      return old.store.list(prefix);
    },
  };
  const movable = createMovableStore(slow);
  const listing = movable.store.list('/a/');
  movable.replace(next.store);
  answer();
  assert.ok((await listing).ok);
  const seen = watcher();
  movable.store.watch('/a/', makeRevision(1), seen.handlers);
  await settled();
  assert.equal(seen.ends.length, 1);
});

test('while it is held nothing is written, and what is read is answered', async () => {
  const memory = createMemoryStore();
  const movable = createMovableStore(memory.store);
  movable.hold(true);
  const written = await movable.store.txn([], [{ kind: 'put', key: '/a/1', value: '1' }]);
  assert.equal(written.ok ? 'ok' : written.error.kind, 'unavailable');
  const read = await movable.store.txn([], [{ kind: 'get', key: '/a/1' }]);
  assert.ok(read.ok && read.value.reads[0]?.length === 0);
  movable.hold(false);
  assert.ok((await movable.store.txn([], [{ kind: 'put', key: '/a/1', value: '1' }])).ok);
});
