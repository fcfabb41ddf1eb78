import assert from 'node:assert/strict';
import { test } from 'node:test';
import { makeRevision, makeTerm, makeWallMs } from '../../../src/core/ids.ts';
import { cancelEffect } from '../../../src/core/cluster/cancel.ts';
import { decideCluster } from '../../../src/core/cluster/decide.ts';
import type { ClusterState, TaskRequest } from '../../../src/core/state.ts';
import { NOW, WALL, goalsOf, id, later, lsnOf, makeTask, picture } from './picture.ts';
import { STEADY, ask } from './steady.ts';
import { expectDecision, expectRule } from './rule-case.ts';

test('freeze, unfreeze, and the end of a freeze', () => {
  assert.equal(expectRule(ask({ kind: 'freeze', forMs: 60_000 }), 'command.freeze').frozen?.untilWallMs, WALL + 60_000);
  const twice = ask({ kind: 'freeze', forMs: null }, STEADY.replace('term', 'frozen term'));
  const before = twice.state.frozen?.reason ?? '';
  const again = expectDecision({ ...twice, tasks: twice.tasks.map((task) => ({ ...task, reason: '' })) }, 'command.freeze');
  assert.equal(again.state?.frozen?.reason, before, "a second freeze without a reason keeps the first one's");
  assert.match(again.tasks[0]?.result ?? '', /^frozen; it was frozen already by anna since /);
  assert.equal(expectRule(ask({ kind: 'unfreeze' }, STEADY.replace('term', 'frozen term')), 'command.unfreeze').frozen, null);
  const forgotten = picture(STEADY, {
    state: (state) => ({ ...state, frozen: { reason: '', by: 'anna', sinceWallMs: makeWallMs(WALL - 2), untilWallMs: makeWallMs(WALL - 1) } }),
  });
  assert.equal(expectRule(forgotten, 'housekeeping.freeze-expired').frozen, null);
});

test('two operators at once: the second is told of the first (Q38, Z39)', () => {
  const first = makeTask(
    { kind: 'switchover', to: id('n2') },
    { id: 'first', by: 'bert', status: 'running', steps: [{ name: 'checkpoint', state: 'running', atWallMs: makeWallMs(WALL), detail: '' }] },
  );
  const view = picture(STEADY, {
    tasks: [first, makeTask({ kind: 'failover', to: null, acceptLoss: false, acceptTwoPrimaries: false })],
    state: (state) => ({ ...state, switchover: switchover('checkpoint') }),
  });
  const decision = expectDecision(view, 'command.busy');
  assert.match(decision.tasks.find((task) => task.id === 't1')?.problems[0]?.text ?? '', /switchover to n2 \(task first, by bert\) is running/);
});

test('a rebuild copies the member that was named, at its rate, and refuses one that is not fit', () => {
  const rebuild = (source: string | null) =>
    ({ kind: 'nodeRejoin', node: id('n3'), via: 'clone', source: source === null ? null : id(source), rateKb: 4096 }) as const;
  const near = STEADY.replace('n3 standby @0/4000', 'n3 standby @0/5000');
  const goal = expectRule(ask(rebuild('n2'), near), 'node.rejoin').goals[id('n3')];
  assert.deepEqual(goal?.kind === 'standby' ? [goal.via, goal.upstream, goal.source, goal.rateKb] : null, ['clone', 'n1', 'n2', 4096]);
  for (const [source, why] of [
    ['n3', /is the node itself/],
    ['n9', /is not a node/],
    ['n2', /does not stream/],
  ] as const) {
    const view = ask(rebuild(source), source === 'n2' ? near.replace('n2 standby', 'n2 stopped') : near);
    assert.match(expectDecision(view, 'node.refused').tasks[0]?.problems[0]?.text ?? '', why);
  }
});

test('a command cancelled before it began does nothing', () => {
  const view = picture(STEADY, { tasks: [makeTask({ kind: 'nodeStop', node: id('n2') }, { cancelRequested: true })] });
  const decision = expectDecision(view, 'command.cancelled');
  assert.deepEqual([decision.tasks[0]?.status, decision.state?.goals[id('n2')]?.kind], ['cancelled', 'standby']);
});

