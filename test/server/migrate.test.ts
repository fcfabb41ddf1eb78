import assert from 'node:assert/strict';
import { rm } from 'node:fs/promises';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { realClock } from '../../src/base/clock.ts';
import { encodeJson } from '../../src/core/decode.ts';
import { joinServer } from '../../src/api/join-client.ts';
import { makeClusterId, makeNodeId, type NodeId } from '../../src/core/ids.ts';
import { startTermless } from './migrate-fixture.ts';
import { openAccess } from '../../src/store/access.ts';
import { electController } from '../../src/store/election.ts';
import { type HostAccess, openHostAccess } from '../../src/store/host-access.ts';
import { clusterKeys } from '../../src/store/keys.ts';
import { abort, announce, commit, copy, seal } from '../../src/store/move.ts';
import { MOVED_LEASE, MOVE_KEY, readMove } from '../../src/store/move-record.ts';
import { keepSession } from '../../src/store/session.ts';
import type { Store } from '../../src/store/store.ts';
import { until, value } from '../store/contract.ts';
import { freePorts, startEmbedded, startEtcd } from '../store/fixtures.ts';
import { backupStore, restoreStore } from '../../src/store/snapshot.ts';
import { openStore } from '../../src/store/etcd-client.ts';
import { type TestServer, collectLog, expectFailure, expectOk, specOf, startTestServer, temporaryDirectory } from './harness.ts';

const CLUSTER = makeClusterId('demo');
const keys = clusterKeys(CLUSTER);
const n1 = makeNodeId('n1');

interface Host {
  readonly access: HostAccess;
  readonly moves: () => number;
  close(): Promise<void>;
}

/** A host that joined, reports, and follows the store; no PostgreSQL and no decisions. */
async function host(t: TestContext, server: TestServer, node: NodeId): Promise<Host> {
  const made = expectOk(await server.admin.call('addJoinToken', { body: { cluster: CLUSTER } }));
  const stateDirectory = join(server.directory, node);
  const joined = expectOk(await joinServer({ token: made.token, stateDirectory, node, hosts: ['127.0.0.1'] }));
  const { ca, cert, key } = joined.files;
  let moves = 0;
  const access = openHostAccess({
    access: { endpoints: joined.storeEndpoints, ca, cert, key, authority: null, username: null, passwordFile: null },
    kind: 'agent',
    name: `${CLUSTER}/${node}`,
    clock: realClock,
    log: collectLog([]),
    onMoved: () => moves++,
  });
  const session = keepSession(access.store, keys.report(node), { ttlMs: 3000 });
  session.put(`report of ${node}`);
  await session.settled();
  value(await access.store.txn([], [{ kind: 'put', key: keys.member(node), value: '{}' }]));
  let open = true;
  const close = async (): Promise<void> => {
    if (!open) return;
    open = false;
    await session.close();
    await access.close();
  };
  t.after(close);
  return { access, moves: () => moves, close };
}

async function etcd(t: TestContext): Promise<string> {
  const cluster = await startEtcd(1);
  t.after(() => cluster.stop());
  const probe = openStore({ endpoints: cluster.urls, tls: null });
  await until('etcd answers', async () => (await probe.status()).ok, 15_000);
  probe.close();
  return cluster.urls[0] ?? '';
}

const engineOf = async (store: Store): Promise<string> => value(await store.status()).engine;

test('a store moves to etcd and back: hosts go over by themselves, a write lease stands in both under one name, and a late host is shown the way', async (t) => {
  const server = await startTestServer(t);
  const url = await etcd(t);
  const { store } = server.server.context;
  value(
    await store.txn(
      [],
      [
        { kind: 'put', key: keys.spec, value: encodeJson(specOf('demo')) },
        { kind: 'put', key: keys.state, value: startTermless },
      ],
    ),
  );
  const first = await host(t, server, n1);
  const second = await host(t, server, makeNodeId('n2'));
  const { id: lease } = value(await first.access.store.grantLease(5000));
  const held = '{"version":1,"term":1,"holder":"n1"}';
  value(await first.access.store.txn([], [{ kind: 'put', key: keys.writeLease, value: held, lease }]));
  const incarnation = value(await store.status()).incarnation;

  const rehearsal = expectOk(await server.admin.call('storeMigrate', { body: { to: 'etcd', endpoints: [url], dryRun: true } }));
  assert.deepEqual([rehearsal.moved, rehearsal.problems, rehearsal.hosts.length], [false, [], 2]);
  assert.equal(await engineOf(store), 'embedded');

  const moved = expectOk(await server.admin.call('storeMigrate', { body: { to: 'etcd', endpoints: [url] }, timeoutMs: 30_000 }));
  assert.equal(moved.moved, true);
  await until('both hosts went over', () => first.moves() === 1 && second.moves() === 1);
  assert.deepEqual(await Promise.all([store, first.access.store, second.access.store].map(engineOf)), ['etcd', 'etcd', 'etcd']);
  const [state, writeLease] = await Promise.all([keys.state, keys.writeLease].map(async (key) => value(await first.access.store.get(key))));
  assert.equal(JSON.parse(state?.value ?? '{}').incarnation, moved.to, 'the state counts in the new store at once');
  assert.deepEqual([writeLease?.value, writeLease?.lease], [held, lease]);
  value(await first.access.store.keepAlive(lease));
  await until('reports are there', async () => value(await store.get(keys.report(n1))) !== null);

  // The store that was left: nobody becomes the controller or takes the lease there, and it says where to go.
  const left = server.server.context.place.open(null);
  t.after(() => left.close());
  assert.equal(readMove(value(await left.get(MOVE_KEY)))?.phase, 'moved');
  assert.equal(value(await left.get(keys.writeLease))?.value, MOVED_LEASE);
  const late = await host(t, server, makeNodeId('n3'));
  assert.equal(await engineOf(late.access.store), 'etcd', 'who joins now is told of the new one');

  const back = expectOk(await server.admin.call('storeMigrate', { body: { to: 'embedded' }, timeoutMs: 30_000 }));
  assert.deepEqual([back.moved, back.to], [true, incarnation]);
  await until('all went back', () => first.moves() === 2 && second.moves() === 2 && late.moves() === 1);
  assert.equal(await engineOf(first.access.store), 'embedded');
  assert.equal(value(await first.access.store.get(keys.writeLease))?.lease, lease);
  assert.equal(value(await first.access.store.get(MOVE_KEY)), null);
});

