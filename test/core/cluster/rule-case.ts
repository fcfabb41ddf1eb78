/** One case of the rule table, and the note that the rule was seen. */
import assert from 'node:assert/strict';
import { decideCluster } from '../../../src/core/cluster/decide.ts';
import type { Now } from '../../../src/core/ids.ts';
import type { NodeReport } from '../../../src/core/report.ts';
import type { ClusterState } from '../../../src/core/state.ts';
import type { ClusterView, Decision } from '../../../src/core/view.ts';
import { NOW, id } from './picture.ts';

/** The state after the decision (the present one when nothing changed); fails unless exactly this rule decided. */
export function expectRule(view: ClusterView, rule: string, now: Now = NOW): ClusterState {
  return expectDecision(view, rule, now).state ?? view.state;
}

export function expectDecision(view: ClusterView, rule: string, now: Now = NOW): Decision {
  const decision = decideCluster(view, now);
  assert.equal(decision.rule, rule, `decided ${decision.rule}: ${decision.why}`);
  return decision;
}

export function withReport(view: ClusterView, node: string, change: Partial<NodeReport>): ClusterView {
  const seen = view.reports[id(node)];
  if (seen === undefined) throw new Error(`${node} does not report`);
  return { ...view, reports: { ...view.reports, [id(node)]: { ...seen, report: { ...seen.report, ...change } } } };
}
