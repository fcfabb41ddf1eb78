/** What the embedded engine promises beyond the contract: its file, its restarts, its limits. */
import assert from 'node:assert/strict';
import { statSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { create, fromBinary, toBinary } from '@bufbuild/protobuf';
import { Client, credentials } from '@grpc/grpc-js';
import { monoMs } from '../../src/base/clock.ts';
import { makeRevision } from '../../src/core/ids.ts';
import { type EmbeddedStore, startEmbeddedStore } from '../../src/store/embedded/server.ts';
import { openStore } from '../../src/store/etcd-client.ts';
import { WatchRequestSchema, WatchResponseSchema } from '../../src/store/proto/gen/rpc_pb.ts';
import type { Store } from '../../src/store/store.ts';
import { PATIENT, collect, put, until, value } from './contract.ts';
import { makeCertificates, removeDir, startEmbedded, tempDir } from './fixtures.ts';

describe('the embedded engine', () => {
  let dir: string;
  before(() => {
    dir = tempDir();
  });
  after(() => removeDir(dir));

  const connect = (server: EmbeddedStore): Store => openStore({ ...PATIENT, endpoints: [`http://127.0.0.1:${server.port}`], tls: null });

  test('a second engine on the same file is refused with store.locked, and the first goes on', async () => {
    const file = join(dir, 'locked.db');
    const server = await startEmbedded({ file });
    const second = await startEmbeddedStore({ file, listen: { host: '127.0.0.1', port: 0 }, tls: null });
    assert.equal(second.ok ? 'started' : second.error.code, 'store.locked');
    const store = connect(server);
    await put(store, '/a', '1');
    store.close();
    await server.close();
  });

  test('a port in use is refused with store.listen, and the file is free again', async () => {
    const first = await startEmbedded({ file: join(dir, 'one.db') });
    const second = await startEmbeddedStore({ file: join(dir, 'two.db'), listen: { host: '127.0.0.1', port: first.port }, tls: null });
    assert.equal(second.ok ? 'started' : second.error.code, 'store.listen');
    await (await startEmbedded({ file: join(dir, 'two.db') })).close();
    await first.close();
  });

  test('the files are readable by their owner only', async () => {
    const file = join(dir, 'mode.db');
    const server = await startEmbedded({ file });
    const store = connect(server);
    await put(store, '/a', '1');
    for (const name of [file, `${file}-wal`]) assert.equal(statSync(name).mode & 0o077, 0, name);
    store.close();
    await server.close();
  });

  test('incarnation, data, revision and a full lease TTL survive a restart', async () => {
    const file = join(dir, 'restart.db');
    let server = await startEmbedded({ file });
    let store = connect(server);
    const { id, ttlMs } = value(await store.grantLease(1_000));
    await put(store, '/leased', 'x', id);
    const revision = value(
      await store.txn(
        [],
        [
          { kind: 'delete', key: '/none' },
          { kind: 'put', key: '/a', value: '1' },
        ],
      ),
    ).revision;
    const deleted = value(await store.txn([], [{ kind: 'delete', key: '/a' }])).revision;
    const grantedAt = monoMs();
    await until('most of the TTL passes', () => monoMs() - grantedAt > 700);
    store.close();
    await server.close();
    const before = server.incarnation;
    const restartedAt = monoMs();
    server = await startEmbedded({ file });
    store = connect(server);
    assert.equal(server.incarnation, before);
    assert.equal(value(await store.status()).revision, deleted);
    assert.ok(deleted === revision + 1);
    const seen = collect(store, '/leased', deleted);
    await until('the leased key vanishes', () => seen.events().length === 1, ttlMs * 3);
    const livedMs = monoMs() - restartedAt;
    assert.ok(livedMs >= ttlMs, `a full TTL after the restart, not ${livedMs} ms`);
    assert.ok(livedMs < ttlMs * 2, `and not twice: ${livedMs} ms`);
    seen.close();
    store.close();
    await server.close();
  });

  test('a lease expires by itself, and never before its TTL', async () => {
    const server = await startEmbedded({ file: join(dir, 'expiry.db') });
    const store = connect(server);
    const asked = monoMs();
    const { id, ttlMs } = value(await store.grantLease(1_000));
    const granted = monoMs();
    // The engine counts from when it granted, which is before the answer came here: by this much it may seem early.
    const answeredMs = granted - asked;
    const seen = collect(store, '/e', await put(store, '/e', '1', id));
    await until('the key vanishes', () => seen.events().length === 1);
    // How soon after it is measured in bench/, not here.
    assert.ok(monoMs() - granted >= ttlMs - answeredMs, `${monoMs() - granted} ms`);
    seen.close();
    store.close();
    await server.close();
  });

  test('history is compacted by itself, and the newest revision survives it', async () => {
    const server = await startEmbedded({ file: join(dir, 'compact.db'), keptRevisions: 20 });
    const store = connect(server);
    const first = await put(store, '/k', '0');
    for (let i = 1; i <= 100; i++) await put(store, '/k', String(i));
    const old = collect(store, '/k', first);
    await until('the old watch ends', () => old.state.ended !== null);
    assert.equal(old.state.ended, 'compacted');
    assert.equal(value(await store.get('/k'))?.version, 101);
    store.close();
    await server.close();
  });

  test('a full store refuses puts and still reads, deletes, and recovers by it', async () => {
    const server = await startEmbedded({ file: join(dir, 'full.db'), maxBytes: 4 * 1024 * 1024, keptRevisions: 10 });
    const store = connect(server);
    let refused = '';
    let count = 0;
    for (; count < 20 && refused === ''; count++) {
      const result = await store.txn([], [{ kind: 'put', key: `/big/${count}`, value: 'x'.repeat(512 * 1024) }]);
      if (!result.ok) refused = `${result.error.kind}: ${result.error.message}`;
    }
    assert.match(refused, /^refused: .*space exceeded/);
    assert.equal(value(await store.list('/big/', { limit: 1 })).kvs.length, 1);
    value(await store.txn([], [{ kind: 'delete-prefix', prefix: '/big/' }]));
    await until('puts work again', async () => (await store.txn([], [{ kind: 'put', key: '/small', value: '1' }])).ok);
    store.close();
    await server.close();
  });

  test('a write for which the disk has no room is refused whole, and the engine goes on', async () => {
    const server = await startEmbedded({ file: join(dir, 'hard.db'), maxBytes: 512 * 1024 });
    const store = connect(server);
    await put(store, '/a', '1');
    const revision = value(await store.status()).revision;
    // SQLite answers SQLITE_FULL at its page limit as it does at a full disk.
    const result = await store.txn(
      [],
      [
        { kind: 'put', key: '/a', value: '2' },
        { kind: 'put', key: '/b', value: 'x'.repeat(1024 * 1024) },
      ],
    );
    assert.equal(result.ok ? 'ok' : result.error.kind, 'refused');
    assert.equal(value(await store.get('/a'))?.value, '1');
    assert.equal(value(await store.status()).revision, revision);
    assert.equal(await put(store, '/a', '3'), revision + 1);
    store.close();
    await server.close();
  });

  test('a watcher that does not read holds no memory of the server, and gets everything when it reads again', async () => {
    const server = await startEmbedded({ file: join(dir, 'slow.db') });
    const store = connect(server);
    const path = '/etcdserverpb.Watch/Watch';
    const same = (bytes: Buffer): Buffer => bytes;
    const client = new Client(`127.0.0.1:${server.port}`, credentials.createInsecure());
    const stream = client.makeBidiStreamRequest<Buffer, Buffer>(path, same, same);
    stream.on('error', () => undefined);
    stream.write(
      Buffer.from(
        toBinary(
          WatchRequestSchema,
          create(WatchRequestSchema, { requestUnion: { case: 'createRequest', value: { key: Buffer.from('/s'), startRevision: 1n } } }),
        ),
      ),
    );
    const before = process.memoryUsage().rss;
    for (let i = 0; i < 200; i++) await put(store, '/s', String(i).padEnd(200_000, '.'));
    const grownMiB = (process.memoryUsage().rss - before) / 1024 / 1024;
    assert.ok(grownMiB < 150, `${grownMiB} MiB more after 40 MiB for a watcher that does not read`);
    const versions: bigint[] = [];
    stream.on('data', (bytes: Buffer) => {
      for (const event of fromBinary(WatchResponseSchema, bytes).events) versions.push(event.kv?.version ?? 0n);
    });
    await until('all changes arrive', () => versions.length >= 200, 10_000);
    assert.deepEqual(
      versions,
      Array.from({ length: 200 }, (_, i) => BigInt(i + 1)),
    );
    stream.cancel();
    client.close();
    store.close();
    await server.close();
  });

  test('with TLS a client with a certificate is served, one without is not', async () => {
    const { server: serverFiles, client } = makeCertificates(dir);
    const server = await startEmbedded({ file: join(dir, 'tls.db'), tls: { ...serverFiles, requireClientCert: true } });
    const url = `https://127.0.0.1:${server.port}`;
    const store = openStore({ endpoints: [url], tls: client });
    const revision = await put(store, '/a', '1');
    const seen = collect(store, '/a', makeRevision(revision - 1));
    await until('the watch works over TLS', () => seen.events().length === 1);
    const foreign = tempDir();
    const other = openStore({ endpoints: [url], tls: { ...makeCertificates(foreign).client, ca: client.ca } });
    const result = await other.get('/a');
    assert.equal(result.ok ? 'ok' : result.error.kind, 'unavailable');
    const blind = openStore({ endpoints: [url], tls: makeCertificates(foreign).client });
    const distrusted = await blind.get('/a');
    assert.equal(distrusted.ok ? 'ok' : distrusted.error.kind, 'unavailable');
    for (const each of [store, other, blind]) each.close();
    await server.close();
    removeDir(foreign);
  });
});
