import assert from 'node:assert/strict';
import { test } from 'node:test';
import { makeMonoMs, makeTerm, makeWallMs } from '../../src/core/ids.ts';
import { ownDeadline } from '../../src/agent/lease/lease-rules.ts';
import { pausedMs, readTogether } from '../../src/agent/lease/pause.ts';
import { T3, keys, n1, rig, settings } from './lease-rig.ts';

test('the deadline counts from before the request, and from the shorter of the wanted and the granted TTL (Z9)', () => {
  assert.equal(ownDeadline({ sentAt: makeMonoMs(1000), grantedMs: 3000, settings }), 3500);
  assert.equal(ownDeadline({ sentAt: makeMonoMs(1000), grantedMs: 2000, settings }), 2500);
  assert.equal(ownDeadline({ sentAt: makeMonoMs(1000), grantedMs: 9000, settings }), 3500);
});

test('only time that the monotonic clock did not count is a pause (Q5, Z23)', () => {
  const at = (mono: number, boot: number, wall: number) => ({ mono: makeMonoMs(mono), boot, wall });
  const table: [string, number, number, number, number][] = [
    ['nothing', 500, 500, 500, 0],
    ['a stall that the monotonic clock counted', 2000, 2000, 2000, 0],
    ['a suspended machine', 500, 1500, 1500, 1000],
    ['noise of the boot clock', 500, 510, 500, 0],
    ['a small step of the wall clock', 500, 500, 1200, 0],
    ['a VM whose wall clock was put right', 500, 500, 9500, 9000],
    ['a wall clock that was put back', 500, 500, -90_000, 0],
  ];
  for (const [name, mono, boot, wall, expected] of table) assert.equal(pausedMs(at(0, 0, 0), at(mono, boot, wall), 500), expected, name);
});

test('a process that is held up between two clocks does not take that for a pause', () => {
  let mono = 1000;
  let heldUp = 2;
  const now = () => ({ mono: makeMonoMs(mono), wall: makeWallMs(mono) });
  const boot = (): number => {
    // The first two readings are held up for 300 ms after the clock was read.
    const at = mono;
    mono += heldUp-- > 0 ? 300 : 1;
    return at;
  };
  const before = readTogether(now, boot);
  assert.ok(before.mono - before.boot <= 10);
  assert.equal(pausedMs(before, readTogether(now, boot), 500), 0);
});

test('a lease is taken under the state revision, renewed each interval, and given back', async () => {
  const { keeper, clock, seen, acquire, lease, store } = rig();
  assert.equal((await acquire()).ok, true);
  assert.equal(keeper.heldTerm(), 3);
  assert.equal(lease()?.value, '{"version":1,"term":3,"holder":"n1"}');
  await clock.pass(10_000);
  assert.equal(keeper.heldTerm(), 3);
  assert.ok(seen.renewed.length >= 19, `${seen.renewed.length} renewals`);
  assert.deepEqual(seen.armed.at(-1), keeper.deadline());
  assert.equal((await keeper.release()).ok, true);
  assert.deepEqual([keeper.heldTerm(), lease(), store.leases.size, seen.lost], [null, undefined, 0, []]);
});

test('a lease is refused when the state changed, when another holds it, and without a guard', async () => {
  const changed = rig();
  const old = changed.stateRevision();
  changed.setState(4, 'vote');
  const raced = await changed.keeper.acquire(T3, old);
  assert.equal(raced.ok ? '' : raced.error.code, 'lease.raced');
  assert.deepEqual([changed.lease(), changed.store.leases.size], [undefined, 0]);
  const held = rig();
  held.store.put(keys.writeLease, '{"version":1,"term":2,"holder":"n2"}');
  const other = await held.acquire();
  assert.equal(other.ok ? '' : other.error.code, 'lease.held-by-other');
  const alone = rig();
  alone.world.guard = false;
  const unguarded = await alone.acquire();
  assert.equal(unguarded.ok ? '' : unguarded.error.code, 'lease.no-guard');
  assert.equal(alone.lease(), undefined);
});

