/** Keeps and describes what only this node has, before a rewind throws it away (H21): which transactions, bytes, tables. */
import { copyFile, readdir } from 'node:fs/promises';
import { join } from 'node:path';
import { formatWall, wallMs } from '../../base/clock.ts';
import { runProcess } from '../../base/process.ts';
import type { Timeline } from '../../core/ids.ts';
import { decodeJson, encodeJson, integer, object, text } from '../../core/decode.ts';
import { type Lsn, bytesBetween, formatLsn } from '../../core/lsn.ts';
import { type Failure, type Result, err, ok } from '../../core/result.ts';
import { failure, messageOf, processTrouble } from './failure.ts';
import { ensureDirectory, isThere, readIfThere, writeAtomic } from './files.ts';
import { type Instance, asOsUser, binary } from './instance.ts';
import { readControlData } from './control-data.ts';
import { type OpeningMark, readMarks } from './opening-mark.ts';
import { historyFileName, lineageOf, readHistory } from './timeline-history.ts';
import { segmentFileName } from './wal-reader.ts';

export interface DivergedRange {
  readonly timeline: Timeline;
  /** Where the surviving history left ours. */
  readonly from: Lsn;
  readonly to: Lsn;
  readonly segmentBytes: number;
}

export interface DivergedTransaction {
  readonly xid: number;
  /** PostgreSQL's text; null: not committed before the end (its effects were never visible to others). */
  readonly committedAt: string | null;
  /** `spc/db/filenode`, or the names when they could be found. */
  readonly relations: readonly string[];
}

export interface DivergedSummary {
  readonly node: string;
  readonly timeline: Timeline;
  readonly from: Lsn;
  readonly to: Lsn;
  readonly bytes: number;
  readonly transactions: readonly DivergedTransaction[];
  /** More transactions than are listed. */
  readonly truncated: boolean;
  readonly committed: number;
  /** Terms that were opened for clients within the range; empty: nobody but the members could connect, or the WAL was not readable. */
  readonly openings: readonly OpeningMark[];
  readonly relations: readonly string[];
  readonly note: string;
}

/** Enough for a person; the WAL itself is kept beside it, whole. */
const MAX_TRANSACTIONS = 10_000;
const DUMP_LIMIT_MS = 300_000;

/**
 * Copies the WAL segments of the range and writes `summary.json` and `summary.txt` into `<stateDirectory>/diverged/TIME/`; returns the path. A range that a
 * try before kept already is kept in the same place: tries that fail again and again fill no disk, and push no older copy out.
 * `nameOf` turns `spc/db/filenode` into a table name. A summary that pg_waldump cannot give is a note, not an error: the WAL is kept.
 * Errors: `diverged.not-saved` (no space, no WAL): then nothing may be rewound.
 */
export async function saveDiverged(
  instance: Instance,
  range: DivergedRange,
  options: { readonly nameOf: (relation: string) => Promise<string>; readonly signal?: AbortSignal },
): Promise<Result<{ readonly path: string; readonly summary: DivergedSummary }, Failure>> {
  let path = join(instance.stateDirectory, 'diverged', formatWall(wallMs()).replaceAll(':', '').replace('.', '-'));
  try {
    path = (await findKept(instance, range)) ?? path;
    await ensureDirectory(join(instance.stateDirectory, 'diverged'), { owner: null, mode: 0o711 });
    await ensureDirectory(path, { owner: instance.os, mode: 0o700 });
    for (const name of await filesOf(instance, range)) await copyFile(join(instance.dataDirectory, 'pg_wal', name), join(path, name));
  } catch (cause) {
    return err(
      failure(
        'diverged.not-saved',
        `the WAL that only ${instance.node} has could not be kept`,
        messageOf(cause),
        'nothing is rewound',
        `free space in ${instance.stateDirectory}, or keep the data directory by hand and clone`,
        true,
      ),
    );
  }
  const summary = await summarise(instance, path, range, options);
  await writeAtomic(join(path, 'summary.json'), `${encodeJson(summary, 2)}\n`, { owner: null });
  await writeAtomic(join(path, 'summary.txt'), renderSummary(summary), { owner: null });
  return ok({ path, summary });
}

async function findKept(instance: Instance, { timeline, from, to }: DivergedRange): Promise<string | null> {
  const directory = join(instance.stateDirectory, 'diverged');
  if (!(await isThere(directory))) return null;
  for (const name of (await readdir(directory)).sort().reverse()) {
    const summary = await readIfThere(join(directory, name, 'summary.json'));
    const kept = summary === null ? null : decodeJson(keptRange, summary);
    if (kept?.ok === true && kept.value.timeline === timeline && kept.value.from === formatLsn(from) && kept.value.to === formatLsn(to))
      return join(directory, name);
  }
  return null;
}

/** What tells one kept range from another. */
const keptRange = object({ timeline: integer, from: text, to: text });

/** Segment files of our timeline from the fork to the end, and its history file. Segments shared with the parent keep the parent's name. */
async function filesOf(instance: Instance, { timeline, from, to, segmentBytes }: DivergedRange): Promise<readonly string[]> {
  const names: string[] = [];
  const size = BigInt(segmentBytes);
  for (let segment = from / size; segment * size <= to; segment++) {
    const name = segmentFileName({ timeline, segment, segmentBytes });
    // The last one may not exist when the end lies exactly at a segment boundary.
    if ((await isThere(join(instance.dataDirectory, 'pg_wal', name))) || segment * size < to) names.push(name);
  }
  if (timeline > 1 && (await isThere(join(instance.dataDirectory, 'pg_wal', historyFileName(timeline))))) names.push(historyFileName(timeline));
  return names;
}

