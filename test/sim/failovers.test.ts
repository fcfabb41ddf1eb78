/** What stands before a failover that nobody asked for, as the check of I23 … I28 sees it, told by hand. */
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { createFailoverChecks } from '../../sim/checks/failovers.ts';
import { encodeJson } from '../../src/core/decode.ts';
import type { ClusterState } from '../../src/core/state.ts';
import type { ClusterView } from '../../src/core/view.ts';
import { id, lsnOf, picture } from '../core/cluster/picture.ts';

const STEADY = picture('term 1 primary n1 lease n1/1\nn1 primary\nn2 standby\nn3 standby');

/** After the reports of ten seconds, of which `from` on those of `views` say what they say; `next` is what is written then. */
function judge(
  next: ClusterState,
  options: {
    readonly before?: ClusterState;
    readonly spec?: object;
    readonly seenBy?: Readonly<Record<string, 'primary' | 'down'>>;
    readonly trusted?: boolean;
  },
): string | null {
  let now = 0;
  const { before = STEADY.state, seenBy = { n2: 'down', n3: 'down' } } = options;
  const spec: ClusterView['spec'] = { ...STEADY.spec, ...options.spec };
  const world = {
    clock: { now: () => now },
    settings: () => spec,
    nodes: new Map(['n1', 'n2', 'n3'].map((name) => [name, { clock: { now: () => ({ mono: now, wall: now }) } }])),
    store: { incarnation: () => 'store-1', keyspace: () => ({ list: () => [] }) },
    keys: { tasks: 'tasks/' },
  };
  const checks = createFailoverChecks(world as never);
  for (; now <= 10_000; now += 500)
    for (const [node, verdict] of Object.entries(seenBy)) {
      const report = STEADY.reports[id(node)]?.report;
      const probe = { verdict, failures: 0, lastOkAgoMs: 0, error: null, agentAlive: true };
      checks.takeReport(node, encodeJson({ ...report, trustedReachable: options.trusted ?? null, probes: { n1: probe } }));
    }
  return checks.takeState(before, next)?.invariant ?? null;
}

/** An attempt that a rule begins, or its order to promote n2. */
function begun(what: Partial<NonNullable<ClusterState['attempt']>> = {}, state: Partial<ClusterState> = {}): ClusterState {
  const { attempt, ...rest } = picture(
    `term 1 primary n1 attempt 2 ${what.phase === 'promote' ? 'promote:n2' : 'vote'}\nn1 dead\nn2 detached\nn3 detached`,
  ).state;
  assert.ok(attempt !== null);
  return { ...rest, attempt: { ...attempt, rule: 'primary.lost', taskId: null, ...what }, ...state };
}

describe('a failover that nobody asked for', () => {
  test('is not begun while one member goes on writing to the primary', () => {
    assert.equal(judge(begun(), {}), null);
    assert.equal(judge(begun(), { seenBy: { n2: 'down', n3: 'primary' } }), 'I23');
    assert.equal(judge(begun({ taskId: 't1' }), { seenBy: { n2: 'down', n3: 'primary' } }), null);
    assert.equal(judge(begun({ rule: 'crash.failover' }), { seenBy: { n2: 'down', n3: 'primary' } }), null);
  });

  test('is not begun in a frozen cluster, by hand, or right after another', () => {
    const frozen = { reason: 'r', by: 'b', sinceWallMs: STEADY.state.decided.atWallMs, untilWallMs: null };
    assert.equal(judge(begun({}, { frozen }), { before: { ...STEADY.state, frozen } }), 'I24');
    assert.equal(judge(begun(), { spec: { failover: 'manual' } }), 'I28');
    const { startedWallMs } = begun().attempt ?? { startedWallMs: 0 };
    const last = { ...STEADY.state, lastFailoverWallMs: (startedWallMs - 1000) as ClusterState['lastFailoverWallMs'] };
    assert.equal(judge(begun(), { before: last, spec: { antiFlappingMs: 5000 } }), 'I28');
    assert.equal(judge(begun(), { before: last, spec: { antiFlappingMs: 1000 } }), null);
  });

  test('is not begun on the word of members that reach no trusted address', () => {
    const spec = { trustedAddresses: ['192.0.2.1'] };
    assert.equal(judge(begun(), { spec, trusted: true }), null);
    assert.equal(judge(begun(), { spec, trusted: false }), 'I28');
  });

  test('gives up no more than the bound, and does not leave the location, unless a person said so', () => {
    const position = { timeline: STEADY.state.timeline ?? (1 as never), lsn: lsnOf('0/3000000') };
    const order = (what: Partial<NonNullable<ClusterState['attempt']>> = {}): ClusterState =>
      begun({ phase: 'promote', candidate: id('n2'), positions: { n2: position }, path: 'lease', ...what }, { primaryLsn: lsnOf('0/3010000') });
    const before = begun();
    assert.equal(judge(order(), { before, spec: { maxLagOnFailoverBytes: 0x10000 } }), null);
    assert.equal(judge(order(), { before, spec: { maxLagOnFailoverBytes: 0xffff } }), 'I26');
    assert.equal(judge(order({ acceptLoss: true }), { before, spec: { maxLagOnFailoverBytes: 0xffff } }), null);
    const nodes = STEADY.spec.nodes.map((node) => ({ ...node, location: node.id === 'n1' ? 'east' : 'west' }));
    assert.equal(judge(order(), { before, spec: { nodes, crossLocation: 'automatic' } }), null);
    assert.equal(judge(order(), { before, spec: { nodes, crossLocation: 'manual' } }), 'I27');
    assert.equal(judge(order({ target: id('n2') }), { before, spec: { nodes, crossLocation: 'manual' } }), null);
  });
});
