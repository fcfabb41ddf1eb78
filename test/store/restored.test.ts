import assert from 'node:assert/strict';
import { test } from 'node:test';
import { err, ok } from '../../src/core/result.ts';
import { makeRevision } from '../../src/core/ids.ts';
import { foreignMessage } from '../../src/store/foreign.ts';
import { createMovableStore } from '../../src/store/movable.ts';
import { followRestores } from '../../src/store/restored.ts';
import { RESTORE_KEY } from '../../src/store/restore-mark.ts';
import type { Store } from '../../src/store/store.ts';
import { createMemoryStore } from '../controller/memory-store.ts';

interface Place {
  incarnation: string;
  /** Of which store its data is a backup; null: it was not restored. */
  from: string | null;
  /** What the mark names beside it. */
  before?: readonly string[];
}

/** A client of whatever answers at one place, which refuses every other store than the one that it met first. */
function clientOf(place: Place): Store {
  const { store } = createMemoryStore();
  let first: string | null = null;
  const foreign = (): boolean => {
    first ??= place.incarnation;
    return first !== place.incarnation;
  };
  const refusal = () => err({ kind: 'refused' as const, message: foreignMessage({ seen: place.incarnation, known: first ?? '' }) });
  return {
    ...store,
    status: async () =>
      foreign()
        ? refusal()
        : ok({
            engine: 'simulated',
            version: '1',
            incarnation: place.incarnation,
            revision: makeRevision(1),
            dbSizeBytes: 1,
            endpoint: '',
            members: 1,
          }),
    get: async (key) => {
      const value = JSON.stringify({ version: 1, phase: 'done', from: place.from, ...(place.before === undefined ? {} : { before: place.before }) });
      const kv = { key, value, createRevision: makeRevision(1), modRevision: makeRevision(1), version: 1, lease: null };
      return foreign() ? refusal() : ok(key === RESTORE_KEY && place.from !== null ? kv : null);
    },
  };
}

/** The incarnations that a host uses while these stores answer one after the other at the same place; `met` answered one call before, and then never again. */
async function storesUsed(answering: readonly Place[], met: Place | null = null): Promise<readonly string[]> {
  const place: Place = { ...((met ?? answering[0]) as Place) };
  const first = clientOf(place);
  if (met !== null) await first.get('/any');
  Object.assign(place, answering[0]);
  const movable = createMovableStore(first);
  const stopping = new AbortController();
  const seen: string[] = [];
  let round = 0;
  await followRestores({
    movable,
    open: () => clientOf(place),
    clock: {
      now: () => ({ mono: 0, wall: 0 }) as never,
      sleep: async () => {
        const status = await movable.store.status();
        seen.push(status.ok ? status.value.incarnation : 'none');
        round++;
        Object.assign(place, answering[round] ?? {});
        if (round >= answering.length) stopping.abort();
      },
    },
    log: { debug: () => undefined, info: () => undefined, warn: () => undefined, error: () => undefined } as never,
    signal: stopping.signal,
    onMoved: () => undefined,
  });
  return seen;
}

const A: Place = { incarnation: 'a', from: null };

test('a host goes over to a store that was restored from the one that it knows, and to no other', async () => {
  assert.deepEqual(await storesUsed([A, { incarnation: 'b', from: 'a' }]), ['a', 'b']);
  assert.deepEqual(await storesUsed([A, { incarnation: 'b', from: null }]), ['a', 'none']);
  assert.deepEqual(await storesUsed([A, { incarnation: 'b', from: 'x' }]), ['a', 'none']);
});

test('the same backup is restored a second time, into another store: hosts that had gone to the first one go over too', async () => {
  assert.deepEqual(await storesUsed([A, { incarnation: 'b', from: 'a' }, { incarnation: 'c', from: 'a' }]), ['a', 'b', 'c']);
});

test('a host that began with a restored store knows from its mark what it is a backup of', async () => {
  assert.deepEqual(
    await storesUsed([
      { incarnation: 'b', from: 'a' },
      { incarnation: 'c', from: 'a' },
      { incarnation: 'd', from: 'x' },
    ]),
    ['b', 'c', 'none'],
  );
});

test('a host that was away during two restores finds the store that it knows further back in the mark', async () => {
  assert.deepEqual(await storesUsed([A, { incarnation: 'c', from: 'b', before: ['a'] }]), ['a', 'c']);
  assert.deepEqual(await storesUsed([A, { incarnation: 'c', from: 'b', before: ['x'] }]), ['a', 'none']);
});

test('a host whose first store went away before it said who it is goes over too: its client knows which one it met', async () => {
  const heir: Place = { incarnation: 'b', from: 'a' };
  assert.deepEqual(await storesUsed([heir, heir], A), ['b', 'b']);
  const stranger: Place = { incarnation: 'b', from: 'x' };
  assert.deepEqual(await storesUsed([stranger, stranger], A), ['none', 'none']);
});

test('nobody goes back to a store that was left', async () => {
  const back = await storesUsed([A, { incarnation: 'b', from: 'a' }, { incarnation: 'c', from: 'a' }, { incarnation: 'b', from: 'a' }]);
  assert.deepEqual(back, ['a', 'b', 'c', 'none']);
});
