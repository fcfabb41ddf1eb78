import assert from 'node:assert/strict';
import { test } from 'node:test';
import { missingReturns } from '../../sim/checks/convergence.ts';
import { UNFINISHED_PROMOTION } from '../../src/core/cluster/goals.ts';
import { makeWallMs } from '../../src/core/ids.ts';
import { id, makeSpec } from '../core/cluster/picture.ts';

const spec = makeSpec([{ id: 'n1', host: 'n1' }]);
const progress = (lastError: string | null) => ({
  checks: 1,
  firstSeenWallMs: makeWallMs(0),
  attempts: 0,
  notBeforeWallMs: makeWallMs(0),
  lastError,
});
const ofNode = (node: string, lastError: string | null) => missingReturns({ recovery: { [id(node)]: progress(lastError) } }, spec);

test('a member that is being taken back keeps a cluster from being whole, marked or not', () => {
  assert.equal(ofNode('n1', null).length, 1);
  assert.equal(ofNode('n1', `${UNFINISHED_PROMOTION} (term 2)`).length, 1);
});

test('of a node that left, the mark of an unfinished promotion may stay, and no other progress', () => {
  assert.deepEqual(ofNode('n2', `${UNFINISHED_PROMOTION} (term 2)`), []);
  assert.deepEqual(ofNode('n2', null), ['n2 is being taken back: looked at 1 times']);
});
