import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { describeRequest, requestWords, wordedReason } from '../../../src/core/cluster/tasks.ts';
import { id } from './picture.ts';

describe('a request in words', () => {
  test('is the verb that a person typed', () => {
    assert.equal(describeRequest({ kind: 'nodeRejoin', node: id('n2'), via: 'clone', source: null, rateKb: null }), 'node rebuild n2');
    assert.equal(describeRequest({ kind: 'nodeRejoin', node: id('n2'), via: null, source: null, rateKb: null }), 'node rejoin n2');
    assert.equal(describeRequest({ kind: 'nodeRejoin', node: id('n2'), via: 'stream', source: null, rateKb: null }), 'node follow n2');
    assert.equal(describeRequest({ kind: 'nodeMaintenance', node: id('n2'), on: false }), 'node maintenance n2 off');
    assert.equal(describeRequest({ kind: 'nodeFollow', node: id('n3'), upstream: id('n2') }), 'node follow n3 --upstream n2');
    assert.equal(describeRequest({ kind: 'nodeFollow', node: id('n3'), upstream: null }), 'node follow n3 --upstream primary');
    assert.equal(describeRequest({ kind: 'clusterRestart', rolling: true }), 'cluster restart');
    assert.equal(describeRequest({ kind: 'switchover', to: id('n3') }), 'switchover to n3');
    assert.equal(describeRequest({ kind: 'failover', to: null, acceptLoss: false, acceptTwoPrimaries: false }), 'failover');
  });

  test('of a newer version keeps its name', () => {
    assert.equal(requestWords({ kind: 'somethingNew' }), 'somethingNew');
    assert.equal(requestWords({ kind: 'constructor' }), 'constructor');
  });
});

test('the history says who and why', () => {
  assert.equal(wordedReason('switchover', { reason: 'kernel patching', by: 'ann' }), 'kernel patching (switchover by ann)');
  assert.equal(wordedReason('failover', { reason: '', by: 'ann' }), 'failover by ann');
});
