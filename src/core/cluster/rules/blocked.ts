/** How a failover that may not be begins its sentence, and when that is no news; and what a primary that is not lost waits for. */
import type { NodeId } from '../../ids.ts';
import type { ClusterView } from '../../view.ts';
import type { Assessment } from '../assessed-rules.ts';
import { isOpen, live, viewpoints } from '../observe.ts';
import { nodeOfVoter } from '../sync-set.ts';

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

/** In words, with the standbys that it waits for where its server runs and lets nobody in yet. */
export function onItsWay(view: ClusterView, primary: NodeId): string {
  const { primaryTerm, quorum } = view.state;
  const text = `${primary} is on its way to be open in term ${primaryTerm}`;
  const { k, members } = quorum.wanted;
  const report = live(view, primary);
  const isClosed = report?.leaseTerm === primaryTerm && !report.open && report.postgres.state === 'running' && report.postgres.role === 'primary';
  if (!isClosed || k === 0) return text;
  const streaming = report.postgres.walsenders.filter(({ state }) => state === 'streaming').map(({ node }) => node);
  const names = members.map((member) => nodeOfVoter(member) ?? member).join(', ');
  return `${text}: its server runs, and clients are let in once ${k} of ${names} hold what it recovered (streaming: ${streaming.join(', ') || 'none'})`;
}
