import assert from 'node:assert/strict';
import { test } from 'node:test';
import { decideCluster } from '../../../src/core/cluster/decide.ts';
import type { Task } from '../../../src/core/state.ts';
import { NOW, WALL, id, later, makeSpec, makeTask, picture } from './picture.ts';
import { expectDecision, expectRule } from './rule-case.ts';
import { makeWallMs } from '../../../src/core/ids.ts';
import { created, interrupted } from './world-runs.ts';
import { type World, addTask, host, isHealthy, killHost, killPostgres, runFor, runUntil } from './world.ts';

const STEADY = `term 3 primary n1 lease n1/3
  n1 primary @0/5000
  n2 standby @0/5000
  n3 standby @0/5000`;
const ROLLING = { kind: 'clusterRestart', rolling: true } as const;
const NAMES = ['n1', 'n2', 'n3'] as const;

/** Changes the cluster's settings, as `settings set` does. */
function set(world: World, parameters: Readonly<Record<string, string>>): void {
  world.spec = makeSpec(
    NAMES.map((name) => ({ id: name, host: `${name}.example` })),
    { antiFlappingMs: 0, postgres: { parameters: { ...world.spec.postgres.parameters, ...parameters } } },
  );
}

function ask(world: World): void {
  addTask(world, makeTask(ROLLING, { id: 'roll' }));
}

const rollOf = (world: World): Task | undefined => world.tasks.get('roll');
const ended = (world: World): boolean => !['pending', 'running'].includes(rollOf(world)?.status ?? 'pending');

/** Runs to its end, and says in which order nodes were restarted. Throws when two of them were away at once, or a standby ran with less than its primary. */
function roll(world: World, limitMs = 60_000): readonly string[] {
  const order: string[] = [];
  const before = new Map(NAMES.map((name) => [name, host(world, name).pg.startedAt]));
  ask(world);
  runUntil(
    world,
    'the rolling restart ended',
    (one) => {
      const standbys = NAMES.filter((name) => name !== one.state?.primary);
      const away = standbys.filter((name) => host(one, name).pg.state !== 'running');
      assert.ok(away.length <= 1, `${away.join()} are away at once`);
      for (const name of NAMES) {
        const { startedAt, state, role, minimums, replayed } = host(one, name).pg;
        if (startedAt !== before.get(name)) order.push(name);
        before.set(name, startedAt);
        const short = state === 'running' && role === 'standby' && minimums.max_connections < replayed.max_connections;
        assert.ok(!short, `${name} runs with less than its primary`);
      }
      return ended(one);
    },
    limitMs,
  );
  return order;
}

const valuesOf = (world: World, name: 'max_connections' | 'max_prepared_transactions'): readonly number[] =>
  NAMES.map((node) => host(world, node).pg.minimums[name]);

test('standbys first, then the primary by a switchover; the role moves once', () => {
  const world = created({ antiFlappingMs: 0 });
  assert.deepEqual(roll(world), ['n2', 'n3', 'n1']);
  assert.equal(rollOf(world)?.status, 'done', JSON.stringify(rollOf(world)?.problems));
  assert.match(rollOf(world)?.result ?? '', /every node was restarted; n[23] is the primary of term 2/);
  assert.ok(isHealthy(world));
});

test('a setting that is raised reaches the standbys first, and every node by the end (Z37)', () => {
  const world = created({ antiFlappingMs: 0 });
  set(world, { max_connections: '200' });
  assert.deepEqual(roll(world), ['n2', 'n3', 'n1']);
  assert.deepEqual(valuesOf(world, 'max_connections'), [200, 200, 200]);
});

test('a setting that is lowered is lowered on the primary first, in place and in its term (Z37)', () => {
  const world = created({ antiFlappingMs: 0 });
  set(world, { max_connections: '50' });
  assert.deepEqual(roll(world), ['n1', 'n2', 'n3']);
  assert.deepEqual(valuesOf(world, 'max_connections'), [50, 50, 50]);
  assert.deepEqual([world.state?.primary, world.state?.primaryTerm], ['n1', 1]);
  assert.ok(rollOf(world)?.steps.some((step) => step.name === 'lower settings' && /max_connections 100 → 50/.test(step.detail)));
});

