/**
 * Walks WAL records in the files of a data directory, without PostgreSQL's programs, whose texts change between versions (Z47).
 * The formats used here (long and short page headers, record header) are the same in PostgreSQL 9.5 to 18.
 * Source: PostgreSQL, src/include/access/xlog_internal.h, xlogrecord.h; src/backend/access/transam/xlogreader.c.
 */
import { type FileHandle, open } from 'node:fs/promises';
import { join } from 'node:path';
import type { Timeline } from '../../core/ids.ts';
import { type Lsn, makeLsn } from '../../core/lsn.ts';
import { CRC32C_START, addCrc32c, finishCrc32c } from './crc32c.ts';
import { errnoOf } from './failure.ts';
import type { LineageStep } from './timeline-history.ts';

export interface WalRecord {
  readonly lsn: Lsn;
  /** Where the next record would begin. */
  readonly end: Lsn;
  readonly xid: number;
  readonly rmgr: number;
  readonly info: number;
  /** The whole record, header included. Valid only during the callback. */
  readonly bytes: Buffer;
}

export interface WalWalkOptions {
  readonly dataDirectory: string;
  readonly segmentBytes: number;
  readonly pageBytes: number;
  /** Oldest first: segments are looked for on the newest timeline that can own them, as PostgreSQL's XLogFileReadAnyTLI does. */
  readonly lineage: readonly LineageStep[];
  /** A record boundary; with `nearest`, any position: the walk begins with the first record that begins in its page or later. */
  readonly from: Lsn;
  readonly nearest?: boolean;
  /** Stop before the first record that begins at or after this; null: to the end. */
  readonly until: Lsn | null;
  readonly onRecord?: (record: WalRecord) => void;
  readonly signal?: AbortSignal;
}

export interface WalWalkEnd {
  /** End of the last valid record; `from` when there was none. */
  readonly end: Lsn;
  readonly records: number;
  /** In words: why there is no further valid record. */
  readonly reason: string;
}

const RECORD_HEADER = 24;
const SHORT_PAGE_HEADER = 24;
const LONG_PAGE_HEADER = 40;
/** XLogRecordMaxSize of PostgreSQL 16; a longer length is garbage. */
const MAX_RECORD = 1020 * 1024 * 1024;
/** xlp_info bits. */
const FIRST_IS_CONTRECORD = 0x0001;

const align8 = (n: number): number => (n + 7) & ~7;

/** Walks from `from` to the end of valid WAL. Throws errors of system calls other than a missing segment. */
export async function walkWal(options: WalWalkOptions): Promise<WalWalkEnd> {
  const pages = createPages(options);
  let at: bigint = options.from;
  let end: bigint = options.from;
  let records = 0;
  let prev: bigint | null = null;
  try {
    if (options.nearest === true) {
      const first = await firstRecord(pages, options.from);
      if (typeof first === 'string') return { end: makeLsn(end), records, reason: first };
      at = first;
    }
    for (;;) {
      if (options.signal?.aborted === true) return { end: makeLsn(end), records, reason: 'cancelled' };
      if (options.until !== null && at >= options.until) return { end: makeLsn(end), records, reason: 'limit reached' };
      const read = await readRecord(pages, at, prev);
      if (typeof read === 'string') return { end: makeLsn(end), records, reason: read };
      records++;
      prev = read.start;
      options.onRecord?.({
        lsn: makeLsn(read.start),
        end: makeLsn(read.end),
        xid: read.bytes.readUInt32LE(4),
        info: read.bytes.readUInt8(16),
        rmgr: read.bytes.readUInt8(17),
        bytes: read.bytes,
      });
      at = read.next;
      end = read.end;
    }
  } finally {
    await pages.close();
  }
}

/**
 * Where the first record begins at or after the start of the page that holds the byte before `at`; text: why none can be found.
 * Source: xlog_internal.h, xlp_rem_len.
 */
