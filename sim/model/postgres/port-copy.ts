/** Base backup and rewind on modelled servers: order, marks and answers of src/agent/postgres/clone.ts and rewind.ts; what pg_rewind believes is what it really reads. */
import { cancelled, failure } from '../../../src/agent/postgres/failure.ts';
import type { Progress, Upstream } from '../../../src/agent/ports.ts';
import { compareLineage, isContained } from '../../../src/core/cluster/lineage.ts';
import { makeTimeline } from '../../../src/core/ids.ts';
import { makeLsn } from '../../../src/core/lsn.ts';
import { type Failure, type Result, err, ok } from '../../../src/core/result.ts';
import { type Core, type Run, isResponsive } from './core.ts';
import { type DataDirectory, copyDirectory, fillHistories, isCleanlyShutDown } from './directory.ts';
import { startServer, stopServer } from './port-life.ts';
import { timelineAtEnd } from './port-observe.ts';
import { type PortContext, canTalk, clearUpstream, reach, setUpstream, slotName } from './port-session.ts';
import { currentTimeline } from './replication.ts';
import type { Server } from './server.ts';
import { type TimelineBranch, type WalRecord, branchOf, forkLsnOf, recordAt } from './wal.ts';

const STEPS = 12;
/** A silent source is given up after this long (tcp_user_timeout). */
const SILENT_MS = 5000;
const CHECKPOINT_WAIT_MS = 30_000;
const BYTES = 40 * 1024 * 1024;

/** Lets a copying tool work for a while; why it broke off, or null. */
async function work(
  context: PortContext,
  source: Core,
  run: Run,
  ms: number,
  signal: AbortSignal,
  onStep: (part: number) => void,
): Promise<string | null> {
  let silent = 0;
  for (let step = 1; step <= STEPS; ) {
    await context.agent.sleep(ms / STEPS, signal);
    if (signal.aborted) return 'aborted';
    if (source.run !== run && canTalk(context.core, source)) return 'server closed the connection unexpectedly';
    if (context.core.disk.full || context.core.disk.readOnly) return 'No space left on device';
    if (source.run !== run || !isResponsive(source) || !source.machine.alive() || !canTalk(context.core, source)) {
      silent += ms / STEPS;
      if (silent > SILENT_MS) return 'could not receive data: Connection timed out';
      continue;
    }
    silent = 0;
    onStep(step / STEPS);
    step++;
  }
  return null;
}

/** As cloneFrom. */
export async function cloneServer(
  context: PortContext,
  options: {
    readonly upstream: Upstream;
    readonly source: Upstream;
    readonly systemIdentifier: string | null;
    readonly keepSaved: number;
    readonly onProgress: (progress: Progress) => void;
  },
  signal: AbortSignal,
): Promise<Result<string, Failure>> {
  const { core } = context;
  const { upstream } = options;
  const source = await reach(context, options.source, signal);
  if (typeof source === 'string')
    return err(failure('postgres.connect', `cannot connect to ${options.source.host}`, source, 'it is tried again', '', true));
  const followed = options.source.node === upstream.node ? source : await reach(context, upstream, signal);
  if (typeof followed === 'string')
    return err(failure('postgres.connect', `cannot connect to ${upstream.host}`, followed, 'it is tried again', '', true));
  const { run } = source.core;
  const theirs = source.disk.directory;
  if (run === null || theirs === null)
    return err(failure('postgres.connect', `cannot connect to ${upstream.host}`, 'ECONNREFUSED', 'it is tried again', '', true));
  if (options.systemIdentifier !== null && options.systemIdentifier !== theirs.systemIdentifier)
    return err(
      failure(
        'clone.wrong-system',
        `${upstream.host} is another database cluster`,
        theirs.systemIdentifier,
        'nothing was changed',
        'check the address of that node',
        false,
      ),
    );
  const broken = (cause: string): Result<never, Failure> =>
    err(
      failure(
        'clone.failed',
        `the base backup from ${upstream.host} failed`,
        cause,
        'the half copy stays marked and is not started; it is tried again',
        'see the cause',
        true,
      ),
    );
  if (core.disk.full || core.disk.readOnly) return broken('no space left on device');
  if (core.run !== null)
    return err(
      failure('set-aside.running', `${core.name} cannot be moved`, 'a process works in it', 'nothing was changed', 'stop PostgreSQL first', true),
    );
  const kept = followed.disk.directory;
  if (kept === null) return err(failure('postgres.connect', `cannot connect to ${upstream.host}`, 'ECONNREFUSED', 'it is tried again', '', true));
  reserveSlot(kept, core.name);
  reserveSlot(theirs, core.name);
  setAside(core, options.keepSaved);
  core.disk.incomplete = 'clone';
  const role = run.role;
  const begun = theirs.durable;
  const trouble = await work(context, source.core, run, core.timings.clone * (0.6 + 0.8 * context.random.next()), signal, (part) =>
    options.onProgress({ doneBytes: Math.round(BYTES * part), totalBytes: BYTES }),
  );
  if (trouble === 'aborted') return err(cancelled(`clone of ${core.name}`));
  if (trouble !== null) return broken(trouble);
  if (run.role !== role) return broken('the standby was promoted during online backup');
  core.disk.directory = backupOf(source, theirs, run, begun);
  fillHistories(core.disk.directory);
  const set = await setUpstream(context, upstream, signal);
  if (!set.ok) return set;
  core.disk.incomplete = null;
  return ok(`${BYTES} bytes from ${options.source.node}`);
}

