/** What goes wrong with the modelled store goes wrong in the way that the promises of src/store/store.ts allow, and that the real engines show (test/store/failover.test.ts). */
import assert from 'node:assert/strict';
import { after, beforeEach, describe, test } from 'node:test';
import type { Store } from '../../../src/store/store.ts';
import { type VirtualClock, createClock } from '../../../sim/clock.ts';
import { type StoreModel, createStoreModel } from '../../../sim/model/store.ts';
import { createStreamHub } from '../../../sim/model/stream.ts';
import { type Network, createNetwork } from '../../../sim/network.ts';
import { createRandom } from '../../../sim/random.ts';
import { collect, put, value } from '../../store/contract.ts';
import { type VirtualTime, startVirtualTime } from './virtual-time.ts';

let clock: VirtualClock;
let network: Network;
let time: VirtualTime | null = null;

async function open(members: readonly string[]): Promise<{ readonly model: StoreModel; readonly store: Store }> {
  await time?.stop();
  clock = createClock();
  time = startVirtualTime(clock);
  const random = createRandom(3n);
  network = createNetwork(clock, random.stream('network'));
  const hosts = members.map((host) => ({ host, scope: clock.scope(host) }));
  const model = createStoreModel({ clock, network, streams: createStreamHub(clock, network), random, members: hosts });
  const store = model.open({ host: 'client', scope: clock.scope('client'), now: time.now });
  return { model, store };
}

async function until(what: string, condition: () => boolean | Promise<boolean>): Promise<void> {
  const deadline = clock.now() + 20_000;
  while (!(await condition())) {
    assert.ok(clock.now() < deadline, what);
    await clock.sleep(20);
  }
}