test("on the quorum path the old term's lease is replaced, never one of a term that is not older (architecture 4.5)", async () => {
  const { keeper, store, stateRevision, setState, lease } = rig();
  setState(4, 'promote');
  store.leases.add('77');
  store.put(keys.writeLease, '{"version":1,"term":3,"holder":"n2"}', '77');
  const T4 = makeTerm(4);
  assert.equal((await keeper.acquire(T4, stateRevision(), makeTerm(2))).ok, false, 'a lease of a newer term than the order speaks of');
  assert.equal((await keeper.acquire(T4, stateRevision())).ok, false, 'without the order');
  assert.equal((await keeper.acquire(T4, stateRevision(), T3)).ok, true);
  assert.equal(lease()?.value, '{"version":1,"term":4,"holder":"n1"}');
  assert.equal(store.leases.has('77'), false, 'the old lease is revoked');
  assert.equal(keeper.heldTerm(), T4);
});

test('an own key of an earlier run is replaced, and its lease revoked without taking the new key away', async () => {
  const { store, acquire, lease } = rig();
  store.leases.add('99');
  store.put(keys.writeLease, '{"version":1,"term":2,"holder":"n1"}', '99');
  assert.equal((await acquire()).ok, true);
  assert.equal(store.leases.has('99'), false);
  assert.equal(lease()?.value, '{"version":1,"term":3,"holder":"n1"}');
});

test('a taken lease whose answer was lost is read back (Z10)', async () => {
  const { store, acquire, keeper } = rig();
  store.mode = 'unknown';
  assert.equal((await acquire()).ok, true);
  assert.equal(keeper.heldTerm(), 3);
});

test('the store is lost: the lease ends at its own deadline, by itself and once, before the store could let it expire (Q4, Z1, Z16)', async () => {
  const { clock, store, seen, keeper, acquire } = rig();
  await acquire();
  await clock.pass(1000);
  const deadline = keeper.deadline() ?? 0;
  store.mode = 'down';
  await clock.pass(10_000);
  assert.deepEqual(seen.lostAt, [deadline]);
  assert.equal(keeper.heldTerm(), null);
  assert.ok(seen.asked > 1);
});

test('the store is lost and F members promise: the lease goes on; the store returns: it goes on there (Z11)', async () => {
  const { clock, store, seen, keeper, world, acquire } = rig();
  await acquire();
  store.mode = 'down';
  world.promises = true;
  await clock.pass(60_000);
  assert.equal(keeper.heldTerm(), 3);
  store.mode = 'up';
  const asked = seen.asked;
  await clock.pass(5000);
  assert.equal(keeper.heldTerm(), 3);
  assert.ok(seen.asked <= asked + 2, 'nobody is asked while the store answers');
});

test('members that were late are asked again as long as there is time, not at the next tick', async () => {
  const { clock, store, keeper, seen, world, acquire } = rig();
  await acquire();
  store.mode = 'down';
  world.promises = true;
  await clock.pass(3000);
  // A round takes 50 ms here.
  world.promises = false;
  const before = seen.asked;
  await clock.pass(1500);
  assert.ok(seen.asked - before >= 8, `asked ${seen.asked - before} times`);
  world.promises = true;
  await clock.pass(10_000);
  assert.deepEqual([keeper.heldTerm(), seen.lost], [3, []]);
  world.promises = false;
  const asked = seen.asked;
  await clock.pass(60_000);
  assert.equal(keeper.heldTerm(), null);
  assert.ok(seen.asked - asked <= 30, 'nobody is asked for a lease that is lost');
});

test('the longer the store and the members without it are away, the longer a standstill may be that the lease outlives; ten seconds at most', async () => {
  const { clock, store, keeper, seen, world, acquire } = rig();
  await acquire();
  store.mode = 'down';
  world.promises = true;
  await clock.pass(60_000);
  const left = (): number => (keeper.deadline() ?? 0) - clock.now().mono;
  assert.ok(left() <= 3000, 'members that have the store promise for a TTL');
  world.membersHaveStore = false;
  await clock.pass(1000);
  assert.ok(left() > 8000 && left() <= 9500, `${left()} ms left`);
  world.promises = false;
  await clock.pass(8000);
  assert.deepEqual([keeper.heldTerm(), seen.lost], [3, []]);
  assert.equal(seen.armed.at(-1), keeper.deadline(), 'the guard has the same deadline');
  await clock.pass(2000);
  assert.equal(seen.lost.length, 1);
});

