/** Timeline history files, of any length (Q10). Source: PostgreSQL, src/backend/access/transam/timeline.c. */
import { readdir } from 'node:fs/promises';
import { join } from 'node:path';
import { type Timeline, makeTimeline } from '../../core/ids.ts';
import { type Lsn, parseLsn } from '../../core/lsn.ts';
import type { Fork } from '../../core/report.ts';
import { errnoOf } from './failure.ts';
import { readIfThere } from './files.ts';
import { parseUnlessUnchanged } from './unchanged-file.ts';

/**
 * Lines `parentTLI<tab>switchpoint<tab>reason`; empty lines and comments are skipped.
 * Null when a line is not understood or the timelines do not rise: such a file must not decide anything.
 */
export function parseHistory(text: string): readonly Fork[] | null {
  const forks: Fork[] = [];
  for (const raw of text.split('\n')) {
    const line = raw.trim();
    if (line === '' || line.startsWith('#')) continue;
    const [number, point] = line.split(/\s+/);
    const forkLsn = parseLsn(point ?? '');
    const timeline = Number(number);
    if (forkLsn === null || !Number.isInteger(timeline) || timeline <= (forks.at(-1)?.timeline ?? 0)) return null;
    forks.push({ timeline: makeTimeline(timeline), forkLsn });
  }
  return forks;
}

export function historyFileName(timeline: Timeline): string {
  return `${timeline.toString(16).toUpperCase().padStart(8, '0')}.history`;
}

/** Ancestors of `timeline` from its file in pg_wal, oldest first; empty for timeline 1; null when the file is missing or not understood. */
export async function readHistory(dataDirectory: string, timeline: Timeline): Promise<readonly Fork[] | null> {
  if (timeline === 1) return [];
  const text = await readIfThere(join(dataDirectory, 'pg_wal', historyFileName(timeline)));
  return text === null ? null : parseHistory(text);
}

/**
 * For a look that comes again and again: ancestors of the timeline that is asked for; empty for none, for timeline 1, and when the file is missing, not readable or not
 * understood: a server that answers is not called hung for that. The file is read again when it is another one: after a twin was taken back by a clone, the same number has another history.
 */
export function createHistoryReader(dataDirectory: string): (timeline: Timeline | null) => Promise<readonly Fork[]> {
  let known: { readonly timeline: Timeline; readonly read: () => Promise<readonly Fork[]> } | null = null;
  return async (timeline) => {
    if (timeline === null || timeline === 1) return [];
    if (known?.timeline !== timeline) {
      const path = join(dataDirectory, 'pg_wal', historyFileName(timeline));
      known = { timeline, read: parseUnlessUnchanged(path, (text) => (text === null ? [] : (parseHistory(text) ?? []))) };
    }
    return known.read().catch(() => []);
  };
}

/** Timelines that have a history file in pg_wal, ascending; empty when there is no pg_wal. */
export async function listHistoryTimelines(dataDirectory: string): Promise<readonly Timeline[]> {
  try {
    const names = await readdir(join(dataDirectory, 'pg_wal'));
    return names
      .filter((name) => /^[0-9A-F]{8}\.history$/.test(name))
      .map((name) => makeTimeline(Number.parseInt(name.slice(0, 8), 16)))
      .sort((a, b) => a - b);
  } catch (cause) {
    if (errnoOf(cause) === 'ENOENT') return [];
    throw cause;
  }
}

/** A timeline with the range of positions that it owns: from `begin` (exclusive for ends of WAL) to `end`; null: open. */
export interface LineageStep {
  readonly timeline: Timeline;
  readonly begin: Lsn | null;
  readonly end: Lsn | null;
}

/** Oldest first; the last step is `timeline` itself. */
export function lineageOf(timeline: Timeline, history: readonly Fork[]): readonly LineageStep[] {
  const steps: LineageStep[] = [];
  let begin: Lsn | null = null;
  for (const fork of history) {
    steps.push({ timeline: fork.timeline, begin, end: fork.forkLsn });
    begin = fork.forkLsn;
  }
  steps.push({ timeline, begin, end: null });
  return steps;
}

/** The timeline of a lineage to which a WAL end at `lsn` belongs; a position exactly at a fork belongs to the parent. */
export function timelineAt(lineage: readonly LineageStep[], lsn: Lsn): Timeline | null {
  for (const step of lineage) if (step.end === null || lsn <= step.end) return step.timeline;
  return null;
}