test('one setting raised and another lowered: standbys, the primary, standbys again', () => {
  const world = created({ antiFlappingMs: 0, postgres: { parameters: { max_prepared_transactions: '0' } } });
  set(world, { max_connections: '50', max_prepared_transactions: '7' });
  assert.deepEqual(roll(world), ['n2', 'n3', 'n1', 'n2', 'n3']);
  assert.deepEqual(
    [valuesOf(world, 'max_connections'), valuesOf(world, 'max_prepared_transactions')],
    [
      [50, 50, 50],
      [7, 7, 7],
    ],
  );
});

test('with quorum commit a node is counted on again before the next one goes, and protection is never lowered', () => {
  const world = created({ antiFlappingMs: 0, durability: { mode: 'quorum', k: 1 } });
  runUntil(world, 'both are counted on', (one) => one.state?.quorum.voters.length === 2, 20_000);
  const lowered: string[] = [];
  ask(world);
  runUntil(
    world,
    'the rolling restart ended',
    (one) => {
      const reason = one.state?.quorum.lowered?.reason;
      if (reason !== undefined && one.state?.attempt === null && lowered.at(-1) !== reason) lowered.push(reason);
      return ended(one);
    },
    60_000,
  );
  assert.equal(rollOf(world)?.status, 'done', JSON.stringify(rollOf(world)?.problems));
  assert.deepEqual(lowered, []);
  runUntil(world, 'both are counted on again', (one) => one.state?.quorum.voters.length === 2, 20_000);
});

test('one node alone is restarted in place', () => {
  const world = created({ antiFlappingMs: 0 }, ['n1']);
  const { startedAt } = host(world, 'n1').pg;
  ask(world);
  runUntil(world, 'ended', ended, 30_000);
  assert.equal(rollOf(world)?.status, 'done', JSON.stringify(rollOf(world)?.problems));
  assert.ok(host(world, 'n1').pg.startedAt > startedAt && isHealthy(world));
});

test('a standby gets no new reads before it stops, until every live proxy has taken it out and its reads had their time (H41)', () => {
  const first = decideCluster(
    picture(STEADY, {
      tasks: [makeTask(ROLLING)],
      acks: { p1: 4 },
      state: (state) => ({ ...state, route: { epoch: 4, writer: id('n1'), readers: [id('n2'), id('n3')], hold: false } }),
    }),
    NOW,
  );
  assert.ok(first.state !== null);
  assert.deepEqual([first.state.draining?.node, first.state.route.readers, first.state.goals[id('n2')]?.id], ['n2', ['n3'], 'standby-3-g0']);
  const { epoch } = first.state.route;
  const at = (acks: Readonly<Record<string, number>>, ms: number): string => {
    const view = picture(STEADY, { tasks: first.tasks, acks });
    return decideCluster({ ...view, state: first.state ?? view.state }, later(ms)).state?.goals[id('n2')]?.id ?? 'standby-3-g0';
  };
  assert.equal(at({ p1: epoch - 1 }, 2000), 'standby-3-g0', 'the proxy has not taken it out');
  assert.equal(at({ p1: epoch }, 500), 'standby-3-g0', 'reads that are under way');
  assert.equal(at({ p1: epoch }, 1000), 'standby-3-g1');
  assert.equal(at({ p1: epoch - 1 }, 5000), 'standby-3-g1', 'a proxy that hangs');
  assert.equal(at({}, 0), 'standby-3-g1', 'there is no proxy');
});

test('a standby that was drained for a restart that is over gets its reads again', () => {
  const view = picture(STEADY, { state: (state) => ({ ...state, draining: { node: id('n2'), epoch: 0, sinceWallMs: makeWallMs(WALL) } }) });
  assert.deepEqual(expectRule(view, 'cluster.undrained').route.readers, ['n2', 'n3']);
});

