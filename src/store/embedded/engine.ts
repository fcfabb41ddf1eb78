/** The embedded engine without its wire: database, MVCC, leases, watches, compaction and limits put together. */
import { randomBytes } from 'node:crypto';
import { create } from '@bufbuild/protobuf';
import type { Clock } from '../../base/clock.ts';
import { type Failure, type Result, ok } from '../../core/result.ts';
import { type ResponseHeader, ResponseHeaderSchema } from '../proto/gen/rpc_pb.ts';
import { type CommitQueue, createCommitQueue } from './commit-queue.ts';
import { type Database, openDatabase } from './database.ts';
import type { KvContext } from './kv-service.ts';
import { type Leases, createLeases } from './leases.ts';
import { type Mvcc, createMvcc } from './mvcc.ts';
import { type WatchHub, createWatchHub } from './watch-hub.ts';

/** Living data and kept history together. A store of pgherd is a few MiB; past this something writes that should not. */
export const DEFAULT_MAX_BYTES = 256 * 1024 * 1024;
/** Revisions that a watcher may be behind without having to list again: with 10 nodes about three minutes. More costs only disk. */
export const DEFAULT_KEPT_REVISIONS = 5000;
/** Compaction runs when this many revisions more than the kept ones have gathered, so that it costs little per write. */
const COMPACT_EVERY = 500;
/** Above this share of the limit history is cut to a tenth, and at the limit altogether (watchers that are behind list again); when that does not help, puts are refused. */
const TIGHT = 0.8;

export interface EngineOptions {
  readonly file: string;
  readonly clock: Clock;
  readonly maxBytes: number;
  readonly keptRevisions: number;
}

export interface Engine {
  readonly db: Database;
  readonly mvcc: Mvcc;
  readonly queue: CommitQueue;
  readonly leases: Leases;
  readonly hub: WatchHub;
  readonly kv: KvContext;
  close(): void;
}

export function openEngine(options: EngineOptions): Result<Engine, Failure> {
  const opened = openDatabase(options.file, options.maxBytes);
  if (!opened.ok) return opened;
  const db = opened.value;
  const mvcc = createMvcc(db);
  const header = (revision: number): ResponseHeader =>
    create(ResponseHeaderSchema, { clusterId: db.clusterId, memberId: db.memberId, revision: BigInt(revision), raftTerm: 1n });
  const hub = createWatchHub(mvcc, header);
  const housekeeping = createHousekeeping(db, mvcc, options);
  const queue = createCommitQueue(db, mvcc, (changes) => {
    hub.committed(changes);
    housekeeping.afterCommit(queue);
  });
  const randomId = (): string => String((randomBytes(8).readBigUInt64BE() & 0x7fff_ffff_ffff_ffffn) | 1n);
  const leases = createLeases({ db, mvcc, queue, clock: options.clock, randomId });
  const kv: KvContext = { mvcc, header, full: housekeeping.full };
  return ok({
    db,
    mvcc,
    queue,
    leases,
    hub,
    kv,
    close: () => {
      leases.close();
      queue.close();
      db.close();
    },
  });
}

interface Housekeeping {
  full(): boolean;
  afterCommit(queue: CommitQueue): void;
}

function createHousekeeping(db: Database, mvcc: Mvcc, options: EngineOptions): Housekeeping {
  let running = false;
  const isFull = (): boolean => db.usedBytes() > options.maxBytes;
  /** What to compact up to, and how many revisions that must gain to be worth it. */
  const plan = (): { readonly upTo: number; readonly worth: number } => {
    const used = db.usedBytes();
    const revision = mvcc.revision();
    if (used > options.maxBytes) return { upTo: revision, worth: 1 };
    if (used > options.maxBytes * TIGHT) return { upTo: revision - Math.ceil(options.keptRevisions / 10), worth: 1 };
    return { upTo: revision - options.keptRevisions, worth: Math.min(COMPACT_EVERY, options.keptRevisions) };
  };
  return {
    full: isFull,
    afterCommit: (queue) => {
      if (running) return;
      const { upTo, worth } = plan();
      if (upTo < mvcc.compactRevision() + worth) return;
      running = true;
      const done = (): void => {
        running = false;
      };
      // A compaction that fails (disk full, store closing) is tried again after the next commit.
      queue.submit(() => mvcc.compact(upTo)).then(done, done);
    },
  };
}
