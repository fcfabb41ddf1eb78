/** The promises of src/store/store.ts as tests, run against each engine. */
import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { now, realClock } from '../../src/base/clock.ts';
import { addMono, type MonoMs, makeRevision, type Revision } from '../../src/core/ids.ts';
import type { Result } from '../../src/core/result.ts';
import type { KeyValue, Store, StoreError } from '../../src/store/store.ts';
import { collect } from './collect.ts';
import { followBehindCompaction } from './follow-case.ts';

export { type Collected, collect } from './collect.ts';

/** What the store promises has nothing to do with how fast a busy machine keeps it: a call may take long, and a lost machine is tested elsewhere. */
export const PATIENT = { tryMs: 10_000, callMs: 20_000 } as const;

export interface Backend {
  open(): Store;
  /** Compacts all history before the revision. */
  compact(revision: number): Promise<void>;
  close(): Promise<void>;
}

/** The time that the engine lives in: the machine's, or the simulator's. */
export interface EngineTime {
  mono(): MonoMs;
  sleep(ms: number): Promise<void>;
}

let time: EngineTime = { mono: () => now().mono, sleep: (ms) => realClock.sleep(ms) };
const monoMs = (): MonoMs => time.mono();

export function value<T>(result: Result<T, StoreError>): T {
  assert.ok(result.ok, result.ok ? '' : `${result.error.kind}: ${result.error.message}`);
  return result.value;
}

export async function until(what: string, condition: () => boolean | Promise<boolean>, limitMs = 5_000): Promise<void> {
  const deadline = monoMs() + limitMs;
  while (!(await condition())) {
    if (monoMs() > deadline) assert.fail(`not within ${limitMs} ms: ${what}`);
    await time.sleep(5);
  }
}

let counter = 0;
/** A key prefix that no other test uses. */
export const fresh = (): string => `/pgherd/v1/test-${process.pid}-${counter++}/`;

export async function put(store: Store, key: string, text: string, lease?: string): Promise<Revision> {
  const result = value(await store.txn([], [{ kind: 'put', key, value: text, ...(lease === undefined ? {} : { lease }) }]));
  return result.revision;
}

const present = (kv: KeyValue | null): KeyValue => {
  assert.ok(kv !== null, 'the key exists');
  return kv;
};

