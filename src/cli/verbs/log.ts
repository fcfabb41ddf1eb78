import { Command, Option } from 'commander';
import { mergeLogs } from '../../base/log-line.ts';
import type { LogAnswer, LogEntry } from '../../api/schema.ts';
import type { Api } from '../api.ts';
import { readDuration } from '../context.ts';
import { type CliResult, EXIT, type Outcome, usageError } from '../exit.ts';
import { renderLine } from '../output/json.ts';
import { oneLine } from '../output/table.ts';
import { hanging } from '../output/width.ts';
import { type Host, type Session, act } from '../session.ts';
import { readLimit } from './events.ts';

const FOLLOW_MS = 1000;
/** Lines of each source asked for at each turn of --follow: more than a node writes in a second on a bad day. */
const FOLLOW_LINES = 500;
/** What a source answers at most. With a filter all of it is searched, else `-n` lines of each are enough. */
const MOST_LINES = 2000;
const SOURCES = ['agent', 'postgres', 'guard', 'server'] as const;
type Source = (typeof SOURCES)[number];
const LEVELS = ['debug', 'info', 'warn', 'error'] as const;
const TONES = { debug: 'dim', info: 'plain', warn: 'warn', error: 'bad' } as const;

/** One line of one log; `node` is null for the server's. */
export interface LogLine extends LogEntry {
  readonly node: string | null;
}

interface Flags {
  readonly follow?: boolean;
  readonly lines: number;
  readonly source?: readonly Source[];
  readonly level: (typeof LEVELS)[number];
  readonly since?: string;
  readonly grep?: string;
}

export function logCommand(host: Host): Command {
  return new Command('log')
    .description("the cluster's logs by time: agents, PostgreSQL, guards and the server; of one node when it is named")
    .argument('[node]', 'only this node')
    .option('-f, --follow', 'go on with new lines until Ctrl+C')
    .option('-n, --lines <count>', 'how many of the newest lines', (text) => readLimit(text, MOST_LINES), 100)
    .addOption(new Option('-s, --source <source...>', 'only these sources').choices(SOURCES))
    .addOption(new Option('--level <level>', 'this level and above').choices(LEVELS).default('debug'))
    .option('--since <duration>', 'only lines of the last 10m, 2h, …')
    .option('--grep <text>', 'only lines that contain this text, in any case of letters')
    .action(
      act(host, async (session, command) => {
        const flags = command.opts<Flags>();
        const since = flags.since === undefined ? null : readDuration('--since', flags.since);
        if (since !== null && !since.ok) return since;
        const api = session.api();
        if (!api.ok) return api;
        const cluster = await session.cluster();
        if (!cluster.ok) return cluster;
        const named = command.processedArgs[0] as string | undefined;
        const wanted = new Set(flags.source ?? (named === undefined ? SOURCES : SOURCES.filter((source) => source !== 'server')));
        if (named !== undefined && wanted.size === 1 && wanted.has('server'))
          return usageError('cli.log-source', {
            what: 'the server has one log for all nodes',
            cause: `--source server was asked of the node ${named}`,
            remedy: 'leave the node out',
          });
        const nodes = named === undefined ? await allNodes(api.value, cluster.value) : { ok: true as const, value: [named] };
        if (!nodes.ok) return nodes;
        const logs: Logs = { cluster: cluster.value, nodes: nodes.value, sources: wanted, alone: named !== undefined };
        const afterMs = since === null ? null : session.io.clock.now().wall - since.value;
        const keep = makeFilter(flags, afterMs);
        const filters = flags.level !== 'debug' || flags.grep !== undefined || afterMs !== null;
        if (flags.follow === true) return follow(session, api.value, { logs, keep, lines: flags.lines });
        const read = await readLogs(session, api.value, { logs, lines: filters ? MOST_LINES : flags.lines });
        if (!read.ok) return read;
        const lines = read.value.filter(keep).slice(-flags.lines);
        session.show(lines, () => (lines.length === 0 ? 'no lines' : lines.map((line) => renderLogLine(line, session)).join('\n')));
        return { ok: true, value: EXIT.done };
      }),
    );
}

async function allNodes(api: Api, cluster: string): Promise<CliResult<readonly string[]>> {
  const show = await api.call('show', { params: { cluster } });
  return show.ok ? { ok: true, value: show.value.nodes.map((node) => node.id) } : show;
}

/** A line without a level is kept: nobody knows how bad it is. One without a time is not "of the last 10 minutes". */
function makeFilter(flags: Flags, afterMs: number | null): (line: LogLine) => boolean {
  const least = LEVELS.indexOf(flags.level);
  const grep = flags.grep?.toLowerCase();
  return (line) =>
    (line.level === null || LEVELS.indexOf(line.level) >= least) &&
    (afterMs === null || (line.at !== null && Date.parse(line.at) >= afterMs)) &&
    (grep === undefined || `${line.text} ${detailText(line)}`.toLowerCase().includes(grep));
}

interface Logs {
  readonly cluster: string;
  readonly nodes: readonly string[];
  readonly sources: ReadonlySet<Source>;
  /** One node was named: its failure is the verb's. */
  readonly alone: boolean;
}

