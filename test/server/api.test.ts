import assert from 'node:assert/strict';
import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { encodeJson } from '../../src/core/decode.ts';
import { clusterKeys } from '../../src/store/keys.ts';
import { makeClusterId } from '../../src/core/ids.ts';
import type { TaskView } from '../../src/api/schema.ts';
import type { Store } from '../../src/store/store.ts';
import { conflicts } from '../../src/server/tasks.ts';
import { eventually, expectFailure, specOf, startTestServer, expectOk } from './harness.ts';

const JSON_BODY = { 'content-type': 'application/json' };

interface WireError {
  readonly error: {
    readonly code: string;
    readonly what: string;
    readonly cause: string;
    readonly now: string;
    readonly remedy: string;
    readonly problems?: readonly { readonly code: string; readonly text: string }[];
  };
}

function errorOf(body: Buffer): WireError['error'] {
  return (JSON.parse(body.toString()) as WireError).error;
}

test('errors of the request name the path, the value’s fault and the remedy, in the four parts', async (t) => {
  const server = await startTestServer(t);
  expectOk(await server.admin.call('createCluster', { body: specOf('demo') }));
  const bad = await server.raw({
    path: '/api/v1/clusters/demo/tasks',
    method: 'POST',
    headers: JSON_BODY,
    body: JSON.stringify({ request: { kind: 'nodeStop', node: 'N 1' } }),
  });
  assert.equal(bad.status, 400);
  const error = errorOf(bad.body);
  assert.equal(error.code, 'request.invalid');
  assert.deepEqual(
    error.problems?.map((one) => one.code),
    ['request.node'],
  );
  assert.ok(error.what !== '' && error.now !== '' && error.remedy !== '');

  const unknownKind = await server.raw({
    path: '/api/v1/clusters/demo/tasks',
    method: 'POST',
    headers: JSON_BODY,
    body: JSON.stringify({ request: { kind: 'explode' } }),
  });
  assert.equal(errorOf(unknownKind.body).problems?.[0]?.code, 'request.kind');
  const extra = await server.raw({
    path: '/api/v1/clusters/demo/tasks',
    method: 'POST',
    headers: JSON_BODY,
    body: JSON.stringify({ request: { kind: 'unfreeze' }, forse: true }),
  });
  assert.equal(extra.status, 400, 'unknown fields are refused');
  const query = await server.raw({ path: '/api/v1/clusters/demo/events?limit=0' });
  assert.equal(errorOf(query.body).problems?.[0]?.code, 'limit');
  const name = await server.raw({ path: '/api/v1/clusters/Demo%2F..' });
  assert.equal(name.status, 400);
});

test('malformed, untyped and oversized bodies are refused with their own codes, and unauthorised ones are not read at all', async (t) => {
  const server = await startTestServer(t);
  const post = (body: string, headers: Record<string, string> = JSON_BODY, token?: string | null) =>
    server.raw({ path: '/api/v1/clusters', method: 'POST', headers, body, ...(token === undefined ? {} : { token }) });
  const malformed = await post('{"name": ');
  assert.deepEqual([malformed.status, errorOf(malformed.body).code], [400, 'request.malformed']);
  const poisoned = await post('{"__proto__": {"admin": true}, "name": "x", "nodes": []}');
  assert.equal(poisoned.status, 400);
  const untyped = await post('name: demo', { 'content-type': 'application/yaml' });
  assert.deepEqual([untyped.status, errorOf(untyped.body).code], [415, 'request.media-type']);
  const large = await post(JSON.stringify({ name: 'x'.repeat(1_100_000) }));
  assert.deepEqual([large.status, errorOf(large.body).code], [413, 'request.too-large']);
  const stranger = await post('{"name": ', JSON_BODY, null);
  assert.equal(errorOf(stranger.body).code, 'auth.missing');
});

