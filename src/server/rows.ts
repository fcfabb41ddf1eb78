/** Stored terms and events as rows that people and scripts read. */
import { formatWall } from '../base/clock.ts';
import { formatLsn } from '../core/lsn.ts';
import type { ClusterEvent, TermRecord } from '../core/state.ts';
import type { EventRow, HistoryRow } from '../api/schema.ts';

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
  return {
    id,
    at: formatWall(event.atWallMs),
    level: event.level,
    rule: event.rule,
    node: event.node,
    term: event.term,
    text: event.text,
    detail: { ...event.detail },
  };
}
