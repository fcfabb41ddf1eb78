import assert from 'node:assert/strict';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import fc from 'fast-check';
import { type NodeId, makeMonoMs, makeNodeId, makeTerm } from '../../src/core/ids.ts';
import {
  type Ballot,
  EMPTY_BALLOT,
  type MemberFacts,
  type PromiseAnswer,
  type PromiseRequest,
  ballotAfterRestart,
  LONGEST_PROMISE_MS,
  countPromises,
  longPromiseMs,
  mayPromise,
  mayVote,
  takeBack,
} from '../../src/core/node/promises.ts';
import { votesNeeded } from '../../src/core/state.ts';
import { type Promiser, openPromiser } from '../../src/agent/promises/promiser.ts';
import { askForPromises, returnPromises } from '../../src/agent/promises/round.ts';
import { createFakeClock } from './fakes.ts';
import '../fixed-seed.ts';

const [n1, n2, n3] = ['n1', 'n2', 'n3'].map(makeNodeId) as [NodeId, NodeId, NodeId];
const t = makeTerm;
const at = makeMonoMs;
const facts: MemberFacts = {
  cluster: 'demo',
  node: n2,
  incarnation: 'A',
  knownTerm: t(3),
  opened: { term: t(3), primary: n1 },
  electorateRevision: 5,
  electorate: [n1, n2, n3],
  promoting: false,
  storeHeardAt: null,
};
const ask: PromiseRequest = { cluster: 'demo', incarnation: 'A', term: t(3), from: n1, hold: 'h1', electorateRevision: 5, ttlMs: 3000, longMs: 3000 };
const promised = (until: number, to = n1, term = 3): Ballot => ({
  votedTerm: t(0),
  promise: { term: t(term), to, hold: 'h1', until: at(until), othersUntil: null },
  waitUntil: null,
});

test('who gets a promise, and why not', () => {
  const table: [string, Ballot, Partial<MemberFacts>, Partial<PromiseRequest>][] = [
    ['promised', EMPTY_BALLOT, {}, {}],
    ['promised', promised(2000), {}, {}],
    ['promised', promised(500, n3, 2), {}, {}],
    ['promised', EMPTY_BALLOT, { incarnation: null }, {}],
    ['other-cluster', EMPTY_BALLOT, {}, { cluster: 'x' }],
    ['other-store', EMPTY_BALLOT, {}, { incarnation: 'B' }],
    ['newer-term', EMPTY_BALLOT, { knownTerm: t(4) }, {}],
    // A candidate of the attempt for term 4; a term that nobody opened; another node under the opened term; a member that knows nothing yet.
    ['not-open', EMPTY_BALLOT, { knownTerm: t(4) }, { term: t(4), from: n3 }],
    ['not-open', EMPTY_BALLOT, {}, { term: t(1000) }],
    ['not-open', EMPTY_BALLOT, {}, { from: n3 }],
    ['not-open', EMPTY_BALLOT, { opened: null }, {}],
    ['voted', { ...EMPTY_BALLOT, votedTerm: t(4) }, {}, {}],
    ['promoting', EMPTY_BALLOT, { promoting: true }, {}],
    ['newer-electorate', EMPTY_BALLOT, { electorateRevision: 6 }, {}],
    ['not-a-member', EMPTY_BALLOT, { electorate: [n1, n3] }, {}],
    ['promised-to-other', promised(2000, n3), {}, {}],
  ];
  for (const [expected, ballot, more, change] of table) {
    const { answer } = mayPromise(ballot, { ...facts, ...more }, { ...ask, ...change }, at(1000));
    assert.equal(answer.kind === 'promised' ? 'promised' : answer.why, expected);
  }
});

test('who may vote, and from when', () => {
  const table: [string, Ballot, number][] = [
    ['granted', EMPTY_BALLOT, 4],
    ['wait', promised(2000), 4],
    ['granted', promised(900), 4],
    ['refused', { ...EMPTY_BALLOT, votedTerm: t(5) }, 4],
    ['granted', { ...EMPTY_BALLOT, votedTerm: t(4) }, 4],
    ['wait', { ...EMPTY_BALLOT, waitUntil: at(1500) }, 4],
  ];
  for (const [expected, ballot, term] of table) assert.equal(mayVote(ballot, t(term), at(1000)).kind, expected);
});