test('a store that is back counts the absence anew', async () => {
  const { clock, store, keeper, world, acquire } = rig();
  await acquire();
  world.promises = true;
  world.membersHaveStore = false;
  store.mode = 'down';
  await clock.pass(20_000);
  store.mode = 'up';
  await clock.pass(12_000);
  store.mode = 'down';
  await clock.pass(2500);
  const left = (keeper.deadline() ?? 0) - clock.now().mono;
  assert.ok(left > 0 && left <= 2500, `${left} ms left`);
});

test('promises are given back when the hold ends, under a name that no later hold has; without promises nobody is told', async () => {
  const { store, keeper, seen, world, acquire, clock } = rig();
  await acquire();
  await keeper.release();
  assert.deepEqual(seen.returned, [], 'nobody promised anything');
  world.promises = true;
  for (const end of ['release', 'release', 'loss'] as const) {
    assert.ok((await acquire()).ok);
    store.mode = 'down';
    await clock.pass(1500);
    store.mode = 'up';
    await clock.pass(1000);
    const before: number = seen.returned.length;
    if (end === 'release') await keeper.release();
    else {
      store.mode = 'down';
      world.promises = false;
      await clock.pass(6000);
      assert.equal(seen.lost.length, 1);
      assert.equal(seen.returned.length, before, 'not before the fence has ended');
      store.mode = 'up';
      await keeper.releaseLost();
    }
    assert.equal(seen.returned.length, before + 1);
  }
  assert.equal(new Set(seen.returned).size, 3);
});

test('the key vanished while we lived on promises: it is taken again in the same term', async () => {
  const { clock, store, keeper, world, acquire, lease } = rig();
  await acquire();
  store.mode = 'down';
  world.promises = true;
  await clock.pass(5000);
  store.expire(keeper.leaseId() ?? '');
  store.mode = 'up';
  await clock.pass(1500);
  assert.equal(keeper.heldTerm(), 3);
  assert.equal(lease()?.lease, keeper.leaseId());
});

test('a frozen agent that wakes after another term was opened takes no free key (Z18)', async () => {
  const { clock, store, keeper, seen, setState, acquire, lease } = rig();
  await acquire();
  store.expire(keeper.leaseId() ?? '');
  setState(4, 'vote');
  await clock.pass(600);
  assert.equal(keeper.heldTerm(), null);
  assert.match(seen.lost[0] ?? '', /gone from the store, and the state is of term 4/);
  assert.equal(lease(), undefined);
});

test('a restored store that forgot our term does not take the lease away before our own deadline; once it learned the term, we go on (Z14)', async () => {
  const { clock, store, keeper, seen, setState, acquire } = rig();
  await acquire();
  await clock.pass(1000);
  setState(2, 'primary');
  store.expire(keeper.leaseId() ?? '');
  await clock.pass(1500);
  assert.equal(keeper.heldTerm(), 3);
  setState(3, 'primary');
  await clock.pass(600);
  assert.equal(store.data.get(keys.writeLease)?.lease, keeper.leaseId());
  assert.deepEqual(seen.lost, []);
  setState(2, 'primary');
  store.expire(keeper.leaseId() ?? '');
  const deadline = keeper.deadline();
  await clock.pass(10_000);
  assert.deepEqual(seen.lostAt, [deadline], 'nobody told it: fenced in time');
});

test('a lease that is given up while its key is being taken again leaves no key behind', async () => {
  const { clock, store, keeper, acquire, lease } = rig();
  await acquire();
  await clock.pass(100);
  store.expire(keeper.leaseId() ?? '');
  const { txn } = store;
  let released: Promise<unknown> = Promise.resolve();
  store.txn = async (compares, then, otherwise, options) => {
    // The release comes after the renewal found the key gone, and before it stands again.
    if (then.some((op) => op.kind === 'put')) {
      store.txn = txn;
      released = keeper.release();
    }
    return txn(compares, then, otherwise, options);
  };
  assert.equal(await keeper.renewNow(), null);
  await released;
  assert.deepEqual([keeper.heldTerm(), lease(), store.leases.size], [null, undefined, 0]);
});

