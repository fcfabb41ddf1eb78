import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { ClusterState } from '../../../src/core/state.ts';
import { withGoal } from '../../../src/core/cluster/goals.ts';
import { makeTerm } from '../../../src/core/ids.ts';
import { goalsOf, id, makeTask, picture } from './picture.ts';
import { expectDecision, expectRule } from './rule-case.ts';

const create = makeTask({ kind: 'create' });
const running = { tasks: [{ ...create, status: 'running' as const }] };

test('three empty nodes: the first of the highest priority is created', () => {
  const view = picture('term 0\nn1 absent\nn2 absent prio200\nn3 absent', { tasks: [create] });
  const state = expectRule(view, 'bootstrap.create');
  assert.equal(goalsOf(state, view.spec), 'n1:- n2:create n3:-');
  assert.deepEqual([state.phase, state.term], ['creating', 1]);
});

test('a silent node is waited for, never taken for an empty one (I10, Q24)', () => {
  const decision = expectDecision(picture('term 0\nn1 absent\nn2 silent\nn3 absent', { tasks: [create] }), 'bootstrap.waiting-agents');
  assert.match(decision.why, /n2/);
});

test('a running primary with its standbys is adopted, without a restart', () => {
  const view = picture('term 0\nn1 rogue\nn2 detached\nn3 absent', { tasks: [create] });
  const reports = {
    ...view.reports,
    [id('n2')]: {
      ...view.reports[id('n2')]!,
      report: { ...view.reports[id('n2')]!.report, postgres: { ...view.reports[id('n2')]!.report.postgres, streamingFrom: id('n1') } },
    },
  };
  const state = expectRule({ ...view, reports }, 'bootstrap.adopt');
  assert.equal(goalsOf(state, view.spec), 'n1:adopt n2:- n3:-');
  expectRule(view, 'bootstrap.refused');
});

test('data that nobody can judge is refused with each reason, and nobody runs initdb (I10, Q25)', () => {
  const cases: readonly (readonly [string, RegExp])[] = [
    ['n1 rogue\nn2 rogue', /n1 and n2 both accept writes/],
    ['n1 rogue\nn2 detached sys9', /n2 belongs to another cluster \(system identifier sys9/],
    ['n1 rogue\nn2 detached', /n2 does not stream from n1/],
    ['n1 stopped\nn2 absent', /n1 has a data directory, but no primary runs/],
  ];
  for (const [nodes, text] of cases) {
    const decision = expectDecision(picture(`term 0\n${nodes}`, { tasks: [create] }), 'bootstrap.refused');
    assert.match(decision.why, text);
    assert.equal(decision.tasks[0]?.status, 'refused');
  }
});

test('a directory that is not empty and holds no PostgreSQL is named, and nothing is created or adopted beside it', () => {
  for (const first of ['n1 absent', 'n1 rogue']) {
    const view = picture(`term 0\n${first}\nn2 incomplete`, { tasks: [create] });
    const seen = view.reports[id('n2')];
    assert.ok(seen !== undefined);
    const problems = [
      { code: 'directory.foreign-files', text: 'the data directory /home is not empty, and holds no PostgreSQL: ann', remedy: 'compare it' },
    ];
    const reports = { ...view.reports, [id('n2')]: { ...seen, report: { ...seen.report, problems } } };
    const decision = expectDecision({ ...view, reports }, 'bootstrap.refused');
    assert.match(decision.why, /n2: the data directory \/home is not empty, and holds no PostgreSQL: ann/);
    assert.deepEqual([decision.tasks[0]?.status, decision.tasks[0]?.problems[0]?.code], ['refused', 'init.not-empty']);
  }
});

test('a cluster that exists is not created again', () => {
  expectRule(picture('term 3 primary n1 lease n1/3\nn1 primary\nn2 standby', { tasks: [create] }), 'bootstrap.refused');
});

const creating = (state: ClusterState): ClusterState =>
  withGoal({ ...state, phase: 'creating', term: makeTerm(1) }, id('n1'), makeTerm(1), { kind: 'create' });

test('the first node is open: the others are cloned from it', () => {
  const view = picture('term 0 lease n1/1\nn1 primary lease1 open\nn2 absent', { ...running, state: creating });
  const decision = expectDecision(view, 'bootstrap.opened');
  assert.ok(decision.state !== null);
  assert.equal(goalsOf(decision.state, view.spec), 'n1:primary n2:clone');
  assert.deepEqual([decision.opened?.term, decision.opened?.outageMs, decision.state.phase], [1, null, 'running']);
});

test('until then it is waited for; a failure ends the task', () => {
  expectRule(picture('term 0\nn1 absent busy\nn2 absent', { ...running, state: creating }), 'bootstrap.waiting');
  const decision = expectDecision(picture('term 0\nn1 absent gaveup:initdb.failed\nn2 absent', { ...running, state: creating }), 'bootstrap.failed');
  assert.deepEqual([decision.tasks[0]?.status, decision.state?.phase], ['failed', 'new']);
});

test('why the first node tries again stands in the journal of the command, once', () => {
  const failing = 'term 0\nn1 absent fail:postgres.port-in-use\nn2 absent';
  const decision = expectDecision(picture(failing, { ...running, state: creating }), 'bootstrap.retried');
  assert.match(decision.tasks[0]?.steps.at(-1)?.detail ?? '', /^n1: .*postgres\.port-in-use/);
  assert.equal(decision.tasks[0]?.status, 'running');
  expectRule(picture(failing, { tasks: decision.tasks, state: creating }), 'bootstrap.waiting');
});

test('so does that of a standby that cannot be cloned', () => {
  const { tasks } = expectDecision(
    picture('term 0 lease n1/1\nn1 primary lease1 open\nn2 absent', { ...running, state: creating }),
    'bootstrap.opened',
  );
  const told = expectDecision(
    picture('term 1 primary n1 lease n1/1\nn1 primary\nn2 absent goal:clone fail:clone.space', { tasks }),
    'bootstrap.retried',
  );
  assert.match(told.tasks[0]?.steps.at(-1)?.detail ?? '', /^n2: .*clone\.space/);
});

test('the task is done when every standby streams', () => {
  const task = {
    ...create,
    status: 'running' as const,
    steps: [{ name: 'standbys', state: 'running' as const, atWallMs: create.createdWallMs, detail: '' }],
  };
  expectRule(picture('term 1 primary n1 lease n1/1\nn1 primary\nn2 standby', { tasks: [task] }), 'bootstrap.completed');
  expectRule(picture('term 1 primary n1 lease n1/1\nn1 primary\nn2 absent busy', { tasks: [task] }), 'standby.clone');
});