test('a node that is not in order refuses a rolling restart, and is named', () => {
  for (const [text, why] of [
    [STEADY.replace('n3 standby @0/5000', 'n3 dead'), /agent of n3 does not report/],
    [STEADY.replace('n3 standby @0/5000', 'n3 stopped tl9 goal:fenced'), /n3 is not taken in/],
    [STEADY.replace('n3 standby @0/5000', 'n3 crashed @0/5000'), /n3 does not stream from n1 \(PostgreSQL is crashed\)/],
  ] as const) {
    const [task] = decideCluster(picture(text, { tasks: [makeTask(ROLLING)] }), NOW).tasks;
    assert.equal(task?.status, 'refused', text);
    assert.match(task?.problems.map((problem) => problem.text).join() ?? '', why);
  }
});

test('a node that was stopped on request, or is in maintenance, is left out', () => {
  const stopped = picture(STEADY.replace('n3 standby @0/5000', 'n3 stopped goal:stopped'), {
    tasks: [makeTask(ROLLING)],
    state: (state) => ({ ...state, overrides: { [id('n3')]: { kind: 'stopped', reason: '', by: 'anna', sinceWallMs: makeWallMs(WALL) } } }),
  });
  assert.match(expectDecision(stopped, 'cluster.rolling').tasks[0]?.steps[0]?.detail ?? '', /in this order: n2, n1$/);
});

test('nobody who could take over: refused before anything is touched', () => {
  const text = STEADY.replace('n2 standby', 'n2 standby prio0').replace('n3 standby', 'n3 standby prio0');
  const [task] = expectDecision(picture(text, { tasks: [makeTask(ROLLING)] }), 'cluster.refused').tasks;
  assert.deepEqual([task?.status, task?.problems.length], ['refused', 1]);
});

test('the second standby is not touched while the first one does not stream', () => {
  const world = created({ antiFlappingMs: 0 });
  host(world, 'n2').broken.add('start-standby');
  ask(world);
  runFor(world, 20_000);
  assert.equal(host(world, 'n3').pg.startedAt, Math.min(host(world, 'n3').pg.startedAt, world.t - 20_000));
  assert.equal(world.state?.primary, 'n1');
  runUntil(world, 'ended', ended, 120_000);
  const task = rollOf(world);
  assert.equal(task?.status, 'failed');
  assert.match(task?.problems[0]?.text ?? '', /Restarted: none\. Not restarted: n2, n3, n1\./);
});

test('a standby that dies while another one is restarted stops the restart there', () => {
  const world = created({ antiFlappingMs: 0 });
  ask(world);
  runUntil(world, 'n2 is being restarted', (one) => rollOf(one)?.steps.at(-1)?.name === 'restart n2', 5000);
  killHost(host(world, 'n3'));
  runUntil(world, 'ended', ended, 120_000);
  assert.match(rollOf(world)?.problems[0]?.text ?? '', /agent of n3 does not report.*Restarted: n2\. Not restarted: n3, n1\./);
  assert.equal(world.state?.primary, 'n1');
});

test('a failover in the middle: the restart goes on under the new primary, and replaces each server once', () => {
  const world = created({ antiFlappingMs: 0 });
  ask(world);
  runUntil(world, 'n3 is being restarted', (one) => rollOf(one)?.steps.at(-1)?.name === 'restart n3', 10_000);
  killPostgres(host(world, 'n1'));
  runUntil(world, 'ended', ended, 60_000);
  assert.equal(rollOf(world)?.status, 'done', JSON.stringify(rollOf(world)?.problems));
  runUntil(world, 'healthy', isHealthy, 20_000);
});

test('cancelled between two nodes: what was restarted stays so, nothing more is touched', () => {
  const world = created({ antiFlappingMs: 0 });
  ask(world);
  runUntil(world, 'n2 is being restarted', (one) => rollOf(one)?.steps.at(-1)?.name === 'restart n2', 5000);
  const task = rollOf(world);
  assert.ok(task !== undefined);
  world.tasks.set('roll', { ...task, cancelRequested: true });
  runUntil(world, 'ended', ended, 30_000);
  assert.deepEqual(
    [rollOf(world)?.status, rollOf(world)?.result],
    ['cancelled', 'cancelled between two nodes. Restarted: n2. Not restarted: n3, n1.'],
  );
  assert.ok(isHealthy(world));
});

