/** Failures on standard error: four parts in words, or one JSON object. */
import type { CliFailure } from '../exit.ts';
import { renderLine } from './json.ts';
import type { Style } from './style.ts';
import { hanging } from './width.ts';

const LABELS = [
  ['cause', 'why'],
  ['now', 'now'],
  ['remedy', 'do'],
] as const;

/** Ends with a line break; empty parts are left out. */
export function renderFailure(error: CliFailure, options: { style: Style; width: number }): string {
  const { failure, problems } = error;
  const { style, width } = options;
  const lines: string[] = [];
  const [first = '', ...more] = hanging('pgherd: ', failure.what, width);
  lines.push(`${style.paint('bad', 'pgherd:')}${first.slice('pgherd:'.length)}`, ...more);
  for (const [key, label] of LABELS) {
    if (key === 'remedy') lines.push(...problemLines(problems, width));
    const text = failure[key];
    if (text !== '') lines.push(...hanging(`  ${label.padEnd(4)}`, text, width));
  }
  lines.push(style.paint('dim', `  code ${failure.code}`));
  return `${lines.join('\n')}\n`;
}

function problemLines(problems: CliFailure['problems'], width: number): readonly string[] {
  return problems.flatMap((problem) => [
    ...hanging('  - ', `${problem.text} (${problem.code})`, width),
    ...(problem.remedy === '' ? [] : hanging('      → ', problem.remedy, width)),
  ]);
}

/** The same object as the server's own errors. */
export function renderFailureJson(error: CliFailure): string {
  const { code, what, cause, now, remedy, retryable } = error.failure;
  return renderLine({
    error: { code, what, cause, now, remedy, retryable, exit: error.exit, ...(error.problems.length > 0 ? { problems: error.problems } : {}) },
  });
}
