/**
 * Detaches a standby from its upstream (architecture §4.5): when it returns, this node acknowledges nothing to anybody any more.
 */
import { monoMs, realClock } from '../../base/clock.ts';
import { makeTimeline } from '../../core/ids.ts';
import { type Lsn, maxLsn, parseLsn } from '../../core/lsn.ts';
import type { Position } from '../../core/report.ts';
import { type Failure, type Result, err, ok } from '../../core/result.ts';
import { readControlData } from './control-data.ts';
import { cancelled, errnoOf, failure } from './failure.ts';
import { clearUpstream } from './follow.ts';
import type { Instance } from './instance.ts';
import { WAITS_FOR_DELAY } from './apply-delay.ts';
import { replayTimeline } from './replay-timeline.ts';
import { findPostmaster, readProcess } from './postmaster.ts';
import { type Sql, withLocalSql } from './sql.ts';
import { readWalEnd } from './wal-end.ts';

export interface Detached {
  /** (timeline, max of received, replayed, end of local WAL). */
  readonly position: Position;
  /** Replay has exhausted local WAL: the position cannot change by itself any more. */
  readonly final: boolean;
  readonly durationMs: number;
}

export interface DetachOptions {
  /** How long replay is waited for; the position is right without it, only not final. Default 1 s. */
  readonly exhaustMs?: number;
  /** Limit for the walreceiver to be gone; default 5 s. */
  readonly limitMs?: number;
  readonly signal?: AbortSignal;
}

const LOOK_MS = 3;
/** The walreceiver must stay away for this long: it could come back once from a start that was under way. */
const QUIET_MS = 15;

/**
 * Steps: the connection setting is emptied (postgresql.auto.conf) and seen effective; the walreceiver is terminated and its process is
 * gone; then the position is read. A stopped server is detached already: its position is read from its files.
 *
 * Invariant: after the return no walreceiver of this node writes or acknowledges WAL.
 * Because: the startup process starts a walreceiver only with the setting that it has loaded; we terminate what runs until none came
 *   back for QUIET_MS after the setting was effective. A blocked startup process cannot start one; what it requested before dies the same way.
 * Broken if: primary_conninfo comes back from another file; that is why it is set empty instead of being reset.
 * A delayed standby does not replay what it has: its position is final all the same, since nothing is added to it; it is no candidate (§4.4).
 * Errors: `detach.not-standby`, `detach.walreceiver` (it does not go), `postgres.cancelled`, those of setWinning and withLocalSql.
 */
export async function detachStandby(instance: Instance, options: DetachOptions = {}): Promise<Result<Detached, Failure>> {
  const startedAt = monoMs();
  const cleared = await clearUpstream(instance, options);
  if (!cleared.ok) return cleared;
  if (findPostmaster(instance.dataDirectory) === null) {
    const end = await readWalEnd(instance, options);
    return end.ok ? ok({ position: { timeline: end.value.timeline, lsn: end.value.lsn }, final: true, durationMs: monoMs() - startedAt }) : end;
  }
  const nested = await withLocalSql(instance, options, async (sql): Promise<Result<Omit<Detached, 'durationMs'>, Failure>> => {
    const gone = await endWalreceiver(sql, instance, options);
    return gone === null ? readPosition(sql, instance, options) : err(gone);
  });
  if (!nested.ok) return nested;
  return nested.value.ok ? ok({ ...nested.value.value, durationMs: monoMs() - startedAt }) : nested.value;
}

async function endWalreceiver(sql: Sql, instance: Instance, options: DetachOptions): Promise<Failure | null> {
  const deadline = monoMs() + (options.limitMs ?? 5000);
  const seen = new Map<number, number>();
  let quietSince: number | null = null;
  for (;;) {
    if (options.signal?.aborted === true) return cancelled(`detaching ${instance.node}`);
    // pg_stat_wal_receiver hides a walreceiver that is starting; pg_stat_activity shows the process.
    const [row] = await sql.query(`SELECT pg_is_in_recovery() AS recovery, current_setting('primary_conninfo') = '' AS effective,
      (SELECT array_agg(pid) FROM pg_stat_activity WHERE backend_type = 'walreceiver') AS pids`);
    if (row?.['recovery'] === false)
      return failure('detach.not-standby', `${instance.node} is writable`, 'it has no upstream', 'nothing more is done', '', false);
    for (const pid of (row?.['pids'] ?? []) as readonly number[]) {
      const process = readProcess(pid);
      if (process !== null) seen.set(pid, process.startTicks);
      terminate(pid);
    }
    const living = [...seen].filter(([pid, startTicks]) => readProcess(pid)?.startTicks === startTicks && readProcess(pid)?.state !== 'Z');
    const quiet = living.length === 0 && row?.['pids'] === null && row['effective'] === true;
    quietSince = quiet ? (quietSince ?? monoMs()) : null;
    if (quietSince !== null && monoMs() - quietSince >= QUIET_MS) return null;
    if (monoMs() > deadline) {
      const why =
        row?.['effective'] !== true
          ? 'the empty primary_conninfo is not effective'
          : `walreceiver ${living.map(([pid]) => pid).join(', ')} does not end`;
      return failure('detach.walreceiver', `${instance.node} is not detached`, why, 'it does not vote', 'see its PostgreSQL log', true);
    }
    await realClock.sleep(LOOK_MS);
  }
}

/** By signal instead of pg_terminate_backend, which refuses processes without a session. The postmaster does not treat SIGTERM of a walreceiver as a crash. */
function terminate(pid: number): void {
  try {
    process.kill(pid, 'SIGTERM');
  } catch (cause) {
    if (errnoOf(cause) !== 'ESRCH') throw cause;
  }
}

async function readPosition(sql: Sql, instance: Instance, options: DetachOptions): Promise<Result<Omit<Detached, 'durationMs'>, Failure>> {
  const control = await readControlData(instance);
  if (!control.ok) return control;
  const deadline = monoMs() + (options.exhaustMs ?? 1000);
  let before: Lsn | null = null;
  for (;;) {
    const timeline = await replayTimeline(instance, options);
    if (!timeline.ok) return timeline;
    const [row] = await sql.query(
      `SELECT pg_last_wal_receive_lsn() AS received, pg_last_wal_replay_lsn() AS replayed, ${WAITS_FOR_DELAY} AS delayed, current_setting('restore_command') = '' AS own`,
    );
    const received = parseLsn(String(row?.['received'] ?? ''));
    const replayed = parseLsn(String(row?.['replayed'] ?? ''));
    const from = replayed ?? control.value.checkpointLsn;
    const end = await readWalEnd(instance, {
      from: { timeline: timeline.value, lsn: from },
      control: control.value,
      ...(options.signal === undefined ? {} : { signal: options.signal }),
    });
    if (!end.ok) return end;
    const lsn: Lsn = maxLsn(replayed, end.value.lsn) ?? from;
    // Bytes received after the last whole record are no position that anybody can replay; they count for the maximum, not against "final".
    const exhausted = replayed !== null && end.value.lsn <= replayed;
    // Two looks at the same end: no walreceiver and no archive adds to it.
    const still = row?.['delayed'] === true && row['own'] === true && before === end.value.lsn;
    before = end.value.lsn;
    if (exhausted || still || monoMs() > deadline || options.signal?.aborted === true) {
      return ok({
        position: { timeline: makeTimeline(Math.max(end.value.timeline, timeline.value)), lsn: maxLsn(lsn, received) ?? lsn },
        final: exhausted || still,
      });
    }
    await realClock.sleep(LOOK_MS);
  }
}
