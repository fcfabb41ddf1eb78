import assert from 'node:assert/strict';
import { test } from 'node:test';
import { isTold } from '../../src/base/seldom.ts';

test('the first time, whenever it has doubled, and every 128th: ten minutes of twice a second are some 17 lines', () => {
  const told = Array.from({ length: 1201 }, (_, times) => times).filter(isTold);
  assert.deepEqual(told.slice(0, 10), [1, 2, 4, 8, 16, 32, 64, 128, 256, 384]);
  assert.equal(told.length, 16);
  assert.equal(isTold(0), false);
});
