import assert from 'node:assert/strict';
import { afterEach, test } from 'node:test';
import { silentLogger } from '../../src/base/log.ts';
import type { VipFacts } from '../../src/core/node/vips.ts';
import { type ClusterSpec, clusterSpec } from '../../src/core/spec.ts';
import type { ClusterState, Goal } from '../../src/core/state.ts';
import { PROBE_MS, ROUND_MS, type VipKeeper, createVipKeeper } from '../../src/agent/vip/keeper.ts';
import type { LocalAddress } from '../../src/agent/vip/kernel.ts';
import { N1, T, makeWallMs, stateWith } from '../core/node/facts.ts';
import { type FakeClock, createFakeClock } from '../guard/fakes.ts';
import { type FakeKernel, createFakeKernel } from './fake-kernel.ts';

const WRITE = '10.0.0.8';
const READ = '10.0.0.9';
const MEMBER = '02:00:00:00:00:02';
const STRANGER = '02:00:00:00:00:99';
const own: LocalAddress = { interface: 'eth0', address: '10.0.0.1', prefix: 24, expires: false, duplicate: false };
const vip = (address: string): LocalAddress => ({ interface: 'eth0', address, prefix: 32, expires: true, duplicate: false });

interface Rig {
  readonly keeper: VipKeeper;
  readonly kernel: FakeKernel;
  readonly clock: FakeClock;
  facts: VipFacts | null;
  state: ClusterState | null;
  spec: ClusterSpec | null;
  changes: number;
  /** Lets time pass in small steps, so that what follows from what comes in order. */
  pass(ms: number): Promise<void>;
  /** Something changed: as the agent's loop tells it. */
  tell(facts: Partial<VipFacts>): Promise<void>;
  readonly held: readonly string[];
}

const primary: Goal = { kind: 'primary', id: 'p', term: T(1), generation: 0, restart: null };
const asPrimary = stateWith(primary, { primary: N1 });
const asReader = stateWith(null, { vips: { ...asPrimary.vips, read: { node: N1, sinceWallMs: makeWallMs(0), why: '' } } });
const IDLE: VipFacts = { leaseTerm: null, open: false, running: true, storeFresh: true, hearsPrimary: true };
const OPEN: Partial<VipFacts> = { leaseTerm: T(1), open: true };

function specWith(vips: object): ClusterSpec {
  const spec = clusterSpec({ name: 'demo', nodes: [{ id: 'n1', host: '10.0.0.1' }], vips }, '');
  assert.ok(spec.ok);
  return spec.value;
}

const rigs: Rig[] = [];
afterEach(async () => {
  for (const rig of rigs.splice(0)) {
    const stopped = rig.keeper.stop();
    // A question that is under way ends by its own limit.
    await rig.pass(2000);
    await stopped;
  }
});

function createRig(options: { readonly here?: readonly LocalAddress[]; readonly state?: ClusterState | null; readonly spec?: object } = {}): Rig {
  const clock = createFakeClock();
  const kernel = createFakeKernel(clock, [own, ...(options.here ?? [])]);
  // The keeper looks for the first time while it is made: the rig must be there by then.
  let keeper: VipKeeper | null = null;
  const rig: Rig = {
    get keeper() {
      assert.ok(keeper !== null);
      return keeper;
    },
    clock,
    kernel,
    facts: null,
    state: options.state ?? asPrimary,
    spec: specWith(options.spec ?? { write: { address: WRITE }, read: { address: READ } }),
    changes: 0,
    get held() {
      return kernel.here.filter((one) => one.prefix === 32).map((one) => one.address);
    },
    pass: async (ms: number) => {
      const step = ms > 1000 ? 50 : 5;
      for (let left = ms; left > 0; left -= step) await clock.pass(Math.min(step, left));
    },
    tell: async (facts: Partial<VipFacts>) => {
      rig.facts = { ...IDLE, ...facts };
      rig.keeper.note();
      await rig.pass(5);
    },
  };
  keeper = createVipKeeper({
    node: N1,
    witness: false,
    kernel,
    clock,
    log: silentLogger,
    spec: () => rig.spec,
    state: () => rig.state,
    memberMacs: () => new Set([MEMBER]),
    ownInterface: null,
    facts: () => rig.facts,
    onChange: () => {
      rig.changes += 1;
    },
  });
  rigs.push(rig);
  return rig;
}

