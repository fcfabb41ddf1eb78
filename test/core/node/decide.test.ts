import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { type LocalFacts, decideNode, handledGoals } from '../../../src/core/node/decide.ts';
import type { Goal } from '../../../src/core/state.ts';
import { makeTimeline } from '../../../src/core/ids.ts';
import { N1, N2, NOW, T, down, facts, makeLsn, makeMonoMs, makeWallMs, postgres, primaryRunning, stateWith } from './facts.ts';

const decide = (goal: Goal | null, change: Partial<LocalFacts> = {}): string => decideNode(facts(change), stateWith(goal), NOW).kind;

const standby = (via: 'stream' | 'rewind' | 'clone' = 'stream', restart: string | null = null): Goal => ({
  kind: 'standby',
  id: 's',
  term: T(1),
  upstream: N2,
  via,
  source: null,
  rateKb: null,
  generation: 3,
  restart,
});
const primary = (restart: string | null = null): Goal => ({ kind: 'primary', id: 'p', term: T(1), generation: 3, restart });
const promote: Goal = { kind: 'promote', id: 'x', term: T(2), requiredLsn: null };
const lease1 = { leaseTerm: T(1), confirmed: true };

describe('a writable server without a lease', () => {
  for (const goal of [primary(), standby(), promote, { kind: 'fenced', id: 'f', term: T(1), reason: 'r' } as Goal]) {
    test(`is fenced under the goal ${goal.kind} (Q4, I1, H20)`, () => {
      assert.equal(decide(goal, { postgres: primaryRunning }), 'fence');
    });
  }
  test('is left alone before pgherd took it over', () => {
    assert.equal(decide(null, { postgres: primaryRunning }), 'none');
    assert.equal(decide({ kind: 'none', id: 'n', term: T(1) }, { postgres: primaryRunning }), 'none');
  });
  test('is not fenced by an adoption, but takes the lease first', () => {
    assert.equal(decide({ kind: 'adopt', id: 'a', term: T(1) }, { postgres: primaryRunning }), 'acquire-lease');
  });
  test('is fenced when it hangs, starts or stops as a primary', () => {
    for (const state of ['hung', 'starting', 'stopping'] as const) {
      assert.equal(decide(primary(), { postgres: { ...primaryRunning, state } }), 'fence');
    }
  });
});

describe('a writable server while the state is not known', () => {
  test('is fenced when pgherd had it before, and left alone before its first goal', () => {
    assert.equal(decideNode(facts({ postgres: primaryRunning, highestTerm: T(3) }), null, NOW).kind, 'fence');
    assert.equal(decideNode(facts({ postgres: primaryRunning, highestTerm: T(0) }), null, NOW).kind, 'none');
    assert.equal(decideNode(facts({ ...lease1, postgres: primaryRunning, highestTerm: T(3) }), null, NOW).kind, 'none');
  });
});

describe('a directory of another cluster', () => {
  const foreign = { systemIdentifier: '666' };
  test('is never started, and fenced when it runs writable (I11)', () => {
    assert.equal(decide(primary(), { ...lease1, postgres: { ...down('stopped', 'primary'), ...foreign } }), 'release-lease');
    assert.equal(decide(primary(), { postgres: { ...down('stopped', 'primary'), ...foreign } }), 'none');
    assert.equal(decide(primary(), { ...lease1, postgres: { ...primaryRunning, ...foreign }, open: true }), 'fence');
    assert.equal(decide(standby('clone'), { postgres: { ...down('stopped', 'standby'), ...foreign } }), 'none');
  });
});

describe('a server whose role is not known', () => {
  const unknown = postgres({ role: null, streamingFrom: null });
  test('counts as one that can write: fenced without a lease, and its lease is not given back', () => {
    assert.equal(decide(primary(), { postgres: unknown }), 'fence');
    assert.equal(decide({ kind: 'fenced', id: 'f', term: T(1), reason: 'r' }, { ...lease1, postgres: { ...unknown, state: 'stopping' } }), 'fence');
  });
});

