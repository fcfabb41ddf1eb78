import assert from 'node:assert/strict';
import { test } from 'node:test';
import { encodeJson } from '../../src/core/decode.ts';
import { makeClusterId, makeNodeId, makeWallMs } from '../../src/core/ids.ts';
import type { ClusterView } from '../../src/core/view.ts';
import { clusterKeys } from '../../src/store/keys.ts';
import type { Op } from '../../src/store/store.ts';
import { picture } from '../core/cluster/picture.ts';
import { type TestServer, eventually, expectFailure, expectOk, startTestServer } from './harness.ts';

/** Writes a pictured cluster into the store, as its agents and its controller would have. */
async function place(server: TestServer, view: ClusterView): Promise<void> {
  const keys = clusterKeys(makeClusterId('demo'));
  const ops: Op[] = [
    { kind: 'put', key: keys.spec, value: encodeJson(view.spec) },
    { kind: 'put', key: keys.state, value: encodeJson(view.state) },
    ...Object.entries(view.reports).map(([node, seen]): Op => ({ kind: 'put', key: keys.report(makeNodeId(node)), value: encodeJson(seen.report) })),
    ...(view.writeLease === null ? [] : [{ kind: 'put', key: keys.writeLease, value: encodeJson({ version: 1, ...view.writeLease }) } as const]),
  ];
  assert.ok((await server.server.context.store.txn([], ops)).ok);
  await eventually('the cluster is seen', async () => (expectOk(await server.admin.call('clusters')).length === 1 ? true : null));
}

const HEALTHY = `
  term 3 primary n1 lease n1/3 lsn 0/5000
  n1 primary @0/5000
  n2 standby @0/5000
  n3 standby @0/4000`;
const at = { params: { cluster: 'demo' } };

test('a running cluster is shown, with LSNs, lag and reasons in the agreed shapes', async (t) => {
  const server = await startTestServer(t);
  await place(server, picture(HEALTHY));
  const shown = expectOk(await server.admin.call('show', at));
  assert.deepEqual(
    [shown.term, shown.primary, shown.nodes.map((node) => `${node.id} ${node.role} ${node.state}`)],
    [3, 'n1', ['n1 primary running', 'n2 standby running', 'n3 standby running']],
  );
  const [summary] = expectOk(await server.admin.call('clusters'));
  assert.deepEqual([summary?.state, summary?.nodes, summary?.nodesLive, summary?.problems], [shown.state, 3, 3, shown.problems.length]);
  assert.deepEqual(
    expectOk(await server.admin.call('lsn', at)).map((row) => `${row.node} ${row.lsn}`),
    ['n1 0/5000', 'n2 0/5000', 'n3 0/4000'],
  );
  assert.equal(expectOk(await server.admin.call('lag', at)).length, 3);
  const explained = expectOk(await server.admin.call('explain', at));
  assert.deepEqual(explained.candidates.map((one) => one.node).sort(), ['n2', 'n3']);
  assert.match((await server.raw({ path: '/metrics' })).body.toString(), /pgherd_node_primary\{cluster="demo",node="n1"\} 1/);
  assert.ok(expectOk(await server.admin.call('doctor')).checks.length > 0);
  assert.deepEqual(
    server.log.filter((line) => line.includes('does not fit its schema')),
    [],
  );
});

test('metrics say since when and why less is promised than asked', async (t) => {
  const server = await startTestServer(t);
  const healthy = picture(HEALTHY);
  const quorum = { ...healthy.state.quorum, lowered: { sinceWallMs: makeWallMs(1_700_000_000_000), reason: 'n2 is silent' } };
  await place(server, { ...healthy, state: { ...healthy.state, quorum } });
  const text = (await server.raw({ path: '/metrics' })).body.toString();
  assert.match(text, /^pgherd_cluster_sync_lowered\{cluster="demo"\} 1$/m);
  assert.match(text, /^pgherd_cluster_sync_lowered_since_seconds\{cluster="demo",reason="n2 is silent"\} 1700000000$/m);
});

test('doctor says each thing once, and what only weakens fencing is a warning', async (t) => {
  const server = await startTestServer(t);
  const view = picture(HEALTHY);
  const weak = { code: 'fence.no-firewall', text: 'no fail-closed firewall rule', remedy: 'run the agent as root' };
  const reports = Object.fromEntries(
    Object.entries(view.reports).map(([node, seen]) => [node, { ...seen, report: { ...seen.report, firewall: 'off', problems: [weak] } }]),
  ) as typeof view.reports;
  await place(server, { ...view, reports });
  const found = expectOk(await server.admin.call('doctor')).checks.filter((check) => /firewall/.test(check.text));
  assert.deepEqual(
    found.map((check) => `${check.level} ${check.text}`),
    ['warn n1, n2, n3: no fail-closed firewall rule'],
  );
});

test('the dry run of a switchover names its steps for a good candidate, and each reason against a bad one', async (t) => {
  const server = await startTestServer(t);
  await place(server, picture(HEALTHY.replace('n3 standby @0/4000', 'n3 standby @0/4000 prio0')));
  const ask = async (to: string) =>
    expectOk(await server.admin.call('createTask', { ...at, body: { request: { kind: 'switchover', to }, dryRun: true } }));
  const good = await ask('n2');
  assert.deepEqual(good.problems, []);
  assert.equal(good.plan[0], 'switchover to n2');
  assert.ok((await ask('n3')).problems.length > 0);
  assert.deepEqual(expectOk(await server.admin.call('clusterTasks', at)), []);
});

test('a node that lives is not left out of the specification', async (t) => {
  const server = await startTestServer(t);
  await place(server, picture(HEALTHY));
  const read = expectOk(await server.admin.call('getSpec', at));
  const nodes = (read.spec['nodes'] as { id: string }[]).filter((node) => node.id !== 'n2');
  const refused = expectFailure(await server.admin.call('putSpec', { ...at, body: { ...read.spec, nodes }, ifMatch: read.revision }));
  assert.deepEqual([refused.code, refused.problems.map((one) => one.code)], ['spec.unchangeable', ['node.live']]);
});

test('a node is added by its command only: its entry cannot be made joining by hand, and its name need not be known', async (t) => {
  const server = await startTestServer(t);
  await place(server, picture(HEALTHY));
  const read = expectOk(await server.admin.call('getSpec', at));
  const nodes = (read.spec['nodes'] as { id: string }[]).map((node) => (node.id === 'n2' ? { ...node, membership: 'leaving' } : node));
  const refused = expectFailure(await server.admin.call('putSpec', { ...at, body: { ...read.spec, nodes }, ifMatch: read.revision }));
  assert.equal(refused.code, 'spec.unchangeable');
  assert.match(refused.remedy, /pgherd node add/);
  const add = async (request: object) => await server.admin.call('createTask', { ...at, body: { request: request as never, dryRun: true } });
  const planned = expectOk(await add({ kind: 'nodeAdd', node: 'n4' }));
  assert.deepEqual(
    planned.problems.map((problem) => problem.code),
    ['node-add.not-joined'],
  );
  for (const bad of [
    { host: 'a b' },
    { port: 0 },
    { rateKb: 1 },
    { priority: -1 },
    { role: 'arbiter' },
    { tags: { 'a b': 'x' } },
    { source: 'N 1' },
    { rate: 5 },
  ])
    assert.equal(expectFailure(await add({ kind: 'nodeAdd', node: 'n4', ...bad })).code, 'request.invalid', JSON.stringify(bad));
  assert.equal(expectFailure(await add({ kind: 'nodeRemove', node: 'n9' })).code, 'node.not-found');
});
