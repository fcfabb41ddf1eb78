/** A new standby from a base backup. An interrupted one is marked and never started (Q23). */
import { rm } from 'node:fs/promises';
import { dirname } from 'node:path';
import { runProcess } from '../../base/process.ts';
import { monoMs, realClock } from '../../base/clock.ts';
import { type Failure, type Result, err, ok } from '../../core/result.ts';
import { slotName } from '../../core/slot-name.ts';
import { type Endpoint, upstreamConninfo } from './conninfo.ts';
import { readControlData } from './control-data.ts';
import { clearIncomplete, ensureStandbySignal, incompleteReason, markIncomplete } from './data-directory.ts';
import { failure, messageOf, processTrouble } from './failure.ts';
import { ensureDirectory } from './files.ts';
import { setUpstream } from './follow.ts';
import { renameDirectory } from './incarnation.ts';
import { type Instance, asOsUser, binary } from './instance.ts';
import { type ManagedSettings, prepareStateDirectory, writeManagedFiles } from './managed-files.ts';
import { findProcesses } from './postmaster.ts';
import { freeBytes, setAside } from './set-aside.ts';
import { ensureSlotOnUpstream } from './slots.ts';
import { endStrayBackups } from './stray-backup.ts';
import { withSql } from './sql.ts';
import {
  type MappedTablespace,
  type Tablespace,
  mappingArguments,
  placeTablespaces,
  readTablespaces,
  sweepTablespaces,
  tablespaceBase,
} from './tablespaces.ts';
import { memberTarget } from './upstream-sql.ts';
import { fillHistories } from './skipped-timelines.ts';

export interface CloneOptions {
  /** Followed after the copy. */
  readonly upstream: Endpoint;
  /** Copied: the upstream itself, or a standby of it. Default: the upstream. */
  readonly source?: Endpoint;
  readonly settings: ManagedSettings;
  /** Must be the source's; null: any (a first clone). */
  readonly systemIdentifier: string | null;
  /** Copies of older directories that stay. */
  readonly keepSaved: number;
  /** Kilobytes a second; null: unlimited. */
  readonly maxRateKb?: number | null;
  readonly signal?: AbortSignal;
  readonly onProgress?: (progress: { readonly doneBytes: number; readonly totalBytes: number | null }) => void;
  readonly applicationName?: string;
}

export interface Cloned {
  readonly systemIdentifier: string;
  /** Where the old data directory lies now; null when there was none. */
  readonly savedPath: string | null;
  readonly bytes: number;
  readonly durationMs: number;
  /** Outside of the data directory; `to` is where each one lies here. */
  readonly tablespaces: readonly MappedTablespace[];
}

/** A clone of terabytes takes long; it is cancelled by its signal, not by a flat limit. */
const CLONE_LIMIT_MS = 2_000_000_000;

/**
 * Sets an existing directory aside, copies the source, and leaves a directory that can be started as a standby of the upstream.
 * Tablespaces lie on the same path as at the source where that is free here, else beside the data directory (tablespaces.ts).
 * Errors: `clone.wrong-system`, `clone.no-space`, `clone.source-behind`, `clone.failed` (pg_basebackup's last lines; the marker stays),
 * `postgres.cancelled`, those of setAside, ensureSlotOnUpstream, writeManagedFiles.
 */
export async function cloneFrom(instance: Instance, options: CloneOptions): Promise<Result<Cloned, Failure>> {
  const startedAt = monoMs();
  const source = await checkSource(instance, options);
  if (!source.ok) return source;
  try {
    await prepareStateDirectory(instance);
    await endStrayBackups(instance.dataDirectory);
    await removeHalfClone(instance);
    await sweepTablespaces(instance);
  } catch (cause) {
    return err(
      failure(
        'clone.failed',
        `${instance.node} cannot be cloned`,
        messageOf(cause),
        'nothing was changed',
        'check the disk and the permissions',
        true,
      ),
    );
  }
  const slot = await ensureSlotOnUpstream(instance, options.upstream, options);
  if (!slot.ok) return slot;
  const ready = await readySource(instance, options);
  if (!ready.ok) return ready;
  const saved = await setAside(instance, { keep: options.keepSaved });
  if (!saved.ok) return saved;
  const placed = await placeAll(instance, source.value.tablespaces);
  if (!placed.ok) return placed;
  const copied = await copy(instance, options, { expected: source.value.totalBytes, mapped: placed.value });
  if (!copied.ok) return copied;
  const finished = await finishClone(instance, options);
  if (!finished.ok) return finished;
  return ok({
    systemIdentifier: finished.value,
    savedPath: saved.value.path,
    bytes: copied.value,
    durationMs: monoMs() - startedAt,
    tablespaces: placed.value,
  });
}

