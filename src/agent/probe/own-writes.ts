/**
 * Does the disk under the own primary take writes? Looks of other kinds only read, and a server whose disk is stuck or full goes on answering those.
 *
 * *Invariant:* a disk that never answers holds up nothing here. *Because:* each look is a statement on a connection of its own, begun beside the loop, and
 * at most two without an answer are left open (pending-writes.ts). *Broken if:* something in the loop waits for a look.
 */
import type { Clock } from '../../base/clock.ts';
import type { Logger } from '../../base/log.ts';
import type { MonoMs, NodeId } from '../../core/ids.ts';
import type { DiskProblem, NodeProblem, WriteHealth } from '../../core/report.ts';
import { HEARTBEAT_DATABASE, type Instance } from '../postgres/instance.ts';
import { type Sql, describeSqlError, localTarget, openSql, sqlStateOf } from '../postgres/sql.ts';
import { describeDiskProblem } from './disk-problems.ts';
import { heartbeatOf } from './heartbeat.ts';
import { type PendingWrites, createPendingWrites } from './pending-writes.ts';

/** A healthy write costs a flush of the WAL: often enough to be known within two looks, seldom enough not to be seen in the load. */
const HEALTHY_EVERY_MS = 1000;
const UNWELL_EVERY_MS = 500;
/** One slow write is no problem to tell people of. */
const TOLD_AFTER_MS = 2000;
/** As long as another member's look at this server; a healthy write takes milliseconds. */
const LIMIT_MS = 700;
/** The statement itself is left alone for longer: what is stuck in the disk cannot be cancelled anyway. */
const STATEMENT_MS = 60_000;

export interface OwnWrites {
  /** Begins a look when one is due and the node is open for writes; never waits. */
  look(open: boolean): void;
  /** Null: not open, or no look has ended yet. */
  current(): WriteHealth | null;
  /** What was found stays after the node was closed, until another look at the disk (begun at `lookedAt`) can tell. */
  problems(lookedAt: MonoMs | null): readonly NodeProblem[];
  close(): void;
}

export interface OwnWritesDoors {
  readonly open: () => Promise<Sql>;
}

export interface OwnWritesOptions {
  readonly instance: Pick<Instance, 'socketDirectory' | 'port'>;
  readonly node: NodeId;
  readonly clock: Pick<Clock, 'now' | 'sleep'>;
  readonly log: Logger;
  /** The finding changed. */
  readonly onChange: () => void;
  readonly doors?: OwnWritesDoors;
}

interface Failing {
  readonly kind: 'refused' | 'stuck';
  readonly code: DiskProblem;
  readonly since: MonoMs;
  readonly detail: string;
}
type Finding = { readonly kind: 'ok' } | Failing;

