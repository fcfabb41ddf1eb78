/** A progress bar with ETA on standard error: redrawn in place on a terminal, plain lines elsewhere. */
import type { MonoMs } from '../../core/ids.ts';
import type { Sink } from '../io.ts';
import type { Style } from './style.ts';
import { formatBytes, formatDuration } from './units.ts';
import { cutTo, displayWidth } from './width.ts';

export interface ProgressState {
  readonly label: string;
  readonly doneBytes: number | null;
  readonly totalBytes: number | null;
}

const BAR = 20;
/** Below this the rate is a guess: no ETA rather than a wrong one. */
const ETA_AFTER_MS = 2000;

/** `clone n2  [########------------]  40 %  1.2 of 3.0 GiB  eta 12 s`; without a total: label and bytes. */
export function renderProgress(state: ProgressState, elapsedMs: number, startedBytes: number): string {
  const { label, doneBytes, totalBytes } = state;
  if (doneBytes === null) return label;
  if (totalBytes === null || totalBytes <= 0) return `${label}  ${formatBytes(doneBytes)}`;
  const share = Math.min(1, doneBytes / totalBytes);
  const filled = Math.round(share * BAR);
  const bar = `[${'#'.repeat(filled)}${'-'.repeat(BAR - filled)}]`;
  return `${label}  ${bar}  ${Math.floor(share * 100)} %  ${formatBytes(doneBytes)} of ${formatBytes(totalBytes)}${eta(state, elapsedMs, startedBytes)}`;
}

function eta(state: ProgressState, elapsedMs: number, startedBytes: number): string {
  const moved = (state.doneBytes ?? 0) - startedBytes;
  const left = (state.totalBytes ?? 0) - (state.doneBytes ?? 0);
  if (elapsedMs < ETA_AFTER_MS || moved <= 0 || left <= 0) return '';
  return `  eta ${formatDuration((left / moved) * elapsedMs)}`;
}

export interface ProgressLine {
  /** A finished step: stays on the screen. */
  line(text: string): void;
  /** The moving last line; on a stream that is no terminal it appears at most every 10 s. */
  update(state: ProgressState, at: MonoMs): void;
  /** Removes the moving line. */
  clear(): void;
}

const PLAIN_EVERY_MS = 10_000;

export function makeProgress(sink: Sink, style: Style, quiet: boolean): ProgressLine {
  let drawn = false;
  let started: { label: string; at: MonoMs; bytes: number } | null = null;
  let lastPlain: MonoMs | null = null;
  const clear = (): void => {
    if (drawn) sink.write('\r\u001b[2K');
    drawn = false;
  };
  return {
    clear,
    line: (text) => {
      clear();
      if (!quiet) sink.write(`${text}\n`);
    },
    update: (state, at) => {
      if (quiet) return;
      if (started === null || started.label !== state.label) started = { label: state.label, at, bytes: state.doneBytes ?? 0 };
      const text = renderProgress(state, at - started.at, started.bytes);
      if (sink.isTTY) {
        clear();
        const width = (sink.columns() ?? 80) - 1;
        sink.write(style.paint('accent', displayWidth(text) > width ? cutTo(text, width) : text));
        drawn = true;
      } else if (state.doneBytes !== null && (lastPlain === null || at - lastPlain >= PLAIN_EVERY_MS)) {
        lastPlain = at;
        sink.write(`${text}\n`);
      }
    },
  };
}
