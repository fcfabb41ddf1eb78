/** What this node's PostgreSQL is right now. One kept connection; a stopped directory is read from its files. */
import { WAITS_FOR_DELAY } from './apply-delay.ts';
import { statSync } from 'node:fs';
import { join } from 'node:path';
import { monoMs } from '../../base/clock.ts';
import { type NodeId, type Timeline, makeTimeline, makeWallMs } from '../../core/ids.ts';
import { type Lsn, parseLsn } from '../../core/lsn.ts';
import type { Fork, PostgresReport, Walsender } from '../../core/report.ts';
import { type ControlData, isCleanlyShutDown, readControlData } from './control-data.ts';
import { ok } from '../../core/result.ts';
import { nodeOfApplicationName } from './conninfo.ts';
import { directoryState } from './data-directory.ts';
import { errnoOf } from './failure.ts';
import { nodeOfVoter } from '../../core/cluster/sync-set.ts';
import { readIncarnation } from './incarnation.ts';
import { type Instance, ROLES } from './instance.ts';
import { type Postmaster, createServerFinder } from './postmaster.ts';
import { replayTimeline } from './replay-timeline.ts';
import { SLOTS_QUERY, type SlotInfo, slotInfos } from './slots.ts';
import { createStartProgress, readStartProgress } from './start-progress.ts';
import { type Row, type Sql, describeSqlError, localTarget, openSql, sqlStateOf } from './sql.ts';
import { createHistoryReader, listHistoryTimelines } from './timeline-history.ts';
import { type WalEnd, readWalEnd } from './wal-end.ts';

export interface MemberAddress {
  readonly id: NodeId;
  readonly host: string;
  readonly internalHost: string | null;
  readonly port: number;
}

export interface ObserverOptions {
  /** To name the upstream by its address. */
  readonly members: () => readonly MemberAddress[];
  /** A clone or rewind is under way: the files tell nothing while it runs. */
  readonly busy?: () => 'cloning' | 'rewinding' | null;
  /** The kept connection ended, for whatever reason: the postmaster may be gone. */
  readonly onConnectionEnd?: () => void;
  /** Limit of one look; default 700 ms. Two failed looks in a row, each with a fresh connection, make `hung`. */
  readonly limitMs?: number;
}

export interface Observer {
  /** Never rejects and takes at most about 2 × limit; concurrent calls share one look. */
  observe(): Promise<PostgresReport>;
  /** Slots as of the newest look at a running server; empty otherwise. */
  slots(): readonly SlotInfo[];
  /** Why the newest look at a living server failed; null when it did not. */
  trouble(): string | null;
  close(): void;
}

/** One look: one statement, one row, one column: to take a row of 14 columns apart costs the agent three times as much as to read the text. */
const LOOK = `SELECT row_to_json(look) AS look FROM (SELECT pg_is_in_recovery() AS recovery, current_setting('server_version_num')::int AS version,
  CASE WHEN pg_is_in_recovery() THEN NULL ELSE pg_current_wal_flush_lsn() END::text AS flushed,
  CASE WHEN pg_is_in_recovery() THEN NULL ELSE pg_walfile_name(pg_current_wal_insert_lsn()) END AS walfile,
  pg_last_wal_receive_lsn()::text AS received, pg_last_wal_replay_lsn()::text AS replayed,
  (extract(epoch FROM pg_postmaster_start_time()) * 1000)::float8 AS started,
  ${WAITS_FOR_DELAY} AS delayed,
  w.pid AS receiver, w.status, w.sender_host, w.sender_port, w.received_tli,
  (SELECT json_agg(s) FROM (SELECT application_name, usename, state, sent_lsn::text AS sent, write_lsn::text AS write, flush_lsn::text AS flush,
    replay_lsn::text AS replay, (extract(epoch FROM replay_lag) * 1000)::float8 AS lag, sync_state FROM pg_stat_replication LIMIT 100) s) AS senders
  FROM (SELECT 1) one LEFT JOIN pg_stat_wal_receiver w ON true) look`;
