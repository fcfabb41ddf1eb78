/** Repeating a read-only verb until Ctrl+C. */
import { addMono } from '../core/ids.ts';
import { readDuration } from './context.ts';
import { type CliResult, EXIT, type Outcome } from './exit.ts';
import { renderLine } from './output/json.ts';
import { printFailure, type Session } from './session.ts';

/** Below this a terminal flickers and the server works for nobody. */
const MIN_WATCH_MS = 200;

export interface Watched<T> {
  readonly read: () => Promise<CliResult<T>>;
  readonly render: (value: T) => string;
}

/**
 * `interval` false: once. Else every interval until Ctrl+C (exit 0): redrawn in place on a terminal, one after the other elsewhere,
 * one JSON object a line with --json. A server that is away for a moment is said and asked again; the first read must succeed.
 */
export async function showOrWatch<T>(session: Session, interval: string | boolean | undefined, watched: Watched<T>): Promise<Outcome> {
  const first = await watched.read();
  if (!first.ok) return first;
  if (interval === undefined || interval === false) {
    session.show(first.value, () => watched.render(first.value));
    return { ok: true, value: EXIT.done };
  }
  const every = readDuration('--watch', interval === true ? '2s' : interval);
  if (!every.ok) return every;
  const everyMs = Math.max(every.value, MIN_WATCH_MS);
  const stop = new AbortController();
  const release = session.io.onInterrupt(() => stop.abort());
  try {
    let result: CliResult<T> = first;
    for (;;) {
      const started = session.io.clock.now().mono;
      if (result.ok) draw(session, watched, result.value);
      else printFailure(session.io, session.view, result.error);
      await session.io.clock.sleep(addMono(started, everyMs) - session.io.clock.now().mono, stop.signal);
      if (stop.signal.aborted) return { ok: true, value: EXIT.done };
      result = await watched.read();
    }
  } finally {
    release();
  }
}

function draw<T>(session: Session, watched: Watched<T>, value: T): void {
  const { io, view } = session;
  if (view.format === 'json') io.stdout.write(renderLine(value));
  else if (view.format === 'yaml') {
    io.stdout.write('---\n');
    session.show(value, () => '');
  } else if (io.stdout.isTTY) {
    // Home, then clear to the end of each line and of the screen: no flash between two pictures.
    const picture = watched.render(value).split('\n').join('\u001b[K\n');
    io.stdout.write(`\u001b[H${picture}\u001b[K\n\u001b[J`);
  } else io.stdout.write(`${watched.render(value)}\n\n`);
}