function setAside(core: Core, keep: number): void {
  const { disk } = core;
  // The remains of a clone hold nothing that is not at the source.
  if (disk.directory !== null && disk.incomplete !== 'clone') {
    disk.saved.push(disk.directory);
    disk.saved.splice(0, disk.saved.length - Math.max(1, keep));
  }
  disk.directory = null;
}

function reserveSlot(theirs: DataDirectory, node: string): void {
  const name = slotName(node);
  if (!theirs.slots.has(name)) theirs.slots.set(name, { name, restartLsn: theirs.checkpoint.lsn, active: false, lost: false });
}

/** What pg_basebackup leaves: consistent once WAL up to the end of the backup was replayed, all of which it has brought. */
function backupOf(source: Server, theirs: DataDirectory, run: Run, begun: WalRecord): DataDirectory {
  const timeline = currentTimeline(source.core, run);
  const end = run.role === 'primary' ? theirs.durable : run.replayed;
  return {
    ...copyDirectory(theirs),
    // *Source:* PostgreSQL manual, pg_basebackup, -X stream: of pg_wal it brings what it streams, and the history of that timeline.
    histories: new Map(timeline.tli === 1 ? [] : [[timeline.tli, timeline]]),
    end,
    durable: end,
    applied: end,
    timeline,
    // Whole segments, from the one in which the backup began.
    oldestLsn: segmentStart(source.core, Math.min(begun.lsn, theirs.checkpoint.lsn)),
    minRecovery: { lsn: end.lsn, tli: end.tli },
    backupLabel: true,
    standbySignal: true,
    managed: null,
  };
}

function segmentStart({ timings }: Core, lsn: number): number {
  return Math.floor(lsn / timings.segmentBytes) * timings.segmentBytes;
}

interface Source {
  readonly server: Server;
  readonly run: Run;
  readonly timeline: TimelineBranch;
}

/** As rewindTo. */
export async function rewindServer(
  context: PortContext,
  options: { readonly upstream: Upstream; readonly keepSaved: number; readonly onProgress: (progress: Progress) => void },
  signal: AbortSignal,
): Promise<Result<string, Failure>> {
  const { core } = context;
  const { directory } = core.disk;
  if (core.disk.incomplete !== null || directory === null)
    return err(
      failure(
        'rewind.incomplete',
        `${core.name} cannot be rewound`,
        'the directory is not complete',
        'nothing was changed',
        'take the node back by a clone',
        false,
      ),
    );
  if (core.run !== null)
    return err(
      failure(
        'rewind.running',
        `${core.name} cannot be rewound`,
        'a process works in its data directory',
        'nothing was changed',
        'stop PostgreSQL first',
        true,
      ),
    );
  const source = await checkSource(context, directory, options.upstream, signal);
  if (!source.ok) return source;
  const kept = await recoverAndKeep(context, directory, source.value, signal);
  if (!kept.ok) return kept;
  const rewound = kept.value.contained ? ok(null) : await runRewind(context, directory, source.value, options, signal);
  if (!rewound.ok) return rewound;
  directory.standbySignal = true;
  fillHistories(directory);
  for (const name of [...directory.slots.keys()]) if (name.startsWith('pgherd_')) directory.slots.delete(name);
  const set = await setUpstream(context, options.upstream, signal);
  if (!set.ok) return set;
  core.disk.incomplete = null;
  return ok(`rewound to ${options.upstream.node}`);
}

