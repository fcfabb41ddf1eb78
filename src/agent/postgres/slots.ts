/** Physical slots of members, `pgherd_<node>`: on the primary, and kept ready on standbys. Other people's slots are never touched (Z73, H53). */
import type { NodeId } from '../../core/ids.ts';
import { type Lsn, formatLsn, parseLsn } from '../../core/lsn.ts';
import type { Failure, Result } from '../../core/result.ts';
import { slotName } from '../../core/slot-name.ts';
import type { Endpoint } from './conninfo.ts';
import type { Instance } from './instance.ts';
import { type Row, type Sql, sqlStateOf, withLocalSql, withSql } from './sql.ts';
import { memberTarget } from './upstream-sql.ts';

export interface SlotOutcome {
  readonly created: readonly string[];
  readonly dropped: readonly string[];
  readonly advanced: readonly string[];
}

export interface SlotInfo {
  readonly name: string;
  readonly active: boolean;
  readonly retainedBytes: number | null;
  /** pg_replication_slots.wal_status: reserved, extended, unreserved, lost. */
  readonly walStatus: string | null;
}

/**
 * A slot for each other member, none for the node itself (H23); those of removed members are dropped when nobody uses them (H24, I15).
 * A slot that nobody uses moves on to its member's position when that is known: the member streams from somebody else, and can come here at any time
 * without missing WAL. When it is not known, a standby moves it to its last restart point, and a primary leaves it. Never past what this node has
 * replayed or flushed (Z69). A slot with an `xmin` that nobody uses on a standby is made anew, since advancing does not move it (Q36, Z67); a `lost` one too (Z72).
 */
export function ensureSlots(
  instance: Instance,
  options: { readonly members: readonly NodeId[]; readonly positions?: Readonly<Record<string, Lsn>>; readonly signal?: AbortSignal },
): Promise<Result<SlotOutcome, Failure>> {
  return withLocalSql(instance, options, async (sql) => {
    const created: string[] = [];
    const dropped: string[] = [];
    const advanced: string[] = [];
    const [node] = await sql.query(
      `SELECT pg_is_in_recovery() AS recovery, (SELECT redo_lsn FROM pg_control_checkpoint()) AS redo,
        CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn() ELSE pg_current_wal_flush_lsn() END AS reached`,
    );
    const wanted = new Map(options.members.filter((id) => id !== instance.node).map((id) => [slotName(id), id] as const));
    const rows = await sql.query(
      "SELECT slot_name, active, restart_lsn, xmin, wal_status FROM pg_replication_slots WHERE slot_type = 'physical' AND NOT temporary AND slot_name LIKE 'pgherd\\_%'",
    );
    const usable = new Map<string, Row>();
    for (const row of rows) {
      const name = String(row['slot_name']);
      const broken = row['wal_status'] === 'lost' || (node?.['recovery'] === true && row['xmin'] !== null);
      if (row['active'] === true || (wanted.has(name) && !broken)) usable.set(name, row);
      else if (await dropSlot(sql, name)) dropped.push(name);
    }
    for (const [name, id] of wanted) {
      const row = usable.get(name);
      if (row === undefined) {
        // Without immediately_reserve the slot would hold nothing until its first use (Z66).
        if (await createSlot(sql, name)) created.push(name);
      } else if (node !== undefined && row['active'] === false) {
        const target = advanceTarget(node, options.positions?.[id] ?? null);
        const now = parseLsn(String(row['restart_lsn'] ?? ''));
        if (target === null || now === null || target <= now) continue;
        if (await advanceSlot(sql, name, target)) advanced.push(name);
      }
    }
    return { created, dropped, advanced };
  });
}

function advanceTarget(node: Row, position: Lsn | null): Lsn | null {
  const reached = parseLsn(String(node['reached'] ?? ''));
  const target = position ?? (node['recovery'] === true ? parseLsn(String(node['redo'] ?? '')) : null);
  if (reached === null || target === null) return null;
  return target < reached ? target : reached;
}

async function advanceSlot(sql: Sql, name: string, target: Lsn): Promise<boolean> {
  try {
    await sql.query('SELECT pg_replication_slot_advance($1, $2::pg_lsn)', [name, formatLsn(target)]);
    return true;
  } catch (cause) {
    // object_in_use, undefined_object: its member came, or it is gone, since we looked.
    if (sqlStateOf(cause) === '55006' || sqlStateOf(cause) === '42704') return false;
    throw cause;
  }
}

async function createSlot(sql: Sql, name: string): Promise<boolean> {
  try {
    await sql.query('SELECT pg_create_physical_replication_slot($1, true)', [name]);
    return true;
  } catch (cause) {
    // duplicate_object: somebody was faster, which is as good.
    if (sqlStateOf(cause) === '42710') return false;
    throw cause;
  }
}

async function dropSlot(sql: Sql, name: string): Promise<boolean> {
  try {
    await sql.query('SELECT pg_drop_replication_slot($1)', [name]);
    return true;
  } catch (cause) {
    // object_in_use, undefined_object: used again, or gone, since we looked.
    if (sqlStateOf(cause) === '55006' || sqlStateOf(cause) === '42704') return false;
    throw cause;
  }
}

/** Makes this node's slot on its future upstream, over the replication protocol, so that no WAL is missing between backup and start. */
export async function ensureSlotOnUpstream(
  instance: Instance,
  upstream: Endpoint,
  options: { readonly signal?: AbortSignal } = {},
): Promise<Result<{ readonly created: boolean }, Failure>> {
  const target = await memberTarget(instance, upstream, 'replication');
  return withSql(target, { ...options, replication: true }, async (sql) => {
    try {
      await sql.query(`CREATE_REPLICATION_SLOT ${slotName(instance.node)} PHYSICAL RESERVE_WAL`);
      return { created: true };
    } catch (cause) {
      if (sqlStateOf(cause) === '42710') return { created: false };
      throw cause;
    }
  });
}

/** All slots, foreign ones too: they can fill the disk as well. */
export function listSlots(instance: Instance, options: { readonly signal?: AbortSignal } = {}): Promise<Result<readonly SlotInfo[], Failure>> {
  return withLocalSql(instance, options, async (sql) => slotInfos(await sql.query(SLOTS_QUERY)));
}

export const SLOTS_QUERY = `SELECT slot_name, active, wal_status,
  pg_wal_lsn_diff(CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn() ELSE pg_current_wal_lsn() END, restart_lsn)::float8 AS retained
  FROM pg_replication_slots ORDER BY slot_name LIMIT 200`;

export function slotInfos(rows: readonly Row[]): readonly SlotInfo[] {
  return rows.map((row) => ({
    name: String(row['slot_name']),
    active: row['active'] === true,
    retainedBytes: typeof row['retained'] === 'number' ? Math.max(0, Math.round(row['retained'])) : null,
    walStatus: typeof row['wal_status'] === 'string' ? row['wal_status'] : null,
  }));
}
