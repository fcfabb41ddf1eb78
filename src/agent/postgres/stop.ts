/** Stops PostgreSQL by a bounded ladder: fast, immediate, complete kill. */
import { statSync } from 'node:fs';
import { join } from 'node:path';
import { monoMs, realClock } from '../../base/clock.ts';
import type { Lsn } from '../../core/lsn.ts';
import { type Failure, type Result, err, ok } from '../../core/result.ts';
import { isCleanlyShutDown, readControlData } from './control-data.ts';
import { ensureStandbySignal } from './data-directory.ts';
import { errnoOf, failure } from './failure.ts';
import { hurryServer } from './hurry.ts';
import type { Instance } from './instance.ts';
import { killAll } from './kill-all.ts';
import { type Postmaster, findPostmaster, isSameProcessAlive, findProcesses } from './postmaster.ts';
import { readWalEnd } from './wal-end.ts';

export type StopRung = 'none' | 'fast' | 'immediate' | 'kill';

export interface StopOptions {
  /** First rung; default `fast`. */
  readonly from?: 'fast' | 'immediate' | 'kill';
  readonly fastMs?: number;
  readonly immediateMs?: number;
  /** Aborting goes to the next rung at once, unless the shutdown checkpoint is written: a stop is never abandoned half-way. */
  readonly signal?: AbortSignal;
  /**
   * Called at most once, only during the fast rung and only for a server that was in production when it was told to stop: its shutdown checkpoint is
   * on disk and standby.signal stands, so that nothing of this directory accepts writes any more. The walsenders may still send it.
   */
  readonly onShutDown?: () => void;
}

export interface Stopped {
  /** The rung that ended it; `none`: nothing ran. */
  readonly rung: StopRung;
  readonly durationMs: number;
  readonly clean: boolean;
  /** Clean stop of a primary: end of the shutdown checkpoint record, what a successor must have replayed. */
  readonly shutdownLsn: Lsn | null;
}

/** PostgreSQL itself waits 5 s after an immediate stop before it kills its children; a fence must be faster. */
const IMMEDIATE_MS = 300;
/**
 * After the shutdown checkpoint was written, walsenders that do not get rid of it (dead peers, logical clients that never
 * confirm: Z31) and a slow archiver (Z28, Q30) are waited for this long. An immediate stop then loses nothing.
 */
const DRAIN_MS = 2000;
const POLL_MS = 3;
/** Nobody waits for the rest of a stop whose shutdown checkpoint was told: the processor is left to the successor. */
const SAID_POLL_MS = 20;

/**
 * Returns when no process of the data directory is left, whatever rung that took.
 * Errors: `stop.unkillable` with the pids: nothing may be released then.
 */
export async function stopPostgres(instance: Instance, options: StopOptions = {}): Promise<Result<Stopped, Failure>> {
  const startedAt = monoMs();
  const postmaster = findPostmaster(instance.dataDirectory);
  let rung: StopRung = 'none';
  const from = options.from ?? 'fast';
  if (postmaster !== null) {
    if (from === 'fast' && !isDeaf(postmaster)) {
      rung = 'fast';
      if (await fastStop(instance, postmaster, options)) return ok({ rung, ...(await readOutcome(instance)), durationMs: monoMs() - startedAt });
    }
    if (from !== 'kill' && !isDeaf(findPostmaster(instance.dataDirectory)) && isLeft(instance)) {
      rung = 'immediate';
      signal(postmaster, 'SIGQUIT');
      await waitGone(instance, options.immediateMs ?? IMMEDIATE_MS);
    }
  }
  if (isLeft(instance)) {
    rung = 'kill';
    const outcome = await killAll(instance.dataDirectory);
    if (outcome.survivors.length > 0) {
      const names = outcome.survivors.map((process) => `${process.pid} (${process.command}, state ${process.state})`).join(', ');
      return err(
        failure(
          'stop.unkillable',
          `processes of ${instance.dataDirectory} cannot be ended`,
          names,
          'nothing is released: this node may still write',
          'the kernel holds them (stuck disk?): power the host off',
          true,
        ),
      );
    }
  }
  return ok({ rung, ...(await readOutcome(instance)), durationMs: monoMs() - startedAt });
}