test('a frozen cluster stops no fence and no lease: the primary goes on, one without a lease is fenced (Z17)', () => {
  const frozen = { reason: 'work on the network', by: 'anna', sinceWallMs: makeWallMs(1), untilWallMs: null };
  const kind = (change: Partial<LocalFacts>): string => decideNode(facts(change), stateWith(primary(), { frozen }), NOW).kind;
  assert.equal(kind({ ...lease1, postgres: primaryRunning, open: true }), 'none');
  assert.equal(kind({ postgres: primaryRunning }), 'fence');
  assert.equal(kind({ postgres: down('stopped', 'primary') }), 'acquire-lease');
});

test('a stop that nobody here asked for is finished after a while', () => {
  const stopping = { ...lease1, postgres: { ...primaryRunning, state: 'stopping' as const } };
  assert.equal(decide(primary(), { ...stopping, stoppingSince: makeMonoMs(NOW - 1000) }), 'none');
  assert.equal(decide(primary(), { ...stopping, stoppingSince: makeMonoMs(NOW - 11_000) }), 'stop');
});

describe('goals of a lower term', () => {
  test('are refused (§4.10)', () => {
    const action = decideNode(facts({ highestTerm: T(5), postgres: down('stopped', 'primary') }), stateWith(primary()), NOW);
    assert.equal(action.kind, 'none');
    assert.match(action.why, /refused/);
  });
  test('do not stop the fence', () => {
    assert.equal(decide(primary(), { highestTerm: T(5), postgres: primaryRunning }), 'fence');
  });
});

describe('primary', () => {
  test('takes the lease before it starts', () => assert.equal(decide(primary(), { postgres: down('stopped', 'primary') }), 'acquire-lease'));
  test('starts under its lease', () => assert.equal(decide(primary(), { ...lease1, postgres: down('stopped', 'primary') }), 'start-primary'));
  test('restarts in place after a crash (S129)', () => {
    assert.equal(decide(primary(), { ...lease1, postgres: down('crashed', 'primary') }), 'start-primary');
  });
  test('leaves the choice after a crash to the controller, for a moment', () => {
    const crashed = { ...lease1, postgres: down('crashed', 'primary'), ranUnderGoal: true };
    assert.equal(decide(primary(), { ...crashed, downSince: makeMonoMs(NOW - 100) }), 'none');
    assert.equal(decide(primary(), { ...crashed, downSince: makeMonoMs(NOW - 2000) }), 'start-primary');
  });
  test('opens only after one more renewal', () => {
    assert.equal(decide(primary(), { leaseTerm: T(1), postgres: primaryRunning, confirmed: false }), 'none');
    assert.equal(decide(primary(), { ...lease1, postgres: primaryRunning }), 'open');
  });
  test('opens only once the synchronous set is in force (Q27, I8)', () => {
    assert.equal(decide(primary(), { ...lease1, postgres: primaryRunning, syncReady: false }), 'none');
    assert.equal(decide(primary(), { ...lease1, postgres: primaryRunning, syncReady: false, open: true }), 'none');
  });
  test('is content when open', () => assert.equal(decide(primary(), { ...lease1, postgres: primaryRunning, open: true }), 'none'));
  test('waits for the controller when it hangs', () => {
    assert.equal(decide(primary(), { ...lease1, postgres: { ...primaryRunning, state: 'hung' } }), 'none');
  });
  test('restarts on request, once', () => {
    assert.equal(decide(primary('t1'), { ...lease1, postgres: primaryRunning, open: true }), 'stop');
    assert.equal(decide(primary('t1'), { ...lease1, postgres: primaryRunning, open: true, finished: new Set(['restart/t1']) }), 'none');
  });
  test('comes back read-only when no lease can be had (Z15)', () => {
    const waiting = { postgres: down('stopped', 'primary'), leaseWantedSince: makeMonoMs(NOW - 4000) };
    assert.equal(decide(primary(), waiting), 'start-standby');
  });
  test('never starts from an incomplete directory (Q23, Z48)', () =>
    assert.equal(decide(primary(), { ...lease1, postgres: down('incomplete', null) }), 'none'));
  test('with a lease of another term gives it up first', () => {
    assert.equal(decide(primary(), { leaseTerm: T(3), postgres: primaryRunning }), 'stop');
    assert.equal(decide(primary(), { leaseTerm: T(3), postgres: down('stopped', 'primary') }), 'release-lease');
  });
});

