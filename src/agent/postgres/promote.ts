/** Promotion of a standby, and what must be true before and after it. */
import { monoMs, realClock } from '../../base/clock.ts';
import type { Timeline } from '../../core/ids.ts';
import { makeTimeline } from '../../core/ids.ts';
import { type Lsn, formatLsn, parseLsn } from '../../core/lsn.ts';
import { type Failure, type Result, err, ok } from '../../core/result.ts';
import { setWinning } from './auto-conf.ts';
import { runCheckpoint } from './checkpoint.ts';
import { ensureStandbySignal } from './data-directory.ts';
import { cancelled, failure } from './failure.ts';
import { hurryStartup } from './hurry.ts';
import type { Instance } from './instance.ts';
import { type ProcessInfo, isSameProcessAlive } from './postmaster.ts';
import { type RunSql, type Sql, sqlStateOf, withLocalSql } from './sql.ts';
import { archiveSkipped, forgetSkipped, skipTimelines } from './skipped-timelines.ts';
import { readHistory } from './timeline-history.ts';

export interface Promoted {
  readonly timeline: Timeline;
  /** Where the new timeline begins; null when its history file could not be read. */
  readonly forkLsn: Lsn | null;
  readonly durationMs: number;
}

const LOOK_MS = 3;
/** A server whose startup process lives is asked this often: its backend needs the processor for the answer. */
const ASK_MS = 12;
/** 1 of 19 measured promotions lost its signal while the startup process slept in wal_retrieve_retry_interval. */
const REPEAT_MS = 100;

/** Waits until the server has replayed at least `required`. Errors: `promote.behind` at the limit, `postgres.cancelled`, those of withLocalSql. */
export function waitReplay(
  instance: Instance,
  required: Lsn,
  options: { readonly limitMs: number; readonly signal?: AbortSignal; readonly run?: RunSql },
): Promise<Result<Lsn, Failure>> {
  return flatten((options.run ?? withLocalSql)(instance, options, (sql) => waitReplayOn(sql, instance, required, options)));
}

async function waitReplayOn(
  sql: Sql,
  instance: Instance,
  required: Lsn,
  options: { readonly limitMs: number; readonly signal?: AbortSignal },
): Promise<Result<Lsn, Failure>> {
  const deadline = monoMs() + options.limitMs;
  for (;;) {
    const [row] = await sql.query('SELECT CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn() ELSE pg_current_wal_flush_lsn() END AS at');
    const at = parseLsn(String(row?.['at'] ?? ''));
    if (at !== null && at >= required) return ok(at);
    if (options.signal?.aborted === true) return err(cancelled(`waiting for replay on ${instance.node}`));
    if (monoMs() > deadline) {
      return err(
        failure(
          'promote.behind',
          `${instance.node} has not replayed ${formatLsn(required)}`,
          `it is at ${at === null ? 'an unknown position' : formatLsn(at)} after ${options.limitMs} ms`,
          'it is not promoted',
          'is replay paused, or does a query on the standby block it?',
          true,
        ),
      );
    }
    await realClock.sleep(LOOK_MS);
  }
}

/**
 * Promotes and waits until the server has left recovery. `mayPromote` is asked right before each request.
 * After it `standby.signal` is put back, and the upstream settings are emptied soon: the server removes the file itself
 * when recovery ends, and a file that vanishes earlier is fatal for it (Q35).
 * Errors: `promote.not-in-recovery`, `promote.behind`, `promote.refused`, `promote.timeout`, `postgres.cancelled`, those of withLocalSql and skipTimelines.
 */
export async function promotePostgres(
  instance: Instance,
  options: {
    readonly requiredLsn: Lsn | null;
    /** Others have opened timelines up to this number: the new one is above. Default: whatever PostgreSQL takes. */
    readonly usedTimeline?: Timeline | null;
    readonly mayPromote: () => boolean;
    /** What must have ended before the first request; what it waits for otherwise goes on beside it. Never rejects. */
    readonly ready?: Promise<unknown>;
    /** Called once, when the server is seen to be writable. */
    readonly onWritable?: () => void;
    readonly limitMs?: number;
    readonly signal?: AbortSignal;
    readonly run?: RunSql;
  },
): Promise<Result<Promoted, Failure>> {
  const startedAt = monoMs();
  const limitMs = options.limitMs ?? 30_000;
  let requested = false;
  const promoted = await flatten(
    (options.run ?? withLocalSql)(instance, options, async (sql): Promise<Result<Timeline, Failure>> => {
      // A paused replay would sleep through the promotion.
      const [before] = await sql.query(
        'SELECT pg_is_in_recovery() AS recovery, CASE WHEN pg_is_in_recovery() AND pg_is_wal_replay_paused() THEN pg_wal_replay_resume()::text END',
      );
      if (before?.['recovery'] === false)
        return err(
          failure('promote.not-in-recovery', `${instance.node} is no standby`, 'the server is writable already', 'nothing was done', '', false),
        );
      if (options.requiredLsn !== null) {
        const replayed = await waitReplayOn(sql, instance, options.requiredLsn, { ...options, limitMs });
        if (!replayed.ok) return replayed;
      }
      const [skipped] = await Promise.all([skipTimelines(instance, options.usedTimeline ?? null), options.ready]);
      if (!skipped.ok) return skipped;
      return await requestPromotion(sql, instance, { ...options, deadline: startedAt + limitMs, onRequest: () => (requested = true) });
    }),
  );
  if (!promoted.ok) {
    // Once it was requested it may take effect at any time, and must not take a number that is in use; whoever ends this server forgets them then.
    if (!requested) await forgetSkipped(instance.dataDirectory).catch(() => undefined);
    return promoted;
  }
  options.onWritable?.();
  await ensureStandbySignal(instance);
  void tidySoon(instance);
  const history = await readHistory(instance.dataDirectory, promoted.value);
  return ok({ timeline: promoted.value, forkLsn: history?.at(-1)?.forkLsn ?? null, durationMs: monoMs() - startedAt });
}

