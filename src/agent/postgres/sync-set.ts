/** Writes synchronous_standby_names, and finds out which processes of the server act on it. */
import { readFileSync } from 'node:fs';
import { type Lsn, parseLsn } from '../../core/lsn.ts';
import type { PostgresReport } from '../../core/report.ts';
import type { Failure, Result } from '../../core/result.ts';
import type { SyncSet } from '../../core/state.ts';
import { nodeOfVoter, renderSyncNames } from '../../core/cluster/sync-set.ts';
import { readAutoConf, setWinning } from './auto-conf.ts';
import { errnoOf } from './failure.ts';
import { type Instance, ROLES } from './instance.ts';
import { type Row, type SqlLimits, withLocalSql } from './sql.ts';

export interface SyncSender {
  readonly pid: number;
  /** application_name */
  readonly name: string;
  readonly user: string;
  readonly priority: number;
  readonly flushLsn: Lsn | null;
  readonly startedMs: number;
}

/** One look over a fresh connection. */
export interface SyncLook {
  /**
   * What a process that starts now acts on. A fresh backend inherits it from the postmaster, which takes no connection while it is handing a reload on:
   * so every older process has been signalled by then. *Source:* PostgreSQL, postmaster.c, process_pm_reload_request and its callers.
   */
  readonly names: string;
  readonly recovery: boolean;
  readonly nowMs: number;
  readonly senders: readonly SyncSender[];
  /** The checkpointer, which switches waiting as a whole on and off, sleeps in its main loop or between two writes of a checkpoint. */
  readonly checkpointer: 'idle' | 'writing' | 'busy';
}

/** What the keeper of the set sees of its server and does to it: one door, so that a modelled server can stand behind it. */
export interface SyncDoors {
  apply(set: SyncSet): Promise<Result<{ readonly changed: boolean }, Failure>>;
  /** The text in the file; null when it says nothing. */
  written(): Promise<string | null>;
  look(): Promise<Result<SyncLook, Failure>>;
  end(pids: readonly number[]): Promise<Result<null, Failure>>;
}

export function openSyncDoors(instance: Instance): SyncDoors {
  return {
    apply: (set) => applySyncNames(instance, set),
    written: () => writtenSyncNames(instance),
    look: () => lookAtSync(instance),
    end: (pids) => endWalsenders(instance, pids),
  };
}

const LIMITS: SqlLimits = { connectMs: 700, statementMs: 700 };
const LOOK = `SELECT current_setting('synchronous_standby_names') AS names, pg_is_in_recovery() AS recovery,
  (extract(epoch FROM clock_timestamp()) * 1000)::float8 AS now,
  (SELECT json_build_object('pid', pid, 'wait', wait_event) FROM pg_stat_activity WHERE backend_type = 'checkpointer') AS checkpointer,
  (SELECT json_agg(s) FROM (SELECT pid, application_name AS name, usename AS user, sync_priority AS priority, flush_lsn::text AS flush,
    (extract(epoch FROM backend_start) * 1000)::float8 AS started FROM pg_stat_replication LIMIT 200) s) AS senders`;

/** Brings the setting to the set. A server that runs is told to reload; one that does not reads it when it starts. Errors: those of setWinning. */
export function applySyncNames(
  instance: Instance,
  set: SyncSet,
  options: { readonly signal?: AbortSignal } = {},
): Promise<Result<{ readonly changed: boolean }, Failure>> {
  return setWinning(instance, { synchronous_standby_names: renderSyncNames(set) }, options);
}

/** What postgresql.auto.conf says now; null when it says nothing. */
export async function writtenSyncNames(instance: Instance): Promise<string | null> {
  return (await readAutoConf(instance)).get('synchronous_standby_names') ?? null;
}

