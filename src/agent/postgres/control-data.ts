/** pg_control, read directly (microseconds, no process), with pg_controldata as the way out for layouts that we do not know. */
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { realClock } from '../../base/clock.ts';
import { runProcess } from '../../base/process.ts';
import { type Timeline, makeTimeline } from '../../core/ids.ts';
import { type Lsn, makeLsn, parseLsn } from '../../core/lsn.ts';
import { type Failure, type Result, err, ok } from '../../core/result.ts';
import { crc32c } from './crc32c.ts';
import { errnoOf, failure, messageOf, processTrouble } from './failure.ts';
import { type Instance, asOsUser, binary } from './instance.ts';

/** Order as in PostgreSQL's DBState. Source: src/include/catalog/pg_control.h. */
const STATES = [
  'starting up',
  'shut down',
  'shut down in recovery',
  'shutting down',
  'in crash recovery',
  'in archive recovery',
  'in production',
] as const;
export type ControlState = (typeof STATES)[number];

export interface ControlData {
  /** Decimal text of the 64-bit number. */
  readonly systemIdentifier: string;
  readonly state: ControlState;
  /** Start of the last checkpoint record. */
  readonly checkpointLsn: Lsn;
  /** Where redo of that checkpoint begins. */
  readonly redoLsn: Lsn;
  /** Timeline of the last checkpoint. */
  readonly timeline: Timeline;
  /** Standbys and crash recovery: where the directory becomes consistent; null when not set. */
  readonly minRecoveryLsn: Lsn | null;
  readonly minRecoveryTimeline: Timeline | null;
  /** Set while a base backup has not been recovered to its end. */
  readonly backupStartLsn: Lsn | null;
  readonly backupEndRequired: boolean;
  readonly segmentBytes: number;
  /** WAL page size. */
  readonly pageBytes: number;
  readonly checksums: boolean;
  readonly walLogHints: boolean;
  /** The primary's values that a standby may not have lower, by their pg_settings names (Z37). */
  readonly minimums: Readonly<Record<string, number>>;
}

/**
 * Reads `global/pg_control`.
 * Errors: `postgres.no-data` (no such file), `postgres.control-damaged` (sum wrong in three reads: a running server may be
 * writing it at that moment, a fourth is not expected), `postgres.control-unreadable`.
 * Source: PostgreSQL, src/include/catalog/pg_control.h, versions 13 to 18.
 */
export async function readControlData(instance: Pick<Instance, 'dataDirectory' | 'binDirectory' | 'os'>): Promise<Result<ControlData, Failure>> {
  const path = join(instance.dataDirectory, 'global', 'pg_control');
  for (let attempt = 1; ; attempt++) {
    let bytes: Buffer;
    try {
      bytes = await readFile(path);
    } catch (cause) {
      const missing = errnoOf(cause) === 'ENOENT' || errnoOf(cause) === 'ENOTDIR';
      return err(
        failure(
          missing ? 'postgres.no-data' : 'postgres.control-unreadable',
          `cannot read ${path}`,
          messageOf(cause),
          'nothing was changed',
          missing ? 'is the volume of the data directory mounted?' : 'check the disk and the permissions',
          !missing,
        ),
      );
    }
    const parsed = parseControlData(bytes);
    if (parsed === 'unknown-layout') return readByProgram(instance);
    if (parsed !== 'damaged') return ok(parsed);
    if (attempt === 3) {
      return err(
        failure(
          'postgres.control-damaged',
          `${path} is damaged`,
          'its check sum is wrong',
          'the directory is not started',
          'take this node back by a clone (`pgherd node rejoin NODE --via clone`)',
          false,
        ),
      );
    }
    await realClock.sleep(5);
  }
}

/** Offset of the control file's own CRC, by pg_control_version. The part before is the same in 13 to 18 (wal_level fills a gap in 17). */
const CRC_OFFSET: Readonly<Record<number, number>> = { 1300: 288, 1700: 288, 1800: 292 };
/** FLOATFORMAT_VALUE: proves byte order and layout up to there. */
const FLOAT_FORMAT = 1234567.0;

