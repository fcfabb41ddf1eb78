import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { cancelEffect } from '../../../src/core/cluster/cancel.ts';
import { chooseSource, refuseSource } from '../../../src/core/cluster/copy-source.ts';
import { decideCluster } from '../../../src/core/cluster/decide.ts';
import { showCluster } from '../../../src/core/cluster/describe.ts';
import { checkAdd, nodeToAdd, planAdd } from '../../../src/core/cluster/node-add-checks.ts';
import { missingWays } from '../../../src/core/cluster/rules/scale-out.ts';
import { UNFINISHED_PROMOTION } from '../../../src/core/cluster/goals.ts';
import type { ClusterState } from '../../../src/core/state.ts';
import type { ClusterView } from '../../../src/core/view.ts';
import { NOW, id, later, lsnOf, makeTask, picture } from './picture.ts';
import { expectDecision } from './rule-case.ts';
import { ADD, FOUR, MEMBER, N4, REMOVE, changeReport, outside, reachable, running, withMembership, withSlot } from './scale-views.ts';

const n1 = id('n1');
const n2 = id('n2');
const codes = (view: ClusterView, request = ADD): readonly string[] =>
  checkAdd(view, request).map((problem) => problem.code.replace('node-add.', ''));
const host = (freeBytes: number | null, dataBytes: number | null) => ({ cpus: 2, load: 0, freeBytes, dataBytes });
const counts = (change: object) => ({ maxWalSenders: 10, walSenders: 2, maxSlots: 10, slots: 2, ...change });

describe('the preconditions of node add', () => {
  test('a host whose agent joined, reports and has no data may be added', () => assert.deepEqual(codes(outside()), []));

  test('an agent that never joined is named with the commands that make it join', () => {
    const [problem] = checkAdd({ ...outside(), members: {} }, ADD);
    assert.equal(problem?.code, 'node-add.not-joined');
    assert.match(problem?.remedy ?? '', /pgherd token join.*pgherd agent join/);
  });

  const cases: readonly (readonly [string, ClusterView, typeof ADD, readonly string[]])[] = [
    ['an agent that is silent', outside({}, FOUR.replace('n4 absent', 'n4 dead')), ADD, ['silent']],
    ['another major version', { ...outside(), members: { [N4]: { ...MEMBER, postgresVersion: 160_002 } } }, ADD, ['version']],
    ['no PostgreSQL there', { ...outside(), members: { [N4]: { ...MEMBER, postgresVersion: null } } }, ADD, ['no-postgres']],
    ['another port than its agent has', outside(), { ...ADD, port: 5555 }, ['port']],
    ['the address of another node', outside(), { ...ADD, host: 'n2.example' }, ['spec']],
    ['a name that is taken', outside(), { ...ADD, node: n2 }, ['exists']],
    ['data of another cluster', outside({}, FOUR.replace('n4 absent', 'n4 standby @0/5000 sys9')), ADD, ['foreign-data']],
    [
      'a directory with files that are no PostgreSQL’s',
      changeReport(outside({}, FOUR.replace('n4 absent', 'n4 incomplete')), N4, (report) => ({
        ...report,
        problems: [{ code: 'directory.foreign-files', text: 'the data directory /home is not empty', remedy: 'compare it' }],
      })),
      ADD,
      ['not-empty'],
    ],
    ['a server that accepts writes', outside({}, FOUR.replace('n4 absent', 'n4 primary @0/5000')), ADD, ['is-primary']],
    ['a cluster that is stopped', outside({ state: (state) => ({ ...state, phase: 'stopped' }) }), ADD, ['not-running']],
    ['a source that is not there', outside(), { ...ADD, source: id('n9') }, ['source']],
    ['a source that does not stream', outside({}, FOUR.replace('n2 standby @0/5000', 'n2 stopped @0/5000')), { ...ADD, source: n2 }, ['source']],
  ];
  for (const [name, view, request, expected] of cases) test(`${name} is refused by name`, () => assert.deepEqual(codes(view, request), expected));

  test('too little space is said in figures', () => {
    let view = changeReport(outside(), n1, (report) => ({ ...report, host: host(null, 1000 * 1_048_576) }));
    view = changeReport(view, N4, (report) => ({ ...report, host: host(1049 * 1_048_576, null) }));
    assert.match(checkAdd(view, ADD)[0]?.text ?? '', /n4 has 1049 MiB free, and the copy takes 1050 MiB/);
    assert.deepEqual(codes(changeReport(view, N4, (report) => ({ ...report, host: host(1050 * 1_048_576, null) }))), []);
  });

  test('full walsenders and slots are refused with a rolling way to more of them (H48)', () => {
    const at = (change: object) =>
      changeReport(outside(), n1, (report) => ({ ...report, postgres: { ...report.postgres, replication: counts(change) } }));
    assert.deepEqual(codes(at({ walSenders: 7 })), []);
    assert.deepEqual(codes(at({ walSenders: 8 })), ['max-wal-senders']);
    assert.deepEqual(codes(at({ slots: 9 })), []);
    const [problem] = checkAdd(at({ slots: 10 }), ADD);
    assert.equal(problem?.code, 'node-add.max-replication-slots');
    assert.match(problem?.remedy ?? '', /settings set max_replication_slots=20.*cluster restart --rolling/);
  });

  test('a witness needs neither PostgreSQL nor space', () => {
    const bare = { ...outside(), members: { [N4]: { ...MEMBER, postgresVersion: null } } };
    assert.deepEqual(codes(bare, { ...ADD, role: 'witness' }), []);
  });

  test('what its agent registered is taken where nothing was said', () => {
    assert.equal(nodeToAdd(outside(), { ...ADD, host: '10.0.0.4' })?.host, '10.0.0.4');
    assert.equal(nodeToAdd(outside(), ADD)?.host, 'n4.example');
    assert.equal(nodeToAdd({ ...outside(), members: {} }, ADD), null);
  });

  test('the dry run says the whole way, and what the fourth node changes in votes', () => {
    const plan = planAdd(outside(), { ...ADD, rateKb: 2048 }).join('\n');
    for (const part of [
      /reach: n4 at n4\.example:5432/,
      /slot: pgherd_n4 is made on n1/,
      /from n2 .*at most 2048 KiB/,
      /4 members vote, 2 votes/,
      /durability stays/,
    ])
      assert.match(plan, part);
  });
});

