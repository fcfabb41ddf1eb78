/** What a dry run answers. */
import type { Problem } from '../exit.ts';
import type { Style } from '../output/style.ts';
import { hanging } from '../output/width.ts';

/** The steps, then what would refuse them. Both may be empty. */
export function renderPlan(
  answer: { readonly plan: readonly string[]; readonly problems: readonly Problem[] },
  options: { style: Style; width: number },
): string {
  const { style, width } = options;
  const lines = [style.paint('bold', 'This would be done (nothing was changed):')];
  if (answer.plan.length === 0) lines.push('  nothing');
  for (const [index, step] of answer.plan.entries()) lines.push(...hanging(`  ${index + 1}. `, step, width));
  if (answer.problems.length > 0) {
    lines.push('', style.paint('bad', 'It would be refused:'), ...renderProblems(answer.problems, options));
  }
  return lines.join('\n');
}

/** Each problem in words with its remedy below it. */
export function renderProblems(problems: readonly Problem[], options: { style: Style; width: number }): readonly string[] {
  const { style, width } = options;
  return problems.flatMap((problem) => [
    ...mark(hanging('  ! ', problem.text, width), style),
    ...(problem.remedy === '' ? [] : hanging('    → ', problem.remedy, width)),
  ]);
}

function mark(lines: readonly string[], style: Style): readonly string[] {
  return lines.map((line, index) => (index === 0 ? `  ${style.paint('warn', '!')}${line.slice(3)}` : line));
}
