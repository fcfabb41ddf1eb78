import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { formatDecodeError } from '../../src/core/decode.ts';
import { isName, makeNodeId } from '../../src/core/ids.ts';
import { type ClusterSpec, DEFAULTS, checkSpec, clusterSpec, findNode, internalHost } from '../../src/core/spec.ts';

const minimal = { name: 'demo', nodes: [{ id: 'n1', host: '10.0.0.1' }] };

function decode(input: unknown): ClusterSpec {
  const result = clusterSpec(input, '');
  assert.ok(result.ok, result.ok ? '' : formatDecodeError(result.error));
  return result.value;
}

function errorOf(input: unknown): string {
  const result = clusterSpec(input, '');
  assert.equal(result.ok, false);
  return formatDecodeError(result.error);
}

describe('a cluster spec', () => {
  test('of a name and one node is enough, and consistent', () => {
    const spec = decode(minimal);
    assert.deepEqual(checkSpec(spec), []);
    assert.equal(spec.leaseTtlMs, DEFAULTS.leaseTtlMs);
    assert.equal(spec.nodes[0]?.port, 5432);
    assert.equal(spec.failover, 'automatic');
  });

  test('refuses what it does not know, and offers the nearest key', () => {
    assert.match(errorOf({ ...minimal, failovr: 'manual' }), /failovr: unknown key \(did you mean "failover"\?\)/);
    assert.match(errorOf({ ...minimal, nodes: [{ id: 'n1', hots: 'a' }] }), /nodes\[0\]\.hots: unknown key \(did you mean "host"\?\)/);
    assert.match(errorOf({ ...minimal, postgres: { parameters: { max_connections: 100 } } }), /postgres\.parameters\.max_connections: expected text/);
  });

  const wrong: readonly (readonly [string, object, RegExp])[] = [
    [
      'two nodes of one name',
      {
        nodes: [
          { id: 'n1', host: 'a' },
          { id: 'n1', host: 'b' },
        ],
      },
      /named twice/,
    ],
    [
      'two nodes at one endpoint',
      {
        nodes: [
          { id: 'n1', host: 'a' },
          { id: 'n2', host: 'a' },
        ],
      },
      /belongs to two nodes/,
    ],
    ['only a witness', { nodes: [{ id: 'w', host: 'a', kind: 'witness' }] }, /at least one data node/],
    ['no nodes', { nodes: [] }, /at least one data node/],
    ['a margin that leaves no room for two renewals', { leaseTtlMs: 2000, leaseRenewMs: 800, leaseMarginMs: 500 }, /do not fit/],
  ];
  for (const [what, change, message] of wrong) {
    test(`with ${what} is refused in words`, () => {
      const problems = checkSpec(decode({ ...minimal, ...change }));
      assert.equal(problems.length, 1);
      assert.match(problems[0]?.message ?? '', message);
    });
  }

  test('two nodes of one host at two ports are fine', () => {
    assert.deepEqual(
      checkSpec(
        decode({
          ...minimal,
          nodes: [
            { id: 'n1', host: 'a', port: 5001 },
            { id: 'n2', host: 'a', port: 5002 },
          ],
        }),
      ),
      [],
    );
  });

  test('finds nodes by name; other members use the internal address where there is one', () => {
    const spec = decode({
      ...minimal,
      nodes: [
        { id: 'n1', host: 'a' },
        { id: 'n2', host: 'b', internalHost: 'c' },
      ],
    });
    assert.equal(findNode(spec, makeNodeId('n9')), null);
    assert.deepEqual(spec.nodes.map(internalHost), ['a', 'c']);
  });
});

describe('a name of a cluster or node', () => {
  for (const good of ['a', 'n1', 'db-prod_2', 'x'.repeat(63)]) test(`can be ${good.slice(0, 12)}`, () => assert.equal(isName(good), true));
  for (const bad of ['', 'N1', '-a', 'a-', 'a.b', 'a/b', '../x', 'a b', 'ä', 'x'.repeat(64), 'a\n']) {
    test(`cannot be ${JSON.stringify(bad.slice(0, 12))}`, () => assert.equal(isName(bad), false));
  }
});

test('the defaults hold the limits that safety rests on (Q6)', () => {
  assert.ok(DEFAULTS.leaseRenewMs * 2 + DEFAULTS.leaseMarginMs <= DEFAULTS.leaseTtlMs);
  assert.ok(DEFAULTS.leaseTtlMs >= 2000, "etcd's minimum");
  assert.ok(DEFAULTS.probeViewpoints >= 2, 'one viewpoint alone never decides (H12)');
});
