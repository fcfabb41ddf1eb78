/**
 * Backup and restore of what pgherd keeps in the store, as one JSON-lines file:
 *   line 1     {"format":"pgherd-store-backup","version":1,"incarnation":…,"revision":…,"takenAt":…}
 *   then       {"key":…,"value":…,"leased":bool} sorted by key
 *   last line  {"sha256":…,"keys":n} over all bytes before it
 *
 * Keys under a lease (reports, the write lease, the controller's election) are in the backup for people to read and are never restored: what they
 * say was true of that moment only. So after a restore nobody holds anything. The state of each cluster is
 * marked as decided in another store, also when it comes back into the very store that it was taken from: it may be older than the term that is open (§4.10).
 */
import { createHash } from 'node:crypto';
import { type Clock, formatWall, realClock } from '../base/clock.ts';
import { bool, decodeJson, formatDecodeError, integer, literal, object, text } from '../core/decode.ts';
import { makeRevision } from '../core/ids.ts';
import { OF_A_BACKUP } from '../core/state.ts';
import { type Failure, type Result, err, ok } from '../core/result.ts';
import { ROOT } from './keys.ts';
import { MOVE_PREFIX } from './move-record.ts';
import { RESTORE_KEY, type RestoreMark, putMark, readMark } from './restore-mark.ts';
import type { Op, Store, StoreError } from './store.ts';

const header = object({ format: literal('pgherd-store-backup'), version: literal(1), incarnation: text, revision: integer, takenAt: text });
const entry = object({ key: text, value: text, leased: bool });
const footer = object({ sha256: text, keys: integer });

export interface BackupSummary {
  readonly incarnation: string;
  readonly revision: number;
  readonly takenAt: string;
  readonly keys: number;
  /** Keys under a lease: not restored. */
  readonly leased: number;
}

interface Backup extends BackupSummary {
  readonly entries: readonly { readonly key: string; readonly value: string; readonly leased: boolean }[];
}

/** The text of a backup, consistent as of one revision. */
export async function backupStore(store: Store, clock: Clock = realClock): Promise<Result<string, Failure>> {
  const status = await store.status();
  if (!status.ok) return err(storeFailure('store.backup', 'the store cannot be backed up', status.error));
  const listing = await store.list(ROOT);
  if (!listing.ok) return err(storeFailure('store.backup', 'the store cannot be backed up', listing.error));
  const { incarnation } = status.value;
  const { revision, kvs } = listing.value;
  const lines: unknown[] = [
    { format: 'pgherd-store-backup', version: 1, incarnation, revision, takenAt: formatWall(clock.now().wall) },
    ...kvs.map((kv) => ({ key: kv.key, value: kv.value, leased: kv.lease !== null })),
  ];
  const body = lines.map((line) => `${JSON.stringify(line)}\n`).join('');
  return ok(`${body}${JSON.stringify({ sha256: sha256(body), keys: kvs.length })}\n`);
}

/** Reads and checks a backup without a store. Failure `store.backup-damaged`. */
export function inspectBackup(content: string): Result<BackupSummary, Failure> {
  const parsed = parseBackup(content);
  if (!parsed.ok) return parsed;
  const { incarnation, revision, takenAt, keys, leased } = parsed.value;
  return ok({ incarnation, revision, takenAt, keys, leased });
}

export interface RestoreOptions {
  /** `refuse`: an error when any key of pgherd is there. `replace`: they are deleted first. */
  readonly existing: 'refuse' | 'replace';
}

/** Failures: `store.backup-damaged`, `store.not-empty`, `store.restore` (the store stopped answering; the mark stays `begun`, repeat with `replace`). */
export async function restoreStore(store: Store, content: string, { existing }: RestoreOptions): Promise<Result<BackupSummary, Failure>> {
  const parsed = parseBackup(content);
  if (!parsed.ok) return parsed;
  const backup = parsed.value;
  const failed = (error: StoreError): Result<BackupSummary, Failure> =>
    err(storeFailure('store.restore', 'the backup was not restored completely', error));
  const found = await store.list(ROOT, { limit: 1 });
  if (!found.ok) return failed(found.error);
  if (found.value.kvs.length > 0 && existing === 'refuse') return err(notEmpty(found.value.kvs[0]?.key ?? '', 'nothing was changed'));

  const present = await store.get(RESTORE_KEY);
  if (!present.ok) return failed(present.error);
  // A host that was away meanwhile may know only a store further back: of the one that was backed up, or of this one whose data is replaced.
  const marks = [backup.entries.find((item) => item.key === RESTORE_KEY)?.value ?? null, present.value?.value ?? null];
  const before = marks.flatMap((value) => readMark(value)?.stores ?? []);
  const { incarnation, revision, takenAt, keys, leased } = backup;
  const mark = (phase: RestoreMark['phase']): Op => putMark({ phase, from: incarnation, before, revision, takenAt });
  const wiped = await store.txn([], [{ kind: 'delete-prefix', prefix: ROOT }]);
  if (!wiped.ok) return failed(wiped.error);
  const begun = await store.txn([], [mark('begun')]);
  if (!begun.ok) return failed(begun.error);
  const wanted = backup.entries.filter((item) => !item.leased && item.key !== RESTORE_KEY && !item.key.startsWith(MOVE_PREFIX));
  for (const ops of inPortions(wanted, (state) => ({ ...state, incarnation: `${OF_A_BACKUP}${incarnation}` }))) {
    // Only keys that are still absent are written: somebody else who writes meanwhile is not overwritten, but found.
    const absent = ops.map((op) => ({ target: 'create', key: op.key, op: '=', revision: makeRevision(0) }) as const);
    const written = await store.txn(absent, ops);
    if (!written.ok) return failed(written.error);
    if (!written.value.succeeded) return err(notEmpty(ops[0]?.key ?? '', 'the restore stopped in the middle; run it again with --replace'));
  }
  const done = await store.txn([], [mark('done')]);
  if (!done.ok) return failed(done.error);
  return ok({ incarnation, revision, takenAt, keys, leased });
}

