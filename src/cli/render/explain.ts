/** `pgherd explain`: prose with numbers. */
import type { ExplainAnswer } from '../../api/schema.ts';
import type { Style } from '../output/style.ts';
import { oneLine } from '../output/table.ts';
import { formatBytes, formatDuration } from '../output/units.ts';
import { displayWidth, hanging, wrapText } from '../output/width.ts';

/** Ends without a line break. */
export function renderExplain(cluster: string, explain: ExplainAnswer, options: { style: Style; width: number }): string {
  const { style, width } = options;
  const sections = [
    [`${style.paint('bold', cluster)}: the last decision was made by rule ${style.paint('bold', explain.rule)}.`, ...paragraph(explain.why, width)],
    [style.paint('bold', 'If the primary died now'), ...paragraph(deathWords(explain.ifPrimaryDies), width)],
    [style.paint('bold', 'Who could be promoted'), ...candidateLines(explain.candidates, options)],
  ];
  return sections.map((lines) => lines.join('\n')).join('\n\n');
}

function paragraph(text: string, width: number): readonly string[] {
  return wrapText(oneLine(text), Math.max(width - 2, 20)).map((line) => `  ${line}`);
}

function deathWords(death: ExplainAnswer['ifPrimaryDies']): string {
  const action = sentence(death.action);
  // The action mostly says it already.
  if (death.promoted === null) return death.action.startsWith('nothing') ? action : `${action} No node would be promoted.`;
  const promoted = death.action.split(/[\s,:;.]+/).includes(death.promoted) ? '' : ` ${death.promoted} would be promoted.`;
  const loss =
    death.mayLoseBytes === null
      ? 'How much could be lost is unknown.'
      : death.mayLoseBytes === 0
        ? 'Nothing would be lost.'
        : `Up to ${formatBytes(death.mayLoseBytes)} of WAL (${death.mayLoseBytes} bytes) could be lost.`;
  const outage =
    death.estimatedOutageMs === null
      ? 'How long writes would stop is unknown.'
      : `Writes would stop for about ${formatDuration(death.estimatedOutageMs)}.`;
  return `${action}${promoted} ${loss} ${outage}`;
}

function candidateLines(candidates: ExplainAnswer['candidates'], { style, width }: { style: Style; width: number }): readonly string[] {
  if (candidates.length === 0) return ['  nobody: there is no other node'];
  const widest = Math.max(...candidates.map((candidate) => displayWidth(candidate.node)));
  return candidates.flatMap((candidate) => {
    const name = candidate.node.padEnd(widest);
    const verdict = candidate.eligible ? 'yes' : 'no ';
    const reasons =
      candidate.reasons.length === 0
        ? candidate.eligible
          ? 'nothing speaks against it'
          : 'no reason was recorded'
        : candidate.reasons.map(oneLine).join('; ');
    const [first = '', ...more] = hanging(`  ${name}  ${verdict}  `, reasons, width);
    return [first.replace(verdict, style.paint(candidate.eligible ? 'good' : 'warn', verdict)), ...more];
  });
}

/** With a capital and a full stop. */
function sentence(text: string): string {
  const line = oneLine(text);
  if (line === '') return '';
  const capital = line.charAt(0).toUpperCase() + line.slice(1);
  return /[.!?]$/.test(capital) ? capital : `${capital}.`;
}
