/** A lease keeper on a virtual clock, with a small store, and what its guard, its members and its agent were told. */
import assert from 'node:assert/strict';
import { type MonoMs, makeClusterId, makeNodeId, makeTerm } from '../../src/core/ids.ts';
import { createLeaseKeeper } from '../../src/agent/lease/lease-keeper.ts';
import { clusterKeys } from '../../src/store/keys.ts';
import { createFakeClock, createFakeStore } from './fakes.ts';

export const keys = clusterKeys(makeClusterId('demo'));
export const n1 = makeNodeId('n1');
export const T3 = makeTerm(3);
export const settings = { ttlMs: 3000, renewMs: 500, marginMs: 500 };

export function rig() {
  const clock = createFakeClock();
  const store = createFakeStore(clock);
  const seen = {
    lost: [] as string[],
    lostAt: [] as number[],
    renewed: [] as MonoMs[],
    paused: 0,
    armed: [] as MonoMs[],
    shortened: [] as MonoMs[],
    disarmed: 0,
    asked: 0,
    returned: [] as string[],
  };
  const world = { guard: true, promises: false, membersHaveStore: true, onArm: (): void => undefined };
  const setState = (term: number, kind: string): void => store.put(keys.state, JSON.stringify({ term, goals: { n1: { kind, term } } }));
  setState(3, 'primary');
  const keeper = createLeaseKeeper({
    store,
    keys,
    node: n1,
    settings: () => settings,
    clock,
    bootMs: clock.boot,
    guard: {
      prepare: async () => world.guard,
      arm: async ({ deadline }) => {
        if (world.guard) seen.armed.push(deadline);
        world.onArm();
        return world.guard;
      },
      shorten: async ({ deadline }) => {
        seen.shortened.push(deadline);
        return world.guard;
      },
      disarm: async () => {
        seen.disarmed += 1;
        return true;
      },
    },
    askPromises: async ({ ttlMs, longMs }) => {
      seen.asked += 1;
      await clock.sleep(50);
      if (!world.promises) return null;
      return world.membersHaveStore ? ttlMs : longMs;
    },
    returnPromises: async ({ hold }) => {
      seen.returned.push(hold);
    },
    onRenewed: (deadline) => seen.renewed.push(deadline),
    onPaused: () => {
      seen.paused += 1;
    },
    onLost: (_term, why) => {
      seen.lost.push(why);
      seen.lostAt.push(clock.now().mono);
    },
  });
  const stateRevision = () => {
    const kv = store.data.get(keys.state);
    assert.ok(kv);
    return kv.modRevision;
  };
  const acquire = (term = T3) => keeper.acquire(term, stateRevision());
  return { clock, store, keeper, seen, world, acquire, stateRevision, setState, lease: () => store.data.get(keys.writeLease) };
}