/** Below etcd's limits of 128 operations and 1.5 MiB a transaction. */
const PORTION_OPS = 100;
const PORTION_BYTES = 1024 * 1024;

/** Puts in portions that one transaction bears. Each state, when it is a JSON object, is changed by `mark`; other bytes stay: their readers tell of them. */
export function inPortions(
  entries: readonly { readonly key: string; readonly value: string }[],
  mark: (state: Readonly<Record<string, unknown>>) => Readonly<Record<string, unknown>>,
): (Op & { readonly kind: 'put' })[][] {
  const portions: (Op & { readonly kind: 'put' })[][] = [];
  let bytes = Number.POSITIVE_INFINITY;
  for (const { key, value } of entries) {
    const size = Buffer.byteLength(key) + Buffer.byteLength(value);
    if (bytes + size > PORTION_BYTES || (portions.at(-1)?.length ?? 0) >= PORTION_OPS) {
      portions.push([]);
      bytes = 0;
    }
    bytes += size;
    portions.at(-1)?.push({ kind: 'put', key, value: isState(key) ? marked(value, mark) : value });
  }
  return portions;
}

/** `/pgherd/v1/CLUSTER/state` */
function isState(key: string): boolean {
  const [cluster = '', what, ...more] = key.slice(ROOT.length).split('/');
  return what === 'state' && more.length === 0 && !cluster.startsWith('.');
}

function marked(value: string, mark: Parameters<typeof inPortions>[1]): string {
  try {
    const parsed: unknown = JSON.parse(value);
    if (typeof parsed !== 'object' || parsed === null || Array.isArray(parsed)) return value;
    return JSON.stringify(mark(parsed as Record<string, unknown>));
  } catch (cause) {
    if (cause instanceof SyntaxError) return value;
    throw cause;
  }
}

function parseBackup(content: string): Result<Backup, Failure> {
  const end = content.lastIndexOf('\n', content.length - 2) + 1;
  const body = content.slice(0, end);
  const tail = decodeJson(footer, content.slice(end));
  if (!tail.ok) return err(damaged(`the last line: ${formatDecodeError(tail.error)}`));
  if (tail.value.sha256 !== sha256(body)) return err(damaged('the checksum does not fit the content'));
  const [first = '', ...rest] = body.split('\n').slice(0, -1);
  const head = decodeJson(header, first);
  if (!head.ok) return err(damaged(`line 1: ${formatDecodeError(head.error)}`));
  const entries: Backup['entries'][number][] = [];
  for (const [index, line] of rest.entries()) {
    const decoded = decodeJson(entry, line);
    if (!decoded.ok) return err(damaged(`line ${index + 2}: ${formatDecodeError(decoded.error)}`));
    if (!decoded.value.key.startsWith(ROOT)) return err(damaged(`line ${index + 2}: ${decoded.value.key} does not lie below ${ROOT}`));
    entries.push(decoded.value);
  }
  if (entries.length !== tail.value.keys) return err(damaged(`${tail.value.keys} keys announced, ${entries.length} found`));
  return ok({ ...head.value, keys: entries.length, leased: entries.filter((item) => item.leased).length, entries });
}

function sha256(body: string): string {
  return createHash('sha256').update(body).digest('hex');
}

function damaged(cause: string): Failure {
  return {
    code: 'store.backup-damaged',
    what: 'the file is not a complete backup of the store',
    cause,
    now: 'nothing was changed',
    remedy: 'use another backup',
    retryable: false,
  };
}

function notEmpty(key: string, now: string): Failure {
  return {
    code: 'store.not-empty',
    what: 'the store already holds data of pgherd',
    cause: `found ${key}`,
    now,
    remedy: 'restore into an empty store, or ask for the data to be replaced (--replace)',
    retryable: false,
  };
}

function storeFailure(code: string, what: string, error: StoreError): Failure {
  return {
    code,
    what,
    cause: `${error.kind}: ${error.message}`,
    now: 'the operation stopped',
    remedy: 'check the store (pgherd store status) and repeat',
    retryable: error.kind !== 'refused',
  };
}
