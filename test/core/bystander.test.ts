import assert from 'node:assert/strict';
import { test } from 'node:test';
import { makeWallMs } from '../../src/core/ids.ts';
import { type ClusterState, type Switchover, handoverPart, isAside, isBystander } from '../../src/core/state.ts';
import { id, picture } from './cluster/picture.ts';

const STEADY = `term 3 primary n1 lease n1/3
  n1 primary @0/5000
  n2 standby @0/5000
  n3 standby @0/5000`;
const handover = (phase: Switchover['phase']): Switchover => ({
  taskId: 't',
  from: id('n1'),
  to: id('n2'),
  phase,
  startedWallMs: makeWallMs(1),
  phaseWallMs: makeWallMs(1),
  deadlineWallMs: makeWallMs(2),
  holdRoute: 0,
  reason: '',
});
const state = (change: Partial<ClusterState>): ClusterState => ({ ...picture(STEADY).state, ...change });

test('each node has its part in a handover, and none before and after it', () => {
  const parts = (change: Partial<ClusterState>): string[] => ['n1', 'n2', 'n3'].map((node) => handoverPart(state(change), id(node)));
  assert.deepEqual(parts({}), ['none', 'none', 'none']);
  assert.deepEqual(parts({ switchover: handover('hold') }), ['none', 'none', 'none']);
  assert.deepEqual(parts({ switchover: handover('stop') }), ['watching', 'taking', 'watching']);
  assert.deepEqual(parts({ switchover: handover('promote') }), ['left', 'taking', 'watching']);
  assert.deepEqual(parts({ switchover: { ...handover('stop'), to: id('n1') } }), ['watching', 'watching', 'watching'], 'a restart in place');
  assert.equal(handoverPart(null, id('n1')), 'none');
});

test('a node looks away only while two others hand over, and its own goal stays', () => {
  const before = state({});
  for (const phase of ['stop', 'promote'] as const) {
    const after = state({ switchover: handover(phase) });
    assert.deepEqual(
      ['n1', 'n2', 'n3'].map((node) => isBystander(before, after, id(node))),
      [false, false, true],
    );
    const { goals } = after;
    const goal = goals[id('n3')];
    assert.ok(goal !== undefined);
    assert.equal(isBystander(before, { ...after, goals: { ...goals, [id('n3')]: { ...goal, id: 'another' } } }, id('n3')), false, 'its own order');
  }
  for (const phase of ['checkpoint', 'hold', 'undo'] as const)
    assert.equal(isBystander(before, state({ switchover: handover(phase) }), id('n3')), false, phase);
  assert.equal(isBystander(state({ switchover: handover('promote') }), before, id('n3')), false, 'the end of it is everybody’s business');
  assert.equal(isBystander(null, state({ switchover: handover('stop') }), id('n3')), false);
  assert.equal(isBystander(before, null, id('n3')), false);
});

test('aside is whoever the ordered successor does not wait for', () => {
  const aside = (phase: Parameters<typeof handover>[0]): readonly boolean[] =>
    ['n1', 'n2', 'n3'].map((node) => isAside(state({ switchover: handover(phase) }), id(node)));
  assert.deepEqual(aside('promote'), [true, false, true]);
  for (const phase of ['checkpoint', 'hold', 'stop'] as const) assert.deepEqual(aside(phase), [false, false, false], phase);
  const inPlace = state({ switchover: { ...handover('promote'), to: id('n1') } });
  assert.deepEqual(
    ['n1', 'n2'].map((node) => isAside(inPlace, id(node))),
    [false, true],
    'a restart in place is waited for at its own node',
  );
  assert.equal(isAside(null, id('n1')), false);
});