async function checkSource(
  context: PortContext,
  directory: DataDirectory,
  upstream: Upstream,
  signal: AbortSignal,
): Promise<Result<Source, Failure>> {
  const { agent } = context;
  const unreachable = (cause: string): Result<never, Failure> =>
    err(
      failure('rewind.source-unreachable', `the source ${upstream.host} does not answer`, cause, 'nothing was changed; it is tried again', '', true),
    );
  const deadline = agent.now() + CHECKPOINT_WAIT_MS;
  let first: TimelineBranch | null = null;
  for (let asked = false; ; ) {
    if (signal.aborted) return err(cancelled('rewind'));
    const server = await reach(context, upstream, signal);
    if (signal.aborted) return err(cancelled('rewind'));
    if (typeof server === 'string') return unreachable(server);
    const { run } = server.core;
    const theirs = server.disk.directory;
    if (run === null || theirs === null) return unreachable('ECONNREFUSED');
    if (theirs.systemIdentifier !== directory.systemIdentifier)
      return err(
        failure(
          'rewind.wrong-system',
          `${upstream.host} is another database cluster`,
          theirs.systemIdentifier,
          'nothing was changed',
          'check the address',
          false,
        ),
      );
    if (run.role !== 'primary')
      return err(
        failure(
          'rewind.source-in-recovery',
          `${upstream.host} is no primary`,
          'it is in recovery',
          'nothing was changed; it is tried again',
          '',
          true,
        ),
      );
    first ??= theirs.timeline;
    // pg_control shows the old timeline until the first checkpoint of the new one (Z42, Z50).
    if (theirs.checkpointTli >= first.tli) return ok({ server, run, timeline: first });
    if (!asked) server.checkpoint(() => undefined);
    asked = true;
    if (agent.now() > deadline)
      return err(
        failure(
          'rewind.timeout',
          `${upstream.host} has no checkpoint on timeline ${first.tli} yet`,
          '',
          'nothing was changed; it is tried again',
          'run CHECKPOINT there',
          true,
        ),
      );
    await agent.sleep(100, signal);
  }
}

async function recoverAndKeep(
  context: PortContext,
  directory: DataDirectory,
  source: Source,
  signal: AbortSignal,
): Promise<Result<{ readonly contained: boolean }, Failure>> {
  const { core } = context;
  const own = timelineAtEnd(directory);
  const position = { timeline: makeTimeline(own.tli), lsn: makeLsn(BigInt(directory.end.lsn)) };
  const lineage = { timeline: makeTimeline(source.timeline.tli), history: source.timeline.history };
  const contained = isContained(compareLineage(position, own.history, lineage));
  if (own.tli === source.timeline.tli && !contained)
    return err(
      failure(
        'rewind.same-timeline',
        `${core.name} cannot be rewound`,
        `two timelines have the number ${own.tli}`,
        'nothing was changed',
        'take the node back by a clone',
        false,
      ),
    );
  if (contained && isCleanlyShutDown(directory)) return ok({ contained: true });
  const cleared = await clearUpstream(context, signal);
  if (!cleared.ok) return cleared;
  const along = own.tli === directory.checkpointTli ? 'checkpoint' : 'newest';
  const started = await startServer(context, { mode: 'standby', reach: 'private', along, mayStart: () => true }, signal);
  if (started.ok && !contained) core.disk.kept.push(directory.end);
  const stopped = await stopServer(context, { from: 'fast', fastMs: 10_000 }, null);
  if (!started.ok)
    return err(
      failure(
        'rewind.recovery',
        `${core.name} does not recover, which a rewind needs`,
        started.error.cause,
        'the directory is unchanged',
        'take the node back by a clone',
        false,
      ),
    );
  if (!stopped.ok) return stopped;
  if (!contained && own.tli !== directory.checkpointTli)
    return err(
      failure(
        'rewind.no-checkpoint',
        `${core.name} cannot be rewound`,
        `its WAL is on timeline ${own.tli}, but its last checkpoint is on ${source.timeline.tli}`,
        'nothing was changed',
        'take the node back by a clone',
        false,
      ),
    );
  return ok({ contained });
}