test('unknown routes, clusters, nodes and tasks are 404, each by its own name (H8)', async (t) => {
  const server = await startTestServer(t);
  for (const path of ['/api/v1/nothing', '/', '/../../etc/passwd', '/api/v1/%2e%2e/%2e%2e/etc/passwd']) {
    const answer = await server.raw({ path });
    assert.deepEqual([answer.status, errorOf(answer.body).code], [404, 'request.unknown-route'], path);
  }
  assert.equal(expectFailure(await server.admin.call('show', { params: { cluster: 'nowhere' } })).code, 'cluster.not-found');
  assert.equal(expectFailure(await server.admin.call('task', { params: { id: 'nothing' } })).code, 'task.not-found');
  expectOk(await server.admin.call('createCluster', { body: specOf('demo') }));
  const stop = await server.admin.call('createTask', { params: { cluster: 'demo' }, body: { request: { kind: 'nodeStop', node: 'n9' } } });
  assert.equal(expectFailure(stop).code, 'node.not-found');
});

test('a specification is refused with the path of each fault, and with the nearest known key', async (t) => {
  const server = await startTestServer(t);
  const misspelt = expectFailure(await server.admin.call('createCluster', { body: { ...specOf('demo'), failovr: 'manual' } }));
  assert.equal(misspelt.code, 'spec.invalid');
  assert.match(misspelt.cause, /failovr.*did you mean "failover"/);
  const twice = expectFailure(
    await server.admin.call('createCluster', {
      body: {
        name: 'demo',
        nodes: [
          { id: 'n1', host: 'a' },
          { id: 'n1', host: 'b' },
        ],
      },
    }),
  );
  assert.deepEqual(
    twice.problems.map((one) => one.code),
    ['nodes[1].id'],
  );
  const managed = expectFailure(
    await server.admin.call('createCluster', { body: { ...specOf('demo'), postgres: { parameters: { primary_conninfo: 'host=evil' } } } }),
  );
  assert.equal(managed.problems[0]?.code, 'postgres.parameters.primary_conninfo');
  assert.equal(expectOk(await server.admin.call('clusters')).length, 0, 'nothing was created');
});

test('a dry run of create writes nothing; create writes spec, task and secret, and a second one is refused', async (t) => {
  const server = await startTestServer(t);
  const planned = expectOk(await server.admin.call('createCluster', { query: { dryRun: true }, body: specOf('demo') }));
  assert.deepEqual([planned.kind, planned.task, planned.problems.length], ['unknown', null, 3]);
  assert.equal(expectOk(await server.admin.call('clusters')).length, 0);

  const created = expectOk(await server.admin.call('createCluster', { body: specOf('demo') }));
  assert.equal(created.task?.kind, 'create');
  assert.equal(created.task?.by, 'admin');
  assert.ok(existsSync(join(server.config.dataDirectory, 'secrets', 'demo.secret')));
  const shown = expectOk(await server.admin.call('show', { params: { cluster: 'demo' } }));
  assert.deepEqual(
    shown.nodes.map((node) => [node.id, node.state]),
    [
      ['n1', 'unreachable'],
      ['n2', 'unreachable'],
      ['n3', 'unreachable'],
    ],
  );
  assert.equal(expectFailure(await server.admin.call('createCluster', { body: specOf('demo') })).code, 'cluster.exists');
});

test('of two operators who ask at once one is refused, and told whose task runs', async (t) => {
  const server = await startTestServer(t);
  expectOk(await server.admin.call('createCluster', { body: specOf('demo') }));
  await finishTasks(server.server.context.store, 'demo');
  const anna = server.clientOf(expectOk(await server.admin.call('addUser', { body: { name: 'anna', role: 'operator' } })).token);
  const bert = server.clientOf(expectOk(await server.admin.call('addUser', { body: { name: 'bert', role: 'operator' } })).token);
  for (let round = 0; round < 5; round++) {
    const ask = { params: { cluster: 'demo' }, body: { request: { kind: 'switchover', to: 'n2' } as const } };
    const answers = await Promise.all([anna.call('createTask', ask), bert.call('createTask', ask)]);
    assert.equal(answers.filter((one) => one.ok).length, 1, `round ${round}`);
    const refused = expectFailure(answers.find((one) => !one.ok) ?? answers[0]);
    assert.deepEqual([refused.code, refused.exit], ['task.conflict', 3]);
    assert.match(refused.cause, /switchover to n2, by (anna|bert)/);
    await finishTasks(server.server.context.store, 'demo');
  }
});

