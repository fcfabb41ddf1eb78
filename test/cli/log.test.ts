import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { apiError, type Routes } from './fake-server.ts';
import { node, show } from './fixtures.ts';
import { fakeServer, one, pgherd } from './harness.ts';

const entry = (at: string | null, source: string, text: string, level: string | null = 'info', detail: object = {}): object => ({
  at,
  source,
  level,
  text,
  detail,
});
const routes: Routes = {
  ...one,
  'GET /clusters/demo': { body: show({ nodes: [node('n1', { role: 'primary' }), node('n2')] }) },
  'GET /clusters/demo/nodes/n1/log': {
    body: {
      node: 'n1',
      problems: [],
      entries: [
        entry('2026-11-20T23:59:58.100Z', 'postgres', '[12] ERROR:  duplicate key\nDETAIL:  Key (id)=(1)', 'error'),
        entry('2026-11-20T23:59:59.300Z', 'agent', 'the lease is lost', 'warn', { cluster: 'demo', term: 3 }),
      ],
    },
  },
  'GET /clusters/demo/nodes/n2/log': {
    body: {
      node: 'n2',
      problems: [],
      entries: [entry('2026-11-20T23:59:58.900Z', 'agent', 'votes for term 4'), entry(null, 'guard', 'a line', null)],
    },
  },
  'GET /clusters/demo/log': { body: { node: null, problems: [], entries: [entry('2026-11-20T23:50:00.000Z', 'server', 'listening')] } },
};

describe('log', () => {
  test('shows agents, PostgreSQL, guards and the server in the order of time', async () => {
    const { exit, out } = await pgherd(['log'], routes);
    assert.equal(exit, 0);
    assert.deepEqual(out.split('\n'), [
      '2026-11-20 23:50:00.000Z  -       server    info   listening',
      '2026-11-20 23:59:58.100Z  n1      postgres  error  [12] ERROR:  duplicate key',
      '                                                     DETAIL:  Key (id)=(1)',
      '2026-11-20 23:59:58.900Z  n2      agent     info   votes for term 4',
      '                          n2      guard            a line',
      '2026-11-20 23:59:59.300Z  n1      agent     warn   the lease is lost  term=3',
      '',
    ]);
  });

  test('--json is one list with every field', async () => {
    const lines = JSON.parse((await pgherd(['log', '--json'], routes)).out) as { node: string | null; source: string; detail: object }[];
    assert.deepEqual(
      lines.map((line) => `${line.node} ${line.source}`),
      ['null server', 'n1 postgres', 'n2 agent', 'n2 guard', 'n1 agent'],
    );
    assert.deepEqual(lines.at(-1)?.detail, { cluster: 'demo', term: 3 });
  });

  test('filters: node, source, level, time, text, count', async () => {
    const texts = async (...argv: string[]): Promise<readonly string[]> => {
      const { exit, out, err } = await pgherd(['log', '--json', ...argv], routes);
      assert.equal(exit, 0, err);
      return (JSON.parse(out) as { text: string }[]).map((line) => line.text.split('\n')[0] ?? '');
    };
    assert.deepEqual(await texts('n2'), ['votes for term 4', 'a line']);
    assert.deepEqual(await texts('--source', 'server'), ['listening']);
    assert.deepEqual(await texts('--source', 'guard', 'server'), ['listening', 'a line']);
    // A line whose level is unknown is never hidden by a level.
    assert.deepEqual(await texts('--level', 'warn'), ['[12] ERROR:  duplicate key', 'a line', 'the lease is lost']);
    assert.deepEqual(await texts('--since', '1500ms'), ['votes for term 4', 'the lease is lost']);
    assert.deepEqual(await texts('--grep', 'TERM=3'), ['the lease is lost']);
    assert.deepEqual(await texts('-n', '1'), ['the lease is lost']);
  });

  test('one source is asked for alone', async () => {
    await pgherd(['log', 'n1', '--source', 'postgres', '-n', '7'], routes);
    assert.deepEqual(fakeServer().seen.find((seen) => seen.path.endsWith('/n1/log'))?.query, { source: 'postgres', lines: '7' });
  });

  test('a node that is away hides nobody; alone it is the failure', async () => {
    const away: Routes = {
      ...routes,
      'GET /clusters/demo/nodes/n2/log': apiError(503, 'node.unreachable', { what: 'the log of n2 cannot be read' }),
    };
    const all = await pgherd(['log'], away);
    assert.deepEqual([all.exit, all.out.includes('the lease is lost')], [0, true]);
    assert.match(all.err, /n2: the log of n2 cannot be read: a cause/);
    assert.notEqual((await pgherd(['log', 'n2'], away)).exit, 0);
  });

  test("the server's log is of no node", async () => {
    const { exit, err } = await pgherd(['log', 'n1', '--source', 'server'], routes);
    assert.equal(exit, 2);
    assert.match(err, /leave the node out/);
  });
});