/** A stopped postmaster (SIGSTOP, also in the middle of a stop) hears nothing: only the kill ends it. */
function isDeaf(postmaster: Postmaster | null): boolean {
  return postmaster !== null && (postmaster.state === 'T' || postmaster.state === 't');
}

function isLeft(instance: Instance): boolean {
  return findProcesses(instance.dataDirectory).length > 0;
}

function signal(postmaster: Postmaster, name: 'SIGINT' | 'SIGQUIT'): void {
  try {
    process.kill(postmaster.pid, name);
  } catch (cause) {
    if (errnoOf(cause) !== 'ESRCH') throw cause;
  }
}

/** SIGINT ends client sessions first, then checkpoints. True: a whole look found no process left. Source: PostgreSQL manual 19.5. */
async function fastStop(instance: Instance, postmaster: Postmaster, options: StopOptions): Promise<boolean> {
  const word = options.onShutDown === undefined ? null : await createWord(instance, options.onShutDown);
  signal(postmaster, 'SIGINT');
  if (word !== null) hurryServer(postmaster);
  const deadline = monoMs() + (options.fastMs ?? 10_000);
  let writtenAt: number | null = null;
  // After the shutdown checkpoint the rest is quick and bounded by DRAIN_MS; cutting it short would only keep the checkpoint from standbys.
  for (let round = 1; monoMs() < deadline && (options.signal?.aborted !== true || word?.said() === true); round++) {
    await realClock.sleep(word?.said() === true ? SAID_POLL_MS : POLL_MS);
    // One small file while the postmaster lives; the whole process table only when it is gone.
    if (!isSameProcessAlive(postmaster)) {
      if (!isLeft(instance)) return true;
      continue;
    }
    await word?.look();
    if (round % 10 !== 0) continue;
    if (isDeaf(findPostmaster(instance.dataDirectory))) return false;
    const control = await readControlData(instance);
    if (!control.ok || !isCleanlyShutDown(control.value)) continue;
    writtenAt ??= monoMs();
    if (monoMs() - writtenAt > DRAIN_MS) return false;
  }
  return false;
}

/**
 * Says once that the shutdown checkpoint is on disk.
 * *Invariant:* it is the checkpoint of this stop. *Because:* the file said "in production" before the signal, and only the end of a stop says "shut down".
 * *Broken if:* a server that still starts after a clean stop is counted: its file says "shut down" from before.
 */
async function createWord(instance: Instance, say: () => void): Promise<{ look(): Promise<void>; said(): boolean } | null> {
  const path = join(instance.dataDirectory, 'global', 'pg_control');
  const before = await readControlData(instance);
  if (!before.ok || before.value.state !== 'in production') return null;
  let said = false;
  let seen = modifiedAt(path);
  return {
    said: () => said,
    look: async () => {
      const modified = said ? seen : modifiedAt(path);
      if (modified === seen) return;
      seen = modified;
      const outcome = await readOutcome(instance);
      if (outcome.shutdownLsn === null) return;
      said = true;
      say();
    },
  };
}

/** Null: the file is gone, or cannot be looked at now. */
function modifiedAt(path: string): bigint | null {
  return statSync(path, { bigint: true, throwIfNoEntry: false })?.mtimeNs ?? null;
}

async function waitGone(instance: Instance, limitMs: number): Promise<void> {
  const deadline = monoMs() + limitMs;
  while (monoMs() < deadline && isLeft(instance)) await realClock.sleep(POLL_MS);
}

async function readOutcome(instance: Instance): Promise<Pick<Stopped, 'clean' | 'shutdownLsn'>> {
  const control = await readControlData(instance);
  if (!control.ok) return { clean: false, shutdownLsn: null };
  // Whoever stopped it: the next start without the agent must not be writable.
  await ensureStandbySignal(instance);
  if (!isCleanlyShutDown(control.value)) return { clean: false, shutdownLsn: null };
  const end = await readWalEnd(instance, { control: control.value });
  return { clean: true, shutdownLsn: end.ok ? end.value.shutdownLsn : null };
}