/** True for a text that pgherd wrote, here or on the node that this directory was copied from. People's own names are left alone while nobody is waited for. */
export function isOurs(names: string | null): boolean {
  return names !== null && /^(?:ANY|FIRST) \d+ \("(?:pgherd_nobody|[a-z0-9_-]+\.[0-9a-f]{8})"/.test(names);
}

/** Errors: those of withLocalSql. */
export async function lookAtSync(instance: Instance): Promise<Result<SyncLook, Failure>> {
  return withLocalSql(instance, { limits: LIMITS }, async (sql) => {
    const [row = {}] = await sql.query(LOOK);
    const checkpointer = row['checkpointer'] as { readonly pid: number; readonly wait: string | null } | null;
    return {
      names: String(row['names']),
      recovery: row['recovery'] === true,
      nowMs: Number(row['now']),
      senders: ((row['senders'] ?? []) as readonly Row[]).map(senderOf),
      checkpointer: checkpointerState(checkpointer),
    };
  });
}

function senderOf(row: Row): SyncSender {
  return {
    pid: Number(row['pid']),
    name: String(row['name']),
    user: String(row['user']),
    priority: Number(row['priority']),
    flushLsn: typeof row['flush'] === 'string' ? parseLsn(row['flush']) : null,
    startedMs: Number(row['started']),
  };
}

/**
 * A checkpointer with a SIGHUP that it has not taken, or that is not asleep, may not have loaded the setting yet.
 * *Source:* PostgreSQL, checkpointer.c: HandleCheckpointerInterrupts, CheckpointWriteDelay; proc(5), SigPnd and ShdPnd, bit 0 is SIGHUP.
 */
function checkpointerState(found: { readonly pid: number; readonly wait: string | null } | null): SyncLook['checkpointer'] {
  if (found === null) return 'busy';
  try {
    const status = readFileSync(`/proc/${found.pid}/status`, 'latin1');
    const pending = [...status.matchAll(/^(?:SigPnd|ShdPnd):\s*([0-9a-f]+)$/gm)].some((match) => (BigInt(`0x${match[1] ?? '0'}`) & 1n) === 1n);
    if (pending || !/^State:\s+S/m.test(status)) return 'busy';
  } catch (cause) {
    if (errnoOf(cause) === 'ENOENT' || errnoOf(cause) === 'ESRCH') return 'busy';
    throw cause;
  }
  if (found.wait === 'CheckpointerMain') return 'idle';
  return found.wait === 'CheckpointWriteDelay' ? 'writing' : 'busy';
}

export interface SyncJudgement {
  readonly inForce: boolean;
  /** What still acts on something else; empty when nothing does. */
  readonly why: string;
  /** Walsenders that must end: of another user under a voter's name, two of one name (each counts for PostgreSQL), or older than a larger k. */
  readonly end: readonly number[];
}

/**
 * Whether every walsender acts on `set` by this look. Pure.
 *
 * *Invariant:* after `inForce` no commit is acknowledged by anybody but k members of the set. *Because:* a walsender counts standbys by the priority that
 * each walsender computed of its own copy of the names, so a removed one counts for nobody once it shows 0; and k is the own copy's, so walsenders older
 * than a larger k are ended. A walsender that reports no flush position shows 0 whatever it has loaded, so it must be younger than the setting.
 * Who they are is their name, which any client may take that may replicate: one under another role, or a second one, is ended. A member itself never has two,
 * since its slot lets one in. *Broken if:* `SHOW` is taken for proof, or names alone are believed. *Source:* PostgreSQL, syncrep.c: SyncRepGetSyncRecPtr, SyncRepInitConfig; walsender.c: pg_stat_get_wal_senders.
 */
export function judgeInForce(
  look: Pick<SyncLook, 'names' | 'senders'>,
  options: { readonly set: SyncSet; readonly loadedMs: number; readonly largerK: boolean },
): SyncJudgement {
  const { set, loadedMs, largerK } = options;
  const end: number[] = [];
  const waiting: string[] = [];
  if (look.names !== renderSyncNames(set)) return { inForce: false, why: `the server has ${look.names === '' ? 'no names' : look.names}`, end };
  for (const sender of look.senders) {
    const inside = set.members.includes(sender.name);
    const older = sender.startedMs < loadedMs;
    if (inside && sender.user !== ROLES.replication) {
      end.push(sender.pid);
      waiting.push(`${sender.name} is used by ${sender.user}`);
    } else if (inside && look.senders.some((other) => other !== sender && other.name === sender.name && other.user === sender.user)) {
      end.push(sender.pid);
      waiting.push(`${sender.name} is used twice`);
    } else if (inside && largerK && older) {
      end.push(sender.pid);
      waiting.push(`${sender.name} has a smaller k`);
    } else if (inside && older && sender.priority === 0 && sender.flushLsn !== null) waiting.push(`${sender.name} does not know yet that it counts`);
    else if (!inside && sender.priority > 0) waiting.push(`${sender.name} still counts`);
    else if (!inside && older && sender.flushLsn === null && nodeOfVoter(sender.name) !== null)
      waiting.push(`${sender.name} has shown no position yet`);
  }
  return { inForce: waiting.length === 0, why: waiting.join(', '), end };
}

/**
 * Somebody counts under the name of a member and is not that member, by a look at the server (judgeInForce finds and ends it). What was acknowledged since it
 * came, at most one look before, may have been acknowledged by it.
 */
export function hasImpostor(walsenders: PostgresReport['walsenders']): boolean {
  const voters = walsenders.flatMap(({ voter }) => voter ?? []);
  return new Set(voters).size < voters.length || walsenders.some((one) => one.voter === null && one.syncState !== 'async');
}

/** Errors: those of withLocalSql. */
export function endWalsenders(instance: Instance, pids: readonly number[]): Promise<Result<null, Failure>> {
  return withLocalSql(instance, { limits: LIMITS }, async (sql) => {
    for (const pid of pids)
      await sql.query("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid = $1 AND backend_type = 'walsender'", [pid]);
    return null;
  });
}