describe('the source of a copy', () => {
  const source = (view: ClusterView, target = { id: N4, location: null as string | null }): string | null => chooseSource(view, target)?.node ?? null;
  const busy = (view: ClusterView, node: typeof n1, load: number) =>
    changeReport(view, node, (report) => ({ ...report, host: { ...host(null, null), load } }));

  test('is the least busy standby', () => assert.equal(source(busy(outside(), n2, 300)), 'n3'));
  test('is a standby of the same location, whatever its load', () => {
    const view = outside({}, FOUR.replace('n2 standby', 'n2 standby loc:a').replace('n3 standby', 'n3 standby loc:b'));
    assert.equal(source(busy(view, id('n3'), 900), { id: N4, location: 'b' }), 'n3');
  });
  test('is the primary when no standby is fit', () =>
    assert.equal(source(outside({}, FOUR.replaceAll(/(n[23]) standby @0\/5000/g, '$1 stopped @0/5000'))), 'n1'));
  test('is not one that another copy is being taken from, when there is a second', () => {
    const view = withMembership(picture(FOUR.replace('n4 absent', 'n4 absent goal:clone')), N4, 'joining');
    const goal = view.state.goals[N4];
    const taken = { ...view, state: { ...view.state, goals: { ...view.state.goals, [N4]: { ...goal, source: n2 } as never } } };
    assert.equal(source(taken, { id: id('n5'), location: null }), 'n3');
  });
  test('is no standby that is more than a segment behind', () => {
    const view = changeReport(outside(), n1, (report) => ({ ...report, postgres: { ...report.postgres, flushLsn: lsnOf('0/2000000') } }));
    assert.match(refuseSource(view, n2) ?? '', /bytes behind the primary/);
    assert.equal(source(view), 'n1');
  });
  test('nobody can be copied while the primary is not open and no standby streams', () =>
    assert.equal(source(outside({}, FOUR.replace('n1 primary', 'n1 crashed').replaceAll(/(n[23]) standby/g, '$1 stopped'))), null));
});

test('a task that adds or removes a node can be cancelled until its point of no return', () => {
  const { state } = outside();
  const add = (step: string): string => cancelEffect(state, running(ADD, step)).kind;
  assert.deepEqual(['reach', 'copy', 'catch up', 'take in', 'undo', 'unregister'].map(add), [
    'undo',
    'undo',
    'undo',
    'too-late',
    'too-late',
    'too-late',
  ]);
  const remove = (step: string): string => cancelEffect(state, running(REMOVE, step)).kind;
  assert.deepEqual(['drain', 'stop', 'unregister'].map(remove), ['undo', 'too-late', 'too-late']);
});