test('init that waits for agents can be cancelled; once a node is created it cannot', () => {
  const waiting = makeTask({ kind: 'create' }, { status: 'running', cancelRequested: true });
  const decision = expectDecision(picture('term 0\nn1 absent\nn2 silent', { tasks: [waiting] }), 'bootstrap.waiting');
  assert.equal(decision.tasks[0]?.status, 'cancelled');
  const begun = picture('term 0\nn1 absent busy\nn2 absent', { tasks: [waiting], state: (state) => ({ ...state, phase: 'creating' }) });
  assert.equal(expectDecision(begun, 'bootstrap.waiting').tasks.length, 0);
});

test('a failover by hand is allowed while frozen, manual and flapping (Q41)', () => {
  const view = ask({ kind: 'failover', to: null, acceptLoss: false, acceptTwoPrimaries: false }, STEADY.replace('term', 'frozen flapped term'), {
    spec: { failover: 'manual' },
  });
  assert.equal(expectRule(view, 'failover.by-hand').goals[id('n1')]?.kind, 'fenced');
});

test('a failover by hand names every reason against it', () => {
  const cases: readonly (readonly [TaskRequest, RegExp])[] = [
    [{ kind: 'failover', to: id('n9'), acceptLoss: false, acceptTwoPrimaries: false }, /n9 is not a node/],
    [{ kind: 'failover', to: id('n1'), acceptLoss: false, acceptTwoPrimaries: false }, /n1 is the primary/],
  ];
  for (const [request, text] of cases) assert.match(expectDecision(ask(request), 'failover.refused').why, text);
  const behind = STEADY.replace('n1 primary @0/5000', 'n1 primary @0/900000');
  assert.match(
    expectDecision(ask({ kind: 'failover', to: null, acceptLoss: false, acceptTwoPrimaries: false }, behind), 'failover.refused').why,
    /--accept-loss/,
  );
  expectRule(ask({ kind: 'failover', to: null, acceptLoss: true, acceptTwoPrimaries: false }, behind), 'failover.by-hand');
});

test('an attempt that waits is taken over by a person in its own term', () => {
  const text = `term 3 primary n1 lsn 0/900000 attempt 4 vote
    n1 dead
    n2 detached vote4@0/5000
    n3 detached vote4@0/5000`;
  expectRule(picture(text), 'failover.blocked-lag');
  const state = expectRule(ask({ kind: 'failover', to: id('n3'), acceptLoss: true, acceptTwoPrimaries: false }, text), 'failover.by-hand');
  assert.deepEqual([state.term, state.attempt?.path, state.attempt?.target], [4, 'manual', 'n3']);
});

test('commands for a node are refused with their reasons', () => {
  const cases: readonly (readonly [TaskRequest, RegExp])[] = [
    [{ kind: 'nodeStop', node: id('n1') }, /n1 is the primary/],
    [{ kind: 'nodeRejoin', node: id('n1'), via: null, source: null, rateKb: null }, /n1 is the primary/],
    [{ kind: 'nodeMaintenance', node: id('n1'), on: true }, /n1 is the primary/],
    [{ kind: 'nodeStart', node: id('n7') }, /n7 is not a node/],
  ];
  for (const [request, text] of cases) assert.match(expectDecision(ask(request), 'node.refused').why, text);
  expectRule(ask({ kind: 'nodeStop', node: id('n3') }, STEADY.replace('n3 standby', 'n3 dead')), 'node.refused');
});

test('maintenance: left alone, no vote, no reader (I14)', () => {
  const view = ask({ kind: 'nodeMaintenance', node: id('n3'), on: true });
  const state = expectRule(view, 'node.maintenance');
  const next = expectRule({ ...view, state, tasks: [] }, 'housekeeping.maintenance');
  assert.deepEqual([goalsOf(next, view.spec), next.electorate.members, next.route.readers], ['n1:primary n2:stream n3:none', ['n1', 'n2'], ['n2']]);
});