describe('promote', () => {
  test('takes the lease, then promotes', () => {
    assert.equal(decide(promote), 'acquire-lease');
    assert.equal(decide(promote, { leaseTerm: T(2) }), 'promote');
  });
  test('waits for the shutdown checkpoint before it takes the lease (Z29)', () => {
    const goal: Goal = { ...promote, requiredLsn: makeLsn(0x4000000n) };
    assert.equal(decide(goal), 'wait-replay');
    assert.equal(decide(goal, { postgres: postgres({ replayedLsn: makeLsn(0x4000000n) }) }), 'acquire-lease');
  });
  test('opens after the promotion', () => {
    const promoted = { postgres: primaryRunning, leaseTerm: T(2), confirmed: true };
    assert.equal(decide(promote, promoted), 'open');
    assert.equal(decide(promote, { ...promoted, confirmed: false }), 'none');
  });
  test('starts a stopped server first, and is refused durably by one that cannot be promoted', () => {
    assert.equal(decide(promote, { postgres: down('stopped', 'standby') }), 'start-standby');
    assert.equal(decide(promote, { postgres: down('crashed', 'standby') }), 'start-standby');
    assert.equal(decide(promote, { postgres: down('incomplete', null) }), 'refuse');
    assert.equal(decide(promote, { postgres: postgres({ state: 'hung' }) }), 'refuse');
  });
});

describe('vote', () => {
  const vote: Goal = { kind: 'vote', id: 'v', term: T(2) };
  test('is given once', () => {
    assert.equal(decide(vote), 'vote');
    const position = { timeline: 1 as never, lsn: makeLsn(1n) };
    assert.equal(decide(vote, { vote: { term: T(2), position, final: true } }), 'none');
    assert.equal(decide(vote, { vote: { term: T(2), position, final: false } }), 'vote');
    assert.equal(decide(vote, { vote: { term: T(1), position, final: true } }), 'vote');
  });
  test('of a lease holder comes after it stopped and released', () => {
    assert.equal(decide(vote, { leaseTerm: T(1), postgres: primaryRunning }), 'stop');
    assert.equal(decide(vote, { leaseTerm: T(1), postgres: down('stopped', 'primary') }), 'release-lease');
  });
});

