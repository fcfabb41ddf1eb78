/** `pgherd explain`: prose with numbers. */
import type { ExplainAnswer } from '../../api/schema.ts';
import type { Style } from '../output/style.ts';
import { oneLine } from '../output/table.ts';
import { formatBytes, formatDuration, formatTime } from '../output/units.ts';
import { displayWidth, hanging, wrapText } from '../output/width.ts';

/** Ends without a line break. */
export function renderExplain(cluster: string, explain: ExplainAnswer, options: { style: Style; width: number }): string {
  const { style, width } = options;
  const sections = [
    [`${style.paint('bold', cluster)}: rule ${style.paint('bold', explain.rule)} decides now.`, ...paragraph(explain.why, width)],
    ...lastChange(explain, options),
    ...presentTerm(explain, options),
    [style.paint('bold', 'If the primary died now'), ...paragraph(deathWords(explain.ifPrimaryDies), width)],
    [style.paint('bold', 'Who could be promoted'), ...candidateLines(explain.candidates, options)],
  ];
  return sections.map((lines) => lines.join('\n')).join('\n\n');
}

/** Left out where it is what decides now. */
function lastChange({ last, rule }: ExplainAnswer, { style, width }: { style: Style; width: number }): readonly (readonly string[])[] {
  if (last === undefined || last.rule === rule) return [];
  return [[`${style.paint('bold', 'The last change')}, ${formatTime(last.at)}, rule ${last.rule}`, ...paragraph(last.why, width)]];
}

/** Why this node is the primary: what people ask on the morning after a failover. */
function presentTerm({ term }: ExplainAnswer, { style, width }: { style: Style; width: number }): readonly (readonly string[])[] {
  if (term == null) return [];
  const outage = term.outageMs === null ? '' : ` Writes stopped for ${formatDuration(term.outageMs)}.`;
  const lost = term.outageMs === null ? '' : ` ${lostWords(term.lostBytes)}`;
  const head = `${style.paint('bold', `Why ${term.primary} is the primary`)} (term ${term.term}, since ${formatTime(term.startedAt)}, rule ${term.rule})`;
  return [[head, ...paragraph(`${fullStop(oneLine(term.reason))}${outage}${lost}`, width)]];
}

function lostWords(bytes: number | null): string {
  if (bytes === null) return 'What the old primary acknowledged after its last report, if anything, is not known.';
  return bytes === 0 ? 'Nothing was lost.' : `${formatBytes(bytes)} of WAL (${bytes} bytes) were lost.`;
}

function paragraph(text: string, width: number): readonly string[] {
  return wrapText(oneLine(text), Math.max(width - 2, 20)).map((line) => `  ${line}`);
}

function deathWords(death: ExplainAnswer['ifPrimaryDies']): string {
  const action = sentence(death.action);
  // The action mostly says it already.
  if (death.promoted === null) return death.action.startsWith('nothing') ? action : `${action} No node would be promoted.`;
  const promoted = death.action.split(/[\s,:;.]+/).includes(death.promoted) ? '' : ` ${death.promoted} would be promoted.`;
  const loss = lossWords(death);
  const outage =
    death.estimatedOutageMs === null
      ? 'How long writes would stop is unknown.'
      : `Writes would stop for about ${formatDuration(death.estimatedOutageMs)}.`;
  return `${action}${promoted} ${loss} ${outage}`;
}

/** A report is up to half a second old, and with asynchronous replication nobody waits for the standbys: "nothing" would be a promise that nobody keeps. */
function lossWords({ mayLoseBytes, mayLoseLater }: ExplainAnswer['ifPrimaryDies']): string {
  if (mayLoseBytes === null) return 'How much could be lost is unknown.';
  const later = mayLoseLater === true;
  if (mayLoseBytes === 0)
    return later
      ? 'By the last reports it has everything; what is acknowledged in the last moment before the death may be lost (replication is asynchronous).'
      : 'Nothing that was acknowledged would be lost.';
  return `Up to ${formatBytes(mayLoseBytes)} of WAL (${mayLoseBytes} bytes) could be lost${later ? ' by the last reports, and what is acknowledged after them' : ''}.`;
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
  return fullStop(line.charAt(0).toUpperCase() + line.slice(1));
}

function fullStop(text: string): string {
  return /[.!?]$/.test(text) ? text : `${text}.`;
}