async function firstRecord(pages: Pages, at: bigint): Promise<bigint | string> {
  const pageBytes = BigInt(pages.pageBytes);
  const last = at > 0n ? at - 1n : at;
  for (let start = last - (last % pageBytes); ; start += pageBytes) {
    const page = await pages.read(start);
    if (typeof page === 'string') return page;
    if ((page.info & FIRST_IS_CONTRECORD) === 0) return start;
    const offset = page.header + align8(page.bytes.readUInt32LE(16));
    if (offset < pages.pageBytes) return start + BigInt(offset);
  }
}

interface ReadRecord {
  readonly start: bigint;
  readonly end: bigint;
  /** Where to look for the next one; beyond `end` after a WAL switch. */
  readonly next: bigint;
  readonly bytes: Buffer;
}

/** Text: why there is no valid record at `at`. */
async function readRecord(pages: Pages, at: bigint, prev: bigint | null): Promise<ReadRecord | string> {
  const pageBytes = BigInt(pages.pageBytes);
  let position = at;
  let page = await pages.read(position - (position % pageBytes));
  if (typeof page === 'string') return page;
  if (position % pageBytes === 0n) {
    if ((page.info & FIRST_IS_CONTRECORD) !== 0) return 'the page begins with the rest of a record';
    position += BigInt(page.header);
  }
  const start = position;
  const offset = Number(position % pageBytes);
  if (offset < page.header) return 'position inside a page header';
  const total = page.bytes.readUInt32LE(offset);
  if (total < RECORD_HEADER || total > MAX_RECORD) return `invalid record length ${total}`;
  const first = page.bytes.subarray(offset, Math.min(offset + total, pages.pageBytes));
  const parts = [first];
  let have = first.length;
  let lastOffset = offset + first.length;
  let pageStart = position - BigInt(offset);
  // A header that does not fit its page is judged after the rest was read; one that does, before, so that garbage lengths stay cheap.
  if (have >= RECORD_HEADER && prev !== null && first.readBigUInt64LE(8) !== prev) return 'back link does not match';
  while (have < total) {
    pageStart += pageBytes;
    page = await pages.read(pageStart);
    if (typeof page === 'string') return `record is cut: ${page}`;
    if ((page.info & FIRST_IS_CONTRECORD) === 0 || page.bytes.readUInt32LE(16) !== total - have)
      return 'record is cut: next page does not continue it';
    const part = page.bytes.subarray(page.header, Math.min(page.header + total - have, pages.pageBytes));
    parts.push(part);
    have += part.length;
    lastOffset = page.header + part.length;
  }
  const bytes = parts.length === 1 ? first : Buffer.concat(parts);
  if (prev !== null && bytes.readBigUInt64LE(8) !== prev) return 'back link does not match';
  if (!hasValidSum(bytes)) return 'check sum of the record is wrong';
  const end = pageStart + BigInt(align8(lastOffset));
  return {
    start,
    end: isSwitch(bytes) ? endOfSegment(end, pages.segmentBytes) : end,
    next: isSwitch(bytes) ? endOfSegment(end, pages.segmentBytes) : end,
    bytes,
  };
}

/** The sum covers the data after the header, then the header before the sum. */
function hasValidSum(bytes: Buffer): boolean {
  let crc = addCrc32c(CRC32C_START, bytes, RECORD_HEADER, bytes.length);
  crc = addCrc32c(crc, bytes, 0, 20);
  return finishCrc32c(crc) === bytes.readUInt32LE(20);
}

/** RM_XLOG_ID 0, XLOG_SWITCH 0x40: the rest of the segment is empty. */
function isSwitch(bytes: Buffer): boolean {
  return bytes.readUInt8(17) === 0 && (bytes.readUInt8(16) & 0xf0) === 0x40;
}

function endOfSegment(lsn: bigint, segmentBytes: number): bigint {
  const size = BigInt(segmentBytes);
  return lsn % size === 0n ? lsn : lsn - (lsn % size) + size;
}

interface Page {
  readonly bytes: Buffer;
  readonly header: number;
  readonly info: number;
}