const SETTINGS = `SELECT (SELECT system_identifier FROM pg_control_system())::text AS system,
  (SELECT array_agg(name::text) FROM pg_settings WHERE pending_restart) AS pending,
  (SELECT json_object_agg(name, setting::bigint) FROM pg_settings WHERE name IN
    ('max_connections','max_worker_processes','max_wal_senders','max_prepared_transactions','max_locks_per_transaction')) AS minimums,
  (SELECT json_object_agg(s.name, coalesce((SELECT f.setting FROM pg_file_settings f WHERE f.name = s.name ORDER BY f.seqno DESC LIMIT 1), s.boot_val))
    FROM pg_settings s WHERE s.pending_restart AND s.name IN
    ('max_connections','max_worker_processes','max_wal_senders','max_prepared_transactions','max_locks_per_transaction')) AS after_restart,
  json_build_object('maxWalSenders', current_setting('max_wal_senders')::int, 'walSenders', (SELECT count(*) FROM pg_stat_replication),
    'maxSlots', current_setting('max_replication_slots')::int, 'slots', (SELECT count(*) FROM pg_replication_slots)) AS replication`;

/** Settings and slots are looked at every so many ms: they cost more than the look itself (pg_settings has 350 rows). */
const SLOW_LOOK_MS = 5000;

interface Slow {
  readonly at: number;
  readonly pid: number;
  readonly row: Row;
}

/** Of a node without a data directory; the base that every look fills in. */
export const EMPTY: PostgresReport = {
  state: 'absent',
  role: null,
  systemIdentifier: null,
  version: null,
  timeline: null,
  history: [],
  flushLsn: null,
  receivedLsn: null,
  replayedLsn: null,
  walEnd: null,
  cleanShutdown: false,
  shutdownLsn: null,
  streamingFrom: null,
  waitsForDelay: false,
  walsenders: [],
  pendingRestart: [],
  postmasterPid: null,
  startedAt: null,
  minimums: {},
  minimumsAfterRestart: {},
  replication: null,
  stalledMs: null,
  incarnation: null,
};

