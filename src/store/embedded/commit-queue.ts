/**
 * Group commit: writes that wait at the same moment share one SQLite transaction and one sync of the disk.
 *
 * Invariant: no write is answered before the transaction that holds it is durable, and no read sees a write that is not.
 * Because: jobs run synchronously between BEGIN and COMMIT, nothing else runs meanwhile, and their promises settle only after COMMIT returned.
 * Broken if: a job awaits anything, or a second connection to the file exists.
 */
import { status } from '@grpc/grpc-js';
import { SQLITE_FULL, type Database, sqliteCode } from './database.ts';
import { RpcFault, faults } from './fault.ts';
import type { Mvcc, RevisionChanges } from './mvcc.ts';

/** More waiting writes than this are refused at once: clients retry, memory stays bounded. */
const MAX_WAITING = 10_000;
/** Jobs of one transaction: bounds how long the event loop is held. */
const MAX_BATCH = 256;

interface Job {
  readonly run: () => unknown;
  readonly resolve: (value: unknown) => void;
  readonly reject: (cause: unknown) => void;
}

export interface CommitQueue {
  /** Runs `run` within the next transaction. Rejects with an RpcFault; status UNKNOWN when the commit itself failed unclearly. */
  submit<T>(run: () => T): Promise<T>;
  /** Refuses what waits, and everything later, with `server stopped`. */
  close(): void;
}

export function createCommitQueue(db: Database, mvcc: Mvcc, onCommitted: (changes: readonly RevisionChanges[]) => void): CommitQueue {
  let waiting: Job[] = [];
  let scheduled = false;
  let closed = false;

  const flush = (): void => {
    scheduled = false;
    const batch = waiting.slice(0, MAX_BATCH);
    waiting = waiting.slice(MAX_BATCH);
    if (waiting.length > 0) schedule();
    if (batch.length === 0) return;
    const start = mvcc.mark();
    let settle: (() => void)[];
    try {
      settle = runBatch(db, mvcc, batch);
    } catch (cause) {
      if (db.sql.isTransaction) db.sql.exec('ROLLBACK');
      mvcc.rollback(start);
      const fault = toFault(cause);
      for (const job of batch) job.reject(fault);
      return;
    }
    const changes = mvcc.takeChanges();
    if (changes.length > 0) onCommitted(changes);
    for (const done of settle) done();
  };
  const schedule = (): void => {
    if (scheduled) return;
    scheduled = true;
    setImmediate(flush);
  };

  return {
    submit: <T>(run: () => T) =>
      new Promise<T>((resolve, reject) => {
        if (closed) return reject(faults.stopped());
        if (waiting.length >= MAX_WAITING) return reject(faults.tooManyRequests());
        waiting.push({ run, resolve: resolve as (value: unknown) => void, reject });
        schedule();
      }),
    close: () => {
      closed = true;
      for (const job of waiting) job.reject(faults.stopped());
      waiting = [];
    },
  };
}

/** Runs all jobs and commits. Answers how to settle each; throws when the whole batch failed. */
function runBatch(db: Database, mvcc: Mvcc, batch: readonly Job[]): (() => void)[] {
  db.sql.exec('BEGIN IMMEDIATE');
  const settle = batch.map((job) => {
    const mark = mvcc.mark();
    db.sql.exec('SAVEPOINT job');
    try {
      const value = job.run();
      db.sql.exec('RELEASE job');
      return () => job.resolve(value);
    } catch (cause) {
      // SQLite undoes the whole transaction for some errors; only a refusal of our own leaves the others' work standing.
      if (!(cause instanceof RpcFault)) throw cause;
      db.sql.exec('ROLLBACK TO job; RELEASE job');
      mvcc.rollback(mark);
      return () => job.reject(cause);
    }
  });
  db.sql.exec('COMMIT');
  return settle;
}

/**
 * A full disk is a clear refusal: the commit frame of the WAL is written last, so an incomplete WAL entry is ignored by recovery.
 * Any other failure of a commit may have reached the disk: status UNKNOWN, which clients must treat as an unknown outcome.
 */
function toFault(cause: unknown): RpcFault {
  if (sqliteCode(cause) === SQLITE_FULL) return faults.noSpace();
  return new RpcFault(status.UNKNOWN, `pgherd: the store file cannot be written: ${cause instanceof Error ? cause.message : String(cause)}`);
}
