/** Colour, only where it helps: on a terminal, unless NO_COLOR or --no-color says otherwise. */
import { styleText } from 'node:util';

export type Tone = 'plain' | 'good' | 'warn' | 'bad' | 'dim' | 'bold' | 'accent';

export interface Style {
  readonly enabled: boolean;
  paint(tone: Tone, text: string): string;
}

const FORMATS = {
  good: 'green',
  warn: 'yellow',
  bad: 'red',
  dim: 'dim',
  bold: 'bold',
  accent: 'cyan',
} as const satisfies Record<Exclude<Tone, 'plain'>, Parameters<typeof styleText>[0]>;

/** Source: no-color.org: a NO_COLOR that is present and not empty means no colour, whatever its value. */
export function isColourWanted(options: { isTTY: boolean; noColorFlag: boolean; env: Readonly<Record<string, string | undefined>> }): boolean {
  if (options.noColorFlag || !options.isTTY) return false;
  const noColor = options.env['NO_COLOR'];
  return (noColor === undefined || noColor === '') && options.env['TERM'] !== 'dumb';
}

export function makeStyle(enabled: boolean): Style {
  return {
    enabled,
    // We decided about colour ourselves; without validateStream: false Node would look at process.stdout again.
    paint: (tone, text) => (enabled && tone !== 'plain' && text !== '' ? styleText(FORMATS[tone], text, { validateStream: false }) : text),
  };
}