export function createObserver(instance: Instance, options: ObserverOptions): Observer {
  const limitMs = options.limitMs ?? 700;
  const findNow = createServerFinder(instance.dataDirectory);
  let sql: Sql | null = null;
  let sqlPid = 0;
  let slow: Slow | null = null;
  let slots: readonly SlotInfo[] = [];
  let failures = 0;
  let trouble: string | null = null;
  let last: PostgresReport | null = null;
  let running: Promise<PostgresReport> | null = null;
  let standbyTimeline: { readonly pid: number; readonly key: string; readonly timeline: Timeline } | null = null;
  const history = createHistoryReader(instance.dataDirectory);
  /** Of a running primary: everything before it is in its files. */
  let flushed: { readonly timeline: Timeline; readonly lsn: Lsn } | null = null;
  const files = createFileReader(instance, () => flushed);

  const drop = (): void => {
    sql?.destroy();
    sql = null;
  };
  const connection = async (pid: number): Promise<Sql> => {
    if (sql?.isOpen() === true && sqlPid === pid) return sql;
    drop();
    sql = await openSql(
      localTarget(instance),
      { connectMs: limitMs, statementMs: limitMs },
      options.onConnectionEnd === undefined ? {} : { onEnd: options.onConnectionEnd },
    );
    sqlPid = pid;
    return sql;
  };
  const look = async (pid: number): Promise<Row> => {
    const db = await connection(pid);
    const [answer] = await db.query(LOOK);
    if (slow === null || slow.pid !== pid || monoMs() - slow.at > SLOW_LOOK_MS) {
      const [settings] = await db.query(SETTINGS);
      slow = { at: monoMs(), pid, row: settings ?? {} };
      slots = slotInfos(await db.query(SLOTS_QUERY));
    }
    return (answer?.['look'] ?? {}) as Row;
  };

  /** Z46: asked of the server whenever it could have changed; in steady streaming on the timeline that replay has reached, it cannot. */
  const timelineOf = async (row: Row, pid: number): Promise<Timeline | null> => {
    if (typeof row['walfile'] === 'string') return makeTimeline(Number.parseInt(row['walfile'].slice(0, 8), 16));
    const steady = `${pid}/${String(row['receiver'])}/${String(row['received_tli'])}`;
    if (
      standbyTimeline !== null &&
      row['received_tli'] !== null &&
      standbyTimeline.key === steady &&
      standbyTimeline.timeline === row['received_tli']
    )
      return standbyTimeline.timeline;
    const idle = `${steady}/${String(row['replayed'])}`;
    if (standbyTimeline?.key === idle) return standbyTimeline.timeline;
    // Replay goes over to another timeline only by its history file, which is in pg_wal then; to ask the server costs it a process and a login.
    const known = standbyTimeline?.pid === pid ? standbyTimeline.timeline : null;
    const same = known !== null && !(await hasNewerHistory(instance.dataDirectory, known));
    const answer = same ? ok(known) : await replayTimeline(instance);
    if (!answer.ok) return standbyTimeline?.timeline ?? null;
    standbyTimeline = { pid, key: row['received_tli'] === answer.value ? steady : idle, timeline: answer.value };
    return answer.value;
  };

  /** Of a primary that was seen in production: a shutdown checkpoint in its files can only be that of this stop. */
  const stopping = async (report: PostgresReport): Promise<PostgresReport> => {
    if (report.role !== 'primary' || report.flushLsn === null) return report;
    const control = await files.control();
    if (control?.state !== 'shut down') return report;
    const end = await readWalEnd(instance, { control });
    return end.ok && end.value.shutdownLsn !== null
      ? { ...report, walEnd: end.value.lsn, cleanShutdown: true, shutdownLsn: end.value.shutdownLsn }
      : report;
  };

  const observeRunning = async (postmaster: Postmaster): Promise<PostgresReport> => {
    const partial = {
      ...(last?.postmasterPid === postmaster.pid ? last : EMPTY),
      postmasterPid: postmaster.pid,
      startedAt: postmaster.startedAtSeconds === null ? null : makeWallMs(postmaster.startedAtSeconds * 1000),
    };
    if (postmaster.status === 'starting' || postmaster.status === null)
      return withFileFacts({ ...partial, state: 'starting' }, await files.control());
    if (postmaster.status === 'stopping') return stopping({ ...partial, state: 'stopping', cleanShutdown: false, shutdownLsn: null });
    try {
      const row = await look(postmaster.pid);
      const timeline = await timelineOf(row, postmaster.pid);
      const lsn = lsnOf(row['flushed']);
      flushed = timeline === null || lsn === null ? null : { timeline, lsn };
      failures = 0;
      trouble = null;
      return buildRunning({ row, slow: slow?.row ?? {}, timeline, history: await history(timeline), postmaster, members: options.members() });
    } catch (cause) {
      drop();
      failures++;
      trouble = describeSqlError(cause);
      // Answers like "too many connections" come from a living server. 57P03 says that it starts or stops.
      const state =
        sqlStateOf(cause) === '57P03' ? 'starting' : sqlStateOf(cause) !== null ? 'running' : failures >= 2 ? 'hung' : (last?.state ?? 'starting');
      return { ...partial, state };
    }
  };

  const startProgress = createStartProgress({ read: (pid) => readStartProgress(instance, pid), now: monoMs });

  const observeOnce = async (): Promise<PostgresReport> => {
    const busy = options.busy?.() ?? null;
    if (busy !== null) return { ...EMPTY, state: busy };
    const { postmaster, orphans } = findNow();
    if (postmaster !== null) return observeRunning(postmaster);
    drop();
    failures = 0;
    trouble = null;
    slots = [];
    // Orphans of a killed postmaster can still hold and write files: the directory is not at rest.
    if (orphans.length > 0) return { ...(last ?? EMPTY), state: 'stopping', walsenders: [], streamingFrom: null };
    return files.report();
  };

  return {
    observe: () => {
      running ??= observeOnce()
        .catch((cause: unknown): PostgresReport => {
          trouble = describeSqlError(cause);
          return { ...(last ?? EMPTY), state: 'hung' };
        })
        .then(async (seen) => {
          // A first look that fails knows no role; what the directory was last is better than nothing, so that a healthy standby is not fenced.
          const lives = seen.state === 'running' || seen.state === 'hung' || seen.state === 'stopping' || seen.state === 'starting';
          const named = lives && seen.role === null ? withFileFacts(seen, await files.control()) : seen;
          const report = {
            ...named,
            incarnation: named.role === null ? null : readIncarnation(instance),
            stalledMs: named.state === 'starting' ? await startProgress.stalledMs(named.postmasterPid) : null,
          };
          last = report;
          running = null;
          return report;
        });
      return running;
    },
    slots: () => slots,
    trouble: () => trouble,
    close: drop,
  };
}

