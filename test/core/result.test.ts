import assert from 'node:assert/strict';
import { test } from 'node:test';
import { assertNever, describeFailure, invariant } from '../../src/core/result.ts';

const failure = { code: 'x.y', what: 'n1 cannot start', cause: 'disk is full', now: 'it stays down', remedy: 'make room', retryable: true };

test('a failure reads as what, cause, now, remedy; empty parts leave no marks', () => {
  assert.equal(describeFailure(failure), 'n1 cannot start: disk is full · it stays down · make room');
  assert.equal(describeFailure({ ...failure, cause: '', remedy: '' }), 'n1 cannot start · it stays down');
});

test('a broken invariant throws, with the word by which loops know it', () => {
  assert.doesNotThrow(() => invariant(true, 'fine'));
  assert.throws(() => invariant(false, 'two primaries'), /^Error: invariant: two primaries$/);
});

test('an unhandled case names itself and the place', () => {
  assert.throws(() => assertNever({ kind: 'new' } as never, 'decideNode'), /unhandled \{"kind":"new"\} in decideNode/);
});