test('the write address is taken after the lease is open and nobody answered for it, and is announced', async () => {
  const rig = createRig();
  await rig.tell({});
  assert.deepEqual(rig.held, []);
  await rig.tell(OPEN);
  await rig.pass(PROBE_MS + 20);
  assert.deepEqual(rig.held, [WRITE]);
  assert.deepEqual(rig.kernel.done, [`probe ${WRITE}`, `add ${WRITE}`, `announce ${WRITE}`]);
  assert.deepEqual(rig.keeper.report(), [{ vip: 'write', address: WRITE, state: 'held', otherMac: null, detail: '' }]);
  assert.equal(rig.changes, 1);
});

test('it is announced three times more, then only renewed, every three seconds', async () => {
  const rig = createRig();
  await rig.tell(OPEN);
  await rig.pass(5000);
  assert.equal(rig.kernel.done.filter((one) => one === `announce ${WRITE}`).length, 4);
  rig.kernel.done.splice(0);
  await rig.pass(4 * ROUND_MS);
  assert.deepEqual(
    rig.kernel.done,
    Array.from({ length: 4 }, () => `add ${WRITE}`),
  );
});

test('a candidate that asked ahead takes it without another wait', async () => {
  const rig = createRig({ state: stateWith({ kind: 'promote', id: 'x', term: T(2), requiredLsn: null }) });
  await rig.tell({ leaseTerm: T(2) });
  await rig.pass(PROBE_MS + 20);
  assert.deepEqual(rig.held, []);
  await rig.tell({ leaseTerm: T(2), open: true });
  assert.deepEqual(rig.held, [WRITE]);
  assert.deepEqual(rig.kernel.done.slice(0, 2), [`probe ${WRITE}`, `add ${WRITE}`]);
});

test('an address of a foreign host is not taken; its hardware address is told; it is taken when he lets go (H19, S24)', async () => {
  const rig = createRig();
  rig.kernel.others.set(WRITE, STRANGER);
  await rig.tell(OPEN);
  await rig.pass(20_000);
  assert.deepEqual(rig.held, []);
  assert.deepEqual(rig.keeper.report(), [{ vip: 'write', address: WRITE, state: 'conflict', otherMac: STRANGER, detail: '' }]);
  assert.match(rig.keeper.problems()[0]?.text ?? '', new RegExp(STRANGER));
  assert.equal(rig.kernel.done.filter((one) => one.startsWith('add') || one.startsWith('announce')).length, 0);
  // Asked for again every round, not in a loop.
  assert.ok(rig.kernel.done.length <= 8, `${rig.kernel.done.length} questions in 20 s`);
  rig.kernel.others.clear();
  await rig.pass(ROUND_MS + PROBE_MS + 10);
  assert.deepEqual(rig.held, [WRITE]);
  assert.deepEqual(rig.keeper.problems(), []);
});

test('a member that still has it is waited for a moment, not for longer (quorum path)', async () => {
  const rig = createRig();
  rig.kernel.others.set(WRITE, MEMBER);
  await rig.tell(OPEN);
  await rig.pass(250);
  assert.deepEqual(rig.held, []);
  await rig.pass(150);
  assert.deepEqual(rig.held, [WRITE]);
});

test('a foreign host that takes it later is told; the address stays and is not fought for', async () => {
  const rig = createRig();
  await rig.tell(OPEN);
  await rig.pass(6000);
  const announced = rig.kernel.done.filter((one) => one.startsWith('announce')).length;
  rig.kernel.others.set(WRITE, STRANGER);
  await rig.pass(20_000);
  assert.deepEqual(rig.keeper.report(), [{ vip: 'write', address: WRITE, state: 'held', otherMac: STRANGER, detail: '' }]);
  assert.equal(rig.kernel.done.filter((one) => one.startsWith('announce')).length, announced);
  rig.kernel.others.clear();
  await rig.pass(20_000);
  assert.equal(rig.keeper.report()[0]?.otherMac, null);
});

test('what must not be here is removed; a restarted agent touches nothing before it has looked', async () => {
  const rig = createRig({ here: [vip(WRITE), vip(READ)] });
  await rig.pass(3 * ROUND_MS);
  assert.deepEqual(rig.kernel.done, []);
  await rig.tell({});
  assert.deepEqual(rig.held, []);
});

