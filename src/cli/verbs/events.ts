import { Command, InvalidArgumentError, Option } from 'commander';
import type { EventRow } from '../../api/schema.ts';
import type { Api } from '../api.ts';
import { EXIT, type Outcome } from '../exit.ts';
import { renderLine } from '../output/json.ts';
import { oneLine } from '../output/table.ts';
import { formatTime } from '../output/units.ts';
import { hanging } from '../output/width.ts';
import { type Host, type Session, act } from '../session.ts';

const FOLLOW_MS = 500;
/** So many the server answers at once. */
const MOST = 1000;
const TONES = { info: 'plain', warn: 'warn', error: 'bad' } as const;

export function readLimit(text: string, max: number): number {
  const value = Number(text);
  if (!Number.isInteger(value) || value < 1 || value > max) throw new InvalidArgumentError(`Expected a whole number from 1 to ${max}.`);
  return value;
}

export function eventsCommand(host: Host): Command {
  return new Command('events')
    .description('what happened and which rule decided it, oldest first')
    .option('-f, --follow', 'go on with new events until Ctrl+C')
    .option('-n, --limit <count>', 'how many of the newest', (text) => readLimit(text, MOST), 100)
    .addOption(
      new Option('--level <level>', 'info: all; warn: warnings and errors; error: only errors').choices(['info', 'warn', 'error']).default('info'),
    )
    .action(
      act(host, async (session, command) => {
        const api = session.api();
        if (!api.ok) return api;
        const cluster = await session.cluster();
        if (!cluster.ok) return cluster;
        const options = command.opts<{ follow?: boolean; limit: number; level: string }>();
        // The newest of the level that is asked for may lie far back: all that the server keeps are looked through.
        const limit = options.level === 'info' ? options.limit : MOST;
        const rows = await api.value.call('events', { params: { cluster: cluster.value }, query: { limit } });
        if (!rows.ok) return rows;
        const wanted = (row: EventRow): boolean =>
          options.level === 'info' || row.level === 'error' || (options.level === 'warn' && row.level === 'warn');
        const shown = rows.value.filter(wanted).slice(-options.limit);
        if (options.follow !== true) {
          session.show(shown, () => (shown.length === 0 ? 'no events' : shown.map((row) => renderEvent(row, session)).join('\n')));
          return { ok: true, value: EXIT.done };
        }
        return follow(session, api.value, { cluster: cluster.value, first: shown, wanted });
      }),
    );
}

interface Following {
  readonly cluster: string;
  readonly first: readonly EventRow[];
  readonly wanted: (row: EventRow) => boolean;
}

/** Asks again from the last event seen, so that a restarted server loses none; ends with Ctrl+C (exit 0). */
async function follow(session: Session, api: Api, following: Following): Promise<Outcome> {
  const stop = new AbortController();
  const release = session.io.onInterrupt(() => stop.abort());
  let rows = following.first;
  let after: string | null = null;
  let lostSaid = false;
  try {
    for (;;) {
      for (const row of rows) {
        if (following.wanted(row)) session.io.stdout.write(session.view.format === 'table' ? `${renderEvent(row, session)}\n` : renderLine(row));
        after = row.id;
      }
      await session.io.clock.sleep(FOLLOW_MS, stop.signal);
      if (stop.signal.aborted) return { ok: true, value: EXIT.done };
      const next = await api.call('events', { params: { cluster: following.cluster }, query: { limit: MOST, ...(after === null ? {} : { after }) } });
      rows = next.ok ? next.value : [];
      if (!next.ok && !next.error.failure.retryable) return next;
      if (!next.ok && !lostSaid) session.note(`the server does not answer (${next.error.failure.code}); waiting`);
      lostSaid = !next.ok;
    }
  } finally {
    release();
  }
}

function renderEvent(row: EventRow, session: Session): string {
  const { style } = session.view;
  const head = `${formatTime(row.at)}  ${row.level.padEnd(5)}  `;
  const named = row.node === null || row.text.split(/[^A-Za-z0-9_-]+/).includes(row.node);
  const text = `${named ? '' : `${row.node}: `}${oneLine(row.text)}  [${row.rule}, term ${row.term}]`;
  const [first = '', ...more] = session.view.width === null ? [head + text] : hanging(head, text, session.view.width);
  const painted = style.paint('dim', formatTime(row.at)) + style.paint(TONES[row.level], first.slice(formatTime(row.at).length));
  return [painted, ...more.map((line) => style.paint(TONES[row.level], line))].join('\n');
}