export function storeContract(
  engine: 'embedded' | 'embedded, in process' | 'etcd' | 'simulated',
  start: () => Promise<Backend>,
  engineTime: EngineTime = time,
): void {
  time = engineTime;
  describe(`the store's promises, ${engine}`, () => {
    let backend: Backend;
    let store: Store;
    before(async () => {
      backend = await start();
      store = backend.open();
    });
    after(async () => {
      store?.close();
      await backend?.close();
    });

    test('the status names engine, incarnation and revision', async () => {
      const status = value(await store.status());
      assert.equal(status.engine, engine.split(',')[0]);
      assert.match(status.incarnation, /^[1-9][0-9]*$/);
      const listing = value(await store.list('/nothing/'));
      assert.equal(listing.incarnation, status.incarnation, 'a listing says whose it is');
      assert.ok(status.revision >= 1 && status.members >= 1 && status.dbSizeBytes > 0);
    });

    test('a missing key is null, an empty prefix listing is empty', async () => {
      const p = fresh();
      assert.equal(value(await store.get(`${p}a`)), null);
      assert.deepEqual(value(await store.list(p)).kvs, []);
    });

    test('a written key is read back with its revisions, and every write raises the version', async () => {
      const p = fresh();
      const first = await put(store, `${p}a`, 'eins');
      const second = await put(store, `${p}a`, 'zwei ✓');
      const kv = present(value(await store.get(`${p}a`)));
      assert.deepEqual(kv, { key: `${p}a`, value: 'zwei ✓', createRevision: first, modRevision: second, version: 2, lease: null });
      assert.equal(second, first + 1);
    });

    test('an empty value is a value', async () => {
      const p = fresh();
      await put(store, `${p}a`, '');
      assert.equal(present(value(await store.get(`${p}a`))).value, '');
      assert.equal(value(await store.txn([{ target: 'value', key: `${p}a`, op: '=', value: '' }], [])).succeeded, true);
    });

    test('a listing is sorted by key, bounded by the limit, and stops at the end of the prefix', async () => {
      const p = fresh();
      for (const name of ['b', 'a', 'c/x', 'c']) await put(store, p + name, name);
      await put(store, `${p.slice(0, -1)}0`, 'after the prefix');
      assert.deepEqual(
        value(await store.list(p)).kvs.map((kv) => kv.value),
        ['a', 'b', 'c', 'c/x'],
      );
      assert.deepEqual(
        value(await store.list(p, { limit: 2 })).kvs.map((kv) => kv.value),
        ['a', 'b'],
      );
    });

    test('all writes of one transaction share one revision', async () => {
      const p = fresh();
      const before = value(await store.list(p)).revision;
      const done = value(
        await store.txn(
          [],
          [
            { kind: 'put', key: `${p}a`, value: '1' },
            { kind: 'put', key: `${p}b`, value: '2' },
          ],
        ),
      );
      assert.equal(done.revision, before + 1);
      assert.deepEqual(
        value(await store.list(p)).kvs.map((kv) => kv.modRevision),
        [done.revision, done.revision],
      );
    });

    test('a transaction that writes nothing leaves the revision', async () => {
      const p = fresh();
      const before = value(await store.list(p)).revision;
      const done = value(
        await store.txn(
          [],
          [
            { kind: 'delete', key: `${p}a` },
            { kind: 'get', key: `${p}a` },
          ],
        ),
      );
      assert.equal(done.revision, before);
      assert.deepEqual(done.reads, [[]]);
    });

    test('compares on mod, create, value and lease decide which branch is taken', async () => {
      const p = fresh();
      const key = `${p}a`;
      const lease = value(await store.grantLease(60_000)).id;
      const made = await put(store, key, 'x', lease);
      const yes = async (compare: Parameters<Store['txn']>[0][number]): Promise<boolean> => value(await store.txn([compare], [])).succeeded;
      const none = makeRevision(0);
      assert.equal(await yes({ target: 'mod', key, op: '=', revision: made }), true);
      assert.equal(await yes({ target: 'mod', key, op: '!=', revision: made }), false);
      assert.equal(await yes({ target: 'mod', key, op: '<', revision: makeRevision(made + 1) }), true);
      assert.equal(await yes({ target: 'mod', key, op: '>', revision: made }), false);
      assert.equal(await yes({ target: 'create', key, op: '=', revision: made }), true);
      assert.equal(await yes({ target: 'create', key: `${p}none`, op: '=', revision: none }), true);
      assert.equal(await yes({ target: 'create', key, op: '=', revision: none }), false);
      assert.equal(await yes({ target: 'value', key, op: '=', value: 'x' }), true);
      assert.equal(await yes({ target: 'value', key, op: '!=', value: 'x' }), false);
      assert.equal(await yes({ target: 'value', key: `${p}none`, op: '!=', value: 'x' }), false, 'a missing key fails every compare of a value');
      assert.equal(await yes({ target: 'lease', key, op: '=', lease }), true);
      assert.equal(await yes({ target: 'lease', key, op: '!=', lease }), false);
      assert.equal(await yes({ target: 'lease', key: `${p}none`, op: '=', lease: '0' }), true);
      value(await store.revokeLease(lease));
    });

    test('the other branch runs, and its reads come back, when a compare fails', async () => {
      const p = fresh();
      await put(store, `${p}a`, '1');
      const lost = value(
        await store.txn(
          [{ target: 'create', key: `${p}a`, op: '=', revision: makeRevision(0) }],
          [{ kind: 'put', key: `${p}a`, value: '2' }],
          [
            { kind: 'get', key: `${p}a` },
            { kind: 'get-prefix', prefix: p },
            { kind: 'get', key: `${p}none` },
          ],
        ),
      );
      assert.equal(lost.succeeded, false);
      assert.deepEqual(
        lost.reads.map((kvs) => kvs.map((kv) => kv.value)),
        [['1'], ['1'], []],
      );
    });

    test('of many racing compare-and-set writers exactly one wins', async () => {
      const p = fresh();
      const race = await Promise.all(
        Array.from({ length: 20 }, (_, i) =>
          store.txn(
            [{ target: 'create', key: `${p}lock`, op: '=', revision: makeRevision(0) }],
            [{ kind: 'put', key: `${p}lock`, value: String(i) }],
          ),
        ),
      );
      const winners = race.flatMap((result, i) => (value(result).succeeded ? [i] : []));
      assert.equal(winners.length, 1);
      assert.equal(present(value(await store.get(`${p}lock`))).value, String(winners[0]));
    });

    test('a transaction whose write is refused changes nothing at all', async () => {
      const p = fresh();
      const result = await store.txn(
        [],
        [
          { kind: 'put', key: `${p}a`, value: '1' },
          { kind: 'put', key: `${p}b`, value: '2', lease: '4242' },
        ],
      );
      assert.equal(result.ok ? 'ok' : result.error.kind, 'lease-not-found');
      assert.deepEqual(value(await store.list(p)).kvs, []);
    });

    test('one key twice in one transaction is refused', async () => {
      const p = fresh();
      const result = await store.txn(
        [],
        [
          { kind: 'put', key: `${p}a`, value: '1' },
          { kind: 'put', key: `${p}a`, value: '2' },
        ],
      );
      assert.equal(result.ok ? 'ok' : result.error.kind, 'refused');
    });

    test('a value above the size limit is refused, and one below is stored', async () => {
      const p = fresh();
      const big = await store.txn([], [{ kind: 'put', key: `${p}a`, value: 'x'.repeat(1.6 * 1024 * 1024) }]);
      assert.equal(big.ok ? 'ok' : big.error.kind, 'refused');
      await put(store, `${p}a`, 'x'.repeat(1024 * 1024));
      assert.equal(present(value(await store.get(`${p}a`))).value.length, 1024 * 1024);
      value(await store.txn([], [{ kind: 'delete', key: `${p}a` }]));
    });

    test('too many operations in one transaction are refused (Q10)', async () => {
      const p = fresh();
      const ops = (n: number) => Array.from({ length: n }, (_, i) => ({ kind: 'put', key: `${p}${i}`, value: '' }) as const);
      const result = await store.txn([], ops(129));
      assert.equal(result.ok ? 'ok' : result.error.kind, 'refused');
      value(await store.txn([], ops(128)));
      value(await store.txn([], [{ kind: 'delete-prefix', prefix: p }]));
      assert.deepEqual(value(await store.list(p)).kvs, []);
    });

    test('a read that starts after an answered write sees it, through another client too (Z2)', async () => {
      const p = fresh();
      const other = backend.open();
      try {
        for (let i = 0; i < 30; i++) {
          await put(store, `${p}a`, String(i));
          assert.equal(present(value(await other.get(`${p}a`))).value, String(i));
        }
      } finally {
        other.close();
      }
    });

    leases(() => store);
    watches(
      () => store,
      () => backend,
    );
  });
}

