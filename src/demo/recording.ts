/** A recording in progress: in this process, or on a host of its own; and the verdict at its end. */
import { spawn } from 'node:child_process';
import { createInterface } from 'node:readline';
import { realClock } from '../base/clock.ts';
import { decodeJson } from '../core/decode.ts';
import { type Verdict, checkHistory } from './check.ts';
import { waitUntil } from './children.ts';
import type { Herd } from './herd.ts';
import { type Ack, type HistoryEvent, historyEvent } from './history.ts';
import { startWritableProbes } from './probe-writable.ts';
import { quote, startRecorder } from './recorder.ts';

export interface Recording {
  readonly run: string;
  /** Grows while it runs. */
  readonly events: readonly HistoryEvent[];
  /** True when the recorder has `rows` acknowledgements of rows that were sent after `afterMs`; false after `limitMs`. */
  waitServing(options: { readonly afterMs: number; readonly limitMs: number; readonly rows?: number; readonly otherThan?: string }): Promise<boolean>;
  /** Ends the clients; safe to call twice. */
  stop(): Promise<void>;
}

/** Enough rows to call it serving again: a single one may have been under way before the fault. */
const ROWS_THAT_COUNT = 20;
/** Ending takes one statement's limit; a client host that is cut off needs no more. */
const STOP_LIMIT_MS = 5000;

export function recordHere(herd: Herd, run: string): Recording {
  const events: HistoryEvent[] = [];
  const options = { run, targets: herd.targets, login: herd.login, emit: (event: HistoryEvent) => void events.push(event) };
  const recorder = startRecorder(options);
  const probes = startWritableProbes(options);
  return recording(run, events, async () => {
    await Promise.all([recorder.stop(), probes.stop()]);
  });
}

/** Runs recorder-main on another host. Only from the source tree: the shipped program records in its own process. */
export function recordFrom(
  inside: readonly string[],
  herd: Pick<Herd, 'targets' | 'login'>,
  options: { readonly run: string; readonly entry: string },
): Recording {
  const events: HistoryEvent[] = [];
  const [program = '', ...rest] = [...inside, process.execPath, options.entry];
  const child = spawn(program, rest, { stdio: ['pipe', 'pipe', 'inherit'] });
  const closed = new Promise<void>((resolve) => {
    child.once('close', () => resolve());
    child.once('error', () => resolve());
  });
  child.stdin.on('error', () => undefined);
  child.stdin.write(`${JSON.stringify({ run: options.run, targets: herd.targets, login: herd.login, probes: 'on' })}\n`);
  createInterface({ input: child.stdout }).on('line', (line) => {
    const event = decodeJson(historyEvent, line);
    if (event.ok) events.push(event.value);
  });
  return recording(options.run, events, async () => {
    child.stdin.end();
    const limit = realClock.sleep(STOP_LIMIT_MS).then(() => void child.kill('SIGKILL'));
    await Promise.race([closed, limit]);
    await closed;
  });
}

function recording(run: string, events: readonly HistoryEvent[], end: () => Promise<void>): Recording {
  let ended: Promise<void> | null = null;
  return {
    run,
    events,
    waitServing: ({ afterMs, limitMs, rows = ROWS_THAT_COUNT, otherThan }) =>
      waitUntil(() => acksAfter(events, afterMs).filter((ack) => ack.node !== otherThan).length >= rows, limitMs, 5),
    stop: () => {
      ended ??= end();
      return ended;
    },
  };
}

export function acksAfter(events: readonly HistoryEvent[], afterMs: number): readonly Ack[] {
  const found: Ack[] = [];
  // From the end: recordings are long and only their end is asked for, again and again.
  for (let i = events.length - 1; i >= 0; i--) {
    const event = events[i];
    if (event === undefined || event.kind !== 'ack' || event.client !== 'recorder') continue;
    if (event.sentMs <= afterMs) break;
    found.push(event);
  }
  return found.reverse();
}

/** Row numbers of the run that a node has; null when it could not be asked. */
export async function readRows(herd: Pick<Herd, 'sql' | 'login'>, node: string, run: string): Promise<ReadonlySet<number> | null> {
  try {
    const rows = await herd.sql(node, `select n::text from recorder where run = ${quote(run)}`, herd.login.database);
    return new Set(rows.map((row) => Number(row['n'])));
  } catch {
    // The verdict then says that the rows were not compared (lostRows null), which no expectation accepts.
    return null;
  }
}

/**
 * Verdict over a step of a longer recording: only the events from `fromMs` to `untilMs`, judged around `faultMs`.
 * `untilMs` lies before `present` was read: rows acknowledged while it was read cannot be in it and are not lost.
 */
export function judge(
  recorded: Recording,
  options: { readonly fromMs: number; readonly untilMs: number; readonly faultMs: number | null; readonly present: ReadonlySet<number> | null },
): Verdict {
  const events = recorded.events.filter((event) => event.atMs >= options.fromMs && event.atMs <= options.untilMs);
  return checkHistory(events, { faultMs: options.faultMs, endMs: options.untilMs, present: options.present });
}