/** The retention of older copies may have left tablespaces of theirs. */
async function placeAll(instance: Instance, found: readonly Tablespace[]): Promise<Result<readonly MappedTablespace[], Failure>> {
  try {
    await sweepTablespaces(instance);
    return ok(await placeTablespaces(instance, found));
  } catch (cause) {
    return err(
      failure(
        'clone.tablespaces',
        `${instance.node} has no place for the tablespaces of the source`,
        messageOf(cause),
        'the old directory is kept aside; it is tried again',
        `check ${tablespaceBase(instance)} and the disks of ${found.map((one) => one.location).join(', ')}`,
        true,
      ),
    );
  }
}

/** The remains of our own interrupted clone hold nothing that is not at the source; those of a rewind are set aside like any data. */
async function removeHalfClone(instance: Instance): Promise<void> {
  if ((await incompleteReason(instance)) !== 'clone' || findProcesses(instance.dataDirectory).length > 0) return;
  await rm(instance.dataDirectory, { recursive: true, force: true });
}

function sourceOf(options: CloneOptions): Endpoint {
  return options.source ?? options.upstream;
}

/** A standby that is close needs a moment; one that is not is no source. */
const SOURCE_LIMIT_MS = 30_000;
const SOURCE_EVERY_MS = 100;

/**
 * *Invariant:* the upstream keeps all WAL that the copy will ask for. *Because:* its slot keeps WAL from a position on that the source has replayed
 * before the backup begins, and a backup of a standby ends no earlier than what it had replayed at its begin. *Broken if:* a source that lags
 * is copied at once: its copy would ask for WAL of before the slot.
 */
async function readySource(instance: Instance, options: CloneOptions): Promise<Result<null, Failure>> {
  const source = sourceOf(options);
  if (source.host === options.upstream.host && source.port === options.upstream.port) return ok(null);
  const own = await ensureSlotOnUpstream(instance, source, options);
  if (!own.ok) return own;
  const kept = await withSql(await memberTarget(instance, options.upstream, 'replication'), options, async (sql) => {
    const [row] = await sql.query('SELECT restart_lsn::text AS kept FROM pg_replication_slots WHERE slot_name = $1', [slotName(instance.node)]);
    return typeof row?.['kept'] === 'string' ? row['kept'] : null;
  });
  if (!kept.ok) return kept;
  const from = kept.value;
  if (from === null) return err(behind(options, 'the slot on the upstream keeps nothing yet'));
  const target = await memberTarget(instance, source, 'replication');
  const reached = await withSql(target, options, async (sql) => {
    for (let waited = 0; waited <= SOURCE_LIMIT_MS && options.signal?.aborted !== true; waited += SOURCE_EVERY_MS) {
      const [row] = await sql.query('SELECT pg_is_in_recovery() AND pg_last_wal_replay_lsn() >= $1::pg_lsn AS reached', [from]);
      if (row?.['reached'] === true) return true;
      await realClock.sleep(SOURCE_EVERY_MS, options.signal);
    }
    return false;
  });
  if (!reached.ok) return reached;
  return reached.value
    ? ok(null)
    : err(behind(options, `it has not replayed ${from}, from where its upstream keeps WAL, within ${SOURCE_LIMIT_MS / 1000} s`));
}

function behind(options: CloneOptions, cause: string): Failure {
  const { host, port } = sourceOf(options);
  return failure(
    'clone.source-behind',
    `${host}:${port} cannot be copied`,
    cause,
    'nothing was changed; it is tried again',
    'copy another member',
    true,
  );
}

interface SourceFacts {
  /** Null: not known. */
  readonly totalBytes: number | null;
  readonly tablespaces: readonly Tablespace[];
}

