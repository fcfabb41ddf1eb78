/** What `observe` answers: as src/agent/postgres/observe.ts reads it off a running server or a stopped directory. */
import { EMPTY } from '../../../src/agent/postgres/observe.ts';
import { type NodeId, makeNodeId, makeTimeline, makeWallMs } from '../../../src/core/ids.ts';
import { type Lsn, makeLsn } from '../../../src/core/lsn.ts';
import type { PostgresReport, Walsender } from '../../../src/core/report.ts';
import { internalHost } from '../../../src/core/spec.ts';
import { type Link, type Run, isResponsive } from './core.ts';
import { type DataDirectory, isCleanlyShutDown, lastRole } from './directory.ts';
import type { PortContext } from './port-session.ts';
import { syncConfigOf } from './primary.ts';
import { currentTimeline, streamedBy } from './replication.ts';
import type { TimelineBranch } from './wal.ts';
import { branchOf } from './wal.ts';

export interface ModelObserver {
  observe(): Promise<PostgresReport>;
}

/** One look at a server that does not answer. */
const LIMIT_MS = 700;
export const VERSION = 150018;
const MINIMUMS = { max_connections: 100, max_worker_processes: 8, max_wal_senders: 16, max_prepared_transactions: 0, max_locks_per_transaction: 64 };

export function createModelObserver(context: PortContext, busy: () => 'cloning' | 'rewinding' | null): ModelObserver {
  const { core, agent, random } = context;
  let failures = 0;
  let last: PostgresReport | null = null;
  let running: Promise<PostgresReport> | null = null;

  async function look(): Promise<PostgresReport> {
    const offline = busy();
    if (offline !== null) return { ...EMPTY, state: offline };
    const { run } = core;
    if (run === null) {
      failures = 0;
      return reportFiles(context);
    }
    // Answers are a little old when they arrive.
    const report = isResponsive(core) ? observeRunning(run) : null;
    await agent.sleep(report === null ? LIMIT_MS : 0.3 + random.next());
    if (report !== null) return report;
    if (core.run === run && isResponsive(core)) return observeRunning(run);
    failures++;
    return { ...base(run), state: failures >= 2 ? 'hung' : (last?.state ?? 'starting') };
  }

  function base(run: Run): PostgresReport {
    const known = last?.postmasterPid === run.pid ? last : EMPTY;
    return { ...known, postmasterPid: run.pid, startedAt: makeWallMs(Math.round(run.startedAt)) };
  }

  function observeRunning(run: Run): PostgresReport {
    // A killed postmaster's sessions still live.
    if (core.clock.now() < core.orphansUntil) return { ...(last ?? EMPTY), state: 'stopping', walsenders: [], streamingFrom: null };
    if (run.status === 'starting') return withFileFacts(context, { ...base(run), state: 'starting' });
    if (run.status === 'stopping') return reportStopping(context, run, base(run));
    failures = 0;
    return reportRunning(context, run);
  }

  /** As start-progress.ts counts it: since anything moved in a server that starts, from the first look at it. */
  let still: { readonly pid: number; readonly key: string; readonly at: number } | null = null;
  function stalledMs(): number {
    const { run } = core;
    if (run === null) return 0;
    const works = !run.recovered && !core.disk.stuck && isResponsive(core);
    const key = works ? `at ${agent.now()}` : `${run.role}/${run.recovered}/${run.replayed.lsn}/${run.receiver?.pid ?? ''}`;
    if (still?.pid !== run.pid || still.key !== key) still = { pid: run.pid, key, at: agent.now() };
    return Math.round(agent.now() - still.at);
  }

  return {
    observe: () => {
      running ??= look().then((seen) => {
        const lives = seen.state === 'running' || seen.state === 'hung' || seen.state === 'stopping' || seen.state === 'starting';
        const named = lives && seen.role === null ? withFileFacts(context, seen) : seen;
        const incarnation = core.disk.incomplete === null ? (core.disk.directory?.incarnation ?? null) : null;
        const report = { ...named, incarnation, stalledMs: named.state === 'starting' ? stalledMs() : null };
        last = report;
        running = null;
        return report;
      });
      return running;
    },
  };
}

const lsn = (value: number): Lsn => makeLsn(BigInt(value));

