/** Changes between two specs, one field a line. */
import type { DiffLine } from '../../api/schema.ts';
import type { Style } from '../output/style.ts';

/** `no change` when empty. Ends without a line break. */
export function renderDiff(diff: readonly DiffLine[], style: Style): string {
  if (diff.length === 0) return 'no change';
  return diff
    .flatMap((line) => [
      ...(isAbsent(line.from) ? [] : [style.paint('bad', `- ${line.path}: ${JSON.stringify(line.from)}`)]),
      ...(isAbsent(line.to) ? [] : [style.paint('good', `+ ${line.path}: ${JSON.stringify(line.to)}`)]),
    ])
    .join('\n');
}

function isAbsent(value: unknown): boolean {
  return value === undefined || value === null;
}