test('a repeated request with the same id is one task (Q32)', async (t) => {
  const server = await startTestServer(t);
  expectOk(await server.admin.call('createCluster', { body: specOf('demo') }));
  await finishTasks(server.server.context.store, 'demo');
  const ask = { params: { cluster: 'demo' }, body: { request: { kind: 'switchover', to: null } as const, requestId: 'request-0001' } };
  const first = expectOk(await server.admin.call('createTask', ask));
  const again = expectOk(await server.admin.call('createTask', ask));
  assert.equal(first.task?.id, 'request-0001');
  assert.deepEqual(again.task, first.task);
});

test('what excludes what', () => {
  const rows: readonly (readonly [Parameters<typeof conflicts>[0], Parameters<typeof conflicts>[1], boolean])[] = [
    [{ kind: 'switchover', to: null }, { kind: 'switchover', to: null }, true],
    [{ kind: 'failover', to: null, acceptLoss: false, acceptTwoPrimaries: false } as never, { kind: 'switchover', to: null }, true],
    [{ kind: 'nodeStop', node: 'n1' } as never, { kind: 'nodeRestart', node: 'n1' } as never, true],
    [{ kind: 'nodeStop', node: 'n1' } as never, { kind: 'nodeRestart', node: 'n2' } as never, false],
    [{ kind: 'switchover', to: null }, { kind: 'nodeRejoin', node: 'n2', via: null } as never, true],
    [
      { kind: 'failover', to: null, acceptLoss: false, acceptTwoPrimaries: false } as never,
      { kind: 'nodeRejoin', node: 'n2', via: null } as never,
      false,
    ],
    [{ kind: 'freeze', forMs: null }, { kind: 'switchover', to: null }, false],
    [{ kind: 'switchover', to: null }, { kind: 'freeze', forMs: null }, false],
  ];
  for (const [wanted, running, expected] of rows) assert.equal(conflicts(wanted, running), expected, `${wanted.kind} while ${running.kind}`);
});

test('the dry run of a command says what would refuse it, and creates no task', async (t) => {
  const server = await startTestServer(t);
  expectOk(await server.admin.call('createCluster', { body: specOf('demo') }));
  await finishTasks(server.server.context.store, 'demo');
  const answer = expectOk(
    await server.admin.call('createTask', { params: { cluster: 'demo' }, body: { request: { kind: 'switchover', to: 'n2' }, dryRun: true } }),
  );
  assert.equal(answer.task, null);
  assert.ok(answer.plan.length > 0);
  assert.equal(expectOk(await server.admin.call('clusterTasks', { params: { cluster: 'demo' } })).length, 1);
});

test('the specification is replaced only under the revision it was read at (H43)', async (t) => {
  const server = await startTestServer(t);
  expectOk(await server.admin.call('createCluster', { body: specOf('demo') }));
  const at = { params: { cluster: 'demo' } };
  const read = expectOk(await server.admin.call('getSpec', at));
  const changed = { ...read.spec, failover: 'manual' };
  assert.equal(expectFailure(await server.admin.call('putSpec', { ...at, body: changed })).code, 'request.invalid', 'without If-Match');
  const dry = expectOk(await server.admin.call('putSpec', { ...at, body: changed, ifMatch: read.revision, query: { dryRun: true } }));
  assert.deepEqual([dry.diff, dry.revision], [[{ path: 'failover', from: 'automatic', to: 'manual' }], read.revision]);
  const written = expectOk(await server.admin.call('putSpec', { ...at, body: changed, ifMatch: read.revision }));
  assert.ok(written.revision > read.revision);
  const late = expectFailure(await server.admin.call('putSpec', { ...at, body: { ...read.spec, recovery: 'manual' }, ifMatch: read.revision }));
  assert.deepEqual([late.code, late.status, late.exit], ['spec.conflict', 412, 3]);
  const renamed = expectFailure(await server.admin.call('putSpec', { ...at, body: { ...changed, name: 'other' }, ifMatch: written.revision }));
  assert.equal(renamed.code, 'spec.unchangeable');
});

