import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { showCluster } from '../../../src/core/cluster/describe.ts';
import { makeWallMs } from '../../../src/core/ids.ts';
import { NOW, WALL, makeTask, picture } from './picture.ts';

describe('problems of nodes', () => {
  test('that differ only in the node are one, with all their nodes', () => {
    const view = picture('term 3 primary n1 lease n1/3\nn1 primary\nn2 standby\nn3 standby');
    const weak = { code: 'fence.no-firewall', text: 'no fail-closed firewall rule', remedy: 'run the agent as root' };
    const reports = Object.fromEntries(
      Object.entries(view.reports).map(([node, seen]) => [node, { ...seen, report: { ...seen.report, problems: [weak] } }]),
    ) as typeof view.reports;
    const shown = showCluster({ ...view, reports }, NOW);
    assert.deepEqual(
      shown.problems.map((problem) => problem.text),
      ['n1, n2, n3: no fail-closed firewall rule'],
    );
    assert.deepEqual(
      shown.nodes.map((node) => node.problems[0]?.text),
      ['n1: no fail-closed firewall rule', 'n2: no fail-closed firewall rule', 'n3: no fail-closed firewall rule'],
    );
  });
});

describe('a node without data', () => {
  test('that is to be copied is no fault of anybody: no rejoin is suggested', () => {
    const shown = showCluster(picture('term 1 primary n1 lease n1/1\nn1 primary\nn2 absent'), NOW).problems;
    const own = shown.find((problem) => problem.text.startsWith('n2'));
    assert.deepEqual([own?.code, own?.text], ['node.empty', 'n2 has no data yet: it is copied from n1.']);
  });
});

describe('a cluster whose creation runs', () => {
  test('says what init waits for and how to watch it, and never to run init again', () => {
    const pending = showCluster(picture('term 0\nn1 absent\nn2 silent', { tasks: [makeTask({ kind: 'create' }, { id: 'c1' })] }), NOW).problems;
    assert.match(pending[0]?.text ?? '', /"pgherd init" is at work: waiting for the agent of n2/);
    assert.match(pending[0]?.remedy ?? '', /pgherd task log c1/);
    assert.ok(pending.every((problem) => !problem.remedy.includes('pgherd init')));
  });

  test('names the step while standbys are cloned, and does not alarm that none streams yet', () => {
    const steps = [{ name: 'standbys', state: 'running' as const, atWallMs: makeWallMs(WALL), detail: 'n1 is the primary of term 1' }];
    const task = makeTask({ kind: 'create' }, { id: 'c1', status: 'running', steps });
    const shown = showCluster(picture('term 1 primary n1 lease n1/1\nn1 primary\nn2 absent busy', { tasks: [task] }), NOW).problems;
    assert.deepEqual(
      shown.map((problem) => problem.code),
      ['cluster.creating'],
    );
  });

  test('without that task, init is the remedy', () => {
    const [first] = showCluster(picture('term 0\nn1 absent'), NOW).problems;
    assert.deepEqual([first?.code, first?.remedy], ['cluster.new', '"pgherd init -f cluster.yaml"']);
  });
});