test("another's key means the lease is lost at once: a bare keep-alive proves nothing", async () => {
  const { clock, store, keeper, seen, acquire } = rig();
  await acquire();
  store.put(keys.writeLease, '{"version":1,"term":4,"holder":"n2"}');
  await clock.pass(600);
  assert.equal(keeper.heldTerm(), null);
  assert.match(seen.lost[0] ?? '', /n2 in term 4/);
});

test('a renewal that the guard did not acknowledge does not move the deadline', async () => {
  const { clock, seen, keeper, world, acquire } = rig();
  await acquire();
  const deadline = keeper.deadline();
  world.guard = false;
  await clock.pass(2400);
  assert.equal(keeper.deadline(), deadline);
  await clock.pass(200);
  assert.deepEqual(seen.lostAt, [deadline]);
});

test('time that a paused VM lost is taken off the deadline, and clients are blocked before the next renewal', async () => {
  const short = rig();
  await short.acquire();
  await short.clock.pass(400);
  short.clock.pause(1500);
  await short.clock.pass(200);
  assert.equal(short.seen.paused, 1);
  assert.equal(short.keeper.heldTerm(), 3);
  const long = rig();
  await long.acquire();
  await long.clock.pass(400);
  long.clock.pause(20_000);
  await long.clock.pass(200);
  assert.equal(long.keeper.heldTerm(), null);
  assert.equal(long.seen.lost.length, 1);
});

test('whoever asks first after a pause is not answered by a clock that stood still', async () => {
  const { keeper, clock, seen, acquire } = rig();
  await acquire();
  await clock.pass(400);
  clock.pause(20_000);
  assert.deepEqual([keeper.heldTerm(), seen.lost.length, seen.paused], [null, 1, 1]);
});

test('the guard hears of the earlier deadline, and a renewal after the pause opens again', async () => {
  const { clock, keeper, seen, acquire } = rig();
  await acquire();
  await clock.pass(400);
  const before = keeper.deadline() ?? 0;
  clock.pause(1500);
  await clock.pass(150);
  assert.deepEqual(seen.shortened, [before - 1500]);
  assert.equal(seen.paused, 1);
  assert.ok((keeper.deadline() ?? 0) > before, 'renewed at once, not at the next interval');
  assert.ok((seen.armed.at(-1) ?? 0) > before);
});

test('a pause while a renewal is under way is not in the deadline that its answer brings', async () => {
  const { clock, store, keeper, seen, acquire } = rig();
  await acquire();
  await clock.pass(100);
  const { keepAlive } = store;
  // The request reached the store, then the machine was paused, then the answer was read.
  store.keepAlive = async (lease, options) => {
    const answer = await keepAlive(lease, options);
    clock.pause(1200);
    store.keepAlive = keepAlive;
    return answer;
  };
  const sentAt = clock.now().mono;
  assert.equal(await keeper.renewNow(), 'store');
  assert.equal(keeper.deadline(), sentAt + 2500 - 1200);
  assert.equal(seen.armed.at(-1), sentAt + 2500 - 1200);
});

test('a pause while the guard is told is not in the deadline either', async () => {
  const { clock, keeper, world, acquire } = rig();
  await acquire();
  await clock.pass(100);
  world.onArm = () => {
    world.onArm = () => undefined;
    clock.pause(1200);
  };
  const sentAt = clock.now().mono;
  assert.equal(await keeper.renewNow(), 'store');
  assert.equal(keeper.deadline(), sentAt + 2500 - 1200);
});

test('a restarted agent takes the lease over from the guard and goes on renewing the same one', async () => {
  const first = rig();
  await first.acquire();
  const leaseId = first.keeper.leaseId() ?? '';
  const deadline = first.keeper.deadline() ?? makeMonoMs(0);
  first.keeper.stop();
  await first.keeper.adopt({ term: T3, leaseId, deadline });
  await first.clock.pass(5000);
  assert.deepEqual([first.keeper.heldTerm(), first.keeper.leaseId()], [3, leaseId]);
});

