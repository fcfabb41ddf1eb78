import assert from 'node:assert/strict';
import { test } from 'node:test';
import { decodeJson } from '../../src/core/decode.ts';
import { makeClusterId } from '../../src/core/ids.ts';
import { trafficWishes } from '../../src/core/traffic.ts';
import { clusterKeys } from '../../src/store/keys.ts';
import type { Result } from '../../src/core/result.ts';
import { eventually, expectFailure, expectOk, specOf, startTestServer } from './harness.ts';

/** Of the store, whose errors are not the API's. */
function done<T>(result: Result<T, unknown>): T {
  assert.ok(result.ok, JSON.stringify(result));
  return result.value;
}

const params = { cluster: 'demo' };
const keys = clusterKeys(makeClusterId('demo'));

test('weights and pause are kept for the proxies; what is not named stays; who changed it is told', async (t) => {
  const server = await startTestServer(t);
  expectOk(await server.admin.call('createCluster', { body: specOf('demo') }));
  const before = expectOk(await server.admin.call('traffic', { params }));
  assert.deepEqual(
    before.backends.map(({ node, weight, reads }) => [node, weight, reads]),
    [
      ['n1', 1, false],
      ['n2', 1, false],
      ['n3', 1, false],
    ],
  );
  assert.deepEqual([before.paused, before.by, before.proxies], [false, null, []]);
  expectOk(await server.admin.call('putTraffic', { params, body: { weights: { n2: 0 } } }));
  const paused = expectOk(await server.admin.call('putTraffic', { params, body: { paused: true } }));
  assert.deepEqual([paused.paused, paused.backends.find((one) => one.node === 'n2')?.weight], [true, 0]);
  const both = await Promise.all([
    server.admin.call('putTraffic', { params, body: { weights: { n1: 3 } } }),
    server.admin.call('putTraffic', { params, body: { weights: { n3: 5 } } }),
  ]);
  for (const one of both) expectOk(one);
  const stored = done(await server.server.context.store.get(keys.traffic));
  const decoded = decodeJson(trafficWishes, stored?.value ?? '');
  assert.ok(decoded.ok);
  assert.deepEqual([decoded.value.weights, decoded.value.paused], [{ n1: 3, n2: 0, n3: 5 }, true]);
  assert.notEqual(decoded.value.by, '');
});

test('a node that is none of the cluster’s data nodes is refused by name, and weights have bounds', async (t) => {
  const server = await startTestServer(t);
  expectOk(await server.admin.call('createCluster', { body: specOf('demo') }));
  const failure = expectFailure(await server.admin.call('putTraffic', { params, body: { weights: { n9: 1 } } }));
  assert.equal(failure.code, 'node.not-found');
  assert.match(failure.cause, /n1, n2, n3/);
  assert.equal(expectFailure(await server.admin.call('putTraffic', { params, body: { weights: { n1: 101 } } })).code, 'request.invalid');
  assert.equal(expectFailure(await server.admin.call('traffic', { params: { cluster: 'other' } })).code, 'cluster.not-found');
});

test('proxies are listed with the route that they have applied', async (t) => {
  const server = await startTestServer(t);
  expectOk(await server.admin.call('createCluster', { body: specOf('demo') }));
  const ack = JSON.stringify({ version: 1, id: 'p1', host: 'web1', epoch: 7, term: 3, paused: true });
  done(await server.server.context.store.txn([], [{ kind: 'put', key: keys.proxyAck('p1'), value: ack }]));
  done(await server.server.context.store.txn([], [{ kind: 'put', key: keys.proxyAck('p2'), value: '{"version":1,"id":"p2","epoch":6}' }]));
  done(await server.server.context.store.txn([], [{ kind: 'put', key: keys.proxyAck('p3'), value: 'no json' }]));
  const { proxies } = expectOk(await server.admin.call('traffic', { params }));
  assert.deepEqual(proxies, [
    { id: 'p1', host: 'web1', epoch: 7, term: 3, paused: true },
    { id: 'p2', host: '', epoch: 6, term: 0, paused: false },
  ]);
  // The word of each proxy, not what the controller would like it to be; the cache behind `show` follows the store.
  const shown = await eventually('show has the proxies', async () => {
    const found = expectOk(await server.admin.call('show', { params })).proxies;
    return found.length === 2 ? found : null;
  });
  assert.deepEqual(
    shown.map(({ id, host, term, seenMs }) => [id, host, term, seenMs !== null && seenMs < 10_000]),
    [
      ['p1', 'web1', 3, true],
      ['p2', null, 0, true],
    ],
  );
});
