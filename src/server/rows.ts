/** Rows that people and scripts read: positions, lag, terms, events. Pure functions of the view. */
import { formatWall } from '../base/clock.ts';
import { type NodeId, makeNodeId } from '../core/ids.ts';
import { type Lsn, bytesBetween, formatLsn, maxLsn } from '../core/lsn.ts';
import type { NodeReport, Walsender } from '../core/report.ts';
import type { ClusterEvent, TermRecord } from '../core/state.ts';
import type { ClusterView } from '../core/view.ts';
import type { EventRow, HistoryRow, LagRow, LsnRow } from '../api/schema.ts';

/** One row a data node, in the order of the spec. Null where nothing is known. */
export function lsnRows(view: ClusterView): LsnRow[] {
  return dataNodes(view).map((node) => {
    const report = view.reports[node]?.report ?? null;
    const lsn = report === null ? null : endOf(report);
    return { node, role: report?.postgres.role ?? null, timeline: report?.postgres.timeline ?? null, lsn: lsn === null ? null : formatLsn(lsn) };
  });
}

/**
 * One row a data node, in the order of the spec. Lags are seen from the primary's walsenders, against the primary's own flush
 * position; null for the primary, and where the primary knows no walsender: `state` then says what the standby itself knows.
 */
export function lagRows(view: ClusterView): LagRow[] {
  const primary = view.state.primary;
  const source = primary === null ? null : (view.reports[primary]?.report ?? null);
  return dataNodes(view).map((node) => {
    const report = view.reports[node]?.report ?? null;
    const current = report === null ? null : endOf(report);
    const sender = source?.postgres.walsenders.find((one) => one.node === node) ?? null;
    const end = source?.postgres.flushLsn ?? null;
    const own = report === null || end === null || node === primary ? null : report.postgres.replayedLsn;
    return {
      node,
      role: report?.postgres.role ?? null,
      currentLsn: current === null ? null : formatLsn(current),
      sentLagBytes: lag(end, sender?.sentLsn),
      writeLagBytes: lag(end, sender?.writeLsn),
      flushLagBytes: lag(end, sender?.flushLsn),
      replayLagBytes: lag(end, sender?.replayLsn ?? own),
      replayLagMs: sender?.replayLagMs ?? null,
      sync: sender?.syncState ?? null,
      state: streamState(node, report, sender, view),
      slot: slotOf(node, source),
    };
  });
}

/** `primary` for itself; pg_stat_replication.state; else PostgreSQL's state with `not streaming`. */
function streamState(node: NodeId, report: NodeReport | null, sender: Walsender | null, view: ClusterView): string | null {
  if (node === view.state.primary) return report?.postgres.state ?? null;
  if (sender !== null) return sender.state;
  return report === null ? null : report.postgres.state === 'running' ? 'not streaming' : report.postgres.state;
}

function lag(end: Lsn | null, at: Lsn | null | undefined): number | null {
  // Both are read one after the other: a standby seems a little ahead at times. Negative lag is no news to anybody.
  return end === null || at === null || at === undefined ? null : Math.max(0, bytesBetween({ from: at, to: end }));
}

/** Names of slots may not hold "-" (PostgreSQL manual, 27.2.6.1), so the node's id is compared with "_" for it. */
function slotOf(node: NodeId, source: NodeReport | null): string | null {
  const wanted = node.replaceAll('-', '_');
  return source?.slots.find((slot) => slot.name === wanted || slot.name.endsWith(`_${wanted}`))?.name ?? null;
}

function endOf({ postgres }: NodeReport): Lsn | null {
  return maxLsn(postgres.flushLsn, postgres.receivedLsn, postgres.replayedLsn, postgres.walEnd);
}

function dataNodes(view: ClusterView): readonly NodeId[] {
  return view.spec.nodes.filter((node) => node.kind === 'data').map((node) => makeNodeId(node.id));
}

export function historyRow(record: TermRecord): HistoryRow {
  return {
    term: record.term,
    timeline: record.timeline,
    primary: record.primary,
    forkLsn: record.forkLsn === null ? null : formatLsn(record.forkLsn),
    rule: record.rule,
    reason: record.reason,
    startedAt: formatWall(record.startedWallMs),
    outageMs: record.outageMs,
    lostBytes: record.lostBytes,
  };
}

export function eventRow(id: string, event: ClusterEvent): EventRow {
  return { id, at: formatWall(event.atWallMs), level: event.level, rule: event.rule, node: event.node, term: event.term, text: event.text, detail: { ...event.detail } };
}