test('an agent that is restarted while the store is away has little time left, and asks the members at once', async () => {
  const { clock, store, keeper, seen, world, acquire } = rig();
  await acquire();
  const leaseId = keeper.leaseId() ?? '';
  keeper.stop();
  // As the real client: it answers at its limit.
  Object.assign(store, { txn: () => new Promise(() => undefined), keepAlive: () => new Promise(() => undefined) });
  world.promises = true;
  const adopted = keeper.adopt({ term: T3, leaseId, deadline: makeMonoMs(clock.now().mono + 400) });
  await clock.pass(5000);
  assert.equal(await adopted, true);
  assert.deepEqual([keeper.heldTerm(), seen.lost], [3, []]);
});

test('with little time left a store that answers is given time to do so: nobody is asked', async () => {
  const { clock, keeper, seen, world, acquire } = rig();
  await acquire();
  const leaseId = keeper.leaseId() ?? '';
  keeper.stop();
  world.promises = true;
  const adopted = keeper.adopt({ term: T3, leaseId, deadline: makeMonoMs(clock.now().mono + 400) });
  await clock.pass(20);
  assert.equal(await adopted, true);
  await clock.pass(400);
  assert.deepEqual([seen.asked, keeper.heldTerm()], [0, 3]);
});

test('promises that come after the store has answered extend nothing', async () => {
  const { clock, keeper, seen, store, world, acquire } = rig();
  await acquire();
  const leaseId = keeper.leaseId() ?? '';
  keeper.stop();
  world.promises = true;
  const { keepAlive } = store;
  Object.assign(store, {
    keepAlive: async (...args: Parameters<typeof keepAlive>) => {
      await clock.sleep(170);
      return keepAlive(...args);
    },
  });
  const adopted = keeper.adopt({ term: T3, leaseId, deadline: makeMonoMs(clock.now().mono + 400) });
  await clock.pass(190);
  assert.equal(await adopted, true);
  const armed = seen.armed.length;
  await clock.pass(100);
  assert.deepEqual([seen.asked, seen.armed.length], [1, armed]);
});

test('a renewal that waits for its guard when the lease is to lapse does not extend it', async () => {
  const { clock, keeper, seen, world, acquire } = rig();
  await acquire();
  const deadline = keeper.deadline() ?? 0;
  world.onArm = () => keeper.lapse();
  await clock.pass(600);
  assert.equal(keeper.deadline(), deadline);
  await clock.pass(4000);
  assert.equal(seen.lost.length, 1);
});

test('a lost lease that may still stand in the store is given back with the release', async () => {
  const { clock, keeper, world, acquire, lease } = rig();
  await acquire();
  world.guard = false;
  await clock.pass(3000);
  assert.equal(keeper.heldTerm(), null);
  assert.ok(lease());
  world.guard = true;
  assert.equal((await keeper.release()).ok, true);
  assert.equal(lease(), undefined);
});

test('a lease that is to lapse is renewed no more, by nobody, and is lost at its deadline', async () => {
  const { clock, keeper, seen, acquire } = rig();
  assert.ok((await acquire()).ok);
  await clock.pass(1000);
  const deadline = keeper.deadline();
  keeper.lapse();
  const armed = seen.armed.length;
  assert.equal(await keeper.renewNow(), null);
  await clock.pass(2000);
  assert.deepEqual([seen.armed.length, keeper.deadline(), keeper.heldTerm()], [armed, deadline, T3]);
  await clock.pass(1000);
  assert.equal(keeper.heldTerm(), null);
  assert.equal(seen.lost.length, 1);
  assert.equal(seen.lostAt[0], deadline);
});

test('a renewal that is under way when the lease is to lapse does not extend it', async () => {
  const { clock, keeper, seen, world, acquire } = rig();
  assert.ok((await acquire()).ok);
  await clock.pass(1000);
  const deadline = keeper.deadline();
  const renewing = keeper.renewNow();
  keeper.lapse();
  const renewed = seen.renewed.length;
  await clock.pass(10);
  assert.equal(await renewing, null);
  assert.deepEqual([keeper.deadline(), seen.renewed.length, world.guard], [deadline, renewed, true]);
});
