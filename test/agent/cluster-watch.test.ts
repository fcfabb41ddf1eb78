import assert from 'node:assert/strict';
import { test } from 'node:test';
import { realClock } from '../../src/base/clock.ts';
import { encodeJson } from '../../src/core/decode.ts';
import { makeClusterId, makeRevision } from '../../src/core/ids.ts';
import { err, ok } from '../../src/core/result.ts';
import { watchCluster } from '../../src/agent/cluster-watch.ts';
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
      remembered: { spec: null, state: stateWith(null), members: [] },
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
  const seen: string[] = [];
  await new Promise<void>((resolve) => {
    const watch = watchCluster({
      store,
      keys,
      clock: realClock,
      log,
      remembered: null,
      onChange: (what) => {
        if (what !== 'state') return;
        const known = watch.current();
        seen.push(`${known.incarnation} ${known.stateRevision} ${known.state?.incarnation}`);
        if (known.incarnation === 'new') {
          watch.close();
          resolve();
        } else setImmediate(() => endWatch());
      },
    });
  });
  // The second listing stood between "old" and "new".
  assert.deepEqual([seen, lists], [['old 900 state at 900', 'new 5 state at 5'], 3]);
});
