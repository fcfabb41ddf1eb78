import assert from 'node:assert/strict';
import { test } from 'node:test';
import { decideCluster } from '../../../src/core/cluster/decide.ts';
import { serverMark } from '../../../src/core/cluster/rules/rolling.ts';
import { makeWallMs } from '../../../src/core/ids.ts';
import type { Task } from '../../../src/core/state.ts';
import { NOW, WALL, id, makeTask, picture } from './picture.ts';
import { expectDecision } from './rule-case.ts';
import { STEADY } from './steady.ts';

test('a restart whose order a later term took away ends, instead of being waited for', () => {
  const steady = picture(STEADY);
  const mark = serverMark(steady.reports[id('n2')]?.report ?? null) ?? '';
  const restarting = (detail: string): Task =>
    makeTask(
      { kind: 'nodeRestart', node: id('n2') },
      { id: 'r', status: 'running', steps: [{ name: 'restart n2', state: 'running', atWallMs: makeWallMs(WALL), detail }] },
    );
  const overtaken = expectDecision(picture(STEADY, { tasks: [restarting(mark)] }), 'node.done').tasks[0];
  assert.equal(overtaken?.status, 'failed');
  assert.match(overtaken?.problems[0]?.text ?? '', /the order was overtaken: n2 serves in term 3, and was not restarted/);
  // Restarted by whatever came between, it is done; and as long as the order stands, it is waited for.
  assert.equal(expectDecision(picture(STEADY, { tasks: [restarting('another server')] }), 'node.done').tasks[0]?.status, 'done');
  const ordered = decideCluster(picture(STEADY, { tasks: [makeTask({ kind: 'nodeRestart', node: id('n2') }, { id: 'r' })] }), NOW);
  const standing = picture(STEADY, { tasks: [restarting(mark)], state: (state) => ({ ...state, goals: ordered.state?.goals ?? state.goals }) });
  assert.notEqual(decideCluster(standing, NOW).rule, 'node.done');
});