/** Clients come first: what follows a promotion waits this long, so that it takes no time from the opening. */
const TIDY_AFTER_MS = 300;

/**
 * The upstream settings are emptied, and a checkpoint is taken: PostgreSQL spreads its own first one of the new timeline over minutes, and
 * until then nobody can rewind to it (Z42). Not waited for: a start in either role sets or empties the upstream anew, and rewind looks for
 * the checkpoint itself.
 */
async function tidySoon(instance: Instance): Promise<void> {
  await realClock.sleep(TIDY_AFTER_MS);
  await setWinning(instance, { primary_conninfo: '', primary_slot_name: '' }, {});
  await runCheckpoint(instance);
  // A disk that takes no file is a finding of its own; the history of this timeline is archived by PostgreSQL itself.
  await archiveSkipped(instance).catch(() => undefined);
}

async function requestPromotion(
  sql: Sql,
  instance: Instance,
  { mayPromote, deadline, signal, onRequest }: { mayPromote: () => boolean; deadline: number; signal?: AbortSignal; onRequest: () => void },
): Promise<Result<Timeline, Failure>> {
  let startup: ProcessInfo | null = null;
  for (let askedAt = Number.NEGATIVE_INFINITY; ; ) {
    if (signal?.aborted === true) return err(cancelled(`promotion of ${instance.node}`));
    if (monoMs() - askedAt >= REPEAT_MS) {
      if (!mayPromote())
        return err(
          failure(
            'promote.refused',
            `${instance.node} may not be promoted`,
            'the write lease of the new term is not held',
            askedAt === Number.NEGATIVE_INFINITY ? 'it stays a standby' : 'the request was given and may take effect: it is fenced',
            '',
            true,
          ),
        );
      onRequest();
      await askPromotion(sql);
      askedAt = monoMs();
      startup ??= hurryStartup(instance);
    }
    const timeline = await openedTimeline(sql);
    if (timeline !== null) return ok(timeline);
    if (monoMs() > deadline)
      return err(
        failure(
          'promote.timeout',
          `${instance.node} did not leave recovery`,
          'the promotion was requested again and again',
          'the request may still take effect',
          'see its log',
          true,
        ),
      );
    await leaveTime(startup);
  }
}

/**
 * The startup process ends when it has promoted, with the server's word that it is out of recovery; until then a question would only take time from it.
 * Null: it is not known, and the server is asked again and again.
 */
async function leaveTime(startup: ProcessInfo | null): Promise<void> {
  const until = monoMs() + ASK_MS;
  do await realClock.sleep(LOOK_MS);
  while (startup !== null && monoMs() < until && isSameProcessAlive(startup));
}

/** The repeated request may come just after the first one has worked: then the server says that there is nothing to promote, which the next look shows. */
async function askPromotion(sql: Sql): Promise<void> {
  try {
    await sql.query('SELECT pg_promote(false)');
  } catch (cause) {
    // 55000, "recovery is not in progress". Source: PostgreSQL, xlogfuncs.c, pg_promote.
    if (sqlStateOf(cause) !== '55000') throw cause;
  }
}

/** Null while the server is in recovery. No name of a WAL file can be had before the first insertion is possible, which "not in recovery" says. */
async function openedTimeline(sql: Sql): Promise<Timeline | null> {
  const [row] = await sql.query(
    "SELECT CASE WHEN NOT pg_is_in_recovery() THEN ('x' || substr(pg_walfile_name(pg_current_wal_insert_lsn()), 1, 8))::bit(32)::int END AS timeline",
  );
  return typeof row?.['timeline'] === 'number' ? makeTimeline(row['timeline']) : null;
}

async function flatten<T>(nested: Promise<Result<Result<T, Failure>, Failure>>): Promise<Result<T, Failure>> {
  const result = await nested;
  return result.ok ? result.value : result;
}
