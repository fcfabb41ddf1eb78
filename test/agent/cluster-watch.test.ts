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
  assert.deepEqual([asked, seen], [2, [[7, 'i']]], 'asked again, and nothing was taken from a store without a name');
});