function leases(of: () => Store): void {
  test('a lease takes its keys with it when it is revoked, in one revision', async () => {
    const store = of();
    const p = fresh();
    const { id } = value(await store.grantLease(60_000));
    const seen = collect(store, p, value(await store.list(p)).revision);
    await put(store, `${p}a`, '1', id);
    await put(store, `${p}b`, '2', id);
    assert.equal(present(value(await store.get(`${p}a`))).lease, id);
    value(await store.revokeLease(id));
    assert.deepEqual(value(await store.list(p)).kvs, []);
    await until('both deletions are seen', () => seen.events().length === 4);
    const gone = seen.batches.flatMap((batch) => batch.events).filter((event) => event.kind === 'delete');
    assert.equal(new Set(gone.map((event) => event.revision)).size, 1);
    seen.close();
  });

  test('a key put again without a lease outlives the lease', async () => {
    const store = of();
    const p = fresh();
    const { id } = value(await store.grantLease(60_000));
    await put(store, `${p}a`, '1', id);
    await put(store, `${p}a`, '2');
    value(await store.revokeLease(id));
    assert.equal(present(value(await store.get(`${p}a`))).value, '2');
  });

  test('a key put again under another lease goes with that one only: revoking the old lease takes nothing away', async () => {
    const store = of();
    const p = fresh();
    const old = value(await store.grantLease(60_000)).id;
    const next = value(await store.grantLease(60_000)).id;
    await put(store, `${p}a`, 'term 3', old);
    const moved = value(
      await store.txn([{ target: 'lease', key: `${p}a`, op: '=', lease: old }], [{ kind: 'put', key: `${p}a`, value: 'term 4', lease: next }]),
    );
    assert.equal(moved.succeeded, true);
    value(await store.revokeLease(old));
    assert.deepEqual([present(value(await store.get(`${p}a`))).value, present(value(await store.get(`${p}a`))).lease], ['term 4', next]);
    const late = value(await store.txn([{ target: 'lease', key: `${p}a`, op: '=', lease: old }], [{ kind: 'delete', key: `${p}a` }]));
    assert.equal(late.succeeded, false, 'the former holder deletes nothing');
    value(await store.revokeLease(next));
    assert.equal(value(await store.get(`${p}a`)), null);
  });

  test('renewing, revoking and writing under a lease that does not exist says so', async () => {
    const store = of();
    const kind = (result: Result<unknown, StoreError>): string => (result.ok ? 'ok' : result.error.kind);
    assert.equal(kind(await store.keepAlive('4242')), 'lease-not-found');
    assert.equal(kind(await store.revokeLease('4242')), 'lease-not-found');
    assert.equal(kind(await store.txn([], [{ kind: 'put', key: `${fresh()}a`, value: '', lease: '4242' }])), 'lease-not-found');
  });

  test('a lease that is not renewed expires: not before its TTL, and soon after', async () => {
    const store = of();
    const p = fresh();
    const before = monoMs();
    const { id, ttlMs } = value(await store.grantLease(1_000));
    const granted = monoMs();
    const seen = collect(store, p, await put(store, `${p}a`, '1', id));
    await until('the key vanishes', () => seen.events().length === 1, ttlMs + 4_000);
    const at = monoMs();
    assert.ok(at - before >= ttlMs, `after ${at - before} ms of ${ttlMs}`);
    // etcd looks for expired leases every 500 ms and revokes through its log; the embedded engine promises 50 ms.
    assert.ok(at - granted < ttlMs + 2_500, `after ${at - granted} ms of ${ttlMs}`);
    const again = await store.keepAlive(id);
    assert.equal(again.ok ? 'ok' : again.error.kind, 'lease-not-found');
    seen.close();
  });

  test('a renewed lease lives on past its TTL (Z7)', async () => {
    const store = of();
    const p = fresh();
    const { id, ttlMs } = value(await store.grantLease(1_000));
    await put(store, `${p}a`, '1', id);
    const stop = monoMs() + ttlMs * 2;
    await until(
      'two TTLs pass',
      async () => {
        assert.equal(value(await store.keepAlive(id)).ttlMs, ttlMs);
        return monoMs() > stop;
      },
      ttlMs * 3,
    );
    assert.equal(present(value(await store.get(`${p}a`))).lease, id);
    value(await store.revokeLease(id));
  });
}