function reportRunning(context: PortContext, run: Run): PostgresReport {
  const { core } = context;
  const directory = core.disk.directory as DataDirectory;
  const standby = run.status === 'standby';
  const timeline = currentTimeline(core, run);
  return {
    ...EMPTY,
    state: 'running',
    role: standby ? 'standby' : 'primary',
    systemIdentifier: directory.systemIdentifier,
    version: VERSION,
    timeline: makeTimeline(timeline.tli),
    history: timeline.history,
    flushLsn: standby ? null : lsn(directory.durable.lsn),
    receivedLsn: standby && run.received ? lsn(directory.end.lsn) : null,
    replayedLsn: standby ? lsn(run.replayed.lsn) : null,
    walEnd: null,
    cleanShutdown: false,
    shutdownLsn: null,
    streamingFrom: standby ? upstreamNode(context, streamedBy(run)) : null,
    walsenders: run.links.size === 0 ? [] : walsendersOf(context, run),
    pendingRestart: [],
    postmasterPid: run.pid,
    startedAt: makeWallMs(Math.round(run.startedAt)),
    minimums: MINIMUMS,
    minimumsAfterRestart: {},
    replication: null,
  };
}

/** As observe.ts: the shutdown checkpoint of a primary that was seen in production. */
function reportStopping(context: PortContext, run: Run, known: PostgresReport): PostgresReport {
  const { directory } = context.core.disk;
  const report: PostgresReport = { ...known, state: 'stopping', cleanShutdown: false, shutdownLsn: null };
  if (report.role !== 'primary' || report.flushLsn === null || run.stopAt === null || directory?.state !== 'shut down') return report;
  return { ...report, walEnd: lsn(directory.end.lsn), cleanShutdown: true, shutdownLsn: lsn(directory.end.lsn) };
}

function upstreamNode(context: PortContext, link: Link | null): NodeId | null {
  if (link === null) return null;
  const { host, port } = link.upstream;
  return context.spec()?.nodes.find((node) => internalHost(node) === host && node.port === port)?.id ?? null;
}

function walsendersOf(context: PortContext, run: Run): readonly Walsender[] {
  const members = context.spec()?.nodes ?? [];
  const config = syncConfigOf(run.loaded);
  const found: Walsender[] = [];
  for (const link of run.links) {
    const node = link.application.split('.')[0] ?? '';
    if (link.senderGone || !members.some((member) => member.id === node)) continue;
    found.push({
      ...voterOf(link),
      node: makeNodeId(node),
      state: link.state,
      sentLsn: link.sent === null ? null : lsn(link.sent.lsn),
      writeLsn: link.flush === null ? null : lsn(link.flush),
      flushLsn: link.flush === null ? null : lsn(link.flush),
      replayLsn: link.flush === null ? null : lsn(link.apply),
      replayLagMs: null,
      syncState:
        link.priority === 0 || config === null
          ? 'async'
          : config.method === 'any'
            ? 'quorum'
            : isChosen(run, link, config.count)
              ? 'sync'
              : 'potential',
    });
  }
  return found;
}

/** The member's data directory as it names itself; null for a name without an incarnation. */
function voterOf({ application }: Link): { readonly voter: string | null } {
  return { voter: application.includes('.') ? application : null };
}

function isChosen(run: Run, own: Link, count: number): boolean {
  const ahead = [...run.links].filter(
    (link) => link.priority > 0 && link.state === 'streaming' && link.flush !== null && link.priority < own.priority,
  );
  return own.state === 'streaming' && ahead.length < count;
}

/** The timeline that owns the end of WAL; exactly at a fork it is the parent. */
export function timelineAtEnd(directory: DataDirectory): TimelineBranch {
  return branchOf(directory.timeline, directory.end.tli) ?? directory.timeline;
}

function withFileFacts(context: PortContext, report: PostgresReport): PostgresReport {
  const { directory } = context.core.disk;
  if (directory === null) return report;
  return {
    ...report,
    systemIdentifier: directory.systemIdentifier,
    timeline: report.timeline ?? makeTimeline(directory.checkpointTli),
    role: report.role ?? lastRole({ ...directory, backupLabel: directory.backupLabel }),
  };
}

function reportFiles(context: PortContext): PostgresReport {
  const { disk } = context.core;
  if (disk.incomplete !== null) return { ...EMPTY, state: 'incomplete' };
  const { directory } = disk;
  if (directory === null) return EMPTY;
  const clean = isCleanlyShutDown(directory) && !directory.backupLabel;
  const timeline = timelineAtEnd(directory);
  return {
    ...EMPTY,
    state: clean || directory.backupLabel ? 'stopped' : 'crashed',
    role: lastRole(directory),
    systemIdentifier: directory.systemIdentifier,
    timeline: makeTimeline(timeline.tli),
    history: timeline.history,
    walEnd: lsn(directory.end.lsn),
    cleanShutdown: clean,
    shutdownLsn: clean && directory.state === 'shut down' ? lsn(directory.end.lsn) : null,
    minimums: MINIMUMS,
    minimumsAfterRestart: {},
    replication: null,
  };
}