test('a restart waits the promise out, at most one TTL, and not at all when none was given (Z12)', () => {
  const promise = (until: number, bootId = 'b') => ({ votedTerm: t(0), promise: { term: t(3), to: n1, until: at(until), bootId, ttlMs: 3000 } });
  const restart = (record: Parameters<typeof ballotAfterRestart>[0]) => ballotAfterRestart(record, { bootId: 'b', startedAt: at(1000) }).waitUntil;
  assert.deepEqual([restart(null), restart(promise(1200)), restart(promise(90_000)), restart(promise(1, 'other boot'))], [null, 1200, 4000, 4000]);
});

test('promises of strangers, of repeats and of other terms do not count; something newer is told', () => {
  const yes = (node: NodeId, term = 3, ttlMs: number | null = null) => ({ kind: 'promised' as const, node, term: t(term), ttlMs });
  const three = { term: t(3), ttlMs: 3000 };
  assert.equal(countPromises([n1, n2, n3], three, [yes(n1), yes(n1), yes(makeNodeId('x')), yes(n2, 2)]).enough, false);
  assert.equal(countPromises([n1, n2, n3], three, [yes(n1), yes(n2)]).enough, true);
  assert.equal(countPromises([], three, []).enough, false);
  assert.equal(countPromises([n1, n2, n3], three, [{ kind: 'refused', node: n2, term: t(4), why: 'voted' }]).superseded?.term, 4);
  // For how long: what F of them promised; an older agent does not say, and promised what it was asked for at least.
  const lasts = (...answers: Parameters<typeof countPromises>[2]): number => countPromises([n1, n2, n3], three, answers).ttlMs;
  assert.deepEqual(
    [
      lasts(yes(n1, 3, 9000)),
      lasts(yes(n1, 3, 9000), yes(n2)),
      lasts(yes(n1, 3, 9000), yes(n2), yes(n3, 3, 8000)),
      lasts(yes(n2, 3, 9000), yes(n3, 3, 9500)),
    ],
    [0, 3000, 8000, 9000],
  );
});

test('a member promises for longer than a TTL only while it is without the store too', () => {
  assert.deepEqual(
    [0, 2999, 4000, 60_000].map((away) => longPromiseMs(away, 3000)),
    [3000, 3000, 4000, LONGEST_PROMISE_MS],
  );
  assert.equal(longPromiseMs(60_000, 30_000), 30_000, 'never for less than a TTL');
  const asked = { ...ask, longMs: 9000 };
  const until = (storeHeardAt: number | null) => {
    const { answer, ballot } = mayPromise(
      EMPTY_BALLOT,
      { ...facts, storeHeardAt: storeHeardAt === null ? null : at(storeHeardAt) },
      asked,
      at(50_000),
    );
    return [answer.kind === 'promised' ? answer.ttlMs : answer.why, ballot.promise?.until];
  };
  assert.deepEqual(
    [until(null), until(46_999), until(47_000), until(50_000)],
    [
      [9000, 59_000],
      [9000, 59_000],
      [3000, 53_000],
      [3000, 53_000],
    ],
  );
  // A short one takes nothing back of a long one.
  const long = mayPromise(EMPTY_BALLOT, facts, asked, at(1000)).ballot;
  assert.equal(mayPromise(long, { ...facts, storeHeardAt: at(2000) }, asked, at(2000)).ballot.promise?.until, 10_000);
  assert.equal(mayVote(long, t(4), at(9999)).kind, 'wait');
  assert.equal(mayVote(long, t(4), at(10_000)).kind, 'granted');
});