interface RunningParts {
  readonly row: Row;
  readonly slow: Row;
  readonly timeline: Timeline | null;
  readonly history: readonly Fork[];
  readonly postmaster: Postmaster;
  readonly members: readonly MemberAddress[];
}

function buildRunning({ row, slow, timeline, history, postmaster, members }: RunningParts): PostgresReport {
  const standby = row['recovery'] === true;
  return {
    ...EMPTY,
    state: 'running',
    role: standby ? 'standby' : 'primary',
    systemIdentifier: typeof slow['system'] === 'string' ? slow['system'] : null,
    version: Number(row['version']),
    timeline,
    history,
    flushLsn: lsnOf(row['flushed']),
    receivedLsn: standby ? lsnOf(row['received']) : null,
    replayedLsn: standby ? lsnOf(row['replayed']) : null,
    streamingFrom: row['status'] === 'streaming' ? memberAt(members, row) : null,
    waitsForDelay: row['delayed'] === true,
    walsenders: readSenders(row['senders'], members),
    pendingRestart: (slow['pending'] ?? []) as readonly string[],
    postmasterPid: postmaster.pid,
    startedAt: makeWallMs(Math.round(Number(row['started']))),
    minimums: (slow['minimums'] ?? {}) as Readonly<Record<string, number>>,
    minimumsAfterRestart: wholeNumbers(slow['after_restart']),
    replication: (slow['replication'] ?? null) as PostgresReport['replication'],
  };
}

/** Values of files are text of any form; one that is no plain number is left out. */
function wholeNumbers(input: unknown): Readonly<Record<string, number>> {
  const entries = Object.entries((input ?? {}) as Readonly<Record<string, unknown>>).map(([name, value]) => [name, Number(value)] as const);
  return Object.fromEntries(entries.filter(([, value]) => Number.isInteger(value)));
}

function lsnOf(value: unknown): Lsn | null {
  return typeof value === 'string' ? parseLsn(value) : null;
}

function memberAt(members: readonly MemberAddress[], row: Row): NodeId | null {
  const found = members.find(
    (member) => member.port === row['sender_port'] && (member.host === row['sender_host'] || member.internalHost === row['sender_host']),
  );
  return found?.id ?? null;
}

/** Foreign walsenders (backup tools, logical subscribers) are left out; their names are not node ids of members. */
function readSenders(input: unknown, members: readonly MemberAddress[]): readonly Walsender[] {
  const found: Walsender[] = [];
  for (const item of (input ?? []) as readonly Row[]) {
    const node = nodeOfApplicationName(String(item['application_name']));
    if (node === null || !members.some((member) => member.id === node)) continue;
    found.push({
      node,
      state: String(item['state']),
      sentLsn: lsnOf(item['sent']),
      writeLsn: lsnOf(item['write']),
      flushLsn: lsnOf(item['flush']),
      replayLsn: lsnOf(item['replay']),
      replayLagMs: typeof item['lag'] === 'number' ? Math.round(item['lag']) : null,
      syncState: String(item['sync_state']),
      voter:
        nodeOfVoter(String(item['application_name'])) === null || item['usename'] !== ROLES.replication ? null : String(item['application_name']),
    });
  }
  return found;
}