async function checkSource(instance: Instance, options: CloneOptions): Promise<Result<SourceFacts, Failure>> {
  const source = sourceOf(options);
  const target = await memberTarget(instance, source, 'replication');
  const identity = await withSql(target, { ...options, replication: true }, async (sql) =>
    String((await sql.query('IDENTIFY_SYSTEM'))[0]?.['systemid']),
  );
  if (!identity.ok) return identity;
  if (options.systemIdentifier !== null && identity.value !== options.systemIdentifier) {
    return err(
      failure(
        'clone.wrong-system',
        `${source.host}:${source.port} is another database cluster`,
        `system identifier ${identity.value} instead of ${options.systemIdentifier}`,
        'nothing was changed',
        'check the address of that node',
        false,
      ),
    );
  }
  const tablespaces = await withSql(target, options, readTablespaces);
  if (!tablespaces.ok) return tablespaces;
  const facts = await withSql(target, options, async (sql) => {
    const [row] = await sql.query('SELECT sum(pg_tablespace_size(oid))::float8 AS bytes FROM pg_tablespace');
    return { bytes: typeof row?.['bytes'] === 'number' ? row['bytes'] : null };
  });
  // The size is only for the check of space and progress: a role without the right to see it does not stop the clone.
  if (!facts.ok) return ok({ totalBytes: null, tablespaces: tablespaces.value });
  // Where tablespaces have disks of their own, pg_basebackup finds out: what lies where is not known before each has its place.
  const free = await freeBytes(dirname(instance.dataDirectory));
  if (free !== null && facts.value.bytes !== null && tablespaces.value.length === 0 && free < facts.value.bytes * 1.05) {
    return err(
      failure(
        'clone.no-space',
        `${instance.node} has no space for a clone`,
        `${Math.round(facts.value.bytes / 1_048_576)} MiB are needed beside the copy that is kept, ${Math.round(free / 1_048_576)} MiB are free`,
        'nothing was changed',
        `free space, or remove old copies in ${instance.stateDirectory}/saved`,
        true,
      ),
    );
  }
  return ok({ totalBytes: facts.value.bytes, tablespaces: tablespaces.value });
}

async function copy(
  instance: Instance,
  options: CloneOptions,
  { expected, mapped }: { readonly expected: number | null; readonly mapped: readonly MappedTablespace[] },
): Promise<Result<number, Failure>> {
  try {
    await ensureDirectory(dirname(instance.dataDirectory), { owner: null, mode: 0o755 });
    await markIncomplete(instance, 'clone');
    await ensureDirectory(instance.dataDirectory, { owner: instance.os, mode: 0o700 });
  } catch (cause) {
    return err(
      failure(
        'clone.failed',
        `cannot prepare ${instance.dataDirectory}`,
        messageOf(cause),
        'the old directory is kept aside',
        'check the disk and the permissions',
        true,
      ),
    );
  }
  let bytes = 0;
  const argv = [
    binary(instance, 'pg_basebackup'),
    '-D',
    instance.dataDirectory,
    '-X',
    'stream',
    '-S',
    slotName(instance.node),
    '--checkpoint=fast',
    '-P',
    '--no-password',
  ];
  argv.push(...mappingArguments(mapped));
  if (options.maxRateKb != null) argv.push(`--max-rate=${options.maxRateKb}`);
  const result = await runProcess([...argv, '-d', upstreamConninfo(instance, sourceOf(options), options)], {
    ...asOsUser(instance),
    timeoutMs: CLONE_LIMIT_MS,
    maxOutputBytes: 65_536,
    ...(options.signal === undefined ? {} : { signal: options.signal }),
    onStderrLine: (line) => {
      const match = /(\d+)\/(\d+) kB/.exec(line);
      if (match === null) return;
      bytes = Number(match[1]) * 1024;
      options.onProgress?.({ doneBytes: bytes, totalBytes: Math.max(Number(match[2]) * 1024, expected ?? 0) || null });
    },
  });
  const trouble = processTrouble(result);
  if (trouble === null) return ok(bytes);
  if (!result.ok && result.error.kind === 'aborted')
    return err(
      failure('postgres.cancelled', `clone of ${instance.node}`, 'it was cancelled', 'the half copy stays marked and is not started', '', true),
    );
  return err(
    failure(
      'clone.failed',
      `the base backup from ${sourceOf(options).host}:${sourceOf(options).port} failed`,
      trouble,
      'the half copy stays marked and is not started; it is tried again',
      'see the cause',
      true,
    ),
  );
}

/** The copy brings the source's files: everything that is ours is written anew (Q42), then the marker goes. */
async function finishClone(instance: Instance, options: CloneOptions): Promise<Result<string, Failure>> {
  const managed = await writeManagedFiles(instance, options.settings);
  if (!managed.ok) return managed;
  const named = await renameDirectory(instance);
  if (!named.ok) return named;
  const upstream = await setUpstream(instance, options.upstream, options);
  if (!upstream.ok) return upstream;
  const control = await readControlData(instance);
  if (!control.ok) return control;
  try {
    await ensureStandbySignal(instance);
    await fillHistories(instance);
    await clearIncomplete(instance);
  } catch (cause) {
    return err(failure('clone.failed', `cannot finish ${instance.dataDirectory}`, messageOf(cause), 'it is not started', 'check the disk', true));
  }
  return ok(control.value.systemIdentifier);
}