describe('standby', () => {
  test('is reached only when it streams from that upstream (I10, I11)', () => {
    const action = decideNode(facts(), stateWith(standby()), NOW);
    assert.deepEqual([action.kind, action.kind === 'none' && action.done], ['none', true]);
    assert.equal(decide(standby(), { upstream: N1 }), 'follow');
    const waiting = decideNode(facts({ postgres: postgres({ streamingFrom: null }) }), stateWith(standby()), NOW);
    assert.equal(waiting.kind === 'none' && waiting.done, false);
  });
  test('follows again when the stream does not come', () => {
    assert.equal(decide(standby(), { postgres: postgres({ streamingFrom: null }), notStreamingSince: makeMonoMs(NOW - 6000) }), 'follow');
  });
  test('is not brought to a primary whose history its own WAL has left, whatever the order was decided on (I9)', () => {
    const fork = (lsn: bigint) => [{ timeline: makeTimeline(1), forkLsn: makeLsn(lsn) }];
    const state = stateWith(standby(), { timeline: makeTimeline(2), history: fork(0x3000000n) });
    const kind = (change: Partial<LocalFacts>): string => decideNode(facts(change), state, NOW).kind;
    const late = { streamingFrom: null, notStreamingSince: null };
    const twin = postgres({ ...late, timeline: makeTimeline(2), history: fork(0x2000000n), receivedLsn: makeLsn(0x3100000n) });
    const past = postgres({ ...late, receivedLsn: makeLsn(0x3100000n) });
    for (const one of [twin, past]) {
      assert.equal(kind({ upstream: N1, postgres: one }), 'none');
      assert.equal(kind({ postgres: one, notStreamingSince: makeMonoMs(NOW - 6000) }), 'none');
      assert.equal(kind({ postgres: { ...one, state: 'stopped', postmasterPid: null } }), 'none');
    }
    const own = postgres({ ...late, timeline: makeTimeline(2), history: fork(0x3000000n), receivedLsn: makeLsn(0x3100000n) });
    for (const one of [own, postgres(late), postgres({ ...late, timeline: null })]) {
      assert.equal(kind({ upstream: N1, postgres: one }), 'follow');
      assert.equal(kind({ postgres: { ...one, state: 'stopped', postmasterPid: null } }), 'start-standby');
    }
    assert.equal(
      decideNode(facts({ upstream: N1, postgres: past }), { ...state, primaryTerm: T(2) }, NOW).kind,
      'follow',
      'the lineage is of another term',
    );
  });
  test('starts a stopped server as a standby', () => assert.equal(decide(standby(), { postgres: down('crashed', 'primary') }), 'start-standby'));
  test('rewinds and clones a stopped directory only, once each', () => {
    assert.equal(decide(standby('rewind')), 'stop');
    assert.equal(decide(standby('rewind'), { postgres: down('crashed', 'primary') }), 'rewind');
    assert.equal(decide(standby('clone'), { postgres: down('absent', null) }), 'clone');
    assert.equal(decide(standby('clone'), { postgres: down('stopped', 'standby'), finished: new Set(['s/clone']) }), 'start-standby');
  });
  test('is not started from an absent or incomplete directory', () => {
    assert.equal(decide(standby(), { postgres: down('absent', null) }), 'none');
    assert.equal(decide(standby(), { postgres: down('incomplete', null) }), 'none');
  });
  test('restarts on request, once', () => {
    assert.equal(decide(standby('stream', 't2')), 'stop');
    assert.equal(decide(standby('stream', 't2'), { finished: new Set(['restart/t2']) }), 'none');
  });
  test('gives up a lease first', () => {
    assert.equal(decide(standby(), { leaseTerm: T(1), postgres: primaryRunning }), 'stop');
    assert.equal(decide(standby(), { leaseTerm: T(1), postgres: down('crashed', 'primary') }), 'release-lease');
  });
  test('waits after a failure, and for good after a permanent one', () => {
    const change = { upstream: N1 };
    assert.equal(decide(standby(), { ...change, failure: { goalId: 's', permanent: false, notBefore: makeMonoMs(NOW + 1) } }), 'none');
    assert.equal(decide(standby(), { ...change, failure: { goalId: 's', permanent: false, notBefore: NOW } }), 'follow');
    assert.equal(decide(standby(), { ...change, failure: { goalId: 's', permanent: true, notBefore: NOW } }), 'none');
    assert.equal(decide(standby(), { ...change, failure: { goalId: 'other', permanent: true, notBefore: NOW } }), 'follow');
  });
});

describe('handover', () => {
  const goal: Goal = { kind: 'handover', id: 'h', term: T(1), to: N2 };
  test('stops, releases, and is then reached', () => {
    assert.equal(decide(goal, { ...lease1, postgres: primaryRunning, open: true }), 'stop');
    assert.equal(decide(goal, { ...lease1, postgres: down('stopped', 'primary') }), 'release-lease');
    assert.equal(decide(goal, { postgres: down('stopped', 'primary') }), 'none');
  });
  test('without the lease, a server that is stopping is killed, unless its shutdown checkpoint is written', () => {
    const stopping = { ...primaryRunning, state: 'stopping' as const };
    assert.equal(decide(goal, { postgres: stopping }), 'fence');
    assert.equal(decide(goal, { postgres: { ...stopping, cleanShutdown: true } }), 'fence');
    assert.equal(decide(goal, { postgres: { ...stopping, cleanShutdown: true, shutdownLsn: makeLsn(7n) } }), 'stop');
    assert.equal(decide(goal, { postgres: { ...primaryRunning, cleanShutdown: true, shutdownLsn: makeLsn(7n) } }), 'fence');
  });
});