test('stop, start, restart and rejoin of a node', () => {
  assert.equal(expectRule(ask({ kind: 'nodeStop', node: id('n3') }), 'node.stop').goals[id('n3')]?.kind, 'stopped');
  const stopped = {
    state: (state: ClusterState): ClusterState => ({
      ...state,
      overrides: { [id('n3')]: { kind: 'stopped', reason: '', by: 'anna', sinceWallMs: makeWallMs(WALL) } },
    }),
  };
  assert.equal(
    expectRule(ask({ kind: 'nodeStart', node: id('n3') }, STEADY.replace('n3 standby', 'n3 stopped goal:stopped'), stopped), 'node.start').goals[
      id('n3')
    ]?.kind,
    'standby',
  );
  const restarted = expectRule(ask({ kind: 'nodeRestart', node: id('n1') }), 'node.restart').goals[id('n1')];
  assert.ok(restarted?.kind === 'primary' && restarted.restart === 't1');
  const back = expectRule(
    ask({ kind: 'nodeRejoin', node: id('n3'), via: 'clone', source: null, rateKb: null }, STEADY.replace('n3 standby', 'n3 detached sys9')),
    'node.rejoin',
  ).goals[id('n3')];
  assert.ok(back?.kind === 'standby' && back.via === 'clone');
});

test('a start or rejoin of a node that is not taken in ends with the reason, and a start of the cluster with it', () => {
  const text = STEADY.replace('n3 standby', 'n3 stopped tl9 goal:fenced');
  for (const kind of ['nodeRejoin', 'nodeStart'] as const) {
    const request = kind === 'nodeRejoin' ? { kind, node: id('n3'), via: null, source: null, rateKb: null } : { kind, node: id('n3') };
    const asked = { tasks: [makeTask(request, { status: 'running' })] };
    assert.deepEqual(expectDecision(picture(text, asked), 'standby.quarantined', later(20_000)).tasks, []);
    const ended = expectDecision(picture(text, asked), 'standby.quarantined', later(40_000)).tasks[0];
    assert.deepEqual([ended?.status, /is not taken in/.test(ended?.problems[0]?.text ?? '')], ['failed', true]);
  }
});

test('a command for a node ends when its effect is seen', () => {
  const task = makeTask({ kind: 'nodeStop', node: id('n3') }, { status: 'running' });
  const asked = {
    tasks: [task],
    state: (state: ClusterState): ClusterState => ({
      ...state,
      overrides: { [id('n3')]: { kind: 'stopped', reason: '', by: 'anna', sinceWallMs: makeWallMs(WALL) } },
    }),
  };
  const decision = expectDecision(picture(STEADY.replace('n3 standby', 'n3 stopped goal:stopped'), asked), 'node.done');
  assert.equal(decision.tasks[0]?.status, 'done');
  const failed = expectDecision(picture(STEADY.replace('n3 standby', 'n3 standby goal:stopped gaveup:stop.failed'), asked), 'node.done');
  assert.equal(failed.tasks[0]?.status, 'failed');
});

test('a rejoin whose way is left to us goes on to a copy when the rewind cannot work; one with --via ends there', () => {
  const text = `term 3 primary n1 timeline 2 forks 1@0/5000 lsn 0/6000
    n1 primary
    n2 standby streams:n1
    n3 crashed tl3 fork1@0/5100 @0/5800 goal:rewind gaveup:rewind.no-checkpoint`;
  const node = id('n3');
  const rejoin = (via: 'rewind' | null) => ({
    tasks: [
      makeTask(
        { kind: 'nodeRejoin', node, via, source: null, rateKb: 512 },
        { status: 'running', steps: [{ name: 'rewind', state: 'running', atWallMs: NOW.wall, detail: '' }] },
      ),
    ],
  });
  const decision = expectDecision(picture(text, rejoin(null)), 'node.done');
  const goal = decision.state?.goals[node];
  assert.ok(goal?.kind === 'standby');
  assert.deepEqual([goal.via, goal.upstream, goal.rateKb], ['clone', id('n1'), 512]);
  assert.equal(decision.tasks[0]?.status, 'running');
  assert.deepEqual(
    decision.tasks[0].steps.map((step) => `${step.name} ${step.state}`),
    ['rewind failed', 'clone running'],
  );
  assert.match(decision.events[0]?.text ?? '', /^n3 is taken back by clone on request of .*rewind\.no-checkpoint/);
  const statusOf = (way: 'rewind' | null, is: string): string | undefined => decideCluster(picture(is, rejoin(way)), NOW).tasks[0]?.status;
  assert.equal(statusOf('rewind', text), 'failed');
  assert.equal(statusOf(null, text.replace('goal:rewind gaveup:rewind', 'goal:clone gaveup:clone')), 'failed', 'there is no rung above a copy');
});