test('settings change single parameters; those that pgherd relies on are refused', async (t) => {
  const server = await startTestServer(t);
  expectOk(await server.admin.call('createCluster', { body: specOf('demo') }));
  const at = { params: { cluster: 'demo' } };
  await Promise.all(
    ['work_mem', 'shared_buffers', 'max_connections'].map((name) => server.admin.call('postSettings', { ...at, body: { set: { [name]: '64' } } })),
  );
  assert.deepEqual(
    Object.keys(expectOk(await server.admin.call('getSettings', at)).parameters).sort(),
    ['max_connections', 'shared_buffers', 'work_mem'],
    'no change is lost',
  );
  const unset = expectOk(await server.admin.call('postSettings', { ...at, body: { unset: ['work_mem'] } }));
  assert.deepEqual(unset.diff, [{ path: 'work_mem', from: '64', to: null }]);
  const refused = expectFailure(await server.admin.call('postSettings', { ...at, body: { set: { synchronous_standby_names: '*' } } }));
  assert.deepEqual([refused.code, refused.exit], ['settings.managed', 3]);
});

test('a cluster is removed only by its name, not while a task runs or nodes live, and what was known is kept', async (t) => {
  const server = await startTestServer(t);
  expectOk(await server.admin.call('createCluster', { body: specOf('demo') }));
  const at = { params: { cluster: 'demo' } };
  assert.equal(expectFailure(await server.admin.call('removeCluster', at)).code, 'cluster.unconfirmed');
  const [task] = expectOk(await server.admin.call('clusterTasks', at));
  assert.ok(task !== undefined);
  const busy = expectFailure(await server.admin.call('removeCluster', { ...at, query: { confirm: 'demo', evenIfLive: true } }));
  assert.deepEqual([busy.code, busy.exit], ['task.conflict', 3]);
  assert.match(`${busy.cause} ${busy.remedy}`, new RegExp(`task ${task.id} \\(init, by .*pgherd task cancel ${task.id}`));
  await finishTasks(server.server.context.store, 'demo');
  await server.server.context.store.txn([], [{ kind: 'put', key: '/pgherd/v1/demo/nodes/n1/report', value: '{}' }]);
  const live = expectFailure(await server.admin.call('removeCluster', { ...at, query: { confirm: 'demo' } }));
  assert.deepEqual([live.code, live.problems.length], ['cluster.live-nodes', 1]);
  const removed = expectOk(await server.admin.call('removeCluster', { ...at, query: { confirm: 'demo', evenIfLive: true } }));
  assert.match(readFileSync(removed.kept, 'utf8'), /pgherd\/v1\/demo\/spec/);
  await eventually('the cluster is gone', async () => (expectOk(await server.admin.call('clusters')).length === 0 ? true : null));
});

test('a task is followed live until its end, and one that is asked to stop carries the mark', async (t) => {
  const server = await startTestServer(t);
  const { task } = expectOk(await server.admin.call('createCluster', { body: specOf('demo') }));
  assert.ok(task !== null);
  const seen: string[] = [];
  const following = (async () => {
    for await (const item of server.admin.follow('task', { params: { id: task.id } })) {
      const { event, data } = expectOk(item as never) as { event: string; data: { status: string; cancelRequested?: boolean } };
      seen.push(`${event} ${data.status}${data.cancelRequested === true ? ' cancelling' : ''}`);
    }
  })();
  await eventually('the first state', () => (seen.length > 0 ? true : null));
  expectOk(await server.admin.call('cancelTask', { params: { id: task.id } }));
  await eventually('the mark', () => (seen.includes('task pending cancelling') ? true : null));
  await finishTasks(server.server.context.store, 'demo');
  await following;
  assert.deepEqual(seen, ['task pending', 'task pending cancelling', 'task done cancelling', 'end done']);
  assert.equal(expectFailure(await server.admin.call('cancelTask', { params: { id: task.id } })).code, 'task.finished');
});

