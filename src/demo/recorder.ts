/**
 * The recording client: a numbered row every 10 ms, as an application with all hosts in its connection string would write it.
 * No row is tried twice; a row without a clear answer is `unknown`.
 */
import { monoMs, realClock } from '../base/clock.ts';
import type { HistoryEvent, Login, Target } from './history.ts';
import { CONNECT_LIMIT_MS, type Writer, openWriter } from './writer.ts';

export const ROW_INTERVAL_MS = 10;
/** Between two attempts at one host. Longer would be measured as outage; shorter is a connection storm, which slows down what it measures. */
const RETRY_PAUSE_MS = 20;

/** Every statement that the measuring clients need before they start; idempotent. Run as the owner of the database. */
export const RECORDER_SCHEMA = [
  `create table if not exists recorder (run text not null, n bigint not null, node text not null, at timestamptz not null default clock_timestamp(), primary key (run, n))`,
  `create table if not exists writable_probe (run text not null, node text not null, n bigint not null, primary key (run, node, n))`,
];

/** The timeline in which the server writes now, as eight hexadecimal digits. Source: PostgreSQL manual 9.27.3, pg_walfile_name. */
export const TIMELINE_SQL = `substr(pg_walfile_name(pg_current_wal_insert_lsn()), 1, 8) as timeline`;

export interface RecorderOptions {
  readonly run: string;
  readonly targets: readonly Target[];
  readonly login: Login;
  readonly emit: (event: HistoryEvent) => void;
}

export interface Recorder {
  /** Ends after the row that is under way; every row sent has its event by then. */
  stop(): Promise<void>;
}

export function startRecorder(options: RecorderOptions): Recorder {
  const stopping = new AbortController();
  const done = record(options, stopping.signal);
  return {
    stop: async () => {
      stopping.abort();
      await done;
    },
  };
}

async function record(options: RecorderOptions, signal: AbortSignal): Promise<void> {
  const { run, emit } = options;
  let n = 0;
  let writer: Writer | null = null;
  let due: number = monoMs();
  while (!signal.aborted) {
    if (writer === null || !writer.usable()) {
      writer?.drop();
      writer = await connectToPrimary(options, signal);
      if (writer === null) break;
      emit({ kind: 'connected', client: 'recorder', node: writer.target.node, atMs: monoMs() });
      due = monoMs();
    }
    n += 1;
    const node = writer.target.node;
    const answer = await writer.write(insertSql(run, n, node));
    emit({ client: 'recorder', n, node, ...answer });
    // A plain refusal (read-only, shutting down) leaves the connection usable but not useful: look for the primary again.
    if (answer.kind !== 'ack') {
      writer.drop();
      emit({ kind: 'disconnected', client: 'recorder', node, atMs: monoMs(), message: answer.message });
    }
    // Ticks that passed during a slow row are left out, not caught up: a burst would hide the gap.
    due = Math.max(due + ROW_INTERVAL_MS, monoMs());
    await realClock.sleep(due - monoMs(), signal);
  }
  writer?.drop();
  emit({ kind: 'ended', client: 'recorder', atMs: monoMs(), message: null });
}

function insertSql(run: string, n: number, node: string): string {
  return `insert into recorder (run, n, node) values (${quote(run)}, ${n}, ${quote(node)}) returning ${TIMELINE_SQL}`;
}

export function quote(text: string): string {
  return `'${text.replaceAll("'", "''")}'`;
}

/** Tries all hosts at the same time, each again and again, until one of them accepts writes; null when `signal` aborts first. */
async function connectToPrimary(options: RecorderOptions, signal: AbortSignal): Promise<Writer | null> {
  const found = new AbortController();
  const either = AbortSignal.any([signal, found.signal]);
  let winner: Writer | null = null;
  const tryHost = async (target: Target): Promise<void> => {
    while (!either.aborted) {
      const opened = await openWriter(target, { login: options.login, session: 'read-write', connectLimitMs: CONNECT_LIMIT_MS });
      if (typeof opened !== 'string') {
        if (winner === null && !signal.aborted) {
          winner = opened;
          found.abort();
        } else {
          opened.drop();
        }
        return;
      }
      await realClock.sleep(RETRY_PAUSE_MS, either);
    }
  };
  const all = options.targets.map(tryHost);
  await new Promise<void>((resolve) => {
    if (either.aborted) resolve();
    either.addEventListener('abort', () => resolve(), { once: true });
    void Promise.all(all).then(() => resolve());
  });
  return winner;
}
