import assert from 'node:assert/strict';
import { test } from 'node:test';
import { makeNodeId } from '../../../src/core/ids.ts';
import { surplusOf } from '../../../src/core/route/balance.ts';
import type { Reader } from '../../../src/core/route/decide.ts';

const readers = (weights: Readonly<Record<string, number>>): readonly Reader[] =>
  Object.entries(weights).map(([node, weight]) => ({ node: makeNodeId(node), host: '', port: 1, weight, lagBytes: 0 }));
const surplus = (weights: Readonly<Record<string, number>>, load: Readonly<Record<string, number>>): object =>
  Object.fromEntries(surplusOf(readers(weights), new Map(Object.entries(load))));

test('each reader keeps its share of the sessions by weight, and gives away what is more', () => {
  assert.deepEqual(surplus({ a: 1, b: 1 }, { a: 16, b: 0 }), { a: 8 });
  assert.deepEqual(surplus({ a: 1, b: 3 }, { a: 16, b: 0 }), { a: 12 });
  assert.deepEqual(surplus({ a: 1, b: 1, c: 1 }, { a: 9, b: 9, c: 0 }), { a: 3, b: 3 });
});

test('who is alone, or has one more than its share, gives nothing away', () => {
  assert.deepEqual(surplus({ a: 1 }, { a: 100 }), {});
  assert.deepEqual(surplus({ a: 1, b: 1 }, { a: 9, b: 8 }), {});
  assert.deepEqual(surplus({ a: 1, b: 1 }, { a: 1, b: 0 }), {});
  assert.deepEqual(surplus({}, { a: 5 }), {});
});

test('sessions of nodes that are no readers count for nobody', () => {
  assert.deepEqual(surplus({ a: 1, b: 1 }, { a: 4, b: 4, p: 100 }), {});
});