test('a start, restart or rejoin that a stop of the cluster overtook ends at once, so that it does not keep the cluster from being started', () => {
  const text = `term 3 primary n1 lsn 0/5000
    n1 stopped goal:stopped
    n2 stopped goal:stopped
    n3 crashed goal:stopped`;
  const node = id('n3');
  for (const phase of ['stopping', 'stopped'] as const)
    for (const request of [
      { kind: 'nodeRejoin', node, via: 'stream', source: null, rateKb: null } as const,
      { kind: 'nodeStart', node } as const,
      { kind: 'nodeRestart', node } as const,
    ]) {
      const asked = { tasks: [makeTask(request, { status: 'running' })], state: (state: ClusterState): ClusterState => ({ ...state, phase }) };
      const [ended] = decideCluster(picture(text, asked), NOW).tasks;
      assert.deepEqual([ended?.status, ended?.problems[0]?.text], ['failed', 'the cluster was stopped meanwhile']);
    }
});

test('a start of the cluster compares a node with the primary before it streams, when it is ahead of a fork or cannot be heard (I9)', () => {
  const text = `term 4 primary n1 timeline 2 forks 1@0/5000 lsn 0/6000
    n1 stopped goal:stopped
    n2 stopped goal:stopped
    n3 crashed tl1 fork0@0/1 @0/5800 goal:stopped
    n4 dead goal:stopped`;
  const stopped = {
    state: (state: ClusterState): ClusterState => ({ ...state, phase: 'stopped' as const }),
    tasks: [makeTask({ kind: 'clusterStart' })],
  };
  const { goals } = expectRule(picture(text, stopped), 'cluster.start');
  assert.deepEqual(
    ['n2', 'n3', 'n4'].map((node) => goals[id(node)]?.kind),
    ['standby', 'fenced', 'fenced'],
  );
});

test('the cluster stops primary first, then its standbys; it starts again with the same primary (I29)', () => {
  const view = ask({ kind: 'clusterStop' });
  const stopping = expectRule(view, 'cluster.stop');
  assert.equal(goalsOf(stopping, view.spec), 'n1:stopped n2:stream n3:stream');
  const down = picture(STEADY.replace('lease n1/3', 'phase stopping').replace('n1 primary', 'n1 stopped goal:stopped'));
  assert.equal(goalsOf(expectRule(down, 'cluster.stopping'), down.spec), 'n1:stopped n2:stopped n3:stopped');
  const all = ask({ kind: 'clusterStart' }, `term 3 primary n1 phase stopped\nn1 stopped goal:stopped\nn2 stopped goal:stopped`);
  const started = expectRule(all, 'cluster.start');
  assert.equal(goalsOf(started, all.spec), 'n1:primary n2:stream');
  const task = makeTask(
    { kind: 'clusterStart' },
    { status: 'running', steps: [{ name: 'start', state: 'running', atWallMs: makeWallMs(WALL), detail: '' }] },
  );
  expectRule(picture(STEADY, { tasks: [task] }), 'cluster.serves');
  expectRule(ask({ kind: 'clusterStart' }), 'cluster.refused');
});

