/** Tables that fit the terminal: wide columns are cut, then the least important ones are left out and named. */
import CliTable from 'cli-table3';
import type { Style, Tone } from './style.ts';
import { cutTo, displayWidth } from './width.ts';

export interface Cell {
  readonly text: string;
  readonly tone: Tone;
}

export interface Column {
  readonly head: string;
  readonly align?: 'left' | 'right';
  /** 0 is never left out; the greatest number goes first. */
  readonly rank?: number;
  /** The column may be cut to this width before any column is left out; absent: it is never cut. */
  readonly min?: number;
}

export interface TableOptions {
  readonly style: Style;
  /** Null: no limit (not a terminal): scripts get everything. */
  readonly width: number | null;
}

const GAP = 2;

export function cell(text: string | number | null | undefined, tone: Tone = 'plain'): Cell {
  // Control characters of other people's text must not reach the terminal.
  return { text: oneLine(text === null || text === undefined ? '–' : String(text)), tone };
}

/** Text without line breaks, tabs, escape codes and other control characters. */
export function oneLine(text: string): string {
  return text.replace(/[\u0000-\u001f\u007f-\u009f]+/g, ' ').trim();
}

/**
 * Lines joined by `\n`, without a trailing one; blanks at line ends are removed.
 * No rows: the head alone. Left-out columns are named in a last line.
 */
export function renderTable(columns: readonly Column[], rows: readonly (readonly Cell[])[], options: TableOptions): string {
  const { kept, widths } = fit(columns, rows, options.width);
  const { style } = options;
  const align = kept.map((index) => columns[index]?.align ?? 'left');
  const none = { top: '', 'top-mid': '', 'top-left': '', 'top-right': '', bottom: '', 'bottom-mid': '', 'bottom-left': '', 'bottom-right': '' };
  const table = new CliTable({
    chars: { ...none, left: '', 'left-mid': '', mid: '', 'mid-mid': '', right: '', 'right-mid': '', middle: ' '.repeat(GAP) },
    style: { 'padding-left': 0, 'padding-right': 0, head: [], border: [], compact: true },
    colAligns: align,
    colWidths: kept.map((index) => widths[index] ?? 1),
  });
  const cut = (text: string, index: number): string => cutTo(text, widths[index] ?? 1);
  table.push(kept.map((index) => style.paint('dim', cut(columns[index]?.head ?? '', index))));
  for (const row of rows) {
    table.push(kept.map((index) => style.paint(row[index]?.tone ?? 'plain', cut(row[index]?.text ?? '', index))));
  }
  const lines = table
    .toString()
    .split('\n')
    .map((line) => line.trimEnd());
  const missing = columns.filter((_, index) => !kept.includes(index)).map((column) => column.head);
  if (missing.length > 0)
    lines.push(style.paint('dim', cutTo(`not shown at this width: ${missing.join(', ')}`, options.width ?? Number.MAX_SAFE_INTEGER)));
  return lines.join('\n');
}

interface Fit {
  readonly kept: readonly number[];
  readonly widths: readonly number[];
}

function fit(columns: readonly Column[], rows: readonly (readonly Cell[])[], limit: number | null): Fit {
  const natural = columns.map((column, index) => Math.max(1, displayWidth(column.head), ...rows.map((row) => displayWidth(row[index]?.text ?? ''))));
  let kept = columns.map((_, index) => index);
  if (limit === null) return { kept, widths: natural };
  const smallest = columns.map((column, index) =>
    column.min === undefined ? (natural[index] ?? 1) : Math.min(natural[index] ?? 1, Math.max(column.min, 1)),
  );
  while (total(kept, smallest) > limit) {
    const worst = kept.reduce((found, index) => ((columns[index]?.rank ?? 0) > (columns[found]?.rank ?? 0) ? index : found), kept[0] ?? 0);
    if ((columns[worst]?.rank ?? 0) === 0) break;
    kept = kept.filter((index) => index !== worst);
  }
  return { kept, widths: shrink(kept, natural, smallest, limit) };
}

/** Takes columns away from the widest cell that may be cut until the line fits. */
function shrink(kept: readonly number[], natural: readonly number[], smallest: readonly number[], limit: number): readonly number[] {
  const widths = [...natural];
  for (let excess = total(kept, widths) - limit; excess > 0; excess--) {
    let widest: number | null = null;
    for (const index of kept) {
      const room = (widths[index] ?? 0) > (smallest[index] ?? 0);
      if (room && (widest === null || (widths[index] ?? 0) > (widths[widest] ?? 0))) widest = index;
    }
    if (widest === null) break;
    widths[widest] = (widths[widest] ?? 1) - 1;
  }
  return widths;
}

function total(kept: readonly number[], widths: readonly number[]): number {
  return kept.reduce((sum, index) => sum + (widths[index] ?? 0), 0) + GAP * Math.max(0, kept.length - 1);
}