/** Of a later timeline than `than`; true when it cannot be told. *Source:* PostgreSQL, src/backend/access/transam/xlogrecovery.c, rescanLatestTimeLine. */
async function hasNewerHistory(dataDirectory: string, than: Timeline): Promise<boolean> {
  try {
    return (await listHistoryTimelines(dataDirectory)).some((timeline) => timeline > than);
  } catch {
    return true;
  }
}

function withFileFacts(report: PostgresReport, control: ControlData | null): PostgresReport {
  if (control === null) return report;
  return {
    ...report,
    systemIdentifier: control.systemIdentifier,
    timeline: report.timeline ?? control.timeline,
    role: report.role ?? roleOf(control),
  };
}

/** What the directory was last. A directory with a backup label was never more than a copy. */
function roleOf(control: ControlData): 'primary' | 'standby' {
  return control.state === 'in archive recovery' || control.state === 'shut down in recovery' || control.backupStartLsn !== null
    ? 'standby'
    : 'primary';
}

interface FileReader {
  control(): Promise<ControlData | null>;
  report(): Promise<PostgresReport>;
}

/** Reads a directory without processes; cached until pg_control or pg_wal change. */
function createFileReader(instance: Instance, lastFlushed: () => { readonly timeline: Timeline; readonly lsn: Lsn } | null): FileReader {
  let cached: { readonly stamp: string; readonly report: PostgresReport } | null = null;
  const control = async (): Promise<ControlData | null> => {
    const result = await readControlData(instance);
    return result.ok ? result.value : null;
  };
  return {
    control,
    report: async () => {
      const state = await directoryState(instance);
      if (state === 'absent') return EMPTY;
      if (state !== 'data') return { ...EMPTY, state: 'incomplete' };
      const stamp = [join('global', 'pg_control'), 'pg_wal', 'backup_label'].map((name) => stampOf(join(instance.dataDirectory, name))).join(' ');
      if (cached?.stamp === stamp) return cached.report;
      const data = await control();
      if (data === null) return { ...EMPTY, state: 'incomplete' };
      const flushed = lastFlushed();
      // Only for the crash of the server that was looked at: a clean stop ends at its checkpoint, and another timeline has another end.
      const isCrash = flushed !== null && data.state === 'in production' && flushed.timeline === data.timeline && flushed.lsn > data.checkpointLsn;
      const end = await readWalEnd(instance, { control: data, ...(isCrash ? { flushed: flushed.lsn } : {}) });
      const report = buildStopped(data, end.ok ? end.value : null, stampOf(join(instance.dataDirectory, 'backup_label')) !== '-');
      if (end.ok) cached = { stamp, report };
      return report;
    },
  };
}

function stampOf(path: string): string {
  try {
    const found = statSync(path, { bigint: true });
    return `${found.ino}/${found.mtimeNs}/${found.size}`;
  } catch (cause) {
    if (errnoOf(cause) === 'ENOENT') return '-';
    throw cause;
  }
}

function buildStopped(control: ControlData, end: WalEnd | null, isFreshCopy: boolean): PostgresReport {
  const clean = isCleanlyShutDown(control) && !isFreshCopy;
  return {
    ...EMPTY,
    state: clean || isFreshCopy ? 'stopped' : 'crashed',
    role: isFreshCopy ? 'standby' : roleOf(control),
    systemIdentifier: control.systemIdentifier,
    timeline: end?.timeline ?? control.timeline,
    history: end?.history ?? [],
    walEnd: end?.lsn ?? null,
    cleanShutdown: clean,
    shutdownLsn: clean ? (end?.shutdownLsn ?? null) : null,
    minimums: control.minimums,
  };
}
