/** The demo's living view: what `show` says, how writing goes, and what to break. */
import { monoMs, realClock } from '../base/clock.ts';
import type { Herd, Show } from './herd.ts';
import type { HistoryEvent } from './history.ts';
import { startRecorder } from './recorder.ts';

export interface Screen {
  readonly isTTY: boolean;
  readonly columns: number | null;
  write(text: string): void;
}

const REDRAW_MS = 2000;
/** A gap from here on is told as an outage: twenty rows. */
const OUTAGE_MS = 200;
const KEPT_OUTAGES = 5;

/** Bounded: keeps figures, not events. */
export interface WriteMeter {
  readonly see: (event: HistoryEvent) => void;
  readonly lines: (nowMs: number) => readonly string[];
}

export function createWriteMeter(): WriteMeter {
  let rows = 0;
  let errors = 0;
  let last: { readonly atMs: number; readonly node: string } | null = null;
  const outages: string[] = [];
  return {
    see: (event) => {
      if (event.kind === 'failed' || event.kind === 'unknown') errors += 1;
      if (event.kind !== 'ack') return;
      rows += 1;
      const gapMs = last === null ? 0 : event.atMs - last.atMs;
      if (last !== null && gapMs >= OUTAGE_MS) {
        outages.push(
          `${Math.round(gapMs)} ms without an acknowledged write${last.node === event.node ? '' : `, then ${event.node} instead of ${last.node}`}`,
        );
        if (outages.length > KEPT_OUTAGES) outages.shift();
      }
      last = { atMs: event.atMs, node: event.node };
    },
    lines: (nowMs) => {
      const silentMs = last === null ? null : Math.round(nowMs - last.atMs);
      const state =
        last === null || silentMs === null
          ? 'no write was acknowledged yet'
          : silentMs >= OUTAGE_MS
            ? `no acknowledged write for ${silentMs} ms`
            : `${last.node} acknowledges`;
      return [`writing a row every 10 ms: ${state}; ${rows} rows, ${errors} errors`, ...outages.map((text) => `  outage: ${text}`)];
    },
  };
}

/** One line that says the whole state; the same text means that nothing changed. */
export function summariseShow(show: Show | null): string {
  if (show === null) return 'the server does not answer';
  const nodes = show.nodes.map(
    (node) => `${node.id} ${node.id === show.primary && node.state === 'running' ? 'primary' : node.streaming ? 'streaming' : node.state}`,
  );
  return `${show.state} · term ${show.term} · ${nodes.join(', ')}`;
}

/** Until `signal` aborts. On a terminal the view is redrawn in place; elsewhere a line is written when something changed. */
export async function runLiveView(
  herd: Herd,
  options: { readonly screen: Screen; readonly footer: readonly string[]; readonly signal: AbortSignal },
): Promise<void> {
  const { screen, footer, signal } = options;
  const meter = createWriteMeter();
  const recorder = startRecorder({ run: 'live', targets: herd.targets, login: herd.login, emit: meter.see });
  if (!screen.isTTY) screen.write(`${footer.join('\n')}\n`);
  let said = '';
  try {
    while (!signal.aborted) {
      said = screen.isTTY ? await redraw(herd, { screen, footer, meter }) : await sayChange(herd, { screen, meter, said });
      await realClock.sleep(REDRAW_MS, signal);
    }
  } finally {
    await recorder.stop();
  }
}

async function redraw(herd: Herd, { screen, footer, meter }: { screen: Screen; footer: readonly string[]; meter: WriteMeter }): Promise<string> {
  const shown = await herd.verb(['show'], 5000);
  const body = shown.code === 0 ? shown.stdout.trimEnd() : shown.stderr.trimEnd();
  const lines = [...body.split('\n'), '', ...meter.lines(monoMs()), '', ...footer];
  // Home, each line cleared to its end, then everything below: no flicker.
  screen.write(`\u001b[H${lines.map((line) => `${line}\u001b[K`).join('\n')}\n\u001b[J`);
  return '';
}

async function sayChange(herd: Herd, { screen, meter, said }: { screen: Screen; meter: WriteMeter; said: string }): Promise<string> {
  const outages = meter.lines(monoMs()).slice(1).join('\n');
  const text = [summariseShow(await herd.show()), outages].filter((part) => part !== '').join('\n');
  if (text !== said) screen.write(`${text}\n`);
  return text;
}