describe('fenced and stopped', () => {
  test('kill a primary, release its lease, leave a standby', () => {
    const fenced: Goal = { kind: 'fenced', id: 'f', term: T(1), reason: 'r' };
    assert.equal(decide(fenced, { ...lease1, postgres: { ...primaryRunning, state: 'hung' } }), 'fence');
    assert.equal(decide(fenced, { ...lease1, postgres: down('crashed', 'primary') }), 'release-lease');
    assert.equal(decide(fenced), 'none');
  });
  test('stop whatever runs', () => {
    const stopped: Goal = { kind: 'stopped', id: 'o', term: T(1), reason: 'r' };
    assert.equal(decide(stopped), 'stop');
    assert.equal(decide(stopped, { ...lease1, postgres: down('stopped', 'primary') }), 'release-lease');
  });
});

describe('create', () => {
  const goal: Goal = { kind: 'create', id: 'c', term: T(1) };
  test('never runs initdb over data (I10, Q24, H44)', () => {
    assert.equal(decide(goal, { postgres: down('stopped', 'primary'), ...lease1 }), 'none');
    assert.equal(decide(goal, { postgres: down('absent', null) }), 'initdb');
    assert.equal(decide(goal, { postgres: down('stopped', 'primary'), finished: new Set(['c/initdb']) }), 'acquire-lease');
  });
});

test('the primary checkpoints once before a switchover', () => {
  const planned = {
    taskId: 't',
    from: N1,
    to: N2,
    phase: 'checkpoint' as const,
    startedWallMs: makeWallMs(0),
    phaseWallMs: makeWallMs(0),
    deadlineWallMs: makeWallMs(0),
    holdRoute: 0,
    reason: '',
  };
  const state = stateWith(primary(), { switchover: planned });
  const local = facts({ ...lease1, postgres: primaryRunning, open: true });
  assert.equal(decideNode(local, state, NOW).kind, 'checkpoint');
  assert.equal(decideNode({ ...local, finished: new Set(['t/checkpoint']) }, state, NOW).kind, 'none');
});

describe('an order to leave', () => {
  const removed = (dropData: boolean): Goal => ({ kind: 'removed', id: 'r', term: T(1), dropData, reason: 'removed by anna' });
  test('stops a standby first', () => assert.equal(decide(removed(true), { postgres: postgres({ state: 'running', role: 'standby' }) }), 'stop'));
  test('gives a lease up before anything else', () => assert.equal(decide(removed(true), { ...lease1, postgres: primaryRunning }), 'stop'));
  test('fences a server that accepts writes without a lease', () => assert.equal(decide(removed(true), { postgres: primaryRunning }), 'fence'));
  test('leaves the data unless they are to go', () => assert.equal(decide(removed(false), { postgres: down('stopped', 'standby') }), 'none'));
  test('removes stopped data, and the half of a copy', () => {
    assert.equal(decide(removed(true), { postgres: down('stopped', 'standby') }), 'drop-data');
    assert.equal(decide(removed(true), { postgres: down('incomplete', null) }), 'drop-data');
    assert.equal(decide(removed(true), { postgres: down('absent', null) }), 'none');
  });
  test('removes nothing of another cluster', () =>
    assert.equal(decide(removed(true), { postgres: { ...down('stopped', 'standby'), systemIdentifier: '666' } }), 'none'));
});

test('a clone is taken from the member that the goal names, at its rate', () => {
  const goal: Goal = { ...(standby('clone') as Extract<Goal, { kind: 'standby' }>), source: N1, rateKb: 4096 };
  const action = decideNode(facts({ postgres: down('absent', null) }), stateWith(goal), NOW);
  assert.deepEqual(action.kind === 'clone' ? [action.upstream, action.source, action.rateKb] : null, ['n2', 'n1', 4096]);
});

test('every goal kind has a handler (Q1)', () => {
  assert.deepEqual([...handledGoals].sort(), [
    'adopt',
    'create',
    'fenced',
    'handover',
    'none',
    'primary',
    'promote',
    'removed',
    'standby',
    'stopped',
    'vote',
  ]);
});
