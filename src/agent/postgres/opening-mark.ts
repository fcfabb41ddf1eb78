/**
 * The opening of a term, marked in the WAL: who opened which term for clients, and where. Two late promotions can share a timeline number and
 * even a fork (§4.1, Z53); their marks tell them apart, and tell whether a timeline that is thrown away ever had clients.
 *
 * A logical message needs no extension, no table and no `wal_level = logical`, and is in every version since 9.6. pg_waldump shows its text from
 * 14 on; our own walker reads it in every version.
 * *Source:* PostgreSQL, replication/message.h (xl_logical_message), access/xlogrecord.h (block ids); manual, pg_logical_emit_message.
 */
import { type Decoded, decodeJson, encodeJson, object } from '../../core/decode.ts';
import type { Term } from '../../core/ids.ts';
import type { Lsn } from '../../core/lsn.ts';
import { term } from '../../core/report.ts';
import type { Failure, Result } from '../../core/result.ts';
import { nodeId } from '../../core/spec.ts';
import type { Instance } from './instance.ts';
import { type RunSql, withLocalSql } from './sql.ts';
import { type WalRecord, walkWal } from './wal-reader.ts';
import type { LineageStep } from './timeline-history.ts';

const content = object({ term, node: nodeId });

export interface OpeningMark extends Decoded<typeof content> {
  readonly lsn: Lsn;
}

/** The message's prefix; foreign messages have other ones. */
export const MARK_PREFIX = 'pgherd';
/** One insertion into WAL buffers. A server that needs longer cannot serve clients. */
const MARK_LIMIT_MS = 2000;
/** More than a timeline ever sees; the newest are kept. */
const MAX_MARKS = 64;

/**
 * Writes the mark of this node and `term`. Not transactional: no transaction id, no wait for a standby. It need not be flushed by itself: a
 * client's first commit lies behind it, and a flush goes up to there. Errors: those of withLocalSql (a server in recovery refuses).
 */
export function markOpening(
  instance: Instance,
  options: { readonly term: Term; readonly signal?: AbortSignal; readonly run?: RunSql },
): Promise<Result<{ readonly lsn: string }, Failure>> {
  const text = encodeJson({ term: options.term, node: instance.node });
  return (options.run ?? withLocalSql)(instance, { ...options, limits: { connectMs: MARK_LIMIT_MS, statementMs: MARK_LIMIT_MS } }, async (sql) => {
    const [row] = await sql.query('SELECT pg_logical_emit_message(false, $1, $2)::text AS at', [MARK_PREFIX, text]);
    return { lsn: String(row?.['at'] ?? '') };
  });
}

const RECORD_HEADER = 24;
const RM_LOGICALMSG = 21;
const BLOCK_ID = { short: 255, long: 254, origin: 253, toplevelXid: 252 } as const;
/** xl_logical_message before its text: database, transactional, prefix size, message size. */
const MESSAGE_HEADER = 24;

/** Null for every record that is not a mark of ours, or not readable as one. */
export function decodeMark(record: Pick<WalRecord, 'rmgr' | 'info' | 'bytes' | 'lsn'>): OpeningMark | null {
  if (record.rmgr !== RM_LOGICALMSG || (record.info & 0xf0) !== 0) return null;
  const data = mainData(record.bytes);
  if (data === null || data.length < MESSAGE_HEADER) return null;
  const prefixBytes = Number(data.readBigUInt64LE(8));
  const textBytes = Number(data.readBigUInt64LE(16));
  if (prefixBytes < 1 || MESSAGE_HEADER + prefixBytes + textBytes > data.length) return null;
  // The size counts the prefix's closing zero.
  if (data.toString('latin1', MESSAGE_HEADER, MESSAGE_HEADER + prefixBytes - 1) !== MARK_PREFIX) return null;
  const from = MESSAGE_HEADER + prefixBytes;
  const decoded = decodeJson(content, data.toString('utf8', from, from + textBytes));
  return decoded.ok ? { ...decoded.value, lsn: record.lsn } : null;
}

/** A record without block references, which a logical message is; null for others. */
function mainData(bytes: Buffer): Buffer | null {
  let at = RECORD_HEADER;
  while (at < bytes.length) {
    const id = bytes.readUInt8(at);
    if (id === BLOCK_ID.origin) at += 3;
    else if (id === BLOCK_ID.toplevelXid) at += 5;
    else if (id === BLOCK_ID.short) return bytes.subarray(at + 2, at + 2 + bytes.readUInt8(at + 1));
    else if (id === BLOCK_ID.long && at + 5 <= bytes.length) return bytes.subarray(at + 5, at + 5 + bytes.readUInt32LE(at + 1));
    else return null;
  }
  return null;
}

/** Marks in the given range of a data directory, oldest first, at most 64 (the newest). Throws errors of system calls. */
export async function readMarks(options: {
  readonly dataDirectory: string;
  readonly segmentBytes: number;
  readonly pageBytes: number;
  readonly lineage: readonly LineageStep[];
  readonly from: Lsn;
  readonly until: Lsn | null;
  readonly signal?: AbortSignal;
}): Promise<readonly OpeningMark[]> {
  const marks: OpeningMark[] = [];
  await walkWal({
    ...options,
    onRecord: (record) => {
      const mark = decodeMark(record);
      if (mark === null) return;
      marks.push(mark);
      if (marks.length > MAX_MARKS) marks.shift();
    },
  });
  return marks;
}
