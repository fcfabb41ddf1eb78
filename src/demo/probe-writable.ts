/** Asks every node directly, every 50 ms, whether it acknowledges a write: the only proof of how many primaries there are. */
import { monoMs, realClock } from '../base/clock.ts';
import type { HistoryEvent, Login, Target } from './history.ts';
import { TIMELINE_SQL, quote } from './recorder.ts';
import { type Writer, openWriter } from './writer.ts';

export const PROBE_INTERVAL_MS = 50;

export interface ProbeOptions {
  readonly run: string;
  readonly targets: readonly Target[];
  readonly login: Login;
  readonly emit: (event: HistoryEvent) => void;
}

/** Standbys refuse; such refusals and failed connections are no events. Acknowledgements and lost answers are. */
export function startWritableProbes(options: ProbeOptions): { stop(): Promise<void> } {
  const stopping = new AbortController();
  const done = Promise.all(options.targets.map((target) => probe(target, options, stopping.signal)));
  return {
    stop: async () => {
      stopping.abort();
      await done;
    },
  };
}

async function probe(target: Target, options: ProbeOptions, signal: AbortSignal): Promise<void> {
  const { run, login, emit } = options;
  let writer: Writer | null = null;
  let n = 0;
  let due: number = monoMs();
  while (!signal.aborted) {
    if (writer === null || !writer.usable()) {
      const opened = await openWriter(target, { login, session: 'any' });
      writer = typeof opened === 'string' ? null : opened;
    }
    if (writer !== null) {
      n += 1;
      const sql = `insert into writable_probe (run, node, n) values (${quote(run)}, ${quote(target.node)}, ${n}) returning ${TIMELINE_SQL}`;
      const answer = await writer.write(sql);
      if (answer.kind !== 'failed') emit({ client: 'probe', n, node: target.node, ...answer });
    }
    due = Math.max(due + PROBE_INTERVAL_MS, monoMs());
    await realClock.sleep(due - monoMs(), signal);
  }
  writer?.drop();
}