function watches(of: () => Store, backendOf: () => Backend): void {
  test('a watch delivers every change of its prefix, in order, a transaction together, and nothing else', async () => {
    const store = of();
    const p = fresh();
    const seen = collect(store, p, value(await store.list(p)).revision);
    const r1 = await put(store, `${p}a`, '1');
    await put(store, `${p.slice(0, -1)}0`, 'elsewhere');
    const r2 = value(
      await store.txn(
        [],
        [
          { kind: 'put', key: `${p}a`, value: '2' },
          { kind: 'put', key: `${p}b`, value: '3' },
        ],
      ),
    ).revision;
    const r3 = value(await store.txn([], [{ kind: 'delete-prefix', prefix: p }])).revision;
    await until('five events', () => seen.events().length === 5);
    assert.deepEqual(seen.events(), [`+${p}a=1@${r1}`, `+${p}a=2@${r2}`, `+${p}b=3@${r2}`, `-${p}a@${r3}`, `-${p}b@${r3}`]);
    assert.ok(
      seen.batches.some(
        (batch) => batch.revision === r2 && batch.events.filter((event) => event.kind === 'put' && event.kv.modRevision === r2).length === 2,
      ),
    );
    seen.close();
  });

  test('a watch from a past revision starts with what was missed', async () => {
    const store = of();
    const p = fresh();
    const from = await put(store, `${p}a`, '1');
    const r2 = await put(store, `${p}a`, '2');
    const r3 = value(await store.txn([], [{ kind: 'delete', key: `${p}a` }])).revision;
    const seen = collect(store, p, from);
    await until('the past', () => seen.events().length === 2);
    assert.deepEqual(seen.events(), [`+${p}a=2@${r2}`, `-${p}a@${r3}`]);
    seen.close();
  });

  test('a watch confirms about every second that it missed nothing', async () => {
    const store = of();
    const p = fresh();
    const seen = collect(store, p, value(await store.list(p)).revision);
    await until('the first confirmation', () => seen.state.alive >= 1, 2_000);
    const sent = monoMs();
    await put(store, `${p}a`, '1');
    await until('a confirmation sent after the write', () => seen.state.sentAt > sent, 3_000);
    assert.equal(seen.events().length, 1, 'the write was delivered before it was confirmed');
    seen.close();
  });

  test('nothing is delivered after a watch was closed', async () => {
    const store = of();
    const p = fresh();
    const seen = collect(store, p, value(await store.list(p)).revision);
    const other = collect(store, p, value(await store.list(p)).revision);
    await put(store, `${p}a`, '1');
    await until('the first event', () => seen.events().length === 1 && other.events().length === 1);
    seen.close();
    await put(store, `${p}a`, '2');
    await until('the other watch has it', () => other.events().length === 2);
    assert.equal(seen.events().length, 1);
    assert.equal(seen.state.ended, null);
    other.close();
  });

  test('a watch from a compacted revision ends with compacted, and one from the newest goes on (Z3)', async () => {
    const store = of();
    const p = fresh();
    const from = await put(store, `${p}a`, '1');
    await put(store, `${p}a`, '2');
    await put(store, `${p}a`, '3');
    const newest = value(await store.txn([], [{ kind: 'delete', key: `${p}a` }])).revision;
    await backendOf().compact(newest);
    const old = collect(store, p, makeRevision(from - 1));
    await until('the end', () => old.state.ended !== null);
    assert.equal(old.state.ended, 'compacted');
    assert.deepEqual(old.events(), []);
    const young = collect(store, p, newest);
    const r5 = await put(store, `${p}a`, '5');
    await until('the new event', () => young.events().length === 1);
    assert.deepEqual(young.events(), [`+${p}a=5@${r5}`]);
    young.close();
  });

  test('who follows a prefix and falls behind a compaction lists again, and misses nothing (Z3)', async () => {
    const clock = { now: () => ({ ...now(), mono: monoMs() }), sleep: (ms: number) => time.sleep(ms) };
    await followBehindCompaction({
      store: of(),
      prefix: fresh(),
      clock,
      compact: backendOf().compact,
      put: (key, text) => put(of(), key, text),
      until,
    });
  });

  test('a deadline that has passed is answered at once, without a write', async () => {
    const store = of();
    const p = fresh();
    const result = await store.txn([], [{ kind: 'put', key: `${p}a`, value: '1' }], [], { deadline: addMono(monoMs(), -1) });
    assert.equal(result.ok ? 'ok' : result.error.kind, 'unavailable');
    assert.equal(value(await store.get(`${p}a`)), null);
  });

  test('a closed client ends its watches with lost and answers unavailable', async () => {
    const store = backendOf().open();
    const p = fresh();
    const seen = collect(store, p, value(await store.list(p)).revision);
    await until('it is alive', () => seen.state.alive > 0);
    store.close();
    await until('the end', () => seen.state.ended !== null);
    assert.equal(seen.state.ended, 'lost');
    const result = await store.get(`${p}a`);
    assert.equal(result.ok ? 'ok' : result.error.kind, 'unavailable');
  });
}
