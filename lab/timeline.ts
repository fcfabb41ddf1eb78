/** The logs of all roles of one run as one list by time: the first thing to read after a run that went wrong. */
import { existsSync, mkdirSync, readFileSync, readdirSync, writeFileSync } from 'node:fs';
import { basename, join } from 'node:path';
import type { HistoryEvent } from '../src/demo/history.ts';
import { decodeJson, object, text, withDefault, nullable } from '../src/core/decode.ts';

const line = object({
  time: text,
  level: text,
  message: text,
  rule: withDefault(nullable(text), null),
  action: withDefault(nullable(text), null),
  why: withDefault(nullable(text), null),
  detail: withDefault(nullable(text), null),
});

/** Sorted by wall time, one entry a line; lines that are no JSON keep the place of the one before them. */
export function mergeLogs(directory: string): readonly string[] {
  const entries: { readonly time: string; readonly text: string }[] = [];
  for (const file of readdirSync(directory).filter((name) => name.endsWith('.log'))) {
    const who = basename(file, '.log').padEnd(6);
    let time = '';
    for (const raw of readFileSync(join(directory, file), 'utf8').split('\n')) {
      if (raw === '') continue;
      const decoded = decodeJson(line, raw);
      if (!decoded.ok) {
        entries.push({ time, text: `${who} ${raw}` });
        continue;
      }
      const { level, message, rule, action, why, detail } = decoded.value;
      time = decoded.value.time;
      const facts = [...new Set([action, rule, message, why, detail])].filter((part) => part !== null && part !== '');
      entries.push({ time, text: `${who} ${level === 'info' ? '' : `${level.toUpperCase()} `}${facts.join(' · ')}` });
    }
  }
  entries.sort((a, b) => (a.time < b.time ? -1 : a.time > b.time ? 1 : 0));
  return entries.map((entry) => `${entry.time.slice(11)} ${entry.text}`);
}

/** Keeps what is needed to understand a bad run: merged logs and the recorded history without its quiet stretches. */
export function saveRun(parts: {
  readonly target: string;
  readonly logs: string;
  readonly events: readonly HistoryEvent[];
  readonly summary: string;
}): void {
  mkdirSync(parts.target, { recursive: true });
  writeFileSync(join(parts.target, 'summary.txt'), `${parts.summary}\n`);
  if (existsSync(parts.logs)) writeFileSync(join(parts.target, 'timeline.txt'), `${mergeLogs(parts.logs).join('\n')}\n`);
  writeFileSync(join(parts.target, 'history.jsonl'), parts.events.map((event) => `${JSON.stringify(event)}\n`).join(''));
}