/** The tool itself. What it compares are the timeline numbers and forks of the two pg_control and history files. */
async function runRewind(
  context: PortContext,
  directory: DataDirectory,
  source: Source,
  options: { readonly onProgress: (progress: Progress) => void },
  signal: AbortSignal,
): Promise<Result<null, Failure>> {
  const { core } = context;
  const theirs = source.server.disk.directory;
  if (core.disk.full || core.disk.readOnly)
    return err(
      failure('rewind.failed', `${core.name} cannot be rewound`, 'no space left on device', 'the directory is unchanged', 'check the disk', true),
    );
  core.disk.incomplete = 'rewind';
  const untouched = (code: string, cause: string): Result<never, Failure> => {
    core.disk.incomplete = null;
    return err(failure(code, `pg_rewind of ${core.name} failed`, cause, 'the directory is unchanged', 'take the node back by a clone', false));
  };
  await context.agent.sleep(40);
  if (signal.aborted) {
    core.disk.incomplete = null;
    return err(cancelled(`rewind of ${core.name}`));
  }
  if (theirs === null || source.server.core.run !== source.run || !canTalk(core, source.server.core))
    return untouched('rewind.failed', 'could not connect to server');
  if (!isCleanlyShutDown(directory)) return untouched('rewind.failed', 'target server must be shut down cleanly');
  if (directory.checkpointTli === theirs.checkpointTli) return ok(null);
  const fork = divergence(directory, theirs);
  if (fork === null) return untouched('rewind.failed', 'could not find common ancestor of the source and target cluster’s timelines');
  if (directory.end.lsn <= fork) return ok(null);
  if (checkpointBefore(directory.end, fork).lsn < directory.oldestLsn) return untouched('rewind.no-wal', 'could not find previous WAL record');
  const trouble = await work(context, source.server.core, source.run, core.timings.rewind * (0.6 + 0.8 * context.random.next()), signal, (part) =>
    options.onProgress({ doneBytes: Math.round((BYTES / 8) * part), totalBytes: BYTES / 8 }),
  );
  if (trouble !== null)
    return err(
      failure(
        'rewind.damaged',
        `the rewind of ${core.name} broke off in the middle`,
        trouble,
        'the directory stays marked and is never started',
        'it must be cloned',
        false,
      ),
    );
  takeOver(directory, theirs);
  return ok(null);
}

/** Where the two lineages part, as pg_rewind finds it; null: no timeline in common. *Source:* pg_rewind.c, findCommonAncestorTimeline. */
function divergence(directory: DataDirectory, theirs: DataDirectory): number | null {
  const own = lineage(branchOf(directory.timeline, directory.checkpointTli) ?? directory.timeline);
  const other = lineage(branchOf(theirs.timeline, theirs.checkpointTli) ?? theirs.timeline);
  let common = -1;
  while (common + 1 < own.length && common + 1 < other.length) {
    const [mine, their] = [own[common + 1] as Piece, other[common + 1] as Piece];
    if (mine.tli !== their.tli || mine.begin !== their.begin) break;
    common++;
  }
  return common < 0 ? null : Math.min((own[common] as Piece).end, (other[common] as Piece).end);
}

interface Piece {
  readonly tli: number;
  readonly begin: number;
  readonly end: number;
}

function lineage(timeline: TimelineBranch): readonly Piece[] {
  const pieces: Piece[] = [];
  for (let at: TimelineBranch | null = timeline; at !== null; at = at.parent)
    pieces.unshift({ tli: at.tli, begin: at.forkLsn, end: forkLsnOf(timeline, at.tli) ?? Number.POSITIVE_INFINITY });
  return pieces;
}

function checkpointBefore(end: WalRecord, lsn: number): WalRecord {
  let at = recordAt(end, lsn);
  while (at.kind !== 'checkpoint' && at.kind !== 'shutdown' && at.prev !== null) at = at.prev;
  return at;
}

/** Blocks, WAL, history files and configuration of the source; pg_control says from where and to where it must recover. */
function takeOver(directory: DataDirectory, theirs: DataDirectory): void {
  // The tool reads which blocks changed from WAL of the timeline that pg_control names; a later one it does not know (below version 16).
  if (directory.applied.tli > directory.checkpointTli)
    directory.corrupt ??= `pg_rewind has not seen what was changed on timeline ${directory.applied.tli}`;
  directory.incarnation = null;
  directory.overwritten = null;
  directory.end = theirs.durable;
  directory.durable = theirs.durable;
  directory.applied = theirs.durable;
  directory.timeline = theirs.timeline;
  for (const [tli, file] of theirs.histories) directory.histories.set(tli, file);
  directory.checkpoint = theirs.checkpoint;
  directory.checkpointTli = theirs.checkpointTli;
  directory.minRecovery = { lsn: theirs.durable.lsn, tli: theirs.durable.tli };
  directory.state = 'in archive recovery';
  directory.backupLabel = true;
  directory.oldestLsn = theirs.oldestLsn;
  directory.settings.clear();
  for (const [name, value] of theirs.settings) directory.settings.set(name, value);
  directory.managed = null;
  directory.corrupt ??= theirs.corrupt;
}