describe('node add, step by step', () => {
  const ask = makeTask(ADD);
  const reaching = (more = {}): ClusterView =>
    withMembership(picture(FOUR.replace('n4 absent', 'n4 absent goal:none'), { tasks: [running(ADD, 'reach', more)] }), N4, 'joining');
  const copying = (text: string, more = {}, step = 'copy'): ClusterView =>
    withMembership(picture(FOUR.replace('n4 absent', text), { tasks: [running(ADD, step, more, step === 'copy' ? [] : ['copy'])] }), N4, 'joining');

  test('a refusal names every reason and touches nothing', () => {
    const decision = expectDecision({ ...outside({ tasks: [ask] }), members: {} }, 'node.add-refused');
    assert.deepEqual([decision.tasks[0]?.status, decision.spec, decision.state?.goals[N4]], ['refused', null, undefined]);
  });

  test('it begins by being known, and counts nowhere', () => {
    const decision = expectDecision(outside({ tasks: [ask] }), 'node.add');
    assert.equal(decision.spec?.nodes.at(-1)?.membership, 'joining');
    assert.equal(decision.tasks[0]?.steps.at(-1)?.name, 'reach');
    const next = decideCluster({ ...outside(), spec: decision.spec ?? outside().spec, tasks: decision.tasks }, NOW);
    assert.deepEqual(next.state?.electorate.members ?? ['n1', 'n2', 'n3'], ['n1', 'n2', 'n3']);
    assert.equal(next.state?.goals[N4], undefined, 'no copy before every way works');
  });

  test('each way that does not work is named; after half a minute it is taken back', () => {
    const view = reaching();
    assert.deepEqual(missingWays(reachable(view), view.spec.nodes.at(-1) as never), []);
    const halfway = changeReport(reachable(view), n2, (report) => ({ ...report, probes: {} }));
    assert.deepEqual(missingWays(halfway, view.spec.nodes.at(-1) as never), ['n2 does not reach the agent of n4']);
    assert.equal(decideCluster(halfway, NOW).tasks.length, 0);
    const undone = expectDecision(
      { ...halfway, reports: Object.fromEntries(Object.entries(halfway.reports)) as never },
      'node.add-undo',
      later(31_000),
    );
    assert.match(undone.tasks[0]?.problems[0]?.text ?? '', /n2 does not reach the agent of n4/);
  });

  test('no copy is ordered before the primary reports the slot (S76, Z66)', () => {
    const ways = reachable(reaching());
    const without = changeReport(ways, n1, (report) => ({ ...report, slots: [] }));
    assert.equal(decideCluster(without, NOW).tasks.length, 0);
    const decision = expectDecision(ways, 'node.add-copy');
    const goal = decision.state?.goals[N4];
    assert.deepEqual(goal?.kind === 'standby' ? [goal.via, goal.upstream, goal.source] : null, ['clone', 'n1', 'n2']);
  });

  test('a source and a rate that were asked for are in the order', () => {
    const view = reachable(reaching({ request: { ...ADD, source: n1, rateKb: 4096 } }));
    const goal = expectDecision(view, 'node.add-copy').state?.goals[N4];
    assert.deepEqual(goal?.kind === 'standby' ? [goal.source, goal.rateKb] : null, ['n1', 4096]);
  });

  test('a node that comes back with data of this cluster is not copied', () => {
    const text = FOUR.replace('n4 absent', 'n4 stopped @0/4000 goal:none');
    const view = reachable(withMembership(picture(text, { tasks: [running(ADD, 'reach')] }), N4, 'joining'));
    const decision = expectDecision(view, 'node.add-copy');
    const goal = decision.state?.goals[N4];
    assert.equal(goal?.kind === 'standby' ? goal.via : null, 'stream');
    assert.equal(decision.tasks[0]?.steps.at(-1)?.name, 'stream');
  });

  test('a node that was a member before in this term gets orders of new names: its agent remembers what it finished', () => {
    const first = expectDecision(reachable(reaching()), 'node.add-copy');
    const second = expectDecision(reachable(reaching({ createdWallMs: NOW.wall + 5000 })), 'node.add-copy');
    assert.notEqual(first.state?.goals[N4]?.id, second.state?.goals[N4]?.id);
    assert.notEqual(first.state?.goals[N4]?.id, `standby-3-g0`);
  });

  test('one that may hold a timeline of its own is copied, also when it was removed in between (Z53)', () => {
    const mark = { checks: 0, firstSeenWallMs: NOW.wall, attempts: 0, notBeforeWallMs: NOW.wall, lastError: UNFINISHED_PROMOTION };
    const marked = { state: (state: ClusterState) => ({ ...state, recovery: { [N4]: mark } }) };
    const away = outside(marked);
    assert.equal(decideCluster(away, NOW).state?.recovery[N4] ?? mark, mark, 'the mark outlives the removal');
    const text = FOUR.replace('term 3', 'term 3 timeline 2 forks 1@0/4000').replaceAll('@0/5000', 'tl2 fork1@0/4000 @0/5000');
    const back = text.replace('n4 absent', 'n4 stopped tl2 fork1@0/4000 @0/4500 goal:none');
    const view = reachable(withMembership(picture(back, { ...marked, tasks: [running(ADD, 'reach')] }), N4, 'joining'));
    const goal = expectDecision(view, 'node.add-copy').state?.goals[N4];
    assert.equal(goal?.kind === 'standby' ? goal.via : null, 'clone');
  });

  test('one that streams and is close becomes a member; it votes and serves reads by the rules that follow', () => {
    const decision = expectDecision(copying('n4 standby @0/5000'), 'node.add-taken-in');
    assert.equal(decision.spec?.nodes.at(-1)?.membership, 'full');
    assert.equal(decision.tasks[0]?.status, 'running', 'done only when it is counted');
    const route = decision.state?.route.readers ?? [];
    assert.ok(route.includes(N4));
  });

  test('one that is far behind goes on catching up, and serves nothing', () => {
    const far = changeReport(copying('n4 standby @0/5000'), n1, (report) => ({
      ...report,
      postgres: { ...report.postgres, flushLsn: lsnOf('0/9000000') },
    }));
    const decision = expectDecision(far, 'node.add-copied');
    assert.equal(decision.spec, null);
    assert.equal(decision.state?.route.readers.includes(N4) ?? false, false);
  });

  test('it is done when it is in the electorate that the primary counts with, and in the read set', () => {
    const view = picture(FOUR.replace('n4 absent', 'n4 standby @0/5000'), { tasks: [running(ADD, 'take in')] });
    const readers = { ...view, state: { ...view.state, route: { epoch: 1, writer: n1, readers: [n2, id('n3'), N4], hold: false } } };
    assert.equal(expectDecision(readers, 'node.added').tasks[0]?.status, 'done');
    const former = { ...readers, state: { ...readers.state, electorate: { ...readers.state.electorate, former: [n1, n2, id('n3')] } } };
    const unsettled = changeReport(former, n1, (report) => ({ ...report, stateRevision: 1 as never }));
    assert.equal(decideCluster(unsettled, NOW).tasks.length, 0);
    assert.equal(decideCluster(unsettled, later(61_000)).tasks[0]?.status, 'failed');
  });

  test('a copy that fails goes on by itself; after too many tries it is taken back, and the copy removed', () => {
    const failing = (attempts: number) =>
      changeReport(copying('n4 incomplete goal:clone fail:clone.failed'), N4, (report) => ({
        ...report,
        activity: report.activity.kind === 'failed' ? { ...report.activity, attempts } : report.activity,
      }));
    assert.equal(decideCluster(failing(5), NOW).tasks.length, 0);
    const decision = expectDecision(failing(6), 'node.add-undo');
    const goal = decision.state?.goals[N4];
    assert.deepEqual(goal?.kind === 'removed' ? goal.dropData : null, true);
  });

  test('when the member that is copied goes away, another one is taken', () => {
    const text = 'n4 incomplete goal:clone fail:clone.failed';
    const view = withMembership(
      picture(FOUR.replace('n4 absent', text).replace('n2 standby @0/5000', 'n2 dead'), { tasks: [running(ADD, 'copy')] }),
      N4,
      'joining',
    );
    const goal = view.state.goals[N4];
    const from = { ...view, state: { ...view.state, goals: { ...view.state.goals, [N4]: { ...goal, source: n2 } as never } } };
    const next = expectDecision(from, 'node.add-copy').state?.goals[N4];
    assert.equal(next?.kind === 'standby' ? next.source : null, 'n3');
  });

  test('an agent that dies in the middle is waited for, and not for ever', () => {
    const dead = copying('n4 dead goal:clone');
    assert.equal(decideCluster(dead, NOW).tasks.length, 0);
    const seen = dead.reports[N4];
    assert.ok(seen !== undefined);
    expectDecision({ ...dead, reports: { ...dead.reports, [N4]: { ...seen, ageMs: 900_001 } } }, 'node.add-undo');
  });

  test('cancelled: before the copy there is nothing to remove; after it the copy goes, then the entry, then the slot', () => {
    const early = expectDecision(reaching({ cancelRequested: true }), 'node.add-undo');
    const goal = early.state?.goals[N4];
    assert.equal(goal?.kind === 'removed' ? goal.dropData : null, false);
    const late = expectDecision(copying('n4 standby @0/5000', { cancelRequested: true }), 'node.add-undo');
    assert.equal(late.tasks[0]?.steps.at(-1)?.detail, 'the copy is removed');

    const leaving = withMembership(picture(FOUR, { tasks: [running(ADD, 'undo', { cancelRequested: true }, ['copy'])] }), N4, 'joining');
    const goals = { ...leaving.state.goals, [N4]: { kind: 'removed', id: 'r', term: leaving.state.term, dropData: true, reason: '' } as const };
    const ordered = { ...leaving, state: { ...leaving.state, goals } };
    const busy = changeReport(ordered, N4, (report) => ({
      ...report,
      activity: { kind: 'busy', goalId: 'r', step: 'drop-data', sinceWallMs: 1 as never, doneBytes: null, totalBytes: null },
    }));
    assert.equal(decideCluster(busy, NOW).spec, null, 'the entry stays while the agent works');
    const gone = expectDecision(
      changeReport(ordered, N4, (report) => ({ ...report, activity: { kind: 'done', goalId: 'r', detail: '' } })),
      'node.add-undone',
    );
    assert.equal(
      gone.spec?.nodes.some((node) => node.id === N4),
      false,
    );
    assert.equal(gone.tasks[0]?.status, 'running');

    const unregistered = outside({ tasks: [running(ADD, 'unregister', { cancelRequested: true }, ['copy', 'undo'])] });
    assert.equal(decideCluster(withSlot(unregistered, 'pgherd_n4'), NOW).tasks.length, 0, 'the slot goes before the task ends');
    assert.equal(expectDecision(unregistered, 'node.add-undone').tasks[0]?.status, 'cancelled');
  });

  test('a failed one ends as failed, with its reason', () => {
    const problems = [{ code: 'node-add.unreachable', text: 'no way', remedy: '' }];
    const decision = expectDecision(outside({ tasks: [running(ADD, 'unregister', { problems }, ['undo'])] }), 'node.add-undone');
    assert.deepEqual([decision.tasks[0]?.status, decision.tasks[0]?.problems], ['failed', problems]);
  });

  test('a joining node without a task leaves; a failover in between changes nothing for it', () => {
    const orphan = withMembership(picture(FOUR), N4, 'joining');
    assert.equal(expectDecision(orphan, 'node.add-undone').state?.goals[N4]?.kind, 'removed');
    const attempt = withMembership(
      picture(FOUR.replace('lease n1/3', 'attempt 4 vote goneMs 9000').replace('n1 primary @0/5000', 'n1 dead'), { tasks: [running(ADD, 'copy')] }),
      N4,
      'joining',
    );
    assert.equal(decideCluster(attempt, NOW).spec, null);
  });

  test('show says that it is on its way, and the cluster is healthy meanwhile', () => {
    const shown = showCluster(copying('n4 absent goal:clone busy'), NOW);
    assert.equal(shown.state, 'healthy');
    assert.deepEqual(
      shown.nodes.at(-1)?.problems.map((problem) => problem.code),
      ['node.joining'],
    );
  });

  test('it is never a candidate, never asked to vote, and its absence makes nothing unhealthy', () => {
    const lost = withMembership(
      picture(
        FOUR.replace('lease n1/3', 'goneMs 9000')
          .replace('n1 primary @0/5000', 'n1 dead')
          .replaceAll('standby @0/5000', 'standby @0/5000 sees:n1=down')
          .replace('n4 absent', 'n4 absent goal:none'),
        { tasks: [running(ADD, 'reach')] },
      ),
      N4,
      'joining',
    );
    const decision = decideCluster(lost, NOW);
    assert.notEqual(decision.state?.attempt ?? null, null);
    assert.notEqual(decision.state?.goals[N4]?.kind, 'vote');
  });
});
