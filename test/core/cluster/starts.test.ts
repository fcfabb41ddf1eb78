/** Starts of a node or of the cluster that come to nothing by themselves. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { makeWallMs } from '../../../src/core/ids.ts';
import { decideCluster } from '../../../src/core/cluster/decide.ts';
import type { ClusterState } from '../../../src/core/state.ts';
import { NOW, WALL, id, makeTask, picture } from './picture.ts';
import { STEADY, ask } from './steady.ts';

test('a stopped node with the mark of an unfinished promotion is not started to stream, and keeps its mark (I9)', () => {
  const marked = (state: ClusterState): ClusterState => ({
    ...state,
    overrides: { [id('n2')]: { kind: 'stopped', reason: '', by: 'anna', sinceWallMs: makeWallMs(WALL) } },
    recovery: {
      [id('n2')]: {
        checks: 0,
        firstSeenWallMs: makeWallMs(WALL),
        attempts: 0,
        notBeforeWallMs: makeWallMs(WALL),
        lastError: 'a promotion was not completed',
      },
    },
  });
  const view = ask({ kind: 'nodeStart', node: id('n2') }, STEADY.replace('n2 standby', 'n2 stopped'), { state: marked });
  const { state } = decideCluster(view, NOW);
  assert.ok(state !== null);
  assert.deepEqual([state.goals[id('n2')]?.kind, state.overrides], ['fenced', {}]);
  assert.match(state.recovery[id('n2')]?.lastError ?? '', /^a promotion was not completed/);
});

/** A start of the cluster that began so long ago. */
const startedBefore = (ms: number): ReturnType<typeof makeTask> =>
  makeTask(
    { kind: 'clusterStart' },
    { status: 'running', steps: [{ name: 'start', state: 'running', atWallMs: makeWallMs(WALL - ms), detail: '' }] },
  );

test('a start that waits for a primary which waits for standbys that wait for a person ends, so that the person may act', () => {
  const text = `term 3 primary n1 lease n1/3 quorum 1/n2
    n1 primary notinforce @0/5000
    n2 stopped @0/5000 goal:fenced`;
  const view = picture(text, { spec: { durability: { mode: 'quorum', k: 1, minSync: 1 }, recovery: 'manual' }, tasks: [startedBefore(31_000)] });
  const seen = view.reports[id('n1')];
  assert.ok(seen !== undefined);
  const closed = { ...view, reports: { ...view.reports, [id('n1')]: { ...seen, report: { ...seen.report, open: false } } } };
  const ended = decideCluster(closed, NOW).tasks.find((task) => task.request.kind === 'clusterStart');
  assert.deepEqual([ended?.status, ended?.problems[0]?.code], ['failed', 'cluster-start.incomplete']);
  assert.match(
    ended?.problems[0]?.text ?? '',
    /n1 opens when 1 of its standbys hold what it recovered, and only 0 may follow it; n2 is not taken in/,
  );
  assert.deepEqual(decideCluster({ ...closed, tasks: [startedBefore(29_000)] }, NOW).tasks, []);
});

test('a start in a restored store that nobody confirms ends, and names the command that decides', () => {
  const text = `term 3 primary n1
    n1 stopped knows5 @0/5000
    n2 standby knows5 @0/5000`;
  const restored = (ms: number): ReturnType<typeof picture> =>
    picture(text, { state: (state) => ({ ...state, incarnation: 'restored from store-0' }), tasks: [startedBefore(ms)] });
  const ended = decideCluster(restored(10_500), NOW).tasks.find((task) => task.request.kind === 'clusterStart');
  assert.deepEqual([ended?.status, ended?.problems[0]?.code], ['failed', 'cluster-start.store']);
  assert.match(ended?.problems[0]?.remedy ?? '', /pgherd failover/);
  assert.deepEqual(decideCluster(restored(9000), NOW).tasks, []);
});