export function createOwnWrites(options: OwnWritesOptions): OwnWrites {
  const { clock } = options;
  const open = options.doors?.open ?? (() => openOwn(options));
  const pending: PendingWrites = createPendingWrites(clock);
  let finding: Finding | null = null;
  let kept: Sql | null = null;
  let looking = false;
  let lastAt = -Infinity;
  let active = false;
  let left: { readonly finding: Failing; readonly at: MonoMs } | null = null;

  const settle = (next: Finding): void => {
    if (!active) return;
    const before = finding;
    finding = next.kind !== 'ok' && before !== null && before.kind !== 'ok' ? { ...next, since: before.since } : next;
    if (before?.kind === next.kind) return;
    if (next.kind !== 'ok') options.log.warn({ code: next.code }, `a write on this node is ${next.kind}: ${next.detail}`);
    else if (before !== null) options.log.info({}, 'writes here are taken again');
    options.onChange();
  };

  async function lookOnce(): Promise<void> {
    const startedAt = clock.now().mono;
    const waiting = pending.since();
    if (!pending.mayWrite()) return settle(await stuck(waiting ?? startedAt));
    let sql: Sql;
    try {
      sql = kept?.isOpen() === true ? kept : await open();
    } catch (cause) {
      // Who cannot log in learns nothing of the disk; whether the server answers at all is the observer's matter.
      options.log.debug({ cause: describeSqlError(cause) }, 'no connection for a look at the own writes');
      return;
    }
    kept = null;
    const sentAt = clock.now().mono;
    const answer = sql.query(heartbeatOf(options.node));
    const seen = await within(answer);
    if (seen === 'late') {
      pending.leave(sql, sentAt, answer);
      return settle(await stuck(sentAt));
    }
    if (sql.isOpen()) kept = sql;
    if (seen === 'done') return settle({ kind: 'ok' });
    const refused = diskErrorOf(seen.cause);
    // Any other error says that the server lives and minds something else.
    settle(refused === null ? { kind: 'ok' } : { kind: 'refused', code: refused, since: sentAt, detail: describeSqlError(seen.cause) });
  }

  async function within(answer: Promise<unknown>): Promise<'done' | 'late' | { readonly cause: unknown }> {
    const limit = new AbortController();
    try {
      return await Promise.race([
        answer.then(
          () => 'done' as const,
          (cause: unknown) => ({ cause }),
        ),
        clock.sleep(LIMIT_MS, limit.signal).then(() => 'late' as const),
      ]);
    } finally {
      limit.abort(ANSWERED);
    }
  }

  /** A write that waits for a lock of somebody's says nothing of the disk. */
  async function stuck(since: MonoMs): Promise<Finding> {
    const waits = await whatItWaitsFor();
    if (waits?.startsWith('Lock/') === true) return { kind: 'ok' };
    return { kind: 'stuck', code: 'disk.stuck', since, detail: waits === null ? 'it does not answer' : `it waits for ${waits}` };
  }

  async function whatItWaitsFor(): Promise<string | null> {
    let sql: Sql | null = null;
    try {
      sql = await open();
      const answer = sql.query(WAITS);
      const seen = await within(answer);
      if (seen !== 'done') {
        sql.destroy();
        return null;
      }
      const [row] = await answer;
      return typeof row?.['waits'] === 'string' ? row['waits'] : null;
    } catch {
      // It is only for the words of a finding that stands without them.
      return null;
    } finally {
      sql?.close();
    }
  }

  return {
    look: (isOpen) => {
      active = isOpen;
      if (!isOpen) {
        if (finding !== null && finding.kind !== 'ok') left = { finding, at: clock.now().mono };
        finding = null;
        kept?.close();
        kept = null;
        return;
      }
      const every = finding === null || finding.kind === 'ok' ? HEALTHY_EVERY_MS : UNWELL_EVERY_MS;
      if (looking || clock.now().mono - lastAt < every - 50) return;
      lastAt = clock.now().mono;
      looking = true;
      lookOnce()
        .catch((cause: unknown) => options.log.debug({ cause: String(cause) }, 'a look at the own writes broke'))
        .finally(() => {
          looking = false;
        });
    },
    current: () => {
      if (finding === null) return null;
      if (finding.kind === 'ok') return { state: 'ok', forMs: 0, detail: '' };
      return { state: finding.kind, forMs: Math.max(0, Math.round(clock.now().mono - finding.since)), detail: finding.detail };
    },
    problems: (lookedAt) => {
      if (left !== null && (active || (lookedAt !== null && lookedAt > left.at))) left = null;
      const known = finding ?? left?.finding ?? null;
      if (known === null || known.kind === 'ok' || clock.now().mono - known.since < TOLD_AFTER_MS) return [];
      return [describeDiskProblem(known.code, `${known.kind === 'stuck' ? 'no write is answered; ' : ''}${known.detail}`)];
    },
    close: () => {
      kept?.close();
      pending.close();
    },
  };
}

/** A reason of our own: without one, each answered look would build an error with its stack. */
const ANSWERED = Symbol('answered');

/** What our own heartbeat waits for; of several, the one that began first. Source: PostgreSQL manual 28.2.3, wait events. */
const WAITS = `SELECT wait_event_type || '/' || wait_event AS waits FROM pg_stat_activity
  WHERE application_name = 'pgherd_writes' AND state = 'active' AND wait_event IS NOT NULL ORDER BY query_start LIMIT 1`;

function openOwn({ instance }: OwnWritesOptions): Promise<Sql> {
  return openSql(localTarget(instance, HEARTBEAT_DATABASE), { connectMs: LIMIT_MS, statementMs: STATEMENT_MS }, { applicationName: 'pgherd_writes' });
}

/**
 * What an error says of the disk; null: nothing. *Source:* PostgreSQL src/backend/utils/error/elog.c, errcode_for_file_access: ENOSPC is 53100 disk_full,
 * EIO is 58030 io_error, EROFS is 42501 as EACCES is; only the text tells those two apart, which comes from the C library in the server's language.
 */
export function diskErrorOf(cause: unknown): DiskProblem | null {
  switch (sqlStateOf(cause)) {
    case '53100':
      return 'disk.full';
    case '58030':
      return 'disk.error';
    case '42501':
      return /could not (?:open|write|extend|create|fsync)/i.test(describeSqlError(cause)) ? 'disk.read-only' : null;
    default:
      return null;
  }
}