/** As the promiser writes it: a restart waits for no less than what stands, or is waited for already. */
function recorded(ballot: Ballot, before: Ballot, now: number): Parameters<typeof ballotAfterRestart>[0] {
  assert.ok(ballot.promise);
  const ttlMs = Math.max(3000, ballot.promise.until - now, (before.waitUntil ?? 0) - now);
  return { votedTerm: ballot.votedTerm, promise: { ...ballot.promise, until: at(now + ttlMs), bootId: 'b', ttlMs } };
}

test('while F promises stand no P votes can be collected, whatever the order and the restarts', () => {
  const step = fc.record({
    who: fc.nat(4),
    what: fc.constantFrom('promise' as const, 'vote' as const, 'restart' as const, 'end of the hold' as const, 'return' as const, 'late' as const),
    wait: fc.oneof(fc.nat(20), fc.nat(1500)),
  });
  fc.assert(
    fc.property(fc.integer({ min: 2, max: 5 }), fc.array(step, { maxLength: 80 }), (size, steps) => {
      const members = Array.from({ length: size }, (_, i) => makeNodeId(`m${i}`));
      const ballots = members.map(() => EMPTY_BALLOT);
      const durable: Parameters<typeof ballotAfterRestart>[0][] = members.map(() => null);
      const promisedUntil = members.map(() => -1);
      // What a hold that ended has asked and told may arrive at any time, or twice.
      const ended: string[] = [];
      let hold = 'h0';
      let now = 1000;
      for (const { who, what, wait } of steps) {
        now += wait;
        const i = who % size;
        const own = { ...facts, node: members[i] as NodeId, electorate: members, opened: { term: t(3), primary: members[0] as NodeId } };
        if (what === 'promise') {
          const sentAt = now;
          // With and without the store: for a TTL, or for three.
          const member = { ...own, storeHeardAt: wait % 2 === 0 ? at(now) : null };
          const { answer, ballot } = mayPromise(ballots[i] as Ballot, member, { ...ask, longMs: 9000, hold, from: members[0] as NodeId }, at(now));
          const before = ballots[i] as Ballot;
          ballots[i] = ballot;
          if (answer.kind === 'promised' && ballot.promise) {
            durable[i] = recorded(ballot, before, now);
            promisedUntil[i] = Math.max(promisedUntil[i] ?? -1, sentAt + (answer.ttlMs ?? 3000) - 500);
          }
        } else if (what === 'vote') {
          const decision = mayVote(ballots[i] as Ballot, t(4), at(now));
          if (decision.kind === 'granted') {
            ballots[i] = decision.ballot;
            durable[i] = { votedTerm: t(4), promise: null };
          }
        } else if (what === 'end of the hold') {
          ended.push(hold);
          hold = `h${ended.length}`;
          promisedUntil.fill(-1);
        } else if (what === 'late') {
          const late = { ...ask, hold: ended[wait % Math.max(1, ended.length)] ?? 'h0', from: members[0] as NodeId };
          const before = ballots[i] as Ballot;
          const { answer, ballot } = mayPromise(before, own, late, at(now));
          ballots[i] = ballot;
          if (answer.kind === 'promised' && ballot.promise) durable[i] = recorded(ballot, before, now);
        } else if (what === 'return') {
          const given = { cluster: 'demo', term: t(3), from: members[0] as NodeId, hold: ended[wait % Math.max(1, ended.length)] ?? 'none' };
          ballots[i] = takeBack(ballots[i] as Ballot, 'demo', given);
        } else ballots[i] = ballotAfterRestart(durable[i] ?? null, { bootId: 'b', startedAt: at(now) });
        const fresh = promisedUntil.filter((until) => until > now).length;
        const votes = ballots.filter((ballot) => ballot.votedTerm === 4).length;
        const needed = votesNeeded(size);
        assert.ok(!(fresh >= needed.promises && votes >= needed.promotion), `${fresh} promises and ${votes} votes of ${size}`);
      }
    }),
    { numRuns: 1000 },
  );
});