type Phase = NonNullable<ClusterState['switchover']>['phase'];
function switchover(phase: Phase): NonNullable<ClusterState['switchover']> {
  const at = makeWallMs(WALL);
  return {
    taskId: 't1',
    from: id('n1'),
    to: id('n2'),
    phase,
    startedWallMs: at,
    phaseWallMs: at,
    deadlineWallMs: makeWallMs(WALL + 60_000),
    holdRoute: 5,
    reason: 'test',
  };
}
const moving = (phase: Phase, text: string, extra: Parameters<typeof picture>[1] = {}): ReturnType<typeof picture> =>
  picture(text, {
    tasks: [
      makeTask(
        { kind: 'switchover', to: id('n2') },
        { status: 'running', steps: [{ name: 'checkpoint', state: 'running', atWallMs: makeWallMs(WALL), detail: '' }] },
      ),
    ],
    acks: {},
    ...extra,
    state: (state) => ({ ...(extra.state ?? ((one) => one))(state), switchover: switchover(phase) }),
  });

test('a switchover is refused with every precondition that does not hold (H59)', () => {
  const cases: readonly (readonly [string, RegExp])[] = [
    [STEADY.replace('n2 standby', 'n2 detached'), /n2 does not stream from n1/],
    [STEADY.replace('n2 standby', 'n2 standby prio0'), /priority of n2 is 0/],
    [STEADY.replace('n2 standby', 'n2 standby maint'), /n2 is in maintenance/],
    [STEADY.replace('n2 standby', 'n2 dead'), /agent of n2 does not report/],
    [STEADY.replace('n1 primary @0/5000', 'n1 primary @0/2000000'), /behind n1; at most 16777216/],
    [STEADY.replace('n1 primary', 'n1 starting'), /n1 is not open for writes/],
  ];
  for (const [text, expected] of cases) {
    const decision = expectDecision(
      ask({ kind: 'switchover', to: id('n2') }, text),
      text.includes('starting') ? 'switchover.refused' : 'switchover.refused',
    );
    assert.match(decision.why, expected);
    assert.equal(decision.state?.switchover ?? null, null);
  }
});

test('a switchover without a name takes the best; its steps are journaled (Q32)', () => {
  const decision = expectDecision(ask({ kind: 'switchover', to: null }), 'switchover.started');
  assert.deepEqual([decision.state?.switchover?.to, decision.tasks[0]?.steps.map((step) => step.name)], ['n2', ['checkpoint']]);
});

test('checkpoint, then hold; without proxies the stop follows at once', () => {
  expectRule(moving('checkpoint', STEADY.replace('n1 primary @0/5000', 'n1 primary busy')), 'switchover.waiting');
  const view = moving('checkpoint', STEADY.replace('n1 primary @0/5000', 'n1 primary did:t1/checkpoint'));
  const state = expectRule(view, 'switchover.stop');
  assert.deepEqual([state.route.hold, state.goals[id('n1')]?.kind, state.switchover?.holdRoute], [true, 'handover', view.state.route.epoch + 1]);
  assert.equal(expectRule({ ...view, proxyAcks: { p1: 0 } }, 'switchover.hold').goals[id('n1')]?.kind, 'primary');
});

test('a proxy that does not acknowledge the hold undoes it (Q28)', () => {
  const view = moving('hold', STEADY, { acks: { p1: 4 } });
  expectRule(view, 'switchover.waiting');
  const decision = expectDecision(view, 'switchover.undone', later(6000));
  assert.deepEqual([decision.state?.switchover, decision.state?.route.hold, decision.tasks[0]?.status], [null, false, 'failed']);
});

const HANDED = `term 3 primary n1
  n1 stopped clean@0/5000 goal:handover
  n2 standby @0/5000
  n3 standby @0/4000`;

test('the candidate is promoted when the old primary has handed over, and waits for its checkpoint, so that any standby that may be named has everything (Z28, Z29, Z59)', () => {
  const state = expectRule(moving('stop', HANDED), 'switchover.promote');
  const goal = state.goals[id('n2')];
  assert.ok(goal?.kind === 'promote' && goal.requiredLsn === 0x5000n);
  expectRule(moving('stop', HANDED.replace('primary n1', 'primary n1 lease n1/3')), 'switchover.waiting');
});

