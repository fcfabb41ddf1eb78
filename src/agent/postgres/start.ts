/** Starts PostgreSQL so that it outlives the agent, and waits as long as the start makes progress (Q17). */
import { spawn } from 'node:child_process';
import { closeSync, openSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { monoMs, realClock } from '../../base/clock.ts';
import { atNormalPriority } from '../../base/priority.ts';
import { type Failure, type Result, err, ok } from '../../core/result.ts';
import { readControlData } from './control-data.ts';
import { directoryState, ensureStandbySignal, removeStandbySignal } from './data-directory.ts';
import { cancelled, errnoOf, failure, messageOf } from './failure.ts';
import { removeIfThere } from './files.ts';
import { type Instance, asOsUser, binary } from './instance.ts';
import { tailOwnLog } from './log-tail.ts';
import { prepareStateDirectory } from './managed-files.ts';
import { type Postmaster, findPostmaster, findProcesses, isAlive, readPidFile, readProcess } from './postmaster.ts';
import { forgetSkipped } from './skipped-timelines.ts';
import { withLocalSql } from './sql.ts';
import { controlStamp, readStartProgress } from './start-progress.ts';
import { syncArguments } from './sync-directory.ts';

export interface StartOptions {
  /** `primary`: only under a valid write lease; `standby.signal` is away for the moment of the start only. */
  readonly mode: 'standby' | 'primary';
  /** Asked right beside the removal of `standby.signal` of a primary start: false refuses. */
  readonly mayStart?: () => boolean;
  readonly signal?: AbortSignal;
  /** One line when something moved: the startup process's own title. */
  readonly onProgress?: (step: string) => void;
  /** `private`: reachable over the private socket only, whatever the files say (before a rewind). Default `normal`. */
  readonly reach?: 'normal' | 'private';
  /**
   * Which timeline a standby start recovers along. `newest`: of all whose history file lies in pg_wal. `checkpoint`: that of the last checkpoint, whatever
   * lies there: a diverged standby that once asked its new primary has the history file of a timeline that PostgreSQL would refuse to start on.
   */
  readonly along?: 'newest' | 'checkpoint';
  /** `always`: WAL that waits for the archive is archived in recovery too. Default: as configured. */
  readonly archive?: 'always';
  /** Without any progress for this long the wait ends (the server is left alone); default 60 s. Too short throws away a good recovery. */
  readonly stallMs?: number;
}

export interface Started {
  readonly pid: number;
  readonly startTicks: number;
  readonly role: 'primary' | 'standby';
  readonly durationMs: number;
}

const DEFAULT_STALL_MS = 60_000;
const POLL_MS = 5;
/** For what a postmaster that gave up leaves behind. Milliseconds; longer only delays the next try. */
const REST_MS = 2000;

/**
 * Starts the instance and waits until it answers on the private socket.
 * Errors: `start.incomplete`, `start.no-data`, `start.running`, `start.refused` (mayStart), `start.failed` (with the last log lines),
 * `start.stalled` (the server still lives), `postgres.cancelled` (a standby start goes on; a primary is stopped by the caller).
 */
export async function startPostgres(instance: Instance, options: StartOptions): Promise<Result<Started, Failure>> {
  const startedAt = monoMs();
  const checked = await checkStartable(instance);
  if (checked !== null) return err(checked);
  try {
    await prepareStateDirectory(instance);
    await removeStalePidFile(instance);
    if (options.mode === 'standby') {
      await ensureStandbySignal(instance);
      await forgetSkipped(instance.dataDirectory);
    }
  } catch (cause) {
    return err(
      failure('start.failed', `${instance.node} cannot be started`, messageOf(cause), 'it stays down', 'check the disk and the permissions', true),
    );
  }
  const synced = options.mode === 'standby' ? syncArguments(instance.dataDirectory) : [];
  const first = await startOnce(instance, options, [
    ...synced,
    ...(options.reach === 'private' ? ['-c', 'listen_addresses=', '-c', `unix_socket_directories=${instance.socketDirectory}`] : []),
    ...(options.along === 'checkpoint' ? ['-c', 'recovery_target_timeline=current'] : []),
    ...(options.archive === 'always' ? ['-c', 'archive_mode=always'] : []),
  ]);
  const done =
    !first.ok && first.error.cause.includes('.s.PGSQL.') && instance.publicSocketDirectory !== null
      ? // Another server holds the name in the public directory: ours does without it.
        await startOnce(instance, options, [...synced, '-c', `unix_socket_directories=${instance.socketDirectory}`])
      : first;
  if (!done.ok) return done;
  return ok({ ...done.value, durationMs: monoMs() - startedAt });
}

async function checkStartable(instance: Instance): Promise<Failure | null> {
  const state = await directoryState(instance);
  if (state === 'incomplete')
    return failure(
      'start.incomplete',
      `${instance.dataDirectory} must not be started`,
      'a clone or a rewind of it was interrupted',
      'it stays down',
      'take the node back by a clone',
      false,
    );
  if (state !== 'data')
    return failure(
      'start.no-data',
      `${instance.dataDirectory} holds no PostgreSQL data`,
      state === 'absent' ? 'it is missing or empty' : 'PG_VERSION or pg_control is missing',
      'nothing was started',
      'is the volume mounted?',
      false,
    );
  const left = findProcesses(instance.dataDirectory);
  if (left.length > 0)
    return failure(
      'start.running',
      `${instance.dataDirectory} is in use`,
      `processes ${left
        .map((process) => process.pid)
        .slice(0, 10)
        .join(', ')}`,
      'nothing was started',
      'stop them first',
      true,
    );
  return null;
}

/** A pid file whose pid was taken by a stranger would make PostgreSQL refuse to start. We have verified that nothing works in this directory. */
async function removeStalePidFile(instance: Instance): Promise<void> {
  const file = readPidFile(instance.dataDirectory);
  if (file !== null && isAlive(readProcess(file.pid))) await removeIfThere(join(instance.dataDirectory, 'postmaster.pid'));
}

async function startOnce(instance: Instance, options: StartOptions, extra: readonly string[]): Promise<Result<Omit<Started, 'durationMs'>, Failure>> {
  if (options.signal?.aborted === true) return err(cancelled(`start of ${instance.node}`));
  const before = await controlStamp(instance);
  if (options.mode === 'primary') {
    if (options.mayStart?.() === false)
      return err(
        failure('start.refused', `${instance.node} may not start as primary`, 'the write lease is not held any more', 'it stays down', '', true),
      );
    await removeStandbySignal(instance);
  }
  const logFile = join(instance.stateDirectory, 'log', 'postgres-start.log');
  const log = openSync(logFile, 'w', 0o644);
  try {
    // Looked at again after the last await: nothing lies between this answer and the spawn.
    if (options.mode === 'primary' && options.mayStart?.() === false) {
      return err(failure('start.refused', `${instance.node} may not start as primary`, 'the write lease was lost', 'it stays down', '', true));
    }
    const child = spawnPostgres(instance, extra, log);
    let exited: string | null = null;
    child.once('exit', (code, signal) => {
      exited = code === null ? `ended by ${signal}` : `exit code ${code}`;
    });
    child.once('error', (cause) => {
      exited = cause.message;
    });
    return await waitUntilUp(instance, options, { pid: child.pid ?? -1, exited: () => exited, before });
  } finally {
    closeSync(log);
    await ensureStandbySignal(instance);
  }
}

function spawnPostgres(instance: Instance, extra: readonly string[], log: number): import('node:child_process').ChildProcess {
  const child = atNormalPriority(() =>
    spawn(binary(instance, 'postgres'), ['-D', instance.dataDirectory, ...extra], {
      ...asOsUser(instance),
      detached: true,
      cwd: '/',
      stdio: ['ignore', log, log],
      // PG_OOM_*: the postmaster is spared by the kernel, its children are not. Source: PostgreSQL manual 19.4.4.
      env: { PATH: '/usr/sbin:/usr/bin:/sbin:/bin', LANG: 'C.UTF-8', PG_OOM_ADJUST_FILE: '/proc/self/oom_score_adj', PG_OOM_ADJUST_VALUE: '0' },
    }),
  );
  child.unref();
  if (child.pid !== undefined && process.getuid?.() === 0) protectFromOom(child.pid);
  return child;
}

function protectFromOom(pid: number): void {
  try {
    writeFileSync(`/proc/${pid}/oom_score_adj`, '-900');
  } catch (cause) {
    // Containers may forbid it, and the child may have ended: both are no reason not to start.
    if (!['EACCES', 'EPERM', 'ENOENT', 'ESRCH'].includes(errnoOf(cause) ?? '')) throw cause;
  }
}

interface Waiting {
  readonly pid: number;
  readonly exited: () => string | null;
  readonly before: string;
}

async function waitUntilUp(
  instance: Instance,
  options: StartOptions,
  { pid, exited, before }: Waiting,
): Promise<Result<Omit<Started, 'durationMs'>, Failure>> {
  const stallMs = options.stallMs ?? DEFAULT_STALL_MS;
  let progress = '';
  let title = '';
  let movedAt = monoMs();
  let signalBack = options.mode === 'standby';
  for (let round = 0; ; round++) {
    const gone = exited();
    if (gone !== null) return err(await startFailure(instance, gone));
    if (options.signal?.aborted === true) return err(cancelled(`start of ${instance.node}`));
    const file = readPidFile(instance.dataDirectory);
    if (file?.pid === pid && (file.status === 'ready' || file.status === 'standby')) {
      const answer = await askRole(instance, options.signal);
      const process = readProcess(pid);
      if (answer !== null && process !== null) return ok({ pid, startTicks: process.startTicks, role: answer });
    }
    if (!signalBack && (await hasReadSignalFiles(instance, before))) {
      // A long crash recovery must not run without it: if the machine dies now, nothing starts it writable.
      await ensureStandbySignal(instance);
      signalBack = true;
    }
    if (round % 20 === 19) {
      const seen = await readStartProgress(instance, pid);
      if (seen.key !== progress) movedAt = monoMs();
      if (seen.title !== title && seen.title !== '') options.onProgress?.(seen.title);
      ({ key: progress, title } = seen);
      if (monoMs() - movedAt > stallMs)
        return err(
          failure(
            'start.stalled',
            `${instance.node} does not come up`,
            `no progress for ${stallMs} ms; ${title}`,
            'the server is left running',
            'see its log: a standby may wait for WAL that its upstream has not',
            true,
          ),
        );
    }
    await realClock.sleep(POLL_MS);
  }
}

/**
 * pg_control is written anew after the startup process has read the signal files, and a recovery that began without
 * `standby.signal` does not look for it again nor remove it. Source: PostgreSQL xlog.c, StartupXLOG; xlogrecovery.c, InitWalRecovery.
 */
async function hasReadSignalFiles(instance: Instance, before: string): Promise<boolean> {
  if ((await controlStamp(instance)) === before) return false;
  const control = await readControlData(instance);
  return control.ok && (control.value.state === 'in crash recovery' || control.value.state === 'in production');
}

async function askRole(instance: Instance, signal: AbortSignal | undefined): Promise<'primary' | 'standby' | null> {
  const answer = await withLocalSql(
    instance,
    { limits: { connectMs: 1000, statementMs: 1000 }, ...(signal === undefined ? {} : { signal }) },
    async (sql) => {
      const [row] = await sql.query('SELECT pg_is_in_recovery() AS recovery');
      return row?.['recovery'] === false ? ('primary' as const) : ('standby' as const);
    },
  );
  return answer.ok ? answer.value : null;
}

async function startFailure(instance: Instance, how: string): Promise<Failure> {
  await waitForRest(instance);
  const lines = await tailOwnLog(instance, 6);
  return failure('start.failed', `PostgreSQL of ${instance.node} did not start`, [how, ...lines].join(' | '), 'it stays down', 'see the cause', true);
}

/**
 * The logger of a postmaster that gave up outlives it until it reads the end of its pipe: whoever starts again at once would find the directory in use.
 * *Source:* PostgreSQL, src/backend/postmaster/syslogger.c.
 */
async function waitForRest(instance: Instance): Promise<void> {
  const deadline = monoMs() + REST_MS;
  while (findProcesses(instance.dataDirectory).length > 0 && monoMs() < deadline) await realClock.sleep(POLL_MS);
}

/** For callers that only need to know whether something runs. */
export function runningPostmaster(instance: Pick<Instance, 'dataDirectory'>): Postmaster | null {
  return findPostmaster(instance.dataDirectory);
}
