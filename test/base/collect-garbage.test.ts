import assert from 'node:assert/strict';
import { setImmediate as turn } from 'node:timers/promises';
import { test } from 'node:test';
import { collectGarbage } from '../../src/base/collect-garbage.ts';

test('a collection on request frees what nobody holds, and is not repeated at once', async () => {
  const first = new WeakRef({});
  // A weak reference holds its target until the present turn ends.
  await turn();
  collectGarbage();
  assert.equal(first.deref(), undefined);
  const second = new WeakRef({});
  await turn();
  collectGarbage();
  assert.notEqual(second.deref(), undefined);
});
