/**
 * The file of the embedded store: opening, locking, schema, identity.
 *
 * Tables: `history` has one row a change (MVCC), `current` the newest revision of each living key, `lease` the granted leases, `meta` the identity.
 * The revision counter is not stored: it is the highest revision in `history` (compaction always leaves a row at its own revision, or the counter in `meta`).
 */
import { randomBytes } from 'node:crypto';
import { chmodSync, closeSync, openSync } from 'node:fs';
import { DatabaseSync, type StatementSync } from 'node:sqlite';
import { type Failure, type Result, err, ok } from '../../core/result.ts';

const FORMAT = '1';

const SCHEMA = `
CREATE TABLE IF NOT EXISTS meta (name TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT, WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS history (
  id INTEGER PRIMARY KEY,
  key BLOB NOT NULL,
  revision INTEGER NOT NULL,
  create_revision INTEGER NOT NULL,
  version INTEGER NOT NULL,
  lease TEXT,
  deleted INTEGER NOT NULL,
  value BLOB,
  UNIQUE (key, revision)
) STRICT;
CREATE INDEX IF NOT EXISTS history_revision ON history (revision);
CREATE TABLE IF NOT EXISTS current (key BLOB PRIMARY KEY, revision INTEGER NOT NULL, lease TEXT) STRICT, WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS current_lease ON current (lease) WHERE lease IS NOT NULL;
CREATE TABLE IF NOT EXISTS lease (id TEXT PRIMARY KEY, ttl_seconds INTEGER NOT NULL) STRICT, WITHOUT ROWID;
`;

export interface Database {
  readonly sql: DatabaseSync;
  /** A prepared statement, kept by its text. */
  prepare(text: string): StatementSync;
  readonly clusterId: bigint;
  readonly memberId: bigint;
  /** Pages in use × page size, in bytes; free pages do not count. */
  usedBytes(): number;
  fileBytes(): number;
  close(): void;
}

/**
 * Opens or creates the file, mode 0600. A second process on the same file gets `store.locked`.
 *
 * Invariant: one process writes the file at a time.
 * Because: locking_mode=EXCLUSIVE takes the kernel's lock at the first write below and holds it until the process ends, however it ends.
 * Broken if: the file lies on a network file system without working POSIX locks. *Source:* sqlite.org/pragma.html#pragma_locking_mode.
 *
 * Each answered commit survives kill -9 and power loss: WAL with synchronous=FULL syncs the WAL before a commit returns.
 * *Source:* sqlite.org/pragma.html#pragma_synchronous.
 */
export function openDatabase(file: string, maxBytes: number): Result<Database, Failure> {
  let sql: DatabaseSync;
  try {
    // Made before SQLite opens it: the WAL takes over the mode of the database file.
    closeSync(openSync(file, 'a', 0o600));
    chmodSync(file, 0o600);
    sql = new DatabaseSync(file);
  } catch (cause) {
    return err(openFailure(file, cause));
  }
  try {
    sql.exec('PRAGMA locking_mode=EXCLUSIVE; PRAGMA busy_timeout=0;');
    sql.exec('PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL; PRAGMA journal_size_limit=16777216;');
    sql.exec(SCHEMA);
    // The hard stop behind the softer limit of the engine, which leaves room for deletes and compaction.
    const pageSize = scalar(sql, 'PRAGMA page_size');
    sql.exec(`PRAGMA max_page_count=${Math.ceil((maxBytes * 1.5) / pageSize)}`);
    const identity = readIdentity(sql);
    return ok(wrap(sql, identity, pageSize));
  } catch (cause) {
    sql.close();
    return err(openFailure(file, cause));
  }
}

interface Identity {
  readonly clusterId: bigint;
  readonly memberId: bigint;
}

function readIdentity(sql: DatabaseSync): Identity {
  const insert = sql.prepare('INSERT INTO meta (name, value) VALUES (?, ?) ON CONFLICT (name) DO NOTHING');
  // The write lock is taken here, even when nothing is new.
  sql.exec('BEGIN IMMEDIATE');
  insert.run('format', FORMAT);
  insert.run('cluster-id', randomId());
  insert.run('member-id', randomId());
  sql.exec('COMMIT');
  const read = (name: string): string => String(sql.prepare('SELECT value FROM meta WHERE name = ?').get(name)?.['value'] ?? '');
  if (read('format') !== FORMAT) throw new Error(`the file has format ${read('format')}, this program reads format ${FORMAT}`);
  return { clusterId: BigInt(read('cluster-id')), memberId: BigInt(read('member-id')) };
}

function wrap(sql: DatabaseSync, identity: Identity, pageSize: number): Database {
  const statements = new Map<string, StatementSync>();
  const pageCount = prepareScalar(sql, 'PRAGMA page_count');
  const freePages = prepareScalar(sql, 'PRAGMA freelist_count');
  return {
    sql,
    ...identity,
    prepare: (text) => {
      const known = statements.get(text);
      if (known !== undefined) return known;
      const made = sql.prepare(text);
      statements.set(text, made);
      return made;
    },
    usedBytes: () => (pageCount() - freePages()) * pageSize,
    fileBytes: () => pageCount() * pageSize,
    close: () => sql.close(),
  };
}

function scalar(sql: DatabaseSync, text: string): number {
  return prepareScalar(sql, text)();
}

/** Prepared once: asked with every write. */
function prepareScalar(sql: DatabaseSync, text: string): () => number {
  const statement = sql.prepare(text);
  return () => Number(Object.values(statement.get() ?? {})[0] ?? 0);
}

/** 63 random bits, never 0: etcd's ids are unsigned, ours stay positive in every reader. */
function randomId(): string {
  const id = randomBytes(8).readBigUInt64BE() & 0x7fff_ffff_ffff_ffffn;
  return String(id === 0n ? 1n : id);
}

function openFailure(file: string, cause: unknown): Failure {
  const text = cause instanceof Error ? cause.message : String(cause);
  const locked = /locked|busy/i.test(text);
  return {
    code: locked ? 'store.locked' : 'store.open',
    what: `the store file ${file} cannot be opened`,
    cause: locked ? 'another process holds it' : text,
    now: 'the embedded store does not start',
    remedy: locked
      ? 'stop the other server of this data directory, or give this one a data directory of its own'
      : 'check the path, its owner and mode, and the free space; or restore a backup',
    retryable: locked,
  };
}

/** SQLite's result code of an error thrown by node:sqlite; null for any other error. Extended codes are reduced to the primary one. */
export function sqliteCode(cause: unknown): number | null {
  if (!(cause instanceof Error) || !('errcode' in cause) || typeof cause.errcode !== 'number') return null;
  return cause.errcode & 0xff;
}

/** *Source:* sqlite.org/rescode.html. */
export const SQLITE_FULL = 13;