test('a shutdown checkpoint that is written is enough: the old primary need not be gone yet', () => {
  const state = expectRule(moving('stop', HANDED.replace('n1 stopped clean@0/5000', 'n1 stopping clean@0/5000')), 'switchover.promote');
  const goal = state.goals[id('n2')];
  assert.ok(goal?.kind === 'promote' && goal.requiredLsn === 0x5000n);
  expectRule(moving('stop', HANDED.replace('n1 stopped clean@0/5000', 'n1 stopping')), 'switchover.waiting');
});

test('an old primary that does not stop cleanly gets its role back (I12, Q37)', () => {
  for (const line of ['n1 crashed goal:handover', 'n1 primary goal:handover gaveup:stop.failed']) {
    const state = expectRule(moving('stop', HANDED.replace('n1 stopped clean@0/5000 goal:handover', line)), 'switchover.undone');
    assert.deepEqual([state.goals[id('n1')]?.kind, state.term, state.switchover], ['primary', 3, null]);
  }
});

test('the candidate fails after the stop: the old primary opens a further term (I15)', () => {
  const text = HANDED.replace('term 3', 'term 3').replace('primary n1', 'primary n1 attempt 4 promote:n2').replace('n2 standby @0/5000', 'n2 dead');
  const view = moving('promote', text, {
    state: (state) => ({ ...state, attempt: state.attempt === null ? null : { ...state.attempt, path: 'planned' } }),
  });
  const state = expectRule(view, 'switchover.undone-after-stop');
  assert.deepEqual([state.term, state.attempt?.candidate, state.goals[id('n1')]?.kind, state.goals[id('n1')]?.term], [5, 'n1', 'primary', 5]);
  assert.deepEqual([state.attempt?.mayHaveOpened, state.attempt?.lostBytes], [[{ node: 'n2', term: 4 }], null], 'n2 may have been open for a moment');
  expectRule({ ...view, writeLease: { term: makeTerm(4), holder: id('n2') } }, 'attempt.waiting-open');
  expectRule({ ...view, watchedMs: 300 }, 'attempt.waiting-open');
  const alive = moving('promote', text.replace('n2 dead', 'n2 standby @0/5000'), {
    state: (one) => ({ ...one, attempt: one.attempt === null ? null : { ...one.attempt, path: 'planned' } }),
  });
  const untaken = expectRule(alive, 'switchover.undone-after-stop', later(6000));
  assert.deepEqual([untaken.attempt?.mayHaveOpened, untaken.attempt?.lostBytes], [[], 0], 'it is a standby of the old timeline still');
});

test('what a candidate said before the write lease was gone says nothing of what it did with it', () => {
  const text = HANDED.replace('primary n1', 'primary n1 attempt 4 promote:n2').replace('n2 standby @0/5000', 'n2 standby @0/4000');
  const required = lsnOf('0/5000');
  const behind = moving('promote', text, {
    state: (one) => ({
      ...one,
      attempt: one.attempt === null ? null : { ...one.attempt, path: 'planned' },
      goals: { ...one.goals, n2: { kind: 'promote', id: 'promote-4-g0', term: makeTerm(4), requiredLsn: required } },
    }),
  });
  assert.match(expectDecision(behind, 'switchover.undone-after-stop', later(2000)).why, /n2 did not receive the shutdown checkpoint/);
  const older = { ...behind, writeLeaseGoneMs: 50 };
  expectRule(older, 'attempt.waiting-open', later(2000));
  const state = expectRule(older, 'switchover.undone-after-stop', later(6000));
  assert.deepEqual([state.attempt?.mayHaveOpened, state.attempt?.lostBytes], [[{ node: 'n2', term: 4 }], null]);
});

test('a switchover is finished when the old primary streams', () => {
  const steps = ['checkpoint', 'follow'].map((name) => ({ name, state: 'done' as const, atWallMs: makeWallMs(WALL), detail: '' }));
  const view = picture(STEADY, {
    tasks: [makeTask({ kind: 'switchover', to: id('n1') }, { status: 'running', steps })],
    state: (state) => ({ ...state, terms: [{ ...state.terms[0]!, primary: id('n2') }, state.terms[0]!] }),
  });
  assert.equal(expectDecision(view, 'switchover.finished').tasks[0]?.status, 'done');
});

