/**
 * The revisioned key space over SQLite: range, put, delete, compare, compact.
 * All functions are synchronous. Writing ones run inside a transaction that `commit-queue.ts` opens; `rollback` undoes what memory knows.
 */
import type { SQLInputValue } from 'node:sqlite';
import type { Database } from './database.ts';
import { faults } from './fault.ts';
import { type KeyRange, type Row, rangeCondition, toRow } from './rows.ts';

export interface RevisionChanges {
  readonly revision: number;
  /** In the order in which the transaction made them. */
  readonly rows: readonly Row[];
}

export interface Mvcc {
  /** Of the newest write, inside an open batch too. An empty store has revision 1, as etcd's. */
  revision(): number;
  compactRevision(): number;
  /** Living rows at `revision` (0: now), by key; throws `compacted` or `future`. `limit` 0: all. */
  range(range: KeyRange, revision: number, limit: number): Row[];
  count(range: KeyRange, revision: number): number;
  /** Runs `body` as one transaction of the store: all its writes share one revision, which rises only when something was written. */
  transaction<T>(body: (writer: Writer) => T): T;
  /** Changes since the last call; the commit queue hands them to the watchers after the commit. */
  takeChanges(): RevisionChanges[];
  /** Forgets what an undone batch or transaction did; `mark` comes from `mark()`. */
  mark(): Mark;
  rollback(mark: Mark): void;
  /** Changes of revisions ≥ `from` within the range, whole revisions, until about `maxBytes` are collected. Null when `from` was compacted. */
  changesSince(from: number, range: KeyRange, maxBytes: number): { readonly changes: RevisionChanges[]; readonly next: number } | null;
  /** The newest row of the key before `revision`; null when there was none, it was a deletion, or it was compacted. */
  before(key: Uint8Array, revision: number): Row | null;
  /** Forgets history up to `revision`, keeping what is alive there. */
  compact(revision: number): void;
  hasLease(id: string): boolean;
  keysOfLease(id: string): Uint8Array[];
}

export interface Mark {
  readonly revision: number;
  readonly changes: number;
  readonly compactRevision: number;
}

export interface Writer {
  /** The revision that writes of this transaction get. */
  readonly revision: number;
  /** Answers the row before. Throws `leaseNotFound`. */
  put(key: Uint8Array, value: Uint8Array, lease: string | null): Row | null;
  /** Answers the deleted rows. */
  delete(range: KeyRange): Row[];
  wrote(): boolean;
}

const NOTHING = new Uint8Array(0);
const UPSERT_CURRENT =
  'INSERT INTO current (key, revision, lease) VALUES (?, ?, ?) ON CONFLICT (key) DO UPDATE SET revision = excluded.revision, lease = excluded.lease';
const COLUMNS = 'h.key, h.value, h.create_revision, h.revision, h.version, h.lease, h.deleted';

interface State {
  readonly db: Database;
  revision: number;
  compactRevision: number;
  changes: RevisionChanges[];
}

export function createMvcc(db: Database): Mvcc {
  const state: State = {
    db,
    revision: Math.max(1, numberOf(db, 'SELECT max(revision) AS n FROM history')),
    compactRevision: numberOf(db, "SELECT CAST(value AS INTEGER) AS n FROM meta WHERE name = 'compact-revision'"),
    changes: [],
  };
  return {
    revision: () => state.revision,
    compactRevision: () => state.compactRevision,
    range: (range, at, limit) => readRange(state, range, { at, limit }),
    count: (range, at) => {
      const { text, values } = buildSelect(state, range, { at, columns: 'count(*) AS n', tail: '' });
      return Number(db.prepare(text).get(...values)?.['n'] ?? 0);
    },
    transaction: (body) => {
      const rows: Row[] = [];
      const value = body(openWriter(state, rows));
      if (rows.length > 0) {
        state.revision += 1;
        state.changes.push({ revision: state.revision, rows });
      }
      return value;
    },
    takeChanges: () => {
      const taken = state.changes;
      state.changes = [];
      return taken;
    },
    mark: () => ({ revision: state.revision, changes: state.changes.length, compactRevision: state.compactRevision }),
    rollback: (mark) => {
      state.revision = mark.revision;
      state.compactRevision = mark.compactRevision;
      state.changes.length = mark.changes;
    },
    changesSince: (from, range, maxBytes) => (from < state.compactRevision ? null : readChanges(db, { from, to: state.revision, range, maxBytes })),
    before: (key, at) => {
      const raw = db.prepare(`SELECT ${COLUMNS} FROM history h WHERE h.key = ? AND h.revision < ? ORDER BY h.revision DESC LIMIT 1`).get(key, at);
      const row = raw === undefined ? null : toRow(raw);
      return row?.deleted === true ? null : row;
    },
    compact: (target) => {
      if (target > state.revision) throw faults.future();
      if (target <= state.compactRevision) throw faults.compacted();
      compactHistory(db, target);
      state.compactRevision = target;
    },
    hasLease: (id) => hasLease(db, id),
    keysOfLease: (id) =>
      db
        .prepare('SELECT key FROM current WHERE lease = ? ORDER BY key')
        .all(id)
        .map((raw) => raw['key'] as Uint8Array),
  };
}