test('a task that cannot be undone any more is not asked to stop: the answer says why, and the task goes on', async (t) => {
  const server = await startTestServer(t);
  expectOk(await server.admin.call('createCluster', { body: specOf('demo') }));
  const { store } = server.server.context;
  await finishTasks(store, 'demo');
  const at = { params: { cluster: 'demo' } };
  const asked = async (): Promise<TaskView> => {
    const answer = await server.admin.call('createTask', { ...at, body: { request: { kind: 'nodeRestart', node: 'n1' } } });
    const { task } = expectOk(answer);
    assert.ok(task !== null);
    return task;
  };
  const early = await asked();
  assert.equal(expectOk(await server.admin.call('cancelTask', { params: { id: early.id } })).cancelRequested, true, 'before it began');
  await finishTasks(store, 'demo');
  const late = await asked();
  await setStatus(store, 'demo', { from: 'pending', to: 'running' });
  const refused = expectFailure(await server.admin.call('cancelTask', { params: { id: late.id } }));
  assert.deepEqual([refused.code, refused.exit], ['task.too-late', 3]);
  assert.match(`${refused.what} ${refused.cause} ${refused.now}`, /node restart n1.*comes back by itself.*goes on/);
  assert.equal(expectOk(await server.admin.call('task', { params: { id: late.id } })).cancelRequested, false);
});

test('events are listed by page, and followed from the last one that the reader has', async (t) => {
  const server = await startTestServer(t);
  expectOk(await server.admin.call('createCluster', { body: specOf('demo') }));
  const keys = clusterKeys(makeClusterId('demo'));
  const put = async (sequence: number): Promise<void> => {
    const value = encodeJson({
      atWallMs: 1_700_000_000_000 + sequence,
      level: 'info',
      rule: 'test.rule',
      node: null,
      term: 1,
      text: `event ${sequence}`,
      detail: {},
    });
    assert.ok((await server.server.context.store.txn([], [{ kind: 'put', key: keys.event(sequence, 0), value }])).ok);
  };
  for (const sequence of [1, 2, 3]) await put(sequence);
  const at = { params: { cluster: 'demo' } };
  const last = expectOk(await server.admin.call('events', { ...at, query: { limit: 2 } }));
  assert.deepEqual(
    last.map((row) => row.text),
    ['event 2', 'event 3'],
  );
  assert.equal(last[0]?.at, '2023-11-14T22:13:20.002Z');

  const stop = new AbortController();
  const seen: string[] = [];
  const following = (async () => {
    for await (const item of server.admin.follow('events', { ...at, query: { after: last[0]?.id }, signal: stop.signal })) {
      seen.push((expectOk(item as never) as { data: { text: string } }).data.text);
      if (seen.length === 2) stop.abort();
    }
  })();
  await eventually('the backlog', () => (seen.length === 1 ? true : null));
  await put(4);
  await following;
  assert.deepEqual(seen, ['event 3', 'event 4']);
});

test('a damaged value in the store is shown as a problem, and crashes nothing (H43)', async (t) => {
  const server = await startTestServer(t);
  expectOk(await server.admin.call('createCluster', { body: specOf('demo') }));
  await server.server.context.store.txn(
    [],
    [
      { kind: 'put', key: '/pgherd/v1/demo/nodes/n1/report', value: '{"version":' },
      { kind: 'put', key: '/pgherd/v1/demo/state', value: '[]' },
    ],
  );
  const shown = await eventually('both problems', async () => {
    const answer = expectOk(await server.admin.call('show', { params: { cluster: 'demo' } }));
    return answer.problems.filter((one) => one.code === 'store.unreadable').length === 2 ? answer : null;
  });
  assert.equal(shown.cluster, 'demo');
  assert.equal(expectOk(await server.admin.call('meta', { params: { cluster: 'demo' } })).reports['n1'], '{"version":');
});

