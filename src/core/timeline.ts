/** Timeline histories: where each ancestor of a timeline ended. */
import { type Timeline, makeTimeline } from './ids.ts';
import { type Lsn, parseLsn } from './lsn.ts';
import type { Fork } from './report.ts';

/** A timeline with its ancestors, oldest first. Timelines share numbers: which one is meant, only the whole list tells. */
export interface Lineage {
  readonly timeline: Timeline;
  /** Complete, or cut at its old end (`MAX_HISTORY`), or empty: not known. */
  readonly history: readonly Fork[];
}

/** How one lineage lies against another. */
export type Relation =
  /** The same timeline. */
  | { readonly kind: 'same' }
  /** It is among the other's ancestors, which left it at `forkLsn`. */
  | { readonly kind: 'ancestor'; readonly forkLsn: Lsn }
  /** It came out of the other's timeline at `forkLsn`. */
  | { readonly kind: 'descendant'; readonly forkLsn: Lsn }
  /** They have everything up to `forkLsn` in common, and nothing behind it. */
  | { readonly kind: 'parted'; readonly forkLsn: Lsn }
  /** Nothing in common is known. */
  | { readonly kind: 'unknown' };

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

/**
 * How `own` lies against `other`, as far as both reach back: of a lineage without its older ancestors only the rest is compared, and of one whose
 * history is not known its number is believed.
 *
 * *Invariant:* lineages are called one timeline only if they went the same way there (Z53). *Because:* a history file names every ancestor with its end,
 * so two ways differ at the first step that has another number or another end. *Broken if:* only numbers are compared, or only the ends of those
 * ancestors that both name: a twin may have the same number and another ancestor more.
 */
export function relate(own: Lineage, other: Lineage): Relation {
  // What is so nearly always costs nothing.
  if (own.timeline === other.timeline && isSameHistory(own.history, other.history)) return { kind: 'same' };
  const oldest = Math.max(stepsOf(own)[0]?.timeline ?? 0, stepsOf(other)[0]?.timeline ?? 0);
  const theirs = stepsOf(other).filter((step) => step.timeline >= oldest);
  let common: Lsn | null = null;
  for (const [index, mine] of stepsOf(own)
    .filter((step) => step.timeline >= oldest)
    .entries()) {
    const step = theirs[index];
    if (step?.timeline !== mine.timeline) break;
    if (mine.end === null) return step.end === null ? { kind: 'same' } : { kind: 'ancestor', forkLsn: step.end };
    if (step.end === null) return { kind: 'descendant', forkLsn: mine.end };
    if (step.end !== mine.end) return { kind: 'parted', forkLsn: step.end < mine.end ? step.end : mine.end };
    common = mine.end;
  }
  return common === null ? { kind: 'unknown' } : { kind: 'parted', forkLsn: common };
}

const isSameHistory = (a: readonly Fork[], b: readonly Fork[]): boolean =>
  a.length === b.length && a.every((fork, index) => fork.timeline === b[index]?.timeline && fork.forkLsn === b[index]?.forkLsn);

/** Oldest first; the last one is the timeline itself, which has no end. */
function stepsOf({ timeline, history }: Lineage): readonly { readonly timeline: Timeline; readonly end: Lsn | null }[] {
  const ancestors = history.filter((fork) => fork.timeline < timeline);
  return [...ancestors.map((fork) => ({ timeline: fork.timeline, end: fork.forkLsn })), { timeline, end: null }];
}

/** The newest forks, oldest first, at most MAX_HISTORY. */
export function trimHistory(history: readonly Fork[]): readonly Fork[] {
  return history.length <= MAX_HISTORY ? history : history.slice(history.length - MAX_HISTORY);
}