test('upkeep: electorate, removed nodes, restored store, position, lineage (Z45), a restarted primary', () => {
  expectRule(picture(STEADY, { state: (state) => ({ ...state, electorate: { revision: 1, members: [], former: [] } }) }), 'housekeeping.electorate');
  const removed = picture(STEADY, {
    state: (state) => ({ ...state, goals: { ...state.goals, [id('n9')]: { kind: 'none', id: 'x', term: makeTerm(3) } } }),
  });
  assert.equal(expectRule(removed, 'housekeeping.removed-node').goals[id('n9')], undefined);
  assert.equal(
    expectRule(picture(STEADY.replace('n1 primary @0/5000', 'n1 primary @0/900000')), 'housekeeping.primary-position').primaryLsn,
    0x900000n,
  );
  expectRule(picture(STEADY, { state: (state) => ({ ...state, systemIdentifier: null }) }), 'housekeeping.timeline');
  const settled = picture(STEADY, {
    state: (state) => ({
      ...state,
      recovery: { [id('n1')]: { checks: 0, firstSeenWallMs: makeWallMs(WALL), attempts: 1, notBeforeWallMs: makeWallMs(WALL), lastError: null } },
    }),
  });
  assert.deepEqual(expectRule(settled, 'housekeeping.primary-settled').recovery, {});
  assert.equal(settled.stateRevision, makeRevision(10));
});

test('a failover by hand without enough members to vote is refused before anything is touched; accepting loss does not help', () => {
  const alone = 'term 3 primary n1\n n1 dead @0/5000\n n2 standby @0/5000\n n3 dead';
  const byHand = { kind: 'failover', to: null, acceptLoss: true, acceptTwoPrimaries: false } as const;
  const [refused] = decideCluster(ask(byHand, alone), NOW).tasks;
  assert.equal(refused?.status, 'refused');
  assert.match(refused?.problems[0]?.text ?? '', /Only 1 of 2 needed members can be heard; missing: n1, n3/);
  assert.match(refused?.problems[0]?.remedy ?? '', /two primaries.*--accept-two-primaries/);
  const state = expectRule(ask({ ...byHand, acceptTwoPrimaries: true }, alone), 'failover.by-hand');
  assert.deepEqual([state.attempt?.acceptLoss, state.attempt?.acceptTwoPrimaries], [true, true]);
});

test('a standby that cannot be stopped does not keep the cluster in the stop for ever (I15)', () => {
  const text = `term 3 primary n1 phase stopping
    n1 stopped clean@0/5000 goal:stopped
    n2 hung goal:stopped fail:stop.survivors
    n3 stopped goal:stopped`;
  const steps = [{ name: 'stop standbys', state: 'running' as const, atWallMs: makeWallMs(WALL), detail: '' }];
  const asked = (state: ClusterState): ClusterState => ({
    ...state,
    goals: Object.fromEntries(Object.entries(state.goals).map(([node, goal]) => [node, { ...goal, reason: 'the cluster is stopped' }])) as never,
  });
  const view = picture(text, { tasks: [makeTask({ kind: 'clusterStop' }, { status: 'running', steps })], state: asked });
  assert.equal(expectRule(view, 'cluster.stopping', later(100_000)).phase, 'stopping');
  const decision = expectDecision(view, 'cluster.stopping', later(121_000));
  assert.deepEqual([decision.state?.phase, decision.tasks[0]?.status], ['stopped', 'failed']);
  assert.match(decision.tasks[0]?.problems[0]?.text ?? '', /n2 did not stop/);
  const lost = picture(text, { state: asked });
  assert.equal(expectRule(lost, 'cluster.stopping').phase, 'stopped', 'nobody waits for it any more');
});

test('a failover by hand waits for no command of a node, which may itself wait for the lost primary (I15)', () => {
  const steps = [{ name: 'restart n3', state: 'running' as const, atWallMs: makeWallMs(WALL), detail: '' }];
  const restarting = makeTask({ kind: 'nodeRestart', node: id('n3') }, { id: 'r', status: 'running', steps });
  const view = picture('term 3 primary n1\n n1 dead @0/5000\n n2 standby @0/5000\n n3 standby @0/4000', {
    tasks: [restarting, makeTask({ kind: 'failover', to: null, acceptLoss: false, acceptTwoPrimaries: false })],
  });
  expectRule(view, 'failover.by-hand');
});

