import assert from 'node:assert/strict';
import { test } from 'node:test';
import { realClock } from '../../src/base/clock.ts';
import { encodeJson } from '../../src/core/decode.ts';
import { makeClusterId, makeRevision } from '../../src/core/ids.ts';
import { err, ok } from '../../src/core/result.ts';
import { type ClusterKnowledge, type RememberedCluster, watchCluster } from '../../src/agent/cluster-watch.ts';
import { clusterKeys } from '../../src/store/keys.ts';
import type { KeyValue, Store } from '../../src/store/store.ts';
import { stateWith } from '../core/node/facts.ts';

const keys = clusterKeys(makeClusterId('c'));
const log = { debug: () => undefined, info: () => undefined, warn: () => undefined, error: () => undefined } as never;

test('what was remembered has no revision, and the state counts only once the store has said which one it is (4.10)', async () => {
  let asked = 0;
  const kv: KeyValue = {
    key: keys.state,
    value: encodeJson(stateWith(null)),
    createRevision: makeRevision(3),
    modRevision: makeRevision(7),
    version: 1,
    lease: null,
  };
  const store = {
    status: async () => (++asked === 1 ? err({ kind: 'unavailable', message: 'nobody answers' } as const) : ok({ incarnation: 'i' })),
    list: async (prefix: string) => ok({ revision: makeRevision(9), kvs: prefix === keys.orders ? [kv] : [] }),
    watch: () => ({ close: () => undefined }),
  } as unknown as Store;
  const seen: (readonly [number, string | null])[] = [];
  await new Promise<void>((resolve) => {
    const watch = watchCluster({
      store,
      keys,
      clock: realClock,
      log,
      remembered: { spec: null, state: stateWith(null), members: [], newest: null },
      onChange: (what) => {
        if (what !== 'state') return;
        const known = watch.current();
        seen.push([known.stateRevision, known.incarnation]);
        watch.close();
        resolve();
      },
    });
    const { state, stateRevision, incarnation } = watch.current();
    assert.deepEqual([state?.incarnation, stateRevision, incarnation], ['i', 0, null]);
  });
  assert.deepEqual([asked, seen], [3, [[7, 'i']]], 'asked again, and once more after the listing; nothing was taken from a store without a name');
});

test('a store that is moved is believed with its own revisions: a listing that may be of either is not taken, and a lower revision is no older one', async () => {
  const names = ['old', 'old', 'old', 'new', 'new', 'new'];
  const revisions = [900, 900, 5];
  let lists = 0;
  let endWatch = (): void => undefined;
  const store = {
    status: async () => ok({ incarnation: names.shift() ?? 'new' }),
    list: async (prefix: string) => {
      if (prefix !== keys.orders) return ok({ revision: makeRevision(1), kvs: [] });
      const modRevision = makeRevision(revisions[lists++] ?? 5);
      const value = encodeJson({ ...stateWith(null), incarnation: `state at ${modRevision}` });
      return ok({
        revision: makeRevision(1000),
        kvs: [{ key: keys.state, value, createRevision: modRevision, modRevision, version: 1, lease: null }],
      });
    },
    watch: (_prefix: string, _after: number, handlers: { onEnd: (reason: 'lost', message: string) => void }) => {
      endWatch = () => handlers.onEnd('lost', 'the store was moved');
      return { close: () => undefined };
    },
  } as unknown as Store;
  const known = await knownAfterEach(store, { count: 2, remembered: null, again: () => endWatch() });
  const seen = known.map((one) => `${one.incarnation} ${one.stateRevision} ${one.state?.incarnation}`);
  // The second listing stood between "old" and "new".
  assert.deepEqual([seen, lists], [['old 900 state at 900', 'new 5 state at 5'], 3]);
});

/** What was known after each of `count` states; `again` has the next one listed. */
function knownAfterEach(
  store: Store,
  { count, remembered, again }: { readonly count: number; readonly remembered: RememberedCluster | null; readonly again: () => void },
): Promise<readonly ClusterKnowledge[]> {
  const seen: ClusterKnowledge[] = [];
  return new Promise((resolve) => {
    const watch = watchCluster({
      store,
      keys,
      clock: realClock,
      log,
      remembered,
      onChange: (what) => {
        if (what !== 'state') return;
        seen.push(watch.current());
        if (seen.length < count) return void setImmediate(again);
        watch.close();
        resolve(seen);
      },
    });
  });
}

/** Lists the state at each of these revisions in turn, in stores of these names; answers what was known after each: store, revision, newest revision. */
async function readingsOf(
  listed: readonly { readonly name: string; readonly revision: number }[],
  newest: number | null,
): Promise<readonly string[]> {
  let at = 0;
  let endWatch = (): void => undefined;
  const present = (): { readonly name: string; readonly revision: number } => listed[Math.min(at, listed.length - 1)] ?? { name: '', revision: 0 };
  const store = {
    status: async () => ok({ incarnation: present().name }),
    list: async (prefix: string) => {
      const modRevision = makeRevision(present().revision);
      const kvs = [{ key: keys.state, value: encodeJson(stateWith(null)), createRevision: modRevision, modRevision, version: 1, lease: null }];
      return ok({ revision: modRevision, kvs: prefix === keys.orders ? kvs : [] });
    },
    watch: (_prefix: string, _after: number, handlers: { onEnd: (reason: 'lost', message: string) => void }) => {
      endWatch = () => handlers.onEnd('lost', 'it went back');
      return { close: () => undefined };
    },
  } as unknown as Store;
  const known = await knownAfterEach(store, {
    count: listed.length,
    remembered: newest === null ? null : { spec: null, state: null, members: [], newest: { incarnation: 'a', revision: makeRevision(newest) } },
    again: () => {
      at += 1;
      endWatch();
    },
  });
  return known.map((one) => `${one.incarnation} ${one.stateRevision} ${one.newestRevision}`);
}

test('a store that was set back is followed, and how far it once was is kept; another store counts anew (architecture 4.10)', async () => {
  const inTurn = [
    { name: 'a', revision: 900 },
    { name: 'a', revision: 300 },
    { name: 'a', revision: 301 },
    { name: 'b', revision: 7 },
  ];
  assert.deepEqual(await readingsOf(inTurn, null), ['a 900 900', 'a 300 900', 'a 301 900', 'b 7 7']);
});

test('how far the store was is known to the next run of the agent, of that store only', async () => {
  assert.deepEqual(await readingsOf([{ name: 'a', revision: 300 }], 900), ['a 300 900']);
  assert.deepEqual(await readingsOf([{ name: 'b', revision: 300 }], 900), ['b 300 300']);
});
