/** Timeline histories: where each ancestor of a timeline ended. */
import { type Timeline, makeTimeline } from './ids.ts';
import { type Lsn, parseLsn } from './lsn.ts';
import type { Fork } from './report.ts';

/**
 * Forks that `state` keeps. A node older than the oldest kept fork cannot be compared here and is left to pg_rewind;
 * too few costs a needless rewind, too many makes every write of `state` larger (Q10).
 */
export const MAX_HISTORY = 64;

/**
 * Parses a timeline history file, oldest ancestor first. Blank lines and comments are skipped; lines that are neither
 * are skipped too, because a future server may add some. An empty file gives an empty list (timeline 1 has none).
 * *Source:* PostgreSQL, src/backend/access/transam/timeline.c: `<parentTLI> <switchpoint> <reason>`.
 */
export function parseTimelineHistory(text: string): readonly Fork[] {
  const forks: Fork[] = [];
  for (const line of text.split('\n')) {
    const match = /^\s*(\d{1,10})\s+([0-9A-Fa-f]{1,8}\/[0-9A-Fa-f]{1,8})/.exec(line);
    const forkLsn = match?.[2] === undefined ? null : parseLsn(match[2]);
    const number = Number(match?.[1] ?? 0);
    if (forkLsn !== null && number >= 1) forks.push({ timeline: makeTimeline(number), forkLsn });
  }
  return forks;
}

/** Where `timeline` ended in this history; null when it is not among the ancestors. */
export function forkOf(history: readonly Fork[], timeline: Timeline): Lsn | null {
  return history.find((fork) => fork.timeline === timeline)?.forkLsn ?? null;
}

/** The newest forks, oldest first, at most MAX_HISTORY. */
export function trimHistory(history: readonly Fork[]): readonly Fork[] {
  return history.length <= MAX_HISTORY ? history : history.slice(history.length - MAX_HISTORY);
}