test('a promise ends when the primary gives it back, and no other does', () => {
  const given = { cluster: 'demo', term: t(3), from: n1, hold: 'h1' };
  const table: [string, Partial<typeof given>][] = [
    ['granted', {}],
    ['wait', { hold: 'h0' }],
    ['wait', { from: n3 }],
    ['wait', { term: t(2) }],
    ['wait', { cluster: 'x' }],
  ];
  for (const [expected, change] of table)
    assert.equal(mayVote(takeBack(promised(2000), 'demo', { ...given, ...change }), t(4), at(1000)).kind, expected, JSON.stringify(change));
  assert.deepEqual(takeBack(EMPTY_BALLOT, 'demo', given), EMPTY_BALLOT);
  // The new hold h2 was promised until 4000; a request of h1 that comes late does not hide that from the return of h1.
  const second = mayPromise(promised(2000), facts, { ...ask, hold: 'h2' }, at(1000)).ballot;
  const late = mayPromise(second, facts, ask, at(1100)).ballot;
  assert.deepEqual(mayVote(takeBack(late, 'demo', given), t(4), at(3999)), {
    kind: 'wait',
    until: 4000,
    why: 'promised the primary of term 3 (n1) not to vote',
  });
  assert.equal(mayVote(takeBack(late, 'demo', given), t(4), at(4000)).kind, 'granted');
  const twice = takeBack(takeBack(late, 'demo', given), 'demo', { ...given, hold: '' });
  assert.equal(mayVote(twice, t(4), at(3999)).kind, 'wait', 'the empty name is nobody');
  const waiting = { ...EMPTY_BALLOT, waitUntil: at(1500) };
  assert.deepEqual(takeBack(waiting, 'demo', given), waiting, 'whose promise a restart waits for is not known any more');
});

test('a promise is on disk before it is answered, and a restarted promiser waits for it', async () => {
  const stateDirectory = mkdtempSync(join(tmpdir(), 'pgherd-promises-'));
  try {
    const clock = createFakeClock();
    const options = { stateDirectory, bootId: 'b', clock, facts: () => ({ ...facts, votedTerm: t(0) }) };
    const first = openPromiser(options);
    assert.ok(first.ok);
    assert.equal(first.value.mayVote(t(3)).kind, 'granted');
    assert.equal((await first.value.onPromise({ ...ask, ttlMs: 0 })).kind, 'refused');
    assert.equal((await first.value.onPromise(ask)).kind, 'promised');
    assert.equal(first.value.mayVote(t(4)).kind, 'wait');
    const second = openPromiser(options);
    assert.ok(second.ok);
    assert.equal(second.value.mayVote(t(4)).kind, 'wait');
    await clock.pass(3001);
    assert.equal((await second.value.onPromise(ask)).kind, 'promised');
    second.value.onReturn({ cluster: 'demo', term: t(3), from: n1, hold: 'h1' });
    assert.equal(second.value.standing(), null);
    assert.equal(second.value.mayVote(t(4)).kind, 'granted');
    assert.equal((await second.value.onPromise(ask)).kind, 'refused');
    writeFileSync(join(stateDirectory, 'promises.json'), '{');
    const damaged = openPromiser(options);
    assert.equal(damaged.ok ? '' : damaged.error.code, 'promises.damaged');
  } finally {
    rmSync(stateDirectory, { recursive: true });
  }
});

test('what is given back while the promise still waits for the disk is not promised any more', async () => {
  const clock = createFakeClock();
  const storage = { read: () => null, write: () => clock.sleep(500) };
  const opened = openPromiser({ stateDirectory: '/none', storage, bootId: 'b', clock, facts: () => ({ ...facts, votedTerm: t(0) }) });
  assert.ok(opened.ok);
  const asked = opened.value.onPromise(ask);
  await clock.pass(100);
  opened.value.onReturn({ cluster: 'demo', term: t(3), from: n1, hold: 'h1' });
  await clock.pass(500);
  await asked;
  await clock.pass(1);
  assert.equal(opened.value.mayVote(t(4)).kind, 'granted');
});

