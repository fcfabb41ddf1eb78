import assert from 'node:assert/strict';
import { test } from 'node:test';
import { createLogger } from '../../src/base/log.ts';
import { encodeJson } from '../../src/core/decode.ts';
import { makeClusterId, makeNodeId, makeWallMs } from '../../src/core/ids.ts';
import type { Member } from '../../src/core/report.ts';
import { clusterKeys } from '../../src/store/keys.ts';
import { type Identity, judgeName, refuseDuplicateNode } from '../../src/agent/duplicate-node.ts';
import { blankReport } from '../core/cluster/picture.ts';
import { createFakeClock, createFakeStore } from '../guard/fakes.ts';

const node = makeNodeId('n1');
const keys = clusterKeys(makeClusterId('demo'));
const self: Identity = { node, host: 'h1', dataDirectory: '/d', bootId: 'boot-1' };
const report = { ...blankReport(node), bootId: 'boot-1' };
const member: Member = {
  version: 1,
  node,
  host: 'h1',
  internalHost: null,
  port: 5432,
  agentPort: 8432,
  dataDirectory: '/d',
  agentVersion: '0.1.0',
  postgresVersion: 150018,
  registeredWallMs: makeWallMs(1),
  macs: [],
};

test('a name is free when nobody reports under it, or only a former run of the same agent (Z40)', () => {
  assert.equal(judgeName(self, { member: null, report: null }).kind, 'free');
  assert.equal(judgeName(self, { member: { ...member, host: 'h9' }, report: null }).kind, 'free', 'a host that is gone may be replaced');
  assert.equal(judgeName(self, { member, report: { ...report, agentRun: 'an earlier one' } }).kind, 'free');
  assert.equal(judgeName(self, { member: { ...member, port: 5999 }, report }).kind, 'free', 'a changed port is no other node');
});

test('a name is taken while another host, data directory or boot reports under it', () => {
  const taken: readonly [Member | 'unreadable' | null, typeof report | 'unreadable', RegExp][] = [
    [{ ...member, host: 'h2' }, report, /h2, data directory \/d/],
    [{ ...member, dataDirectory: '/e' }, report, /\/e/],
    [member, { ...report, bootId: 'boot-2' }, /another boot/],
    [null, { ...report, bootId: 'boot-2' }, /not registered/],
    [member, 'unreadable', /cannot be read/],
  ];
  for (const [entry, seen, by] of taken) {
    const verdict = judgeName(self, { member: entry, report: seen });
    assert.ok(verdict.kind === 'taken');
    assert.match(verdict.by, by);
  }
});

function rig() {
  const clock = createFakeClock();
  const store = createFakeStore(clock);
  const lines: string[] = [];
  const log = createLogger({ role: 'agent', level: 'debug', stream: { write: (line) => void lines.push(line) } });
  const check = () => refuseDuplicateNode({ store, keys, clock, log, self });
  const live = async () => {
    const lease = await store.grantLease(3000);
    assert.ok(lease.ok);
    store.put(keys.member(node), encodeJson({ ...member, host: 'h2' }));
    store.put(keys.report(node), encodeJson(report), lease.value.id);
    return lease.value.id;
  };
  return { clock, store, lines, check, live };
}

test('the second agent of a name ends after ten seconds with its own code, and writes nothing', async () => {
  const { clock, store, check, live } = rig();
  await live();
  const before = store.data.get(keys.report(node))?.modRevision;
  const checked = check();
  await clock.pass(9000);
  const early = await Promise.race([checked, Promise.resolve('waits')]);
  assert.equal(early, 'waits');
  await clock.pass(2000);
  const result = await checked;
  assert.ok(!result.ok);
  assert.equal(result.error.code, 'agent.duplicate-node');
  assert.match(`${result.error.what} ${result.error.cause} ${result.error.remedy}`, /n1.*h2.*--node/s);
  assert.equal(store.data.get(keys.report(node))?.modRevision, before);
});

test('a report that ends meanwhile (a host that was replaced, a reboot) lets the new agent start', async () => {
  const { clock, store, lines, check, live } = rig();
  const lease = await live();
  const checked = check();
  await clock.pass(2000);
  store.expire(lease);
  await clock.pass(500);
  assert.ok((await checked).ok);
  assert.equal(lines.filter((line) => line.includes('still reported')).length, 1, 'said once');
});

test('a restarted agent, and one whose store is lost, are not held up', async () => {
  const { clock, store, lines, check, live } = rig();
  await live();
  store.put(keys.member(node), encodeJson(member));
  assert.ok((await check()).ok, 'its own last report');
  store.mode = 'down';
  const checked = check();
  await clock.pass(500);
  assert.ok((await checked).ok);
  assert.ok(lines.some((line) => line.includes('cannot be told')));
});