async function summarise(
  instance: Instance,
  path: string,
  range: DivergedRange,
  options: { readonly nameOf: (relation: string) => Promise<string>; readonly signal?: AbortSignal },
): Promise<DivergedSummary> {
  const collector = createCollector();
  const result = await runProcess(
    [binary(instance, 'pg_waldump'), '-p', path, '-t', String(range.timeline), '-s', formatLsn(range.from), '-e', formatLsn(range.to)],
    {
      ...asOsUser(instance),
      timeoutMs: DUMP_LIMIT_MS,
      maxOutputBytes: 65_536,
      onStdoutLine: collector.line,
      ...(options.signal === undefined ? {} : { signal: options.signal }),
    },
  );
  const trouble = processTrouble(result);
  const openings = await openingsOf(instance, range, options.signal);
  const names = new Map<string, string>();
  for (const relation of collector.relations()) names.set(relation, await options.nameOf(relation));
  const transactions = collector
    .transactions()
    .map((one) => ({ ...one, relations: [...new Set(one.relations.map((relation) => names.get(relation) ?? relation))] }));
  return {
    node: instance.node,
    timeline: range.timeline,
    from: range.from,
    to: range.to,
    bytes: bytesBetween(range),
    transactions: transactions.slice(0, MAX_TRANSACTIONS),
    truncated: transactions.length >= MAX_TRANSACTIONS,
    committed: transactions.filter((one) => one.committedAt !== null).length,
    openings: openings.marks,
    relations: [...new Set(names.values())].sort(),
    note: [trouble === null ? '' : `pg_waldump: ${trouble}`, openings.note].filter((one) => one !== '').join('; '),
  };
}

/** Marks that cannot be read are a note: the WAL itself is kept. */
async function openingsOf(
  instance: Instance,
  { timeline, from, to }: DivergedRange,
  signal: AbortSignal | undefined,
): Promise<{ readonly marks: readonly OpeningMark[]; readonly note: string }> {
  const control = await readControlData(instance);
  if (!control.ok) return { marks: [], note: `openings of terms: ${control.error.cause}` };
  const { segmentBytes, pageBytes } = control.value;
  try {
    const lineage = lineageOf(timeline, (await readHistory(instance.dataDirectory, timeline)) ?? []);
    const range = { dataDirectory: instance.dataDirectory, segmentBytes, pageBytes, lineage, from, until: to };
    return { marks: await readMarks({ ...range, ...(signal === undefined ? {} : { signal }) }), note: '' };
  } catch (cause) {
    return { marks: [], note: `openings of terms: ${messageOf(cause)}` };
  }
}

interface Collector {
  readonly line: (line: string) => void;
  readonly relations: () => readonly string[];
  readonly transactions: () => readonly DivergedTransaction[];
}

/**
 * Only three things are read from a line, each by itself, so that a changed layout costs a detail and not everything (Z47):
 * `tx: N`, `rel A/B/C`, `COMMIT TIME`. Source: pg_waldump of 13 to 18.
 */
export function createCollector(): Collector {
  const found = new Map<number, { committedAt: string | null; relations: Set<string> }>();
  const relations = new Set<string>();
  return {
    line: (line) => {
      const xid = Number(/\btx:\s*(\d+)/.exec(line)?.[1] ?? 0);
      if (xid === 0) return;
      if (!found.has(xid) && found.size >= MAX_TRANSACTIONS) return;
      const one = found.get(xid) ?? { committedAt: null, relations: new Set<string>() };
      found.set(xid, one);
      for (const match of line.matchAll(/\brel (\d+\/\d+\/\d+)/g)) {
        if (match[1] === undefined || relations.size >= MAX_TRANSACTIONS) continue;
        one.relations.add(match[1]);
        relations.add(match[1]);
      }
      const commit = /\bdesc: COMMIT(?:_PREPARED)? (\d{4}-\d\d-\d\d [\d:.]+ \S+?);?(?:\s|$)/.exec(line);
      if (commit?.[1] !== undefined) one.committedAt = commit[1];
    },
    relations: () => [...relations],
    transactions: () =>
      [...found].map(([xid, one]) => ({ xid, committedAt: one.committedAt, relations: [...one.relations] })).sort((a, b) => a.xid - b.xid),
  };
}

function renderSummary(summary: DivergedSummary): string {
  const head = [
    `What only ${summary.node} had, on timeline ${summary.timeline}, from ${formatLsn(summary.from)} to ${formatLsn(summary.to)}: ${summary.bytes} bytes of WAL.`,
    `${summary.committed} committed transaction(s), ${summary.transactions.length - summary.committed} that did not commit.`,
    ...summary.openings.map((mark) => `${mark.node} opened term ${mark.term} for clients at ${formatLsn(mark.lsn)}.`),
    `Tables and indexes: ${summary.relations.join(', ') || 'none'}`,
    ...(summary.note === '' ? [] : [summary.note]),
    'The WAL segments lie beside this file; pg_waldump reads them.',
    '',
  ];
  const lines = summary.transactions.map((one) => `${one.xid}\t${one.committedAt ?? 'not committed'}\t${one.relations.join(', ')}`);
  return `${[...head, ...lines, ...(summary.truncated ? [`… more than ${MAX_TRANSACTIONS} transactions`] : [])].join('\n')}\n`;
}