test('a server that is started again uses the store that it moved to, and server.yaml when that was edited since', async (t) => {
  const directory = await temporaryDirectory(t);
  const server = await startTestServer(t, { directory });
  const url = await etcd(t);
  value(await server.server.context.store.txn([], [{ kind: 'put', key: keys.spec, value: encodeJson(specOf('demo')) }]));
  const asked = () => server.admin.call('storeMigrate', { body: { to: 'etcd' as const, endpoints: [url] }, timeoutMs: 30_000 });
  const both = await Promise.all([asked(), asked()]);
  assert.deepEqual(
    both.map((one) => (one.ok ? 'moved' : one.error.code)).sort(),
    ['moved', 'store.move-refused'],
    'two at once: one of them moves it',
  );
  await server.server.stop();
  const again = await startTestServer(t, { directory, token: server.token });
  assert.equal(await engineOf(again.server.context.store), 'etcd');
  await again.server.stop();
  const edited = await startTestServer(t, {
    directory,
    token: server.token,
    overrides: { store: { engine: 'embedded', listen: { host: 'localhost', port: 0 } } },
  });
  assert.equal(await engineOf(edited.server.context.store), 'embedded');
});

test('a server that died in the middle of a move looks at the mark: sealed, it gives the move up; moved, it uses the new store', async (t) => {
  const directory = await temporaryDirectory(t);
  const url = await etcd(t);
  const place = { endpoints: [url], ca: null, cert: null, key: null, username: null, passwordFile: null };
  let server = await startTestServer(t, { directory });
  const { token } = server;
  value(await server.server.context.store.txn([], [{ kind: 'put', key: keys.spec, value: encodeJson(specOf('demo')) }]));
  for (const [id, ends, engine] of [
    ['m1', 'sealed', 'embedded'],
    ['m2', 'moved', 'etcd'],
  ] as const) {
    const held = server.server.context.place;
    const [from, to] = [held.movable.present(), held.open(place)];
    const record = {
      version: 1 as const,
      id,
      from: value(await from.status()).incarnation,
      to: value(await to.status()).incarnation,
      endpoints: [url],
    };
    const move = { from, to, record, clock: realClock };
    await held.begin(id, place);
    assert.ok((await announce(move)).ok);
    const sealed = await seal(move);
    assert.ok(sealed.ok);
    if (ends === 'moved') {
      assert.ok((await copy(move, sealed.value)).ok);
      assert.deepEqual(await commit(move, sealed.value, []), { ok: true, value: 'moved' });
    }
    to.close();
    await server.server.stop();
    server = await startTestServer(t, { directory, token });
    assert.equal(await engineOf(server.server.context.store), engine);
    if (ends === 'sealed') assert.equal(readMove(value(await server.server.context.store.get(MOVE_KEY)))?.phase, 'aborted');
    if (ends === 'sealed') assert.equal(value(await server.server.context.store.get(keys.controller)), null);
  }
});