interface Select {
  /** 0: now. */
  readonly at: number;
  readonly columns: string;
  readonly tail: string;
}

/** Throws `compacted` or `future`. */
function buildSelect(state: State, range: KeyRange, { at, columns, tail }: Select): { text: string; values: SQLInputValue[] } {
  if (at === 0 || at === state.revision) {
    const { text, values } = rangeCondition('c.key', range);
    return { text: `SELECT ${columns} FROM current c JOIN history h ON h.key = c.key AND h.revision = c.revision WHERE ${text} ${tail}`, values };
  }
  if (at < state.compactRevision) throw faults.compacted();
  if (at > state.revision) throw faults.future();
  const { text, values } = rangeCondition('h.key', range);
  const newest = 'SELECT max(i.revision) FROM history i WHERE i.key = h.key AND i.revision <= ?';
  return { text: `SELECT ${columns} FROM history h WHERE ${text} AND h.deleted = 0 AND h.revision = (${newest}) ${tail}`, values: [...values, at] };
}

function readRange(state: State, range: KeyRange, { at, limit }: { at: number; limit: number }): Row[] {
  const tail = limit > 0 ? 'ORDER BY h.key LIMIT ?' : 'ORDER BY h.key';
  const { text, values } = buildSelect(state, range, { at, columns: COLUMNS, tail });
  const rows = state.db.prepare(text).all(...values, ...(limit > 0 ? [limit] : []));
  return rows.map(toRow);
}

function hasLease(db: Database, id: string): boolean {
  return db.prepare('SELECT 1 AS n FROM lease WHERE id = ?').get(id) !== undefined;
}

/** Writes go to the tables at once and to `rows`; the transaction around takes both back when it fails. */
function openWriter(state: State, rows: Row[]): Writer {
  const { db } = state;
  const revision = state.revision + 1;
  const record = (row: Row): void => {
    db.prepare('INSERT INTO history (key, revision, create_revision, version, lease, deleted, value) VALUES (?, ?, ?, ?, ?, ?, ?)').run(
      row.key,
      row.modRevision,
      row.createRevision,
      row.version,
      row.lease,
      row.deleted ? 1 : 0,
      row.value.length === 0 ? null : row.value,
    );
    rows.push(row);
  };
  return {
    revision,
    wrote: () => rows.length > 0,
    put: (key, value, lease) => {
      if (lease !== null && !hasLease(db, lease)) throw faults.leaseNotFound();
      const previous = readRange(state, { key, rangeEnd: NOTHING }, { at: 0, limit: 1 })[0] ?? null;
      const version = (previous?.version ?? 0) + 1;
      record({ key, value, createRevision: previous?.createRevision ?? revision, modRevision: revision, version, lease, deleted: false });
      db.prepare(UPSERT_CURRENT).run(key, revision, lease);
      return previous;
    },
    delete: (range) => {
      const doomed = readRange(state, range, { at: 0, limit: 0 });
      for (const row of doomed) {
        record({ key: row.key, value: NOTHING, createRevision: 0, modRevision: revision, version: 0, lease: null, deleted: true });
        db.prepare('DELETE FROM current WHERE key = ?').run(row.key);
      }
      return doomed;
    },
  };
}

/**
 * Deletes each row that is not the newest of its key at `target`, and deletions older than `target`.
 * A deletion at `target` itself stays, so that a watch from `target` still misses nothing; and so the highest revision always has a row.
 */
function compactHistory(db: Database, target: number): void {
  const newer = 'SELECT 1 FROM history n WHERE n.key = h.key AND n.revision > h.revision AND n.revision <= ?';
  db.prepare(
    `DELETE FROM history WHERE id IN (SELECT h.id FROM history h WHERE h.revision <= ? AND ((h.deleted = 1 AND h.revision < ?) OR EXISTS (${newer})))`,
  ).run(target, target, target);
  db.prepare("INSERT INTO meta (name, value) VALUES ('compact-revision', ?) ON CONFLICT (name) DO UPDATE SET value = excluded.value").run(
    String(target),
  );
}

interface ChangesQuery {
  readonly from: number;
  readonly to: number;
  readonly range: KeyRange;
  readonly maxBytes: number;
}

function readChanges(db: Database, query: ChangesQuery): { changes: RevisionChanges[]; next: number } {
  const where = rangeCondition('h.key', query.range);
  const statement = db.prepare(`SELECT ${COLUMNS} FROM history h WHERE h.revision >= ? AND h.revision <= ? AND ${where.text} ORDER BY h.id`);
  const changes: { revision: number; rows: Row[] }[] = [];
  let bytes = 0;
  for (const raw of statement.iterate(query.from, query.to, ...where.values)) {
    const row = toRow(raw);
    const last = changes.at(-1);
    if (last !== undefined && last.revision === row.modRevision) last.rows.push(row);
    else {
      if (bytes > query.maxBytes) return { changes, next: row.modRevision };
      changes.push({ revision: row.modRevision, rows: [row] });
    }
    bytes += row.key.length + row.value.length + 64;
  }
  return { changes, next: query.to + 1 };
}

function numberOf(db: Database, text: string): number {
  return Number(db.prepare(text).get()?.['n'] ?? 0);
}
