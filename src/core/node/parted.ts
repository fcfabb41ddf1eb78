/** Whether this node's WAL has left the history that its goal leads to. The controller asks the same of reports, which are older than a look. */
import { compareLineage, describeLineage } from '../cluster/lineage.ts';
import { endOf } from '../cluster/observe.ts';
import type { PostgresReport } from '../report.ts';
import type { ClusterState, Goal } from '../state.ts';

/**
 * Why streaming cannot bring it to the primary of its goal; null: it can, or nothing is known against it (no timeline, no position, a goal of another
 * term than the state's lineage, a timeline that the state does not know: those are for the controller).
 *
 * *Invariant:* nobody streams from a primary whose history its own WAL is not of (I9). *Because:* PostgreSQL compares numbers of timelines only: between
 * the order and now this node may have followed a replaced primary that somebody promoted by hand, onto a timeline of the same number with another fork.
 * *Broken if:* the order is carried out on what the controller knew when it gave it.
 */
export function whyParted(postgres: PostgresReport, state: ClusterState, goal: Goal): string | null {
  if (state.timeline === null || goal.term !== state.primaryTerm) return null;
  const position = endOf(postgres);
  if (position === null) return null;
  const verdict = compareLineage(position, postgres.history, { timeline: state.timeline, history: state.history });
  return verdict.kind === 'diverged' ? describeLineage(verdict, position) : null;
}