test('every reading route answers in its shape for a cluster that is only wanted yet', async (t) => {
  const server = await startTestServer(t);
  expectOk(await server.admin.call('createCluster', { body: specOf('demo') }));
  const at = { params: { cluster: 'demo' } };
  assert.equal(expectOk(await server.admin.call('lsn', at)).length, 3);
  assert.equal(expectOk(await server.admin.call('lag', at)).length, 3);
  assert.deepEqual(expectOk(await server.admin.call('history', at)), []);
  expectOk(await server.admin.call('explain', at));
  assert.equal(expectOk(await server.admin.call('doctor')).ok, false);
  assert.equal(expectOk(await server.admin.call('storeStatus')).engine, 'embedded');
  assert.equal(expectOk(await server.admin.call('version')).api, 'v1');
  assert.equal(expectFailure(await server.admin.call('nodeLog', { params: { cluster: 'demo', node: 'n1' } })).code, 'node.unreachable');
  const metrics = await server.raw({ path: '/metrics' });
  assert.match(metrics.body.toString(), /pgherd_cluster_state\{cluster="demo",state="/);
  assert.equal((await server.raw({ path: '/metrics', token: null })).status, 401);
  assert.equal((await server.raw({ path: '/readyz', token: null })).status, 200);
  assert.deepEqual(
    server.log.filter((line) => line.includes('does not fit its schema')),
    [],
  );
});

test('a backup of the store comes back after everything was lost', async (t) => {
  const server = await startTestServer(t);
  expectOk(await server.admin.call('createCluster', { body: specOf('demo') }));
  const { stream } = expectOk(await server.admin.download('storeBackup'));
  const chunks: Buffer[] = [];
  for await (const chunk of stream) chunks.push(chunk as Buffer);
  const refused = expectFailure(await server.admin.upload('storeRestore', Buffer.concat(chunks)));
  assert.deepEqual([refused.code, refused.exit], ['store.not-empty', 3]);
  const other = await startTestServer(t);
  expectOk(await other.admin.upload('storeRestore', Buffer.concat(chunks)));
  assert.equal(expectOk(await other.admin.call('getSpec', { params: { cluster: 'demo' } })).spec['name'], 'demo');
  assert.equal(expectFailure(await other.admin.upload('storeRestore', Buffer.from('nonsense'), { replace: true })).code, 'request.invalid');
});

test('the description of the API is the reviewed one', async (t) => {
  const server = await startTestServer(t);
  const answer = await server.raw({ path: '/api/v1/openapi.json', token: null });
  const text = `${JSON.stringify(JSON.parse(answer.body.toString()), null, 1)}\n`;
  const file = new URL('./golden/openapi.json', import.meta.url);
  if (process.env['PGHERD_UPDATE_GOLDEN'] === '1') writeFileSync(file, text);
  assert.equal(text, readFileSync(file, 'utf8'), 'run with PGHERD_UPDATE_GOLDEN=1 after a wanted change, and review the difference');
  assert.equal((JSON.parse(text) as { openapi: string }).openapi, '3.1.0');
});

/** What a controller would do at the end. */
function finishTasks(store: Store, cluster: string): Promise<void> {
  return setStatus(store, cluster, { from: 'pending', to: 'done' });
}

/** As the controller would: every task of the first status gets the second. */
async function setStatus(store: Store, cluster: string, { from, to }: { readonly from: string; readonly to: 'done' | 'running' }): Promise<void> {
  const end = to === 'done' ? { finishedWallMs: 1_700_000_000_000, result: 'done' } : {};
  const listing = await store.list(clusterKeys(makeClusterId(cluster)).tasks);
  assert.ok(listing.ok);
  for (const kv of listing.value.kvs) {
    const task = JSON.parse(kv.value) as { status: string };
    if (task.status === from) await store.txn([], [{ kind: 'put', key: kv.key, value: JSON.stringify({ ...task, status: to, ...end }) }]);
  }
}
