/** Views of a cluster of three that is about to have a fourth node, or is losing one. */
import type { NodeId } from '../../../src/core/ids.ts';
import { makeWallMs } from '../../../src/core/ids.ts';
import type { Member, NodeReport } from '../../../src/core/report.ts';
import type { NodeSpec } from '../../../src/core/spec.ts';
import type { Task } from '../../../src/core/state.ts';
import type { ClusterView } from '../../../src/core/view.ts';
import type { AddRequest } from '../../../src/core/cluster/node-add-checks.ts';
import type { RemoveRequest } from '../../../src/core/cluster/node-remove-checks.ts';
import { memberOf } from './world-model.ts';
import { type Picture, WALL, id, makeTask, picture } from './picture.ts';

export const N4 = id('n4');

export const FOUR = `term 3 primary n1 lease n1/3
  n1 primary @0/5000
  n2 standby @0/5000
  n3 standby @0/5000
  n4 absent`;

export const ADD: AddRequest = {
  kind: 'nodeAdd',
  node: N4,
  host: null,
  internalHost: null,
  port: null,
  role: 'data',
  priority: 100,
  location: null,
  tags: {},
  source: null,
  rateKb: null,
};

export const REMOVE: RemoveRequest = { kind: 'nodeRemove', node: id('n3'), dropData: false };

export const MEMBER: Member = memberOf(N4);

/** The agent of n4 joined and reports; the spec does not know it. */
export function outside(extra: Picture = {}, text = FOUR): ClusterView {
  const view = picture(text, extra);
  const { [N4]: _goal, ...goals } = view.state.goals;
  return {
    ...view,
    spec: { ...view.spec, nodes: view.spec.nodes.filter((node) => node.id !== N4) },
    state: { ...view.state, goals, electorate: { ...view.state.electorate, members: view.state.electorate.members.filter((node) => node !== N4) } },
    members: { [N4]: MEMBER },
  };
}

/** n4 is in the spec with this membership, and in no count; the goal is that of the picture. */
export function withMembership(view: ClusterView, node: NodeId, membership: NodeSpec['membership']): ClusterView {
  return {
    ...view,
    spec: { ...view.spec, nodes: view.spec.nodes.map((one) => (one.id === node ? { ...one, membership } : one)) },
    state: { ...view.state, electorate: { ...view.state.electorate, members: view.state.electorate.members.filter((one) => one !== node) } },
  };
}

/** A running task whose last step has this name; `earlier`: the steps before it. */
export function running(request: Task['request'], step: string, more: Partial<Task> = {}, earlier: readonly string[] = []): Task {
  const steps = [...earlier, step].map((name, index) => ({
    name,
    state: index === earlier.length ? ('running' as const) : ('done' as const),
    atWallMs: makeWallMs(WALL),
    detail: '',
  }));
  return makeTask(request, { status: 'running', steps, ...more });
}

export function changeReport(view: ClusterView, node: NodeId, change: (report: NodeReport) => NodeReport): ClusterView {
  const seen = view.reports[node];
  if (seen === undefined) throw new Error(`no report of ${node}`);
  return { ...view, reports: { ...view.reports, [node]: { ...seen, report: change(seen.report) } } };
}

const way = (agentAlive: boolean, verdict: 'primary' | 'unknown' = 'unknown'): NodeReport['probes'][string] => ({
  verdict,
  failures: 0,
  lastOkAgoMs: 0,
  error: null,
  agentAlive,
});

/** Every way between n4 and the others works, and the primary has its slot. */
export function reachable(view: ClusterView): ClusterView {
  let next = changeReport(view, N4, (report) => ({ ...report, probes: { n1: way(true, 'primary'), n2: way(true), n3: way(true) } }));
  for (const node of ['n1', 'n2', 'n3'])
    next = changeReport(next, id(node), (report) => ({ ...report, probes: { ...report.probes, n4: way(true) } }));
  return withSlot(next, 'pgherd_n4');
}

export function withSlot(view: ClusterView, name: string): ClusterView {
  return changeReport(view, id('n1'), (report) => ({ ...report, slots: [{ name, active: false, retainedBytes: 0, walStatus: 'reserved' }] }));
}