test('a restart in place that does not come back ends the hold, and the failover rules decide', () => {
  const planned = (phase: 'stop' | 'hold'): ReturnType<typeof picture> =>
    picture(STEADY.replace('n1 primary @0/5000', 'n1 stopped goal:primary @0/5000'), {
      tasks: [makeTask(ROLLING, { status: 'running', steps: [{ name: 'restart n1', state: 'running', atWallMs: makeWallMs(WALL), detail: '' }] })],
      acks: {},
      state: (state) => ({
        ...state,
        switchover: {
          taskId: 't1',
          from: id('n1'),
          to: id('n1'),
          phase,
          startedWallMs: makeWallMs(WALL),
          phaseWallMs: makeWallMs(WALL),
          deadlineWallMs: makeWallMs(WALL + 60_000),
          holdRoute: 5,
          reason: 'test',
        },
      }),
    });
  expectRule(planned('stop'), 'switchover.waiting');
  const late = expectDecision(planned('stop'), 'switchover.undone', later(31_000));
  assert.deepEqual([late.state?.switchover, late.tasks[0]?.problems[0]?.code], [null, 'switchover.restart-slow']);
  const back = picture(STEADY.replace('n1 primary', 'n1 primary done'), { state: () => planned('stop').state, tasks: planned('stop').tasks });
  assert.equal(expectRule(back, 'switchover.restarted').switchover, null);
});

test('a standby that has less than the primary it follows is restarted once for it (Z37)', () => {
  const with100 = (text: string): ReturnType<typeof picture> => {
    const view = picture(text);
    const of = (name: string, value: number): object => {
      const seen = view.reports[id(name)];
      return { ...seen, report: { ...seen?.report, postgres: { ...seen?.report.postgres, minimums: { max_connections: value } } } };
    };
    return { ...view, reports: { [id('n1')]: of('n1', 200), [id('n2')]: of('n2', 100), [id('n3')]: of('n3', 100) } as typeof view.reports };
  };
  const view = with100(STEADY);
  const state = expectRule(view, 'standby.settings-lower');
  const goal = state.goals[id('n2')];
  assert.equal(goal?.kind === 'standby' ? goal.restart : null, 'settings-3-max_connections-100-200');
  assert.equal(state.goals[id('n3')]?.id, view.state.goals[id('n3')]?.id, 'one at a time');
  const next = expectRule({ ...view, state }, 'standby.settings-lower');
  const both = expectDecision({ ...view, state: next }, 'cluster.steady');
  assert.equal(both.state, null, 'each is asked once for the same values');
});

const INTERRUPTED: Readonly<Record<string, (world: World) => void>> = {
  'rolling restart': ask,
  'rolling restart with a raised setting': (world) => {
    set(world, { max_connections: '200' });
    ask(world);
  },
  'rolling restart with a lowered setting': (world) => {
    set(world, { max_connections: '50' });
    ask(world);
  },
  'rolling restart with quorum commit and a lowered setting': (world) => {
    world.spec = { ...world.spec, durability: { mode: 'quorum', k: 1, strict: false, minSync: 0 } };
    runUntil(world, 'both are counted on', (one) => one.state?.quorum.voters.length === 2, 20_000);
    world.spec = { ...world.spec, postgres: { ...world.spec.postgres, parameters: { max_connections: '50' } } };
    ask(world);
  },
  'restart of everything': (world) => addTask(world, makeTask({ kind: 'clusterRestart', rolling: false }, { id: 'all' })),
};

for (const [name, scenario] of Object.entries(INTERRUPTED)) {
  test(`${name}: the server may die after any decision (H45)`, () => {
    const steps = interrupted(1000, scenario);
    assert.ok(steps >= 3, `${steps} decisions`);
    for (let k = 1; k <= steps; k++) interrupted(k, scenario);
  });
}