test('a server that is deployed anew from its directory and a backup is followed by its hosts once it is restored, and not before', async (t) => {
  const directory = await temporaryDirectory(t);
  const [port = 0] = await freePorts(1);
  const overrides = { store: { engine: 'embedded', listen: { host: '127.0.0.1', port } } };
  const first = await startTestServer(t, { directory, overrides });
  value(await first.server.context.store.txn([], [{ kind: 'put', key: keys.spec, value: encodeJson(specOf('demo')) }]));
  const one = await host(t, first, n1);
  const known = value(await one.access.store.status()).incarnation;
  const saved = await backupStore(first.server.context.store);
  assert.ok(saved.ok);
  await first.server.stop();
  await Promise.all(['store.db', 'store.db-wal', 'store.db-shm'].map((name) => rm(join(directory, 'data', name), { force: true })));

  const second = await startTestServer(t, { directory, overrides, token: first.token });
  const incarnation = value(await second.server.context.store.status()).incarnation;
  assert.notEqual(incarnation, known);
  let refused = '';
  await until(
    'the empty one is refused',
    async () => {
      const status = await one.access.store.status();
      refused = status.ok ? '' : status.error.message;
      return /not the same store/.test(refused);
    },
    10_000,
  );
  assert.equal(one.moves(), 0);
  assert.ok((await restoreStore(second.server.context.store, saved.value, { existing: 'refuse' })).ok);
  await until('the restored one is followed', () => one.moves() === 1, 10_000);
  assert.equal(value(await one.access.store.status()).incarnation, incarnation);
  await until('its report is there', async () => value(await second.server.context.store.get(keys.report(n1))) !== null);
});

test('what stands against a move is named, and nothing is changed: a silent node, an unfinished task, a store with data, the same store', async (t) => {
  const server = await startTestServer(t);
  const url = await etcd(t);
  const { store } = server.server.context;
  value(
    await store.txn(
      [],
      [
        { kind: 'put', key: keys.spec, value: encodeJson(specOf('demo')) },
        { kind: 'put', key: keys.member(n1), value: '{}' },
        { kind: 'put', key: keys.task('t1'), value: '{"status":"running"}' },
      ],
    ),
  );
  const target = openStore({ endpoints: [url], tls: null });
  t.after(() => target.close());
  value(await target.txn([], [{ kind: 'put', key: '/pgherd/v1/other/spec', value: '{}' }]));
  const body = { to: 'etcd' as const, endpoints: [url] };
  const dry = expectOk(await server.admin.call('storeMigrate', { body: { ...body, dryRun: true } }));
  for (const wanted of [/already holds data/, /demo\/n1 does not report/, /task t1 of demo/]) assert.match(dry.problems.join('\n'), wanted);
  assert.equal(expectFailure(await server.admin.call('storeMigrate', { body })).code, 'store.move-refused');
  assert.equal(
    expectFailure(await server.admin.call('storeMigrate', { body: { to: 'etcd', endpoints: ['http://127.0.0.1:1'] } })).code,
    'store.move-refused',
  );
  const same = expectOk(await server.admin.call('storeMigrate', { body: { to: 'embedded', dryRun: true } }));
  assert.match(same.problems.join('\n'), /in use/);
  assert.equal(value(await store.get(MOVE_KEY)), null);
});

test('a move that was begun is given up whole, whoever ends it: a controller is elected again; one that was made is not', async (t) => {
  const directory = await temporaryDirectory(t);
  const [old, next] = await Promise.all(['old.db', 'next.db'].map((name) => startEmbedded({ file: join(directory, name) })));
  assert.ok(old !== undefined && next !== undefined);
  const [from, to] = [old, next].map(({ port }) =>
    openAccess({ endpoints: [`http://127.0.0.1:${port}`], ca: null, cert: null, key: null, authority: null, username: null, passwordFile: null }),
  );
  assert.ok(from !== undefined && to !== undefined);
  t.after(async () => {
    for (const one of [from, to]) one.close();
    await Promise.all([old.close(), next.close()]);
  });
  value(await from.txn([], [{ kind: 'put', key: keys.spec, value: encodeJson(specOf('demo')) }]));
  const election = electController(from, keys.controller, { name: 'c', ttlMs: 1000 });
  t.after(() => election.close());
  await until('it is elected', () => election.leadership() !== null);
  const record = {
    version: 1 as const,
    id: 'm1',
    from: value(await from.status()).incarnation,
    to: value(await to.status()).incarnation,
    endpoints: [],
  };
  const move = { from, to, record, clock: realClock };
  assert.ok((await announce(move)).ok);
  const second = await announce({ ...move, record: { ...record, id: 'm2' } });
  assert.equal(second.ok ? 'ok' : second.error.code, 'store.moving');

  const sealed = await seal(move);
  assert.ok(sealed.ok);
  await until('the controller is none any more', () => election.leadership() === null);
  assert.ok((await copy(move, sealed.value)).ok);
  assert.deepEqual(await abort(from, 'm1'), { ok: true, value: true });
  await until('it is elected again', () => election.leadership() !== null, 5000);
  // Somebody ended it: the mover that comes late changes nothing.
  assert.deepEqual(await commit(move, sealed.value, []), { ok: true, value: 'not-moved' });

  const anew = { ...move, record: { ...record, id: 'm3' } };
  assert.ok((await announce(anew)).ok);
  const again = await seal(anew);
  assert.ok(again.ok);
  assert.deepEqual(await commit(anew, again.value, []), { ok: true, value: 'moved' });
  assert.deepEqual(await abort(from, 'm3'), { ok: true, value: false });
  assert.equal(readMove(value(await from.get(MOVE_KEY)))?.phase, 'moved');
});