describe('the modelled store in trouble', () => {
  after(() => time?.stop());

  describe('of three members', () => {
    let model: StoreModel;
    let store: Store;
    beforeEach(async () => {
      ({ model, store } = await open(['e1', 'e2', 'e3']));
    });

    test('a new leader gives every lease its full TTL again', async () => {
      const { id, ttlMs } = value(await store.grantLease(3000));
      const seen = collect(store, '/k', await put(store, '/k', '1', id));
      await clock.sleep(2500);
      model.loseLeader();
      await until('another leader', () => model.leader() !== null);
      const electedAt = clock.now();
      await until('the key vanishes', () => seen.events().length === 1);
      assert.ok(clock.now() - electedAt >= ttlMs - 20);
      seen.close();
    });

    test('a lease ends although the leader was started anew without a pause', async () => {
      const { id } = value(await store.grantLease(3000));
      const seen = collect(store, '/k', await put(store, '/k', '1', id));
      const leader = model.leader() ?? '';
      model.start(leader);
      await until('the key vanishes', () => seen.events().length === 1);
      seen.close();
    });

    test('a watch whose server was started anew behind a cut link gets what it missed, although nobody said goodbye', async () => {
      const seen = collect(store, '/k', await put(store, '/k', '0'));
      await clock.sleep(1500);
      network.setLink('e1', 'client', { cut: true });
      network.setLink('client', 'e1', { cut: true });
      model.kill('e1');
      model.start('e1');
      await until('a leader', () => model.leader() !== null);
      network.healAll();
      const other = model.open({ host: 'other', scope: clock.scope('other'), now: time?.now as never });
      await until('another client writes', async () => (await other.txn([], [{ kind: 'put', key: '/k', value: '1' }])).ok);
      await until('the change is told', () => seen.events().length === 1);
      seen.close();
    });

    test('a write that was on its way when the leader was lost is unknown, and stands or not', async () => {
      const outcomes = new Set<string>();
      for (let i = 0; i < 30; i++) {
        const writing = store.txn([], [{ kind: 'put', key: `/w${i}`, value: '1' }], [], { deadline: (time?.now().mono ?? 0) + 6000 } as never);
        await clock.sleep(0.7);
        model.loseLeader();
        const result = await writing;
        await until('another leader', () => model.leader() !== null);
        await until('it answers', async () => (await store.get('/x')).ok);
        const stands = value(await store.get(`/w${i}`)) !== null;
        if (result.ok) assert.equal(stands, true, 'what was answered stands');
        else if (result.error.kind === 'unavailable') assert.equal(stands, false, 'what was never accepted does not');
        outcomes.add(`${result.ok ? 'ok' : result.error.kind}/${stands}`);
      }
      assert.ok(outcomes.has('unknown/true') && outcomes.has('unknown/false'), [...outcomes].join(' '));
    });

    test('without a majority nothing is written and nothing expires; with it, watches go on without a gap', async () => {
      const { id } = value(await store.grantLease(2000));
      const from = await put(store, '/a', '1', id);
      const seen = collect(store, '/', from);
      model.kill('e2');
      model.kill('e3');
      const result = await store.txn([], [{ kind: 'put', key: '/b', value: '1' }]);
      assert.equal(result.ok, false);
      await clock.sleep(1500);
      assert.equal(seen.events().length, 0);
      model.start('e2');
      await until('it answers again', async () => (await store.get('/a')).ok);
      const again = await put(store, '/c', '2');
      await until('the watch has it', () => seen.events().includes(`+/c=2@${again}`));
      assert.equal(seen.state.ended, null);
      seen.close();
    });

    test('a member that is cut off from the others is left for another one', async () => {
      await put(store, '/a', '1');
      for (const other of ['e2', 'e3']) {
        network.cut('e1', other);
        network.cut(other, 'e1');
      }
      await until('another leader', () => model.leader() !== null && model.leader() !== 'e1');
      const result = await store.txn([], [{ kind: 'put', key: '/b', value: '1' }], [], { deadline: (time?.now().mono ?? 0) + 5000 } as never);
      assert.ok(result.ok || result.error.kind === 'unavailable');
      await until('it answers', async () => (await store.txn([], [{ kind: 'put', key: '/c', value: '1' }])).ok);
    });
  });

  describe('of one member', () => {
    let model: StoreModel;
    let store: Store;
    beforeEach(async () => {
      ({ model, store } = await open(['s1']));
    });

    test('a restarted server has every key, and gives every lease its full TTL', async () => {
      const { id, ttlMs } = value(await store.grantLease(2000));
      const seen = collect(store, '/k', await put(store, '/k', '1', id));
      await clock.sleep(1800);
      model.kill('s1');
      const refused = await store.get('/k', { deadline: (time?.now().mono ?? 0) + 300 } as never);
      assert.equal(refused.ok ? 'ok' : refused.error.kind, 'unavailable');
      model.start('s1');
      await until('it answers', async () => (await store.get('/k')).ok);
      const backAt = clock.now();
      assert.notEqual(value(await store.get('/k')), null);
      await until('the key vanishes', () => seen.events().length === 1);
      assert.ok(clock.now() - backAt >= ttlMs - 200);
      seen.close();
    });

    test('a write whose answer is cut off is unknown, and was applied', async () => {
      await put(store, '/a', '1');
      network.cut('s1', 'client');
      const result = await store.txn([], [{ kind: 'put', key: '/b', value: '1' }]);
      assert.equal(result.ok ? 'ok' : result.error.kind, 'unknown');
      network.heal('s1', 'client');
      assert.notEqual(value(await store.get('/b')), null);
    });

    test('a write that cannot leave is unknown on a connection that stood, and comes late when the link heals soon', async () => {
      await put(store, '/a', '1');
      network.cut('client', 's1');
      const result = await store.txn([], [{ kind: 'put', key: '/late', value: '1' }]);
      assert.equal(result.ok ? 'ok' : result.error.kind, 'unknown');
      assert.equal(model.keyspace().get('/late'), null);
      network.heal('client', 's1');
      await until('it arrives after all', () => model.keyspace().get('/late') !== null);
    });

    test('a watch without confirmation is lost after six seconds, and the caller lists again', async () => {
      const seen = collect(store, '/', await put(store, '/a', '1'));
      await until('it is alive', () => seen.state.alive > 0);
      const at = clock.now();
      network.cut('s1', 'client');
      await until('the end', () => seen.state.ended !== null);
      assert.equal(seen.state.ended, 'lost');
      assert.ok(clock.now() - at >= 5000 && clock.now() - at < 8000);
    });

    test('another incarnation is refused for good by whoever knew the first; the same one goes back in time', async () => {
      await put(store, '/a', '1');
      const backup = model.backup();
      const newest = await put(store, '/a', '2');
      model.restore(backup, model.incarnation());
      await until('it answers', async () => (await store.get('/a')).ok);
      assert.equal(value(await store.get('/a'))?.value, '1');
      assert.equal(await put(store, '/b', '1'), newest, 'revisions repeat');
      model.restore(backup, '4711');
      const result = await store.get('/a');
      assert.equal(result.ok ? 'ok' : result.error.kind, 'refused');
      const other = model.open({ host: 'client', scope: clock.scope('another process'), now: () => time?.now() as never });
      assert.equal(value(await other.status()).incarnation, '4711');
    });
  });
});
