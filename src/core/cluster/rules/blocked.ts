/** How a failover that may not be begins its sentence, and when that is no news. */
import type { NodeId } from '../../ids.ts';
import type { ClusterView } from '../../view.ts';
import type { Assessment } from '../assessed-rules.ts';
import { isOpen, viewpoints } from '../observe.ts';

/** A report travels and is written within this. */
const REPORT_LATE_MS = 100;
/** The same where one report decides: a store whose disk is slow for a moment takes longer. */
const ONE_REPORT_LATE_MS = 250;

/**
 * With published facts, or a fencing command, nothing has to expire before a promotion, so an agent that missed two reports while some member sees its PostgreSQL down is judged
 * at once; one that missed a single report, when as many see it down as a failover asks for, and its last word was that it is open: an agent that lives tells of the end of its
 * server at once, so this one cannot. Its silence alone is no loss, and no news: a report can be late (architecture 4.6).
 */
export function isSilent(view: ClusterView, primary: NodeId | null): boolean {
  const seen = primary === null ? undefined : view.reports[primary];
  const isEarly = view.state.quorum.k > 0 || view.spec.fencing !== 'off';
  if (primary === null || !isEarly || seen === undefined) return false;
  const interval = view.spec.reportIntervalMs;
  if (seen.ageMs <= interval + ONE_REPORT_LATE_MS) return false;
  const down = viewpoints(view, primary).down.length;
  if (seen.ageMs > 2 * interval + REPORT_LATE_MS) return down > 0;
  return down > 1 && down >= view.spec.probeViewpoints && isOpen(seen.report, view.state.primaryTerm);
}

/** The rule `failover.blocked-ID`, with an event at its beginning. */
export function blocked(view: ClusterView, id: string, why: string): Assessment {
  const rule = `failover.blocked-${id}`;
  // Two late reports and one look that failed are no news for people: the next looks decide within a second.
  const quiet = id === 'lease' || id === 'watch' || id === 'fence' || (id === 'viewpoints' && isSilent(view, view.state.primary));
  const events =
    quiet || view.state.decided.rule === rule ? [] : [{ level: 'warn' as const, node: view.state.primary, text: `no failover: ${why}`, detail: {} }];
  return { rule, outcome: { why, events, then: 'continue' } };
}