test('a disk that is slower than the horizon is wide gives no promise that a restart would forget', async () => {
  const stateDirectory = mkdtempSync(join(tmpdir(), 'pgherd-promises-'));
  try {
    const clock = createFakeClock();
    let slowMs = 30_000;
    const options = {
      stateDirectory,
      bootId: 'b',
      clock,
      facts: () => ({ ...facts, votedTerm: t(0) }),
      writeRecord: async (file: string, content: string) => {
        await clock.sleep(slowMs);
        writeFileSync(file, content);
      },
    };
    const opened = openPromiser(options);
    assert.ok(opened.ok);
    const late = opened.value.onPromise(ask);
    await clock.pass(30_000);
    assert.deepEqual(await late, { kind: 'refused', node: n2, term: 3, why: 'not-stored' });
    assert.equal(opened.value.mayVote(t(4)).kind, 'granted', 'nothing was promised');
    slowMs = 0;
    const again = openPromiser(options);
    assert.ok(again.ok);
    await clock.pass(3001);
    assert.equal((await again.value.onPromise(ask)).kind, 'promised');
    // A longer TTL (the spec was changed) is written before it is promised: a restart waits one TTL of the record.
    assert.equal((await again.value.onPromise({ ...ask, ttlMs: 9000, longMs: 9000 })).kind, 'promised');
    const restarted = openPromiser(options);
    assert.ok(restarted.ok);
    await clock.pass(8000);
    assert.equal(restarted.value.mayVote(t(4)).kind, 'wait');
  } finally {
    rmSync(stateDirectory, { recursive: true });
  }
});

test('a disk that takes seconds for a flush holds up the first promise only', async () => {
  const clock = createFakeClock();
  let flushes = 0;
  let stored: string | null = null;
  const storage = {
    read: () => stored,
    write: async (text: string) => {
      await clock.sleep(8000);
      flushes += 1;
      stored = text;
    },
  };
  const options = { stateDirectory: '/none', storage, bootId: 'b', clock, facts: () => ({ ...facts, votedTerm: t(0) }) };
  const opened = openPromiser(options);
  assert.ok(opened.ok);
  const first = opened.value.onPromise(ask);
  await clock.pass(8000);
  assert.equal((await first).kind, 'promised');
  for (let asked = 0; asked < 200; asked++) {
    let answer: PromiseAnswer | null = null;
    void opened.value.onPromise(ask).then((given) => {
      answer = given;
    });
    await clock.pass(0);
    assert.deepEqual(answer, { kind: 'promised', node: n2, term: 3, ttlMs: 3000 }, `request ${asked}`);
    // What is promised is on disk, whenever the power fails.
    const restarted = openPromiser(options);
    assert.ok(restarted.ok);
    assert.equal(restarted.value.mayVote(t(4)).kind, 'wait');
    await clock.pass(500);
  }
  assert.ok(flushes < 15, `${flushes} flushes in 100 s`);
});

test('a shorter TTL does not shorten what a second restart waits for', async () => {
  const clock = createFakeClock();
  let stored: string | null = null;
  const storage = {
    read: () => stored,
    write: async (text: string) => {
      stored = text;
    },
  };
  const open = (): Promiser => {
    const opened = openPromiser({ stateDirectory: '/none', storage, bootId: 'b', clock, facts: () => ({ ...facts, votedTerm: t(0) }) });
    assert.ok(opened.ok);
    return opened.value;
  };
  assert.equal((await open().onPromise({ ...ask, ttlMs: 30_000, longMs: 30_000 })).kind, 'promised');
  await clock.pass(1000);
  assert.equal((await open().onPromise(ask)).kind, 'promised');
  await clock.pass(1000);
  const third = open();
  await clock.pass(20_000);
  assert.equal(third.mayVote(t(4)).kind, 'wait', 'the first promise stands for 8 s more');
  await clock.pass(40_000);
  assert.equal(third.mayVote(t(4)).kind, 'granted');
});

