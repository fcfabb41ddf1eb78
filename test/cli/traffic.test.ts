import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { apiError } from './fake-server.ts';
import { fakeServer, four, one, pgherd } from './harness.ts';

const backend = (node: string, change: object = {}): object => ({
  node,
  host: '10.0.0.1',
  port: 5432,
  weight: 1,
  writes: false,
  reads: true,
  lagBytes: 2048,
  ...change,
});
const traffic = (change: object = {}): object => ({
  paused: false,
  by: null,
  since: null,
  hold: false,
  epoch: 7,
  backends: [backend('n1', { writes: true, reads: false, lagBytes: null }), backend('n2'), backend('n3', { weight: 0, reads: false })],
  proxies: [
    { id: 'p1', host: 'web1', epoch: 7, term: 3, paused: false },
    { id: 'p2', host: 'web2', epoch: 6, term: 3, paused: false },
  ],
  ...change,
});
const path = 'GET /clusters/demo/traffic';
const put = 'PUT /clusters/demo/traffic';
const sent = (): readonly unknown[] =>
  fakeServer()
    .seen.filter((seen) => seen.method === 'PUT')
    .map((seen) => seen.body);

describe('lb', () => {
  test('list tells who serves what, and which proxy is behind; --json is what the server said', async () => {
    const routes = { ...one, [path]: { body: traffic() } };
    const { out, exit } = await pgherd(['lb', 'list'], routes);
    assert.equal(exit, 0);
    assert.match(out, /n1 +10\.0\.0\.1:5432 +1 +writes/);
    assert.match(out, /n2 .* reads +2\.0 kB|n2 .* reads/);
    assert.match(out, /n3 .* drained +-/);
    assert.match(out, /p1 .* follows/);
    assert.match(out, /p2 .* behind route 7/);
    assert.deepEqual(JSON.parse((await pgherd(['lb', 'list', '--json'], routes)).out), traffic());
  });

  test('drain and backend change one node', async () => {
    const routes = { ...one, [put]: { body: traffic() } };
    assert.equal((await pgherd(['lb', 'drain', 'n2'], routes)).exit, 0);
    assert.deepEqual(sent(), [{ weights: { n2: 0 } }]);
    assert.equal((await pgherd(['lb', 'backend', 'n2', '--weight', '2.5'], routes)).exit, 0);
    assert.deepEqual(sent(), [{ weights: { n2: 2.5 } }]);
    for (const weight of ['-1', '101', 'much', '']) {
      const wrong = await pgherd(['lb', 'backend', 'n2', `--weight=${weight}`], routes);
      assert.equal(wrong.exit, 2, weight);
      assert.match(wrong.err, /0 to 100/);
    }
    const nobody = traffic({ backends: [backend('n1', { reads: false })] });
    assert.match((await pgherd(['lb', 'drain', 'n2'], { ...one, [put]: { body: nobody } })).err, /no standby serves reads now/);
    const unknown = await pgherd(['lb', 'drain', 'n9'], { ...one, [put]: apiError(404, 'node.not-found') });
    assert.equal(unknown.exit, 3);
  });

  test('pause is done when every proxy says so', async () => {
    let looks = 0;
    const proxies = (paused: boolean): object[] => [{ id: 'p1', host: 'web1', epoch: 7, term: 3, paused }];
    const routes = {
      ...one,
      [put]: { body: traffic({ paused: true }) },
      [path]: () => {
        looks += 1;
        return { body: traffic({ paused: true, by: 'ann', since: '2026-11-21T06:20:25.000Z', proxies: proxies(looks > 3) }) };
      },
    };
    const { exit, out } = await pgherd(['lb', 'pause'], routes);
    assert.equal(exit, 0);
    assert.equal(looks, 4);
    assert.match(out, /paused by ann since 2026-11-21 06:20:25Z/);
    assert.match(out, /p1 .* paused/);
    assert.deepEqual(sent(), [{ paused: true }]);
  });

  test('a pause that a transaction keeps from being complete is taken back, with the proxy’s name', async () => {
    const result = await pgherd(['lb', 'pause'], { ...one, [put]: { body: traffic() }, [path]: { body: traffic({ paused: true }) } });
    assert.equal(result.exit, 3);
    assert.match(result.err, four);
    assert.match(result.err, /p1, p2/);
    assert.deepEqual(sent(), [{ paused: true }, { paused: false }]);
  });

  test('resume ends it', async () => {
    assert.equal((await pgherd(['lb', 'resume'], { ...one, [put]: { body: traffic() } })).exit, 0);
    assert.deepEqual(sent(), [{ paused: false }]);
  });
});
