/** Session, election and backup over the embedded engine. */
import assert from 'node:assert/strict';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { monoMs } from '../../src/base/clock.ts';
import { makeRevision } from '../../src/core/ids.ts';
import { type Election, type Leadership, electController, guards } from '../../src/store/election.ts';
import type { EmbeddedStore } from '../../src/store/embedded/server.ts';
import { openStore } from '../../src/store/etcd-client.ts';
import { keepSession } from '../../src/store/session.ts';
import { RESTORE_KEY } from '../../src/store/restore-mark.ts';
import { backupStore, inspectBackup, restoreStore } from '../../src/store/snapshot.ts';
import type { Store } from '../../src/store/store.ts';
import { collect, fresh, put, until, value } from './contract.ts';
import { removeDir, startEmbedded, tempDir } from './fixtures.ts';

describe('roles over the store', () => {
  const dir = tempDir();
  let server: EmbeddedStore;
  let store: Store;
  const connect = (to: EmbeddedStore = server): Store => openStore({ endpoints: [`http://127.0.0.1:${to.port}`], tls: null });
  before(async () => {
    server = await startEmbedded({ file: join(dir, 'store.db') });
    store = connect();
  });
  after(async () => {
    store?.close();
    await server?.close();
    removeDir(dir);
  });

  describe('session', () => {
    test('the key stands under the lease, follows each value, and lives past the TTL (Z8)', async () => {
      const key = `${fresh()}report`;
      const session = keepSession(store, key, { ttlMs: 1_000 });
      session.put('one');
      await session.settled();
      assert.equal(value(await store.get(key))?.lease, session.lease());
      session.put('two');
      session.put('three');
      await session.settled();
      assert.equal(value(await store.get(key))?.value, 'three');
      const written = monoMs();
      await until('two TTLs pass and the key is confirmed', () => session.confirmedAt() - written > 2_000);
      assert.equal(value(await store.get(key))?.lease, session.lease());
      await session.close();
      assert.equal(value(await store.get(key)), null);
    });

    test('a lost lease and a deleted key are made again with the newest value', async () => {
      const key = `${fresh()}report`;
      const session = keepSession(store, key, { ttlMs: 1_000 });
      session.put('one');
      await session.settled();
      const first = session.lease() ?? '';
      value(await store.revokeLease(first));
      await until('the key is back', async () => value(await store.get(key))?.value === 'one');
      assert.notEqual(session.lease(), first);
      value(await store.txn([], [{ kind: 'delete', key }]));
      await until('the key is back again', async () => value(await store.get(key))?.value === 'one');
      await session.close();
    });

    test('a session that is left keeps its key until the lease ends, and runs no more, also when its client is closed', async () => {
      const key = `${fresh()}report`;
      const client = connect();
      const session = keepSession(client, key, { ttlMs: 1_000 });
      session.put('last');
      await session.settled();
      await session.leave();
      client.close();
      assert.equal(value(await store.get(key))?.value, 'last');
      await until('the lease ends', async () => value(await store.get(key)) === null);

      // One that meets errors: it ends at once too, instead of trying for ever.
      const other = keepSession(client, key, { ttlMs: 1_000 });
      other.put('never');
      await until('it fails', async () => !(await client.get(key)).ok);
      await other.leave();
      assert.equal(value(await store.get(key)), null);
    });

    test('a key that an earlier run left under its old lease is taken over', async () => {
      const key = `${fresh()}report`;
      const { id } = value(await store.grantLease(60_000));
      await put(store, key, 'old', id);
      const session = keepSession(store, key, { ttlMs: 1_000 });
      session.put('new');
      await session.settled();
      value(await store.revokeLease(id));
      assert.equal(value(await store.get(key))?.value, 'new');
      await session.close();
    });
  });

  describe('election', () => {
    const open = (key: string, name: string, on: Store = store): Election => electController(on, key, { name, ttlMs: 1_000 });

    test('one of many candidates is elected, and the next follows at once when it resigns', async () => {
      const key = `${fresh()}controller`;
      const candidates = ['a', 'b', 'c'].map((name) => open(key, name));
      const elected = (): Election[] => candidates.filter((candidate) => candidate.leadership() !== null);
      await until('one is elected', () => elected().length === 1);
      const [first] = elected();
      assert.match(value(await store.get(key))?.value ?? '', /"name":"[abc]"/);
      const resigned = monoMs();
      await first?.close();
      await until('the next is elected', () => elected().length === 1 && elected()[0] !== first);
      assert.ok(monoMs() - resigned < 1500, `after ${monoMs() - resigned} ms`);
      await Promise.all(candidates.map((candidate) => candidate.close()));
      assert.equal(value(await store.get(key)), null);
    });

    test('a candidate that stands back leaves a vacancy to one that does not, and takes it when nobody else does', async () => {
      const key = `${fresh()}controller`;
      const holder = open(key, 'a');
      await until('it is elected', () => holder.leadership() !== null);
      const patient = electController(store, key, { name: 'b', ttlMs: 1_000, standBackMs: () => 600 });
      await until('it follows', () => patient.holder()?.includes('"a"') === true);
      const eager = open(key, 'c');
      await until('it follows too', () => eager.holder()?.includes('"a"') === true);
      await holder.close();
      await until('the eager one is elected', () => eager.leadership() !== null);
      assert.equal(patient.leadership(), null);
      await eager.close();
      await until('the patient one is elected', () => patient.leadership() !== null);
      await patient.close();
    });

    test('what a former run at the same place left behind is taken over at once, and its guards hold no more; nobody else takes it', async () => {
      const key = `${fresh()}controller`;
      const at = (home: string): Election => electController(store, key, { name: 'server', home, ttlMs: 5_000 });
      const { id } = value(await store.grantLease(60_000));
      const left = await put(store, key, '{"version":1,"name":"server","home":"host1:/data"}', id);
      const before: Leadership = { key, createRevision: left, leaseId: id };
      const other = at('host2:/data');
      await until('the other one looked', () => other.holder() !== null);
      const next = at('host1:/data');
      await until('the next run is elected', () => next.leadership() !== null);
      const writes = async (leadership: Leadership): Promise<boolean> =>
        value(await store.txn(guards(leadership), [{ kind: 'put', key: `${key}-state`, value: '1' }])).succeeded;
      assert.deepEqual([await writes(before), await writes(next.leadership() as Leadership)], [false, true]);
      assert.equal(other.leadership(), null);
      await other.close();
      value(await store.revokeLease(id));
      assert.notEqual(value(await store.get(key)), null, 'the end of the former lease takes nothing away');
      await next.close();
      assert.equal(value(await store.get(key)), null);
    });

    test('a leader that is to yield resigns once, and goes on leading when nobody follows', async () => {
      const key = `${fresh()}controller`;
      let asked = 0;
      const changes: boolean[] = [];
      const election = electController(store, key, {
        name: 'a',
        ttlMs: 1_000,
        yields: () => ++asked > 2,
        onChange: (leadership) => changes.push(leadership !== null),
      });
      await until('it was elected, yielded, and was elected again', () => changes.length === 3);
      const since = monoMs();
      await until('it goes on', () => monoMs() - since > 1_500);
      assert.deepEqual(changes, [true, false, true]);
      await election.close();
    });

    test('a leader stays past its TTL, and its guards hold only while it leads', async () => {
      const key = `${fresh()}controller`;
      const changes: (Leadership | null)[] = [];
      const election = electController(store, key, { name: 'a', ttlMs: 1_000, onChange: (leadership) => changes.push(leadership) });
      await until('it is elected', () => election.leadership() !== null);
      const leadership = election.leadership() as Leadership;
      const since = monoMs();
      await until('two TTLs pass', () => monoMs() - since > 2_000);
      assert.deepEqual(election.leadership(), leadership);
      assert.equal(value(await store.txn(guards(leadership), [{ kind: 'put', key: `${key}-state`, value: '1' }])).succeeded, true);
      await election.close();
      assert.equal(value(await store.txn(guards(leadership), [{ kind: 'put', key: `${key}-state`, value: '2' }])).succeeded, false);
      assert.deepEqual(changes, [leadership, null]);
    });

    test('a leader whose key was deleted stops at once and campaigns again', async () => {
      const key = `${fresh()}controller`;
      const election = open(key, 'a');
      await until('it is elected', () => election.leadership() !== null);
      const first = election.leadership() as Leadership;
      value(await store.txn([], [{ kind: 'delete', key }]));
      await until('it is elected anew', () => (election.leadership()?.createRevision ?? first.createRevision) !== first.createRevision);
      assert.equal(value(await store.txn(guards(first), [])).succeeded, false);
      await election.close();
    });

    test('a leader that lost the store stops by its own clock, before its lease can run out', async () => {
      const other = await startEmbedded({ file: join(dir, 'lost.db') });
      const client = connect(other);
      const election = open('/controller', 'a', client);
      await until('it is elected', () => election.leadership() !== null);
      await other.close();
      const lost = monoMs();
      assert.ok((election.validUntil() ?? 0) <= lost + 1_000);
      await until('it is no leader', () => election.leadership() === null, 1_000);
      const closing = election.close();
      client.close();
      await closing;
    });
  });

  describe('backup', () => {
    test('what is not under a lease comes back from a backup, in a store of another incarnation', async () => {
      const source = await startEmbedded({ file: join(dir, 'source.db') });
      const from = connect(source);
      const { id } = value(await from.grantLease(60_000));
      for (let i = 0; i < 250; i++) await put(from, `/pgherd/v1/c/k${i}`, `value ${i} "ü"\n`);
      await put(from, '/pgherd/v1/c/write-lease', 'held', id);
      await put(from, '/elsewhere', 'not ours');
      const backup = await backupStore(from);
      assert.ok(backup.ok);
      const summary = inspectBackup(backup.value);
      assert.deepEqual(summary.ok ? [summary.value.keys, summary.value.leased, summary.value.incarnation] : summary.error, [
        251,
        1,
        source.incarnation,
      ]);

      const target = await startEmbedded({ file: join(dir, 'target.db') });
      const to = connect(target);
      const restored = await restoreStore(to, backup.value, { existing: 'refuse' });
      assert.ok(restored.ok);
      const kvs = value(await to.list('/pgherd/v1/c/')).kvs;
      assert.equal(kvs.length, 250);
      assert.equal(value(await to.get('/pgherd/v1/c/k7'))?.value, 'value 7 "ü"\n');
      assert.equal(value(await to.get('/elsewhere')), null);
      const mark = JSON.parse(value(await to.get(RESTORE_KEY))?.value ?? '{}') as { phase: string; from: string };
      assert.deepEqual([mark.phase, mark.from], ['done', source.incarnation]);
      const second = await backupStore(to);
      assert.ok(second.ok);
      assert.notEqual(target.incarnation, source.incarnation);

      const again = await restoreStore(to, backup.value, { existing: 'refuse' });
      assert.equal(again.ok ? 'restored' : again.error.code, 'store.not-empty');
      await put(to, '/pgherd/v1/c/later', '1');
      assert.equal((await restoreStore(to, backup.value, { existing: 'replace' })).ok, true);
      assert.equal(value(await to.get('/pgherd/v1/c/later')), null);
      // A backup of the restored store, over that store: a host that was away since before still finds the store that it knows.
      assert.equal((await restoreStore(to, second.value, { existing: 'replace' })).ok, true);
      const twice = JSON.parse(value(await to.get(RESTORE_KEY))?.value ?? '{}') as { from: string; before: readonly string[] };
      assert.deepEqual([twice.from, twice.before], [target.incarnation, [source.incarnation]]);
      for (const each of [from, to]) each.close();
      await source.close();
      await target.close();
    });

    test('a state that comes back, into the very store that it was taken from too, is marked as decided elsewhere (Z14)', async () => {
      const { incarnation } = value(await store.status());
      await put(store, '/pgherd/v1/c/state', JSON.stringify({ term: 3, incarnation }));
      await put(store, '/pgherd/v1/d/state', 'no JSON');
      await put(store, '/pgherd/v1/c/history/state', JSON.stringify({ incarnation }));
      const backup = await backupStore(store);
      assert.ok(backup.ok);
      assert.equal((await restoreStore(store, backup.value, { existing: 'replace' })).ok, true);
      assert.deepEqual(JSON.parse(value(await store.get('/pgherd/v1/c/state'))?.value ?? ''), {
        term: 3,
        incarnation: `restored from ${incarnation}`,
      });
      assert.equal(value(await store.get('/pgherd/v1/d/state'))?.value, 'no JSON');
      assert.equal(value(await store.get('/pgherd/v1/c/history/state'))?.value, JSON.stringify({ incarnation }));
    });

    test('a changed, cut or foreign file is refused before anything is written', async () => {
      await put(store, '/pgherd/v1/c/a', 'x');
      const backup = await backupStore(store);
      assert.ok(backup.ok);
      const cases = [
        backup.value.replace('"x"', '"y"'),
        backup.value.slice(0, -100),
        backup.value.split('\n').slice(0, -2).join('\n'),
        '',
        'hello\n',
      ];
      for (const content of cases) {
        const result = await restoreStore(store, content, { existing: 'replace' });
        assert.equal(result.ok ? 'restored' : result.error.code, 'store.backup-damaged');
      }
      assert.equal(value(await store.get('/pgherd/v1/c/a'))?.value, 'x');
    });
  });

  test('a client refuses every further call when its endpoint answers as another store, and its watch ends (Z14)', async () => {
    const first = await startEmbedded({ file: join(dir, 'incarnation-1.db') });
    const client = connect(first);
    const seen = collect(client, '/a', await put(client, '/a', '1'));
    await until('the watch stands', () => seen.state.alive > 0);
    await first.close();
    const second = await startEmbedded({ file: join(dir, 'incarnation-2.db'), listen: { host: '127.0.0.1', port: first.port } });
    const write = await client.txn(
      [{ target: 'create', key: '/a', op: '=', revision: makeRevision(0) }],
      [{ kind: 'put', key: '/a', value: 'lost' }],
    );
    assert.equal(write.ok ? 'written' : write.error.kind, 'refused');
    const read = await client.get('/a');
    assert.equal(read.ok ? 'read' : read.error.kind, 'refused');
    await until('the watch ends', () => seen.state.ended === 'lost', 3_000);
    const other = connect(second);
    assert.equal(value(await other.get('/a')), null, 'nothing was written into the other store');
    other.close();
    client.close();
    await second.close();
  });
});
