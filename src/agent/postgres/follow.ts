/** Makes a running standby follow an upstream, by reload, and proves that it streams from it. */
import { monoMs, realClock } from '../../base/clock.ts';
import { voterName } from '../../core/cluster/sync-set.ts';
import type { Timeline } from '../../core/ids.ts';
import { type Failure, type Result, err, ok } from '../../core/result.ts';
import { setWinning } from './auto-conf.ts';
import { slotName } from '../../core/slot-name.ts';
import { type Endpoint, upstreamConninfo } from './conninfo.ts';
import { cancelled, errnoOf, failure, messageOf } from './failure.ts';
import { ensureIncarnation } from './incarnation.ts';
import type { Instance } from './instance.ts';
import { tailOwnLog } from './log-tail.ts';
import { WAITS_FOR_DELAY } from './apply-delay.ts';
import { forgetSkipped } from './skipped-timelines.ts';
import { type Row, type Sql, withLocalSql } from './sql.ts';

export interface FollowOptions {
  readonly upstream: Endpoint;
  readonly limitMs?: number;
  readonly signal?: AbortSignal;
  readonly applicationName?: string;
}

export interface Following {
  readonly timeline: Timeline | null;
  readonly durationMs: number;
}

const LOOK_MS = 10;
/**
 * Longer than PostgreSQL itself waits for a walreceiver that it has asked for before it asks again: on a busy host the first request can come to nothing.
 * *Source:* PostgreSQL, replication/walreceiverfuncs.c, WALRCV_STARTUP_TIMEOUT (10 s).
 */
const FOLLOW_LIMIT_MS = 15_000;
/** Measured: 1 to 2 ms of streaming on an idle host, 20 on a busy one. Longer delays every follow, which nobody waits for in a failover. */
const STEADY_MS = 60;

/** What makes this node's walreceiver connect to `upstream`; also written before a stopped standby is started. */
export async function setUpstream(
  instance: Instance,
  upstream: Endpoint,
  options: { readonly signal?: AbortSignal; readonly applicationName?: string } = {},
): Promise<Result<{ readonly changed: boolean }, Failure>> {
  const applicationName = options.applicationName ?? (await memberName(instance));
  const forgotten = await forgetSkippedHere(instance);
  if (!forgotten.ok) return forgotten;
  const changes = {
    primary_conninfo: upstreamConninfo(instance, upstream, { ...options, applicationName }),
    primary_slot_name: slotName(instance.node),
  };
  return setWinning(instance, changes, options);
}

/** What was laid for a promotion that did not come to be would keep the upstream's timelines from being seen. Errors: `follow.timeline`. */
async function forgetSkippedHere(instance: Instance): Promise<Result<null, Failure>> {
  try {
    await forgetSkipped(instance.dataDirectory);
    return ok(null);
  } catch (cause) {
    const code = 'follow.timeline';
    return err(failure(code, `${instance.node} gets no upstream`, messageOf(cause), 'its settings stay', 'check the disk and the permissions', true));
  }
}

/** `NODE.INCARNATION`, by which a synchronous set knows this data directory; only the node when there is no directory to name. */
async function memberName(instance: Instance): Promise<string> {
  try {
    return voterName(instance.node, await ensureIncarnation(instance));
  } catch (cause) {
    // A disk that takes no file is not worth losing the stream for: it streams, and counts for nobody.
    if (errnoOf(cause) === null) throw cause;
    return instance.node;
  }
}

/** No upstream: the standby replays what it has and waits. */
export function clearUpstream(
  instance: Instance,
  options: { readonly signal?: AbortSignal } = {},
): Promise<Result<{ readonly changed: boolean }, Failure>> {
  return setWinning(instance, { primary_conninfo: '', primary_slot_name: '' }, options);
}

/**
 * Sets the upstream and returns when one walreceiver has streamed from exactly that host and port (I10) for STEADY_MS: one that asks for WAL which the
 * upstream has not (any more), or that went past the fork of its timeline, streams for some milliseconds before it is turned away. A delayed standby
 * that has WAL to wait with does not stream before that is replayed: then the setting is all, and the timeline is null.
 * Errors: `follow.not-streaming` with the newest log lines (WAL missing, diverged timeline, refused password),
 * `follow.not-standby`, `postgres.cancelled`, those of setWinning.
 */
export async function followUpstream(instance: Instance, given: FollowOptions): Promise<Result<Following, Failure>> {
  const startedAt = monoMs();
  const options = { ...given, applicationName: given.applicationName ?? (await memberName(instance)) };
  const set = await setUpstream(instance, options.upstream, options);
  if (!set.ok) return set;
  const nested = await withLocalSql(instance, options, (sql) => waitStreaming(sql, instance, { ...options, startedAt }));
  return nested.ok ? nested.value : nested;
}

async function waitStreaming(
  sql: Sql,
  instance: Instance,
  options: FollowOptions & { readonly startedAt: number },
): Promise<Result<Following, Failure>> {
  const { upstream, startedAt } = options;
  const limitMs = options.limitMs ?? FOLLOW_LIMIT_MS;
  const wanted = upstreamConninfo(instance, upstream, options);
  let steady = { pid: null as unknown, since: 0 };
  for (;;) {
    const [row] = await sql.query(
      `SELECT pg_is_in_recovery() AS recovery, current_setting('primary_conninfo') = $1 AS effective,
      ${WAITS_FOR_DELAY} AS delayed, w.pid, w.status, w.sender_host, w.sender_port, w.received_tli FROM (SELECT 1) AS one LEFT JOIN pg_stat_wal_receiver w ON true`,
      [wanted],
    );
    if (row?.['recovery'] === false)
      return err(failure('follow.not-standby', `${instance.node} is writable`, 'it cannot follow', 'nothing more is done', '', false));
    if (row !== undefined && row['effective'] === true && row['status'] === 'streaming' && isFrom(row, upstream)) {
      if (steady.pid !== row['pid']) steady = { pid: row['pid'], since: monoMs() };
      if (monoMs() - steady.since >= STEADY_MS)
        return ok({ timeline: (row['received_tli'] ?? null) as Timeline | null, durationMs: monoMs() - startedAt });
    } else steady = { pid: null, since: 0 };
    // A delayed standby asks for more only when it has replayed what it has.
    if (row?.['effective'] === true && row['delayed'] === true) return ok({ timeline: null, durationMs: monoMs() - startedAt });
    if (options.signal?.aborted === true) return err(cancelled(`${instance.node} following ${upstream.host}:${upstream.port}`));
    if (monoMs() - startedAt > limitMs) {
      const lines = await tailOwnLog(instance, 4);
      return err(
        failure(
          'follow.not-streaming',
          `${instance.node} does not stream from ${upstream.host}:${upstream.port}`,
          [`after ${Math.round(limitMs)} ms the walreceiver is ${String(row?.['status'] ?? 'not there')}`, ...lines].join(' | '),
          'the setting stays and PostgreSQL goes on trying',
          'if WAL is missing or the timelines fork, rewind or clone the node',
          true,
        ),
      );
    }
    await realClock.sleep(LOOK_MS);
  }
}

function isFrom(row: Row, upstream: Endpoint): boolean {
  return row['sender_host'] === upstream.host && row['sender_port'] === upstream.port;
}
