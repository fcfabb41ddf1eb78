/** One line of a log of ours or of PostgreSQL, as people and scripts read it. Pure: times come from the lines. */

export const LOG_SOURCES = ['agent', 'postgres', 'guard', 'server'] as const;
export type LogSource = (typeof LOG_SOURCES)[number];
export type LogSeverity = 'debug' | 'info' | 'warn' | 'error';

export interface LogEntry {
  /** Milliseconds since 1970; null when the line has no time that is understood. */
  readonly atMs: number | null;
  readonly source: LogSource;
  /** Null when the line does not say. */
  readonly level: LogSeverity | null;
  /** Without line breaks at its ends; a message of several lines keeps those within. */
  readonly text: string;
  /** What else a structured line holds, by name. Empty for PostgreSQL's lines. */
  readonly detail: Readonly<Record<string, unknown>>;
}

/**
 * `2026-11-21 07:18:58.123 UTC [4711] LOG:  text`, with anything between the process id and the severity.
 * *Source:* PostgreSQL manual, log_line_prefix (`%m [%p]`); severities: manual 19.8, "Message Severity Levels".
 */
const POSTGRES_LINE =
  /^(\d{4})-(\d\d)-(\d\d) (\d\d):(\d\d):(\d\d)(?:\.(\d{1,3}))? (\S+) (\[\d+\]) (.*?)\b(DEBUG\d?|INFO|NOTICE|WARNING|ERROR|LOG|FATAL|PANIC|DETAIL|HINT|QUERY|CONTEXT|LOCATION|STATEMENT|BACKTRACE):\s+(.*)$/;
const POSTGRES_LEVELS: Readonly<Record<string, LogSeverity>> = { WARNING: 'warn', ERROR: 'error', FATAL: 'error', PANIC: 'error' };
/** Lines that go with the one before them: not events of their own. */
const ATTACHED: ReadonlySet<string> = new Set(['DETAIL', 'HINT', 'QUERY', 'CONTEXT', 'LOCATION', 'STATEMENT', 'BACKTRACE']);

/** Members of every structured line that have a place of their own. */
const HEAD = new Set(['level', 'time', 'message', 'pid', 'role', 'node']);

/**
 * The entries of some consecutive lines, in their order. `zoneMinutes`: what the host's clock is ahead of UTC, used for time zone names that do not
 * say it themselves (`CST` is three zones). A line without a time of its own is an entry with `atMs: null`; one that begins with a blank, and
 * PostgreSQL's DETAIL, HINT, … belong to the entry before them. Empty lines are left out.
 */
export function parseLog(source: LogSource, lines: readonly string[], zoneMinutes: number): readonly LogEntry[] {
  const entries: LogEntry[] = [];
  for (const line of lines) {
    if (line.trim() === '') continue;
    const last = entries.at(-1);
    const attached = source === 'postgres' ? attachment(line) : null;
    if (attached !== null && last !== undefined) entries[entries.length - 1] = { ...last, text: `${last.text}\n${attached}` };
    else entries.push((source === 'postgres' ? parsePostgres(line, zoneMinutes) : parseStructured(source, line)) ?? plain(source, line));
  }
  return entries;
}

function plain(source: LogSource, line: string): LogEntry {
  return { atMs: null, source, level: null, text: line.trim(), detail: {} };
}

function attachment(line: string): string | null {
  if (/^\s/.test(line)) return line.trimEnd();
  const severity = POSTGRES_LINE.exec(line);
  return severity !== null && ATTACHED.has(severity[11] ?? '') ? `${severity[11]}:  ${severity[12] ?? ''}` : null;
}

function parsePostgres(line: string, zoneMinutes: number): LogEntry | null {
  const match = POSTGRES_LINE.exec(line);
  if (match === null) return null;
  const [year, month, day, hour, minute, second] = match.slice(1, 7).map(Number) as [number, number, number, number, number, number];
  const ms = Number((match[7] ?? '0').padEnd(3, '0'));
  const utc = Date.UTC(year, month - 1, day, hour, minute, second, ms) - offsetMinutes(match[8] ?? '', zoneMinutes) * 60_000;
  const severity = match[11] ?? '';
  return {
    atMs: utc,
    source: 'postgres',
    level: severity.startsWith('DEBUG') ? 'debug' : (POSTGRES_LEVELS[severity] ?? 'info'),
    text: `${match[9]} ${(match[10] ?? '').trimStart()}${severity}:  ${match[12] ?? ''}`,
    detail: {},
  };
}

/** Minutes ahead of UTC: `UTC` and `GMT`, `+08`, `-0330`, `+05:30`; another name has the host's. */
function offsetMinutes(zone: string, hostMinutes: number): number {
  if (zone === 'UTC' || zone === 'GMT' || zone === 'Z') return 0;
  const match = /^([+-])(\d\d):?(\d\d)?$/.exec(zone);
  if (match === null) return hostMinutes;
  const minutes = Number(match[2]) * 60 + Number(match[3] ?? 0);
  return match[1] === '-' ? -minutes : minutes;
}

function parseStructured(source: LogSource, line: string): LogEntry | null {
  let parsed: unknown;
  try {
    parsed = JSON.parse(line);
  } catch {
    // A line of a library or of a child process: it is shown as it is.
    return null;
  }
  if (typeof parsed !== 'object' || parsed === null || Array.isArray(parsed)) return null;
  const fields = parsed as Record<string, unknown>;
  const at = typeof fields['time'] === 'string' ? Date.parse(fields['time']) : Number.NaN;
  const { level, message } = fields;
  return {
    atMs: Number.isFinite(at) ? at : null,
    source,
    level: level === 'debug' || level === 'info' || level === 'warn' || level === 'error' ? level : null,
    text: typeof message === 'string' ? message : line.trim(),
    detail: Object.fromEntries(Object.entries(fields).filter(([name]) => !HEAD.has(name))),
  };
}

/**
 * Several logs as one, by time. The order within each is kept: an entry without a time follows the one before it, and a clock that was set
 * back does not turn a log around. Equal times keep the order of the logs.
 */
export function mergeLogs<T extends { readonly atMs: number | null }>(logs: readonly (readonly T[])[]): readonly T[] {
  const keyed = logs.flatMap((entries, log) => {
    let at = Number.NEGATIVE_INFINITY;
    return entries.map((entry, index) => {
      at = Math.max(at, entry.atMs ?? at);
      return { at, log, index, entry };
    });
  });
  const order = (a: number, b: number): number => (a === b ? 0 : a < b ? -1 : 1);
  return keyed.sort((a, b) => order(a.at, b.at) || a.log - b.log || a.index - b.index).map(({ entry }) => entry);
}