test('a longer promise is given once a restart would wait for it; nobody waits for that write, and promises that grow need no other', async () => {
  const clock = createFakeClock();
  let flushes = 0;
  let stored: string | null = null;
  const storage = {
    read: () => stored,
    write: async (text: string) => {
      await clock.sleep(1200);
      flushes += 1;
      stored = text;
    },
  };
  const options = { stateDirectory: '/none', storage, bootId: 'b', clock, facts: () => ({ ...facts, votedTerm: t(0) }) };
  const opened = openPromiser(options);
  assert.ok(opened.ok);
  const first = opened.value.onPromise(ask);
  await clock.pass(1200);
  await first;
  const given: (number | null)[] = [];
  for (let away = 3000; away <= 12_000; away += 500) {
    void opened.value
      .onPromise({ ...ask, longMs: longPromiseMs(away, 3000) })
      .then((answer) => given.push(answer.kind === 'promised' ? answer.ttlMs : null));
    await clock.pass(0);
    const restarted = openPromiser(options);
    assert.ok(restarted.ok);
    const standing = opened.value.standing()?.until ?? 0;
    const wait = restarted.value.mayVote(t(4));
    assert.ok(wait.kind === 'wait' && (standing as number) <= wait.until, `${standing}`);
    await clock.pass(500);
  }
  assert.deepEqual(given.slice(0, 6), [3000, 3000, 3000, 3000, 5000, 5500]);
  assert.equal(given.at(-1), LONGEST_PROMISE_MS);
  assert.equal(flushes, 3, 'the first promise, the longest one, and a farther horizon');
});

test('a promise to another primary is written behind the horizon of the former, never under it', async () => {
  const clock = createFakeClock();
  const written: number[] = [];
  let slowMs = 0;
  const storage = {
    read: () => null,
    write: async (text: string) => {
      const { promise } = JSON.parse(text) as { promise: { term: number } };
      await clock.sleep(slowMs);
      written.push(promise.term);
    },
  };
  let opened: MemberFacts['opened'] = { term: t(3), primary: n1 };
  const options = {
    stateDirectory: '/none',
    storage,
    bootId: 'b',
    clock,
    facts: () => ({ ...facts, knownTerm: opened?.term ?? t(0), opened, votedTerm: t(0) }),
  };
  const promiser = openPromiser(options);
  assert.ok(promiser.ok);
  assert.equal((await promiser.value.onPromise(ask)).kind, 'promised');
  await clock.pass(12_000);
  slowMs = 5000;
  assert.equal((await promiser.value.onPromise(ask)).kind, 'promised', 'its farther horizon is on its way');
  slowMs = 0;
  promiser.value.onReturn({ cluster: 'demo', term: t(3), from: n1, hold: 'h1' });
  opened = { term: t(4), primary: n3 };
  const other = promiser.value.onPromise({ ...ask, term: t(4), from: n3, hold: 'h2' });
  await clock.pass(4000);
  assert.deepEqual(written, [3]);
  await clock.pass(1000);
  assert.equal((await other).kind, 'promised');
  assert.deepEqual(written, [3, 3, 4]);
});

test('a round ends with enough promises, without waiting for a member that hangs', async () => {
  const count = await askForPromises({
    node: n1,
    cluster: 'demo',
    incarnation: 'A',
    electorate: { revision: 5, members: [n1, n2, n3] },
    term: t(3),
    hold: 'h1',
    ttlMs: 3000,
    longMs: 5000,
    own: async () => ({ kind: 'promised', node: n1, term: t(3), ttlMs: 5000 }),
    ask: (node) => (node === n2 ? Promise.resolve({ kind: 'promised', node: n2, term: t(3), ttlMs: 4000 }) : new Promise(() => undefined)),
  });
  assert.deepEqual([count.enough, count.have, count.ttlMs], [true, [n1, n2], 4000]);
});

test('what was promised is given back to everybody, whoever cannot be reached', async () => {
  const told: string[] = [];
  await returnPromises({
    node: n1,
    members: [n1, n2, n3],
    given: { cluster: 'demo', term: t(3), from: n1, hold: 'h1' },
    own: () => told.push('own'),
    tell: async (node) => {
      told.push(node);
      if (node === n2) throw new Error('unreachable');
    },
  });
  assert.deepEqual(told, ['own', n2, n3]);
});
