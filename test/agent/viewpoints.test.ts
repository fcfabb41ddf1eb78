import assert from 'node:assert/strict';
import { test } from 'node:test';
import { type ProbeMember, createViewpoints } from '../../src/agent/viewpoints.ts';
import { makeMonoMs, makeNodeId, makeWallMs } from '../../src/core/ids.ts';
import { spec } from './fake-world.ts';

const n1 = makeNodeId('n1');
const n2 = makeNodeId('n2');
const n3 = makeNodeId('n3');

function viewpoint(answers: readonly Awaited<ReturnType<ProbeMember>>['verdict'][]) {
  let at = 0;
  let changes = 0;
  let index = 0;
  const asked: string[] = [];
  const points = createViewpoints({
    node: n1,
    clock: { now: () => ({ mono: makeMonoMs(at), wall: makeWallMs(at) }), sleep: () => Promise.resolve() },
    probe: ({ node }) => {
      asked.push(node);
      return Promise.resolve({ verdict: answers[Math.min(index++, answers.length - 1)] ?? 'failed', error: null });
    },
    agentAlive: () => Promise.resolve(true),
    trusted: () => Promise.resolve(false),
    onChange: () => {
      changes++;
    },
  });
  return { points, asked, changes: () => changes, pass: (ms: number) => (at += ms) };
}

test('one failed probe is not "down", two in a row are (S15, H12)', async () => {
  const { points } = viewpoint(['primary', 'failed', 'failed', 'primary']);
  const verdicts: string[] = [];
  for (let i = 0; i < 4; i++) {
    await points.round(spec, n2);
    verdicts.push(points.probes()['n2']?.verdict ?? '-');
  }
  assert.deepEqual(verdicts, ['primary', 'unknown', 'down', 'primary']);
});

test('two looks over two connections that fail together count as two', async () => {
  const points = createViewpoints({
    node: n1,
    clock: { now: () => ({ mono: makeMonoMs(0), wall: makeWallMs(0) }), sleep: () => Promise.resolve() },
    probe: () => Promise.resolve({ verdict: 'failed', error: 'no answer', looks: 2 }),
    agentAlive: () => Promise.resolve(false),
    trusted: () => Promise.resolve(false),
    onChange: () => undefined,
  });
  await points.round(spec, n2);
  assert.equal(points.probes()['n2']?.verdict, 'down');
});

test('the age of the last success is told', async () => {
  const { points, pass } = viewpoint(['primary', 'failed']);
  await points.round(spec, n2);
  pass(700);
  await points.round(spec, n2);
  assert.equal(points.probes()['n2']?.lastOkAgoMs, 700);
});

test('nobody probes itself, and a former primary is forgotten', async () => {
  const { points, asked } = viewpoint(['primary']);
  await points.round(spec, n1);
  await points.round(spec, n2);
  await points.round(spec, n3);
  assert.deepEqual(asked, ['n2', 'n3']);
  assert.deepEqual(Object.keys(points.probes()), ['n3']);
});

test('a change of the verdict is told at once, and only then', async () => {
  const { points, changes } = viewpoint(['primary', 'primary', 'failed', 'failed', 'failed']);
  const counts: number[] = [];
  for (let i = 0; i < 5; i++) {
    await points.round(spec, n2);
    counts.push(changes());
  }
  assert.deepEqual(counts, [1, 1, 2, 3, 3]);
});

test('trusted addresses that are silent are told; none configured is null', async () => {
  const { points } = viewpoint(['primary']);
  await points.round(spec, n2);
  assert.equal(points.trustedReachable(), null);
  await points.round({ ...spec, trustedAddresses: ['10.0.0.1'] }, n2);
  assert.equal(points.trustedReachable(), false);
});

test('everybody asks the agent of a node that is being added, and it asks everybody; no longer than it is', async () => {
  const asked: string[] = [];
  const ways = (self: typeof n1) =>
    createViewpoints({
      node: self,
      clock: { now: () => ({ mono: makeMonoMs(0), wall: makeWallMs(0) }), sleep: () => Promise.resolve() },
      probe: () => Promise.resolve({ verdict: 'primary', error: null }),
      agentAlive: (node) => {
        asked.push(node);
        return Promise.resolve(node !== n3);
      },
      trusted: () => Promise.resolve(null),
      onChange: () => undefined,
    });
  const joining = { ...spec, nodes: spec.nodes.map((node) => (node.id === n3 ? { ...node, membership: 'joining' as const } : node)) };
  const member = ways(n1);
  await member.round(joining, n2);
  assert.deepEqual([member.probes()['n3']?.agentAlive, member.probes()['n3']?.verdict], [false, 'unknown']);
  await member.round(spec, n2);
  assert.deepEqual(Object.keys(member.probes()), ['n2']);
  asked.length = 0;
  const newcomer = ways(n3);
  await newcomer.round(joining, n2);
  assert.deepEqual([...new Set(asked)].sort(), ['n1', 'n2']);
});
