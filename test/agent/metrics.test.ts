import assert from 'node:assert/strict';
import { test } from 'node:test';
import { makeClusterId, makeNodeId, makeTerm } from '../../src/core/ids.ts';
import type { AgentStatus } from '../../src/agent/http/status.ts';
import { renderMetrics } from '../../src/agent/status.ts';
import { blankReport } from '../core/cluster/picture.ts';

const status: AgentStatus = {
  cluster: makeClusterId('demo'),
  node: makeNodeId('n1'),
  version: '0.1.0',
  incarnation: null,
  role: 'primary',
  term: makeTerm(3),
  lease: null,
  open: true,
  streaming: false,
  lagBytes: null,
  synchronous: false,
  maintenance: false,
  delayed: false,
  ready: true,
};

test('a node without virtual addresses tells nothing of them', () => {
  assert.doesNotMatch(renderMetrics(status, blankReport(status.node)), /vip/);
});

test('each virtual address is one line a metric, with its role and address', () => {
  const vips = [
    { vip: 'write', address: '10.0.0.8', state: 'held', otherMac: 'aa:bb:cc:dd:ee:ff', detail: '' },
    { vip: 'read', address: 'fd00::9', state: 'conflict', otherMac: null, detail: '' },
  ] as const;
  const lines = renderMetrics(status, { ...blankReport(status.node), vips }).split('\n');
  assert.deepEqual(
    lines.filter((line) => line.startsWith('pgherd_node_vip')),
    [
      'pgherd_node_vip_held{cluster="demo",node="n1",vip="write",address="10.0.0.8"} 1',
      'pgherd_node_vip_held{cluster="demo",node="n1",vip="read",address="fd00::9"} 0',
      'pgherd_node_vip_conflict{cluster="demo",node="n1",vip="write",address="10.0.0.8"} 1',
      'pgherd_node_vip_conflict{cluster="demo",node="n1",vip="read",address="fd00::9"} 1',
    ],
  );
  assert.equal(lines.filter((line) => line.startsWith('# TYPE pgherd_node_vip')).length, 2);
});