/** `unknown-layout`: another version or byte order; `damaged`: known version, wrong sum or short file. */
export function parseControlData(bytes: Buffer): ControlData | 'unknown-layout' | 'damaged' {
  if (bytes.length < 300) return 'damaged';
  const crcOffset = CRC_OFFSET[bytes.readUInt32LE(8)];
  if (crcOffset === undefined) return 'unknown-layout';
  if (crc32c(bytes.subarray(0, crcOffset)) !== bytes.readUInt32LE(crcOffset)) return 'damaged';
  const state = STATES[bytes.readUInt32LE(16)];
  if (bytes.readDoubleLE(208) !== FLOAT_FORMAT || state === undefined) return 'unknown-layout';
  const lsnAt = (offset: number): Lsn => makeLsn(bytes.readBigUInt64LE(offset));
  const lsnOrNull = (offset: number): Lsn | null => (bytes.readBigUInt64LE(offset) === 0n ? null : lsnAt(offset));
  const minTimeline = bytes.readUInt32LE(144);
  return {
    systemIdentifier: bytes.readBigUInt64LE(0).toString(),
    state,
    checkpointLsn: lsnAt(32),
    redoLsn: lsnAt(40),
    timeline: makeTimeline(bytes.readUInt32LE(48)),
    minRecoveryLsn: lsnOrNull(136),
    minRecoveryTimeline: minTimeline === 0 ? null : makeTimeline(minTimeline),
    backupStartLsn: lsnOrNull(152),
    backupEndRequired: bytes.readUInt8(168) !== 0,
    segmentBytes: bytes.readUInt32LE(228),
    pageBytes: bytes.readUInt32LE(224),
    checksums: bytes.readUInt32LE(252) !== 0,
    walLogHints: bytes.readUInt8(176) !== 0,
    minimums: {
      max_connections: bytes.readInt32LE(180),
      max_worker_processes: bytes.readInt32LE(184),
      max_wal_senders: bytes.readInt32LE(188),
      max_prepared_transactions: bytes.readInt32LE(192),
      max_locks_per_transaction: bytes.readInt32LE(196),
    },
  };
}

async function readByProgram(instance: Pick<Instance, 'dataDirectory' | 'binDirectory' | 'os'>): Promise<Result<ControlData, Failure>> {
  const result = await runProcess([binary(instance, 'pg_controldata'), '-D', instance.dataDirectory], { ...asOsUser(instance), timeoutMs: 5000 });
  const trouble = processTrouble(result);
  const parsed = result.ok && trouble === null ? parseControlDataText(result.value.stdout) : null;
  if (parsed !== null) return ok(parsed);
  return err(
    failure(
      'postgres.control-unreadable',
      `pg_controldata ${instance.dataDirectory} failed`,
      trouble ?? 'its answer was not understood',
      'the directory is not started',
      'check the PostgreSQL version and the disk',
      true,
    ),
  );
}

/** Parses the text of pg_controldata (LC_ALL=C); null when a needed line is missing. */
export function parseControlDataText(text: string): ControlData | null {
  const lines = new Map<string, string>();
  for (const line of text.split('\n')) {
    const colon = line.indexOf(':');
    if (colon > 0) lines.set(line.slice(0, colon).trim(), line.slice(colon + 1).trim());
  }
  const lsn = (name: string): Lsn | null => {
    const value = parseLsn(lines.get(name) ?? '');
    return value === 0n ? null : value;
  };
  const count = (name: string): number => Number(lines.get(name) ?? Number.NaN);
  const state = STATES.find((name) => name === lines.get('Database cluster state'));
  const systemIdentifier = lines.get('Database system identifier');
  const checkpointLsn = lsn('Latest checkpoint location');
  const redoLsn = lsn("Latest checkpoint's REDO location");
  const timeline = count("Latest checkpoint's TimeLineID");
  const segmentBytes = count('Bytes per WAL segment');
  if (state === undefined || systemIdentifier === undefined || checkpointLsn === null || redoLsn === null) return null;
  if (!Number.isInteger(timeline) || !Number.isInteger(segmentBytes)) return null;
  const minTimeline = count("Min recovery ending loc's timeline");
  const minimums: Record<string, number> = {};
  for (const name of ['max_connections', 'max_worker_processes', 'max_wal_senders', 'max_prepared_xacts', 'max_locks_per_xact']) {
    const value = count(`${name} setting`);
    const setting = name === 'max_prepared_xacts' ? 'max_prepared_transactions' : name === 'max_locks_per_xact' ? 'max_locks_per_transaction' : name;
    if (Number.isInteger(value)) minimums[setting] = value;
  }
  return {
    systemIdentifier,
    state,
    checkpointLsn,
    redoLsn,
    timeline: makeTimeline(timeline),
    minRecoveryLsn: lsn('Minimum recovery ending location'),
    minRecoveryTimeline: minTimeline > 0 ? makeTimeline(minTimeline) : null,
    backupStartLsn: lsn('Backup start location'),
    backupEndRequired: lines.get('End-of-backup record required') === 'yes',
    segmentBytes,
    pageBytes: count('WAL block size') || 8192,
    checksums: (count('Data page checksum version') || 0) > 0,
    walLogHints: lines.get('wal_log_hints setting') === 'on',
    minimums,
  };
}

/** True when the last run ended with a shutdown checkpoint (or restartpoint). */
export function isCleanlyShutDown(control: ControlData): boolean {
  return control.state === 'shut down' || control.state === 'shut down in recovery';
}