test('a restarted agent finds its address in place and renews it without a question', async () => {
  const rig = createRig({ here: [vip(WRITE)] });
  await rig.tell({ leaseTerm: T(1) });
  assert.deepEqual(rig.kernel.done, [`add ${WRITE}`]);
  assert.equal(rig.keeper.report()[0]?.state, 'held');
});

test('the two addresses change places on one node: the old one leaves first', async () => {
  const rig = createRig({ state: asReader });
  await rig.tell({});
  await rig.pass(PROBE_MS + 20);
  assert.deepEqual(rig.held, [READ]);
  rig.state = asPrimary;
  rig.kernel.done.splice(0);
  await rig.tell(OPEN);
  await rig.pass(PROBE_MS + 20);
  assert.deepEqual(rig.held, [WRITE]);
  assert.deepEqual(rig.kernel.done, [`remove ${READ}`, `probe ${WRITE}`, `add ${WRITE}`, `announce ${WRITE}`]);
});

test('the fence removes everything, also what is just being added, and nothing is taken before the next look', async () => {
  const rig = createRig();
  let free: () => void = () => undefined;
  rig.kernel.slowAdd = new Promise((resolve) => {
    free = resolve;
  });
  await rig.tell(OPEN);
  await rig.pass(PROBE_MS + 20);
  assert.deepEqual(rig.kernel.done.at(-1), `add ${WRITE}`);
  const dropped = rig.keeper.drop();
  free();
  await dropped;
  await rig.pass(3 * ROUND_MS);
  assert.deepEqual(rig.held, []);
  assert.equal(rig.kernel.done.at(-1)?.startsWith('announce'), false);
  // The lease came back.
  rig.kernel.slowAdd = null;
  await rig.tell(OPEN);
  await rig.pass(PROBE_MS + 20);
  assert.deepEqual(rig.held, [WRITE]);
});

test('an address that the spec no longer names leaves, and its successor comes', async () => {
  const rig = createRig();
  await rig.tell(OPEN);
  await rig.pass(PROBE_MS + 20);
  rig.spec = specWith({ write: { address: '10.0.0.7' } });
  await rig.tell(OPEN);
  await rig.pass(PROBE_MS + 20);
  assert.deepEqual(rig.held, ['10.0.0.7']);
  rig.spec = specWith({});
  await rig.tell(OPEN);
  assert.deepEqual(rig.held, []);
});

test('an address with a network of its own was put there by hand: it is told, and left', async () => {
  const byHand: LocalAddress = { ...own, address: WRITE };
  for (const facts of [OPEN, {}]) {
    const rig = createRig({ here: [byHand] });
    await rig.tell(facts);
    await rig.pass(PROBE_MS + 20);
    assert.ok(rig.kernel.here.includes(byHand));
    assert.equal(rig.keeper.report()[0]?.state, 'failed');
    assert.match(rig.keeper.problems()[0]?.text ?? '', /by hand/);
  }
});

test('no interface for it, and no right to add it, are told in words', async () => {
  const nowhere = createRig({ spec: { write: { address: '192.0.2.1' } } });
  await nowhere.tell({});
  assert.deepEqual(
    nowhere.keeper.problems().map((one) => one.code),
    ['vip.no-interface'],
  );
  await nowhere.tell(OPEN);
  assert.match(nowhere.keeper.problems()[0]?.text ?? '', /no interface of this host has a network with 192\.0\.2\.1/);
  const denied = createRig();
  denied.kernel.deny = true;
  await denied.tell({});
  assert.deepEqual(
    denied.keeper.problems().map((one) => one.code),
    ['vip.not-permitted'],
  );
  await denied.tell(OPEN);
  await denied.pass(PROBE_MS + 20);
  assert.match(denied.keeper.problems()[0]?.text ?? '', /Operation not permitted/);
});

test('the guard is told of every place where an address may be', async () => {
  const rig = createRig();
  await rig.tell({});
  assert.deepEqual(rig.keeper.places(), [
    { interface: 'eth0', address: WRITE },
    { interface: 'eth0', address: READ },
  ]);
});