test('a rolling restart leaves a fenced node to its ladder, or to a person', () => {
  const text = STEADY.replace('n3 standby', 'n3 stopped tl9 goal:fenced');
  const view = picture(text, { tasks: [makeTask({ kind: 'clusterRestart', rolling: true })] });
  assert.equal(decideCluster(view, NOW).state?.goals[id('n3')]?.kind, 'fenced');
});

const running = (request: TaskRequest, extra: Parameters<typeof makeTask>[1] = {}): ReturnType<typeof makeTask> =>
  makeTask(request, { status: 'running', steps: [{ name: 'stop n1', state: 'running', atWallMs: makeWallMs(WALL), detail: '' }], ...extra });

test('cluster stop that is cancelled starts everything again, also after the primary has stopped', () => {
  for (const text of [
    STEADY.replace('term', 'phase stopping term'),
    'term 3 primary n1 phase stopping\nn1 stopped goal:stopped\nn2 standby\nn3 standby',
  ]) {
    const view = picture(text, { tasks: [running({ kind: 'clusterStop' }, { cancelRequested: true })] });
    const decision = expectDecision(view, 'cluster.stopping');
    assert.deepEqual([decision.tasks[0]?.status, decision.state?.phase, decision.state?.goals[id('n1')]?.kind], ['cancelled', 'running', 'primary']);
  }
});

test('node stop that is cancelled starts the node again', () => {
  const view = picture(STEADY.replace('n3 standby', 'n3 standby goal:stopped'), {
    tasks: [running({ kind: 'nodeStop', node: id('n3') }, { cancelRequested: true })],
    state: (state) => ({ ...state, overrides: { [id('n3')]: { kind: 'stopped', reason: '', by: 'anna', sinceWallMs: makeWallMs(WALL) } } }),
  });
  const decision = expectDecision(view, 'node.stop-undone');
  assert.deepEqual([decision.tasks[0]?.status, decision.state?.goals[id('n3')]?.kind, decision.state?.overrides], ['cancelled', 'standby', {}]);
});

test('a stop of everything that nobody carries on ends, so that other commands can begin (Q38)', () => {
  const view = picture(STEADY, { tasks: [running({ kind: 'clusterStop' })] });
  const decision = expectDecision(view, 'cluster.stop-overtaken');
  assert.deepEqual([decision.tasks[0]?.status, decision.tasks[0]?.problems[0]?.code], ['failed', 'cluster-stop.overtaken']);
});

test('each command says whether it can still be cancelled, and what that does', () => {
  const { state } = picture(STEADY);
  const effect = (request: TaskRequest, extra: Parameters<typeof makeTask>[1] = {}, of: ClusterState = state): string =>
    cancelEffect(of, running(request, extra)).kind;
  const node = id('n2');
  assert.equal(effect({ kind: 'clusterRestart', rolling: true }), 'between-steps');
  assert.equal(effect({ kind: 'nodeRestart', node }, { status: 'pending' }), 'undo');
  assert.equal(effect({ kind: 'nodeRestart', node }), 'too-late');
  assert.equal(effect({ kind: 'nodeRejoin', node, via: 'clone', source: null, rateKb: null }), 'too-late');
  assert.equal(effect({ kind: 'clusterStop' }), 'undo');
  assert.equal(effect({ kind: 'clusterStart' }), 'too-late');
  assert.equal(effect({ kind: 'failover', to: null, acceptLoss: false, acceptTwoPrimaries: false }), 'too-late');
  assert.equal(effect({ kind: 'create' }, {}, { ...state, phase: 'new' }), 'undo');
  const move: TaskRequest = { kind: 'switchover', to: node };
  assert.deepEqual(
    (['checkpoint', 'hold', 'stop', 'promote'] as const).map((phase) => effect(move, {}, { ...state, switchover: switchover(phase) })),
    ['undo', 'undo', 'undo', 'too-late'],
  );
});
