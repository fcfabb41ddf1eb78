/** Takes a diverged directory back onto its primary's history by pg_rewind, after keeping what only it has. */
import { readdir, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { monoMs, realClock } from '../../base/clock.ts';
import { runProcess } from '../../base/process.ts';
import { type Timeline, makeTimeline } from '../../core/ids.ts';
import { compareLineage, isContained } from '../../core/cluster/lineage.ts';
import type { Lsn } from '../../core/lsn.ts';
import type { Fork } from '../../core/report.ts';
import { type Failure, type Result, err, ok } from '../../core/result.ts';
import { type Lineage, relate } from '../../core/timeline.ts';
import { type Endpoint, upstreamConninfo } from './conninfo.ts';
import { isCleanlyShutDown, readControlData } from './control-data.ts';
import { clearIncomplete, directoryState, ensureStandbySignal, markIncomplete } from './data-directory.ts';
import { archiveRest, waitingForArchive } from './archive-rest.ts';
import { type DivergedSummary, saveDiverged } from './diverged.ts';
import { cancelled, errnoOf, failure, lastLines, messageOf, processTrouble } from './failure.ts';
import { clearUpstream, setUpstream } from './follow.ts';
import { renameDirectory } from './incarnation.ts';
import { type Instance, asOsUser, binary } from './instance.ts';
import { type ManagedSettings, writeManagedFiles } from './managed-files.ts';
import { findProcesses } from './postmaster.ts';
import { type SqlTarget, sqlStateOf, withLocalSql, withSql } from './sql.ts';
import { startPostgres } from './start.ts';
import { stopPostgres } from './stop.ts';
import { parseHistory } from './timeline-history.ts';
import { readTablespaces, tablespaceLinks } from './tablespaces.ts';
import { memberTarget } from './upstream-sql.ts';
import { readWalEnd } from './wal-end.ts';
import { fillHistories } from './skipped-timelines.ts';

export interface RewindOptions {
  readonly upstream: Endpoint;
  readonly settings: ManagedSettings;
  /** Copies of diverged WAL that stay; at least one. */
  readonly keepSaved: number;
  readonly signal?: AbortSignal;
  readonly onProgress?: (progress: { readonly doneBytes: number; readonly totalBytes: number | null }) => void;
  readonly applicationName?: string;
}

export interface Rewound {
  /** All of its WAL is the source's: the pages stayed as they are. */
  readonly contained: boolean;
  /** Where the diverged WAL and its summary lie; null: nothing of ours was lost. */
  readonly divergedPath: string | null;
  readonly summary: DivergedSummary | null;
  /** Segments that nobody archived and that are gone with the rewind; usually none. */
  readonly unarchived: readonly string[];
  readonly durationMs: number;
}

/** Copies changed blocks only, yet a large directory with many changes takes long; cancelled by its signal. */
const REWIND_LIMIT_MS = 6 * 3_600_000;
/** The new primary's checkpoint, which it was asked for when it was promoted. */
const CHECKPOINT_WAIT_MS = 30_000;

/**
 * Order: source checked → own directory brought to a clean stop, reachable over the private socket only → diverged part kept → marker → pg_rewind →
 * managed files, upstream, slots, standby.signal → marker removed. The server is left stopped.
 * Errors: `rewind.running`, `rewind.incomplete`, `rewind.source-unreachable`, `rewind.source-in-recovery`, `rewind.wrong-system`,
 * `rewind.tablespaces` (the source has one that this directory lacks: only a clone helps),
 * `rewind.timeout` (checkpoint of the source's timeline; may be tried again), `rewind.recovery` (our directory does not recover),
 * `diverged.not-saved`, `rewind.no-wal`, `rewind.failed` (before anything was changed), `rewind.damaged` (in the middle: only a clone helps; Z48).
 */
export async function rewindTo(instance: Instance, options: RewindOptions): Promise<Result<Rewound, Failure>> {
  const startedAt = monoMs();
  const state = await directoryState(instance);
  if (state !== 'data')
    return err(
      failure(
        'rewind.incomplete',
        `${instance.dataDirectory} cannot be rewound`,
        `the directory is ${state}`,
        'nothing was changed',
        'take the node back by a clone',
        false,
      ),
    );
  if (findProcesses(instance.dataDirectory).length > 0)
    return err(
      failure(
        'rewind.running',
        `${instance.node} cannot be rewound`,
        'a process works in its data directory',
        'nothing was changed',
        'stop PostgreSQL first',
        true,
      ),
    );
  const source = await checkSource(instance, options);
  if (!source.ok) return source;
  const kept = await recoverAndKeep(instance, source.value, options);
  if (!kept.ok) return kept;
  const { contained, unarchived } = kept.value;
  // Its WAL is the source's, so its pages are too. pg_rewind would look at the timelines of the last checkpoints alone, and rewind to before them.
  const rewound = contained ? ok(null) : await runRewind(instance, options);
  if (!rewound.ok) return rewound;
  const finished = await finishRewind(instance, options);
  if (!finished.ok) return finished;
  if (kept.value.diverged !== null) await pruneDiverged(instance, Math.max(1, options.keepSaved));
  const { path = null, summary = null } = kept.value.diverged ?? {};
  return ok({ contained, divergedPath: path, summary, unarchived, durationMs: monoMs() - startedAt });
}

async function checkSource(instance: Instance, options: RewindOptions): Promise<Result<Lineage, Failure>> {
  const target = await memberTarget(instance, options.upstream, 'replication');
  const where = `${options.upstream.host}:${options.upstream.port}`;
  const unreachable = (cause: Failure): Failure =>
    cause.code === 'postgres.cancelled'
      ? cause
      : failure('rewind.source-unreachable', `the source ${where} does not answer`, cause.cause, 'nothing was changed; it is tried again', '', true);
  const identity = await withSql(target, { ...options, replication: true }, async (sql) => {
    const [row] = await sql.query('IDENTIFY_SYSTEM');
    const timeline = makeTimeline(Number(row?.['timeline']));
    const file = timeline === 1 ? [] : await sql.query(`TIMELINE_HISTORY ${timeline}`);
    return { system: String(row?.['systemid']), timeline, history: timeline === 1 ? '' : String(file[0]?.['content'] ?? '') };
  });
  if (!identity.ok) return err(unreachable(identity.error));
  const control = await readControlData(instance);
  if (!control.ok) return control;
  if (control.value.systemIdentifier !== identity.value.system)
    return err(
      failure(
        'rewind.wrong-system',
        `${where} is another database cluster`,
        `system identifier ${identity.value.system} instead of ${control.value.systemIdentifier}`,
        'nothing was changed',
        'check the address',
        false,
      ),
    );
  const history = parseHistory(identity.value.history);
  if (history === null)
    return err(
      failure(
        'rewind.failed',
        `the timeline history of ${where} is not understood`,
        '',
        'nothing was changed',
        'take the node back by a clone',
        false,
      ),
    );
  const missing = await missingTablespaces(instance, target, options);
  if (!missing.ok) return err(unreachable(missing.error));
  if (missing.value.length > 0)
    return err(
      failure(
        'rewind.tablespaces',
        `${instance.node} cannot be rewound`,
        `it does not have the tablespaces that ${where} has in ${missing.value.join(', ')}`,
        'nothing was changed; it is cloned instead, which finds a place for them',
        '',
        false,
      ),
    );
  const ready = await waitCheckpoint(target, identity.value.timeline, where, options);
  return ready === null ? ok({ timeline: identity.value.timeline, history }) : err(ready);
}

/**
 * Tablespaces of the source that this directory has no link for. pg_rewind would make the source's own link here: on one host that is the source's
 * directory, on another one that need not be there. *Source:* PostgreSQL, src/bin/pg_rewind/filemap.c, FILE_TYPE_SYMLINK.
 */
async function missingTablespaces(instance: Instance, target: SqlTarget, options: RewindOptions): Promise<Result<readonly string[], Failure>> {
  const links = await tablespaceLinks(instance.dataDirectory);
  const there = await withSql(target, options, readTablespaces);
  return there.ok ? ok(there.value.filter((one) => !links.has(one.oid)).map((one) => one.location)) : there;
}

/** pg_rewind reads the source's pg_control: before its first checkpoint of the new timeline it would find nothing to do (Z42, Z50). */
async function waitCheckpoint(target: SqlTarget, timeline: Timeline, where: string, options: RewindOptions): Promise<Failure | null> {
  const deadline = monoMs() + CHECKPOINT_WAIT_MS;
  for (let asked = false; ; ) {
    const answer = await withSql(target, { ...options, limits: { connectMs: 2000, statementMs: CHECKPOINT_WAIT_MS } }, async (sql) => {
      const [row] = await sql.query('SELECT pg_is_in_recovery() AS recovery, (SELECT timeline_id FROM pg_control_checkpoint()) AS timeline');
      if (row?.['recovery'] !== false || Number(row['timeline']) >= timeline || asked) return row;
      asked = true;
      await sql.query('CHECKPOINT').catch((cause: unknown) => {
        // Below 15 only superusers may; the source's own agent asked for one when it promoted.
        if (sqlStateOf(cause) !== '42501') throw cause;
      });
      return row;
    });
    if (!answer.ok)
      return answer.error.code === 'postgres.cancelled'
        ? answer.error
        : failure(
            'rewind.source-unreachable',
            `the source ${where} does not answer`,
            answer.error.cause,
            'nothing was changed; it is tried again',
            '',
            true,
          );
    if (answer.value?.['recovery'] !== false)
      return failure('rewind.source-in-recovery', `${where} is no primary`, 'it is in recovery', 'nothing was changed; it is tried again', '', true);
    if (Number(answer.value['timeline']) >= timeline) return null;
    if (options.signal?.aborted === true) return cancelled('rewind');
    if (monoMs() > deadline)
      return failure(
        'rewind.timeout',
        `${where} has no checkpoint on timeline ${timeline} yet`,
        `waited ${CHECKPOINT_WAIT_MS} ms`,
        'nothing was changed; it is tried again',
        'run CHECKPOINT there',
        true,
      );
    await realClock.sleep(100);
  }
}

/**
 * pg_rewind wants a cleanly stopped target. A standby start without an upstream, on the private socket only, recovers a crash without
 * writing WAL of its own, and lets us ask for the names of the tables in the diverged part; then it is stopped.
 */
async function recoverAndKeep(instance: Instance, source: Lineage, options: RewindOptions): Promise<Result<Kept, Failure>> {
  const before = await readWalEnd(instance, options);
  if (!before.ok) return before;
  const control = await readControlData(instance);
  if (!control.ok) return control;
  const contained = isContained(compareLineage(before.value, before.value.history, source));
  // pg_rewind compares timeline numbers: of two timelines with one number it sees one, changes nothing and reports success (Z53).
  if (before.value.timeline === source.timeline && !contained) {
    return err(
      failure(
        'rewind.same-timeline',
        `${instance.node} cannot be rewound`,
        `its timeline ${source.timeline} has another history than the source's of the same number`,
        'nothing was changed',
        'take the node back by a clone, which keeps this directory aside',
        false,
      ),
    );
  }
  if (contained && isCleanlyShutDown(control.value)) return ok({ contained: true, diverged: null, unarchived: [] });
  const waiting = await waitingForArchive(instance);
  const cleared = await clearUpstream(instance, options);
  if (!cleared.ok) return cleared;
  const started = await startPostgres(instance, {
    mode: 'standby',
    reach: 'private',
    // Only where the checkpoint is on our newest timeline: else its end would not be recovered.
    along: control.value.timeline === before.value.timeline ? 'checkpoint' : 'newest',
    ...(waiting.length === 0 ? {} : { archive: 'always' as const }),
    ...(options.signal === undefined ? {} : { signal: options.signal }),
  });
  const kept =
    started.ok && !contained
      ? await keepDiverged(instance, { ...before.value, segmentBytes: control.value.segmentBytes }, { source, signal: options.signal ?? null })
      : ok(null);
  const unarchived = started.ok ? await archiveRest(instance, { signal: options.signal ?? null }) : waiting;
  const stopped = await stopPostgres(instance, {});
  if (!started.ok)
    return err(
      failure(
        'rewind.recovery',
        `${instance.node} does not recover, which a rewind needs`,
        started.error.cause,
        'the directory is unchanged',
        'take the node back by a clone',
        false,
      ),
    );
  if (!stopped.ok) return stopped;
  const blind = contained ? null : await blindSpot(instance, before.value.timeline);
  if (blind !== null) return err(blind);
  return kept.ok ? ok({ contained, diverged: kept.value, unarchived }) : kept;
}

interface Kept {
  /** Nothing of its WAL is past the source's history: it needs no rewind, only to stream. */
  readonly contained: boolean;
  /** Null: nothing of ours was lost. */
  readonly diverged: { readonly path: string; readonly summary: DivergedSummary } | null;
  readonly unarchived: readonly string[];
}

/**
 * pg_rewind below 16 takes the target's timeline from its last checkpoint alone. Of a server that was promoted and ended before its first checkpoint
 * it sees nothing of the new timeline: it finds the source's number and changes nothing, or leaves the blocks alone that were changed since.
 * *Source:* PostgreSQL, src/bin/pg_rewind/pg_rewind.c (ControlFile_target.checkPointCopy.ThisTimeLineID); mended in 16.
 */
async function blindSpot(instance: Instance, timeline: Timeline): Promise<Failure | null> {
  const control = await readControlData(instance);
  if (!control.ok) return control.error;
  if (timeline === control.value.timeline) return null;
  return failure(
    'rewind.no-checkpoint',
    `${instance.node} cannot be rewound`,
    `its WAL is on timeline ${timeline}, but its last checkpoint is on ${control.value.timeline}, and pg_rewind would see no further`,
    'nothing was changed',
    'take the node back by a clone, which keeps this directory aside',
    false,
  );
}

type OwnEnd = {
  readonly timeline: Timeline;
  readonly lsn: Lsn;
  readonly history: readonly Fork[];
  readonly segmentBytes: number;
};

async function keepDiverged(
  instance: Instance,
  own: OwnEnd,
  { source, signal }: { source: Lineage; signal: AbortSignal | null },
): Promise<Result<{ readonly path: string; readonly summary: DivergedSummary } | null, Failure>> {
  const fork = forkPoint(own, source);
  if (fork === null)
    return err(
      failure(
        'rewind.no-common-history',
        `${instance.node} and its primary have no common timeline`,
        `ours is ${own.timeline}`,
        'the directory is unchanged',
        'take the node back by a clone; the old directory is kept',
        false,
      ),
    );
  const names = await filenodeNames(instance);
  return saveDiverged(
    instance,
    { timeline: own.timeline, from: fork, to: own.lsn, segmentBytes: own.segmentBytes },
    { nameOf: names, ...(signal === null ? {} : { signal }) },
  );
}

/** The last position that our WAL has in common with the source's history; null: nothing in common is known. */
export function forkPoint(own: Pick<OwnEnd, 'timeline' | 'lsn' | 'history'>, source: Lineage): Lsn | null {
  const relation = relate(own, source);
  if (relation.kind === 'unknown') return null;
  return relation.kind === 'same' ? own.lsn : relation.forkLsn;
}

/** `spc/db/filenode` → `database.schema.table`, asked of the running directory itself; unknown ones keep their numbers. */
async function filenodeNames(instance: Instance): Promise<(relation: string) => Promise<string>> {
  const databases = await withLocalSql(instance, {}, (sql) => sql.query('SELECT oid::int8::text AS oid, datname, datallowconn FROM pg_database'));
  const byOid = new Map((databases.ok ? databases.value : []).map((row) => [String(row['oid']), row] as const));
  const cache = new Map<string, Map<string, string>>();
  return async (relation) => {
    const [, database = '0', filenode = ''] = relation.split('/');
    const row = byOid.get(database) ?? (database === '0' ? byOid.values().next().value : undefined);
    if (row === undefined || row['datallowconn'] !== true) return relation;
    let names = cache.get(database);
    if (names === undefined) {
      const found = await withLocalSql(instance, { database: String(row['datname']) }, (sql) =>
        sql.query(
          'SELECT pg_relation_filenode(c.oid)::text AS node, n.nspname, c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE pg_relation_filenode(c.oid) IS NOT NULL LIMIT 200000',
        ),
      );
      names = new Map(
        (found.ok ? found.value : []).map((one) => [
          String(one['node']),
          `${String(row['datname'])}.${String(one['nspname'])}.${String(one['relname'])}`,
        ]),
      );
      cache.set(database, names);
    }
    return names.get(filenode) ?? relation;
  };
}

async function runRewind(instance: Instance, options: RewindOptions): Promise<Result<null, Failure>> {
  try {
    await markIncomplete(instance, 'rewind');
  } catch (cause) {
    return err(
      failure('rewind.failed', `${instance.node} cannot be rewound`, messageOf(cause), 'the directory is unchanged', 'check the disk', true),
    );
  }
  let touching = false;
  const result = await runProcess(
    [
      binary(instance, 'pg_rewind'),
      '-D',
      instance.dataDirectory,
      '--progress',
      '--no-ensure-shutdown',
      // Its list of files is one query whose estimated cost makes the server compile it, for half a second, to run it for ten milliseconds.
      `--source-server=${upstreamConninfo(instance, options.upstream, { ...options, database: 'postgres', session: '-c jit=off' })}`,
    ],
    {
      ...asOsUser(instance),
      timeoutMs: REWIND_LIMIT_MS,
      ...(options.signal === undefined ? {} : { signal: options.signal }),
      onStderrLine: (line) => {
        // From here on blocks of the target are replaced. Source: pg_rewind.c, main.
        if (/need to copy/.test(line)) touching = true;
        const match = /(\d+)\/(\d+) kB/.exec(line);
        if (match !== null) options.onProgress?.({ doneBytes: Number(match[1]) * 1024, totalBytes: Number(match[2]) * 1024 });
      },
    },
  );
  const trouble = processTrouble(result);
  if (trouble === null) return ok(null);
  if (touching)
    return err(
      failure(
        'rewind.damaged',
        `the rewind of ${instance.node} broke off in the middle`,
        trouble,
        'the directory stays marked and is never started',
        'it must be cloned (the old directory is set aside first)',
        false,
      ),
    );
  await clearIncomplete(instance);
  if (!result.ok && result.error.kind === 'aborted') return err(cancelled(`rewind of ${instance.node}`));
  const noWal = result.ok && /could not (find|open) .*(previous WAL|file ".*pg_wal)/i.test(result.value.stderr);
  return err(
    failure(
      noWal ? 'rewind.no-wal' : 'rewind.failed',
      `pg_rewind of ${instance.node} failed`,
      result.ok ? `exit code ${result.value.exitCode}: ${lastLines(result.value.stderr, 5)}` : trouble,
      'the directory is unchanged',
      'take the node back by a clone',
      false,
    ),
  );
}

/** pg_rewind brings the source's configuration files, and leaves our old slots, which would hold WAL and xmin (Q42, Z67). */
async function finishRewind(instance: Instance, options: RewindOptions): Promise<Result<null, Failure>> {
  try {
    await ensureStandbySignal(instance);
    await removeOwnSlots(instance);
    await fillHistories(instance);
  } catch (cause) {
    return err(
      failure(
        'rewind.damaged',
        `cannot finish the rewind of ${instance.node}`,
        messageOf(cause),
        'it is not started',
        'check the disk; then clone',
        false,
      ),
    );
  }
  const managed = await writeManagedFiles(instance, options.settings);
  if (!managed.ok) return managed;
  const named = await renameDirectory(instance);
  if (!named.ok) return named;
  const upstream = await setUpstream(instance, options.upstream, options);
  if (!upstream.ok) return upstream;
  await clearIncomplete(instance);
  return ok(null);
}

async function removeOwnSlots(instance: Instance): Promise<void> {
  const directory = join(instance.dataDirectory, 'pg_replslot');
  for (const name of await namesIn(directory)) if (name.startsWith('pgherd_')) await rm(join(directory, name), { recursive: true, force: true });
}

async function pruneDiverged(instance: Instance, keep: number): Promise<void> {
  const directory = join(instance.stateDirectory, 'diverged');
  const names = (await namesIn(directory)).filter((name) => /^\d{4}-\d\d-\d\dT\d{6}-\d{3}Z$/.test(name)).sort();
  for (const name of names.slice(0, Math.max(0, names.length - keep))) await rm(join(directory, name), { recursive: true, force: true });
}

async function namesIn(directory: string): Promise<readonly string[]> {
  try {
    return await readdir(directory);
  } catch (cause) {
    if (errnoOf(cause) === 'ENOENT') return [];
    throw cause;
  }
}
