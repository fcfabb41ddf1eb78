/** One promise of a store with its follower: whoever falls behind a compaction lists again. Run against each engine by contract.ts. */
import assert from 'node:assert/strict';
import type { Clock } from '../../src/base/clock.ts';
import { createLogger } from '../../src/base/log.ts';
import { makeRevision, type Revision } from '../../src/core/ids.ts';
import { ok } from '../../src/core/result.ts';
import { followPrefix } from '../../src/store/follow.ts';
import type { Store } from '../../src/store/store.ts';

export interface FollowCase {
  readonly store: Store;
  readonly prefix: string;
  readonly clock: Clock;
  readonly compact: (revision: number) => Promise<void>;
  readonly put: (key: string, text: string) => Promise<Revision>;
  readonly until: (what: string, condition: () => boolean) => Promise<void>;
}

export async function followBehindCompaction({ store, prefix, clock, compact, put, until }: FollowCase): Promise<void> {
  const from = await put(`${prefix}a`, '1');
  await put(`${prefix}a`, '2');
  await compact(await put(`${prefix}b`, '3'));
  const told: string[] = [];
  const abort = new AbortController();
  let listings = 0;
  const following = followPrefix({
    // The first listing is as old as a long pause would make it: the history after it is gone.
    store: {
      ...store,
      list: async (listedPrefix) => {
        listings += 1;
        const listed = await store.list(listedPrefix);
        return listed.ok && listings === 1 ? ok({ ...listed.value, revision: makeRevision(from - 1), kvs: [] }) : listed;
      },
    },
    prefix,
    clock,
    log: createLogger({ role: 'test', level: 'error', stream: { write: () => undefined } }),
    signal: abort.signal,
    onListing: ({ kvs }) => told.push(`[${kvs.map((kv) => `${kv.key.slice(prefix.length)}=${kv.value}`).join()}]`),
    onBatch: ({ events }) => told.push(...events.map((event) => (event.kind === 'put' ? `+${event.kv.key.slice(prefix.length)}` : '-'))),
    onLost: () => told.push('lost'),
  });
  await until('everything is listed', () => told.length === 3);
  await put(`${prefix}c`, '4');
  await until('and watched', () => told.length === 4);
  assert.deepEqual(told, ['[]', 'lost', '[a=2,b=3]', '+c']);
  abort.abort();
  await following;
}