interface Pages {
  readonly pageBytes: number;
  readonly segmentBytes: number;
  /** `start` is a page boundary. Text: why there is no valid page. */
  read(start: bigint): Promise<Page | string>;
  close(): Promise<void>;
}

/** The end of WAL is mostly within a few pages of the last checkpoint; what goes on longer is read in larger pieces: few system calls, bounded memory. */
const FIRST_CHUNK = 65_536;
const MAX_CHUNK = 1_048_576;

function createPages({ dataDirectory, segmentBytes, pageBytes, lineage }: WalWalkOptions): Pages {
  let handle: FileHandle | null = null;
  let openSegment = -1n;
  let chunk: Buffer = Buffer.alloc(0);
  let chunkStart = -1n;
  let magic: number | null = null;
  let nextChunk = FIRST_CHUNK;
  const segmentSize = BigInt(segmentBytes);
  const close = async (): Promise<void> => {
    const old = handle;
    handle = null;
    await old?.close();
  };
  const fill = async (start: bigint): Promise<string | null> => {
    const segment = start / segmentSize;
    if (segment !== openSegment) {
      await close();
      handle = await openSegmentFile({ dataDirectory, segment, segmentBytes, lineage });
      openSegment = segment;
    }
    if (handle === null) return `segment ${segment} is not there`;
    const offset = Number(start % segmentSize);
    const buffer = Buffer.allocUnsafe(Math.min(nextChunk, segmentBytes - offset));
    nextChunk = Math.min(nextChunk * 4, MAX_CHUNK);
    const { bytesRead } = await handle.read(buffer, 0, buffer.length, offset);
    chunk = buffer.subarray(0, bytesRead);
    chunkStart = start;
    return null;
  };
  return {
    pageBytes,
    segmentBytes,
    close,
    read: async (start) => {
      if (chunkStart < 0n || start < chunkStart || start + BigInt(pageBytes) > chunkStart + BigInt(chunk.length)) {
        const missing = await fill(start);
        if (missing !== null) return missing;
      }
      const from = Number(start - chunkStart);
      const bytes = chunk.subarray(from, from + pageBytes);
      if (bytes.length < pageBytes) return 'the segment file is short';
      const seen = bytes.readUInt16LE(0);
      if (seen === 0 || (magic !== null && seen !== magic)) return 'page without WAL';
      // A recycled segment holds old pages with other addresses.
      if (bytes.readBigUInt64LE(8) !== start) return 'page of an older use of the file';
      magic ??= seen;
      return { bytes, info: bytes.readUInt16LE(2), header: start % segmentSize === 0n ? LONG_PAGE_HEADER : SHORT_PAGE_HEADER };
    },
  };
}

interface SegmentPlace {
  readonly dataDirectory: string;
  readonly segment: bigint;
  readonly segmentBytes: number;
  readonly lineage: readonly LineageStep[];
}

async function openSegmentFile({ dataDirectory, segment, segmentBytes, lineage }: SegmentPlace): Promise<FileHandle | null> {
  for (const step of [...lineage].reverse()) {
    // A timeline cannot own a segment that ends before the timeline began.
    if (step.begin !== null && segment < step.begin / BigInt(segmentBytes)) continue;
    try {
      return await open(join(dataDirectory, 'pg_wal', segmentFileName({ timeline: step.timeline, segment, segmentBytes })), 'r');
    } catch (cause) {
      if (errnoOf(cause) !== 'ENOENT') throw cause;
    }
  }
  return null;
}

/** `TTTTTTTTXXXXXXXXYYYYYYYY`. */
export function segmentFileName({ timeline, segment, segmentBytes }: { timeline: Timeline; segment: bigint; segmentBytes: number }): string {
  const perId = 0x100000000n / BigInt(segmentBytes);
  const hex = (value: bigint | number): string => value.toString(16).toUpperCase().padStart(8, '0');
  return `${hex(timeline)}${hex(segment / perId)}${hex(segment % perId)}`;
}