/** All lines by time. One node that is away must not hide the logs of the others: it is noted. */
async function readLogs(
  session: Session,
  api: Api,
  options: { readonly logs: Logs; readonly lines: number },
): Promise<CliResult<readonly LogLine[]>> {
  const { logs, lines } = options;
  const { cluster, sources } = logs;
  const ofNodes = SOURCES.filter((source) => source !== 'server' && sources.has(source));
  const calls: { readonly who: string; readonly answer: Promise<CliResult<LogAnswer>> }[] = [];
  const [only] = ofNodes;
  if (only !== undefined) {
    const source = ofNodes.length === 1 && only !== 'server' ? only : 'all';
    for (const node of logs.nodes) calls.push({ who: node, answer: api.call('nodeLog', { params: { cluster, node }, query: { source, lines } }) });
  }
  if (sources.has('server')) calls.push({ who: 'server', answer: api.call('serverLog', { params: { cluster }, query: { lines } }) });
  const read: (readonly LogLine[])[] = [];
  for (const { who, answer } of calls) {
    const log = await answer;
    if (!log.ok) {
      if (logs.alone) return log;
      session.note(`${who}: ${log.error.failure.what}${log.error.failure.cause === '' ? '' : `: ${log.error.failure.cause}`}`);
      continue;
    }
    for (const problem of log.value.problems) session.note(problem.text);
    const { node } = log.value;
    read.push(log.value.entries.map((entry) => ({ node, ...entry })));
  }
  const timed = read.map((log) => log.map((line) => ({ atMs: line.at === null ? null : Date.parse(line.at), line })));
  // Chosen only now: a line without a time has its place by the one before it.
  const merged = mergeLogs(timed).map(({ line }) => line);
  return { ok: true, value: merged.filter((line) => sources.has(line.source)) };
}

/** `2026-11-21 04:46:01.123Z  n1      postgres  warn   text  name=value`; a message of several lines goes on below itself. */
function renderLogLine(line: LogLine, session: Session): string {
  const { style, width } = session.view;
  const at = line.at === null ? ' '.repeat(24) : line.at.replace('T', ' ');
  const head = `${at}  ${(line.node ?? '-').padEnd(6)}  ${line.source.padEnd(8)}  ${(line.level ?? '').padEnd(5)}  `;
  const detail = detailText(line);
  const [first = '', ...more] = line.text.split('\n').map(oneLine);
  const rows = [`${first}${detail === '' ? '' : `  ${detail}`}`, ...more.map((text) => `  ${text}`)];
  const indent = ' '.repeat(head.length);
  const wrapped =
    width === null || width < head.length + 30
      ? rows.map((row, index) => `${index === 0 ? head : indent}${row}`)
      : rows.flatMap((row, index) => hanging(index === 0 ? head : indent, row, width));
  return wrapped.map((row) => style.paint(TONES[line.level ?? 'info'], row)).join('\n');
}

/** `name=value …` of a structured line; the cluster, and what the message says already, are left out. */
function detailText(line: LogLine): string {
  return Object.entries(line.detail)
    .filter(([name, value]) => name !== 'cluster' && value !== line.text)
    .map(([name, value]) => `${name}=${oneLine(typeof value === 'string' ? value : JSON.stringify(value))}`)
    .join(' ');
}

interface Following {
  readonly logs: Logs;
  readonly lines: number;
  readonly keep: (line: LogLine) => boolean;
}

async function follow(session: Session, api: Api, { logs, lines, keep }: Following): Promise<Outcome> {
  const stop = new AbortController();
  const release = session.io.onInterrupt(() => stop.abort());
  const seen = new Map<string, readonly string[]>();
  let first = true;
  let said = false;
  try {
    for (;;) {
      // What is away is said once, not each second.
      const read = await readLogs(said ? { ...session, note: () => undefined } : session, api, { logs, lines: first ? MOST_LINES : FOLLOW_LINES });
      said = true;
      if (!read.ok && first && !read.error.failure.retryable) return read;
      const all = read.ok ? read.value : [];
      const fresh = takeFresh(seen, all).filter(keep);
      for (const line of first ? fresh.slice(-lines) : fresh)
        session.io.stdout.write(session.view.format === 'table' ? `${renderLogLine(line, session)}\n` : renderLine(line));
      first = first && !read.ok;
      await session.io.clock.sleep(FOLLOW_MS, stop.signal);
      if (stop.signal.aborted) return { ok: true, value: EXIT.done };
    }
  } finally {
    release();
  }
}

/** The lines that were not seen yet, log by log, in the order of `all`. */
function takeFresh(seen: Map<string, readonly string[]>, all: readonly LogLine[]): readonly LogLine[] {
  const byLog = new Map<string, LogLine[]>();
  for (const line of all) {
    const key = `${line.node ?? ''}/${line.source}`;
    const log = byLog.get(key);
    if (log === undefined) byLog.set(key, [line]);
    else log.push(line);
  }
  const fresh = new Set<LogLine>();
  for (const [key, log] of byLog) {
    // A DETAIL that came later makes a line longer, not another one.
    const texts = log.map((line) => JSON.stringify([line.at, line.level, line.text.split('\n', 1)[0], line.detail]));
    const before = seen.get(key);
    const count = before === undefined ? log.length : newLines(before, texts).length;
    for (const line of log.slice(log.length - count)) fresh.add(line);
    seen.set(key, texts);
  }
  return all.filter((line) => fresh.has(line));
}

/** As many lines are compared at most: times make two runs of them different, and the oldest line may be the rest of one that was cut. */
const OVERLAP = 20;

/** Lines of `after` that come behind the end of `before` found in it; all of them when nothing overlaps. */
export function newLines(before: readonly string[], after: readonly string[]): readonly string[] {
  for (let start = after.length; start > 0; start--) {
    const overlap = Math.min(start, before.length, OVERLAP);
    if (overlap > 0 && after.slice(start - overlap, start).every((line, index) => line === before[before.length - overlap + index]))
      return after.slice(start);
  }
  return after;
}
