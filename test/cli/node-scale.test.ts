import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { readRate } from '../../src/cli/verbs/node-scale.ts';
import { task } from './fixtures.ts';
import { one, pgherd } from './harness.ts';

const accepted = (seen: unknown[]) => ({
  ...one,
  'POST /clusters/demo/tasks': (call: { readonly body: unknown }) => {
    seen.push(call.body);
    return { body: { dryRun: false, task: task({ kind: 'nodeAdd', request: {}, status: 'running' }), plan: [], problems: [] } };
  },
});
type Sent = { readonly request: Readonly<Record<string, unknown>> };

describe('node add', () => {
  test('what was said is sent; what was not is left to the server', async () => {
    const seen: unknown[] = [];
    const words = [
      'node',
      'add',
      'n4',
      '--host',
      '10.0.0.4',
      '--port',
      '5433',
      '--priority',
      '50',
      '--location',
      'hall-2',
      '--tag',
      'rack=7',
      '--tag',
      'owner=a=b',
    ];
    const result = await pgherd([...words, '--source', 'n2', '--rate', '50M', '--no-wait'], accepted(seen));
    assert.equal(result.exit, 0);
    const { requestId: _id, ...sent } = (seen[0] ?? {}) as Sent & { requestId: string };
    assert.deepEqual(sent.request, {
      kind: 'nodeAdd',
      node: 'n4',
      host: '10.0.0.4',
      internalHost: null,
      port: 5433,
      role: 'data',
      priority: 50,
      location: 'hall-2',
      tags: { rack: '7', owner: 'a=b' },
      source: 'n2',
      rateKb: 51_200,
    });
    await pgherd(['node', 'add', 'n4', '--witness', '--no-wait'], accepted(seen));
    assert.deepEqual([(seen[1] as Sent).request['role'], (seen[1] as Sent).request['host']], ['witness', null]);
  });

  const wrong: readonly (readonly [string, readonly string[]])[] = [
    ['no name', []],
    ['a port that is none', ['n4', '--port', '70000']],
    ['a port with letters', ['n4', '--port', '54x']],
    ['a priority out of bounds', ['n4', '--priority', '1001']],
    ['a rate without sense', ['n4', '--rate', 'fast']],
    ['a rate below what pg_basebackup takes', ['n4', '--rate', '1K']],
    ['a rate above it', ['n4', '--rate', '2000M']],
    ['a tag without a value', ['n4', '--tag', 'rack']],
    ['a witness that copies', ['n4', '--witness', '--source', 'n2']],
    ['two names', ['n4', 'n5']],
  ];
  for (const [name, words] of wrong)
    test(`${name} is wrong usage, and nothing is sent`, async () => assert.equal((await pgherd(['node', 'add', ...words], one)).exit, 2));

  test('rates are bytes, or with K and M', () => {
    assert.deepEqual(['65536', '64K', '64k', '2M'].map(readRate), [64, 64, 64, 2048]);
  });

  test('a refusal ends with 3 and names each reason with its remedy', async () => {
    const refusal = { code: 'node-add.not-joined', text: 'No agent has joined as n4.', remedy: '"pgherd token join" prints a token' };
    const answer = { dryRun: true, task: null, plan: ['node add n4'], problems: [refusal] };
    const result = await pgherd(['node', 'add', 'n4', '--dry-run'], { ...one, 'POST /clusters/demo/tasks': { body: answer } });
    assert.equal(result.exit, 3);
    assert.match(result.out, /No agent has joined as n4[\s\S]*pgherd token join/);
  });
});

describe('node remove', () => {
  test('asks for the name on a terminal, and says whether data is deleted', async () => {
    const seen: unknown[] = [];
    const kept = await pgherd(['node', 'remove', 'n3', '--no-wait'], accepted(seen), { terminal: 100, answers: ['n3'] });
    assert.equal(kept.exit, 0);
    assert.match(kept.err, /its data directory stays/);
    const other = await pgherd(['node', 'remove', 'n3', '--drop-data', '--no-wait'], accepted(seen), { terminal: 100, answers: ['yes'] });
    assert.equal(other.exit, 3);
    assert.match(other.err, /DELETED/);
    assert.deepEqual(
      seen.map((body) => (body as Sent).request),
      [{ kind: 'nodeRemove', node: 'n3', dropData: false }],
    );
  });

  test('needs --yes where there is no terminal', async () => {
    const seen: unknown[] = [];
    assert.equal((await pgherd(['node', 'remove', 'n3'], accepted(seen))).exit, 2);
    assert.equal((await pgherd(['node', 'remove', 'n3', '--drop-data', '--yes', '--no-wait'], accepted(seen))).exit, 0);
    assert.deepEqual((seen[0] as Sent).request, { kind: 'nodeRemove', node: 'n3', dropData: true });
  });
});
