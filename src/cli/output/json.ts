/** Data for programs: JSON (two blanks, one final line break) and YAML of the same fields. */
import { stringify } from 'yaml';

export type OutputFormat = 'table' | 'json' | 'yaml';

/** Ends with a line break. Not for `table`. */
export function renderData(data: unknown, format: 'json' | 'yaml'): string {
  return format === 'json' ? `${JSON.stringify(data, null, 2)}\n` : stringify(data, { lineWidth: 0 });
}

/** One object a line, for followed streams. */
export function renderLine(data: unknown): string {
  return `${JSON.stringify(data)}\n`;
}
