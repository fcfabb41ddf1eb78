/** Starting, stopping, killing, promoting, detaching, following: the agent's operations on a modelled server, with the checks and answers of src/agent/postgres. */
import { cancelled, failure } from '../../../src/agent/postgres/failure.ts';
import type { Upstream } from '../../../src/agent/ports.ts';
import { makeTimeline } from '../../../src/core/ids.ts';
import { type Lsn, formatLsn, makeLsn } from '../../../src/core/lsn.ts';
import type { Vote } from '../../../src/core/report.ts';
import { type Failure, type Result, err, ok } from '../../../src/core/result.ts';
import { type Link, type Run, isResponsive } from './core.ts';
import { forgetSkipped, isCleanlyShutDown, skipTimelines } from './directory.ts';
import { timelineAtEnd } from './port-observe.ts';
import { type PortContext, type Session, clearUpstream, conninfoTo, isEffective, setUpstream, setWinning, withSession } from './port-session.ts';
import { streamedBy } from './replication.ts';

const POLL_MS = 5;
const STALL_MS = 60_000;
const DRAIN_MS = 2000;
const FOLLOW_LIMIT_MS = 4000;
const STEADY_MS = 60;
const REPLAY_LIMIT_MS = 10_000;
const PROMOTE_LIMIT_MS = 30_000;
const PROMOTE_REPEAT_MS = 100;
const TIDY_AFTER_MS = 300;
const DETACH_LIMIT_MS = 5000;
const EXHAUST_MS = 1000;
const QUIET_MS = 15;
const IMMEDIATE_MS = 300;
const KILL_LIMIT_MS = 2000;
/** SIGKILL for a tree of processes, and two looks that find nothing. */
const KILL_MS = 6;

export interface StartHow {
  readonly mode: 'primary' | 'standby';
  readonly reach: 'normal' | 'private';
  /** The timeline that recovery follows: see StartOptions of src/agent/postgres/start.ts. */
  readonly along?: 'newest' | 'checkpoint';
  readonly mayStart: () => boolean;
}

/** As startPostgres. Answers the role that it came up with. */
export async function startServer(
  context: PortContext,
  how: StartHow,
  signal: AbortSignal,
): Promise<Result<{ readonly pid: number; readonly ms: number }, Failure>> {
  const { core, agent, server } = context;
  const startedAt = agent.now();
  const refusal = checkStartable(context);
  if (refusal !== null) return err(refusal);
  const { directory } = core.disk;
  if (directory === null) throw new Error('checked above');
  const broken = (cause: string): Result<never, Failure> =>
    err(failure('start.failed', `PostgreSQL of ${core.name} did not start`, cause, 'it stays down', 'see the cause', true));
  if (core.disk.full || core.disk.readOnly) return broken('no space left on device');
  await agent.sleep(1 + context.random.next());
  if (signal.aborted) return err(cancelled(`start of ${core.name}`));
  if (core.run !== null || core.disk.directory !== directory) return broken('somebody else was faster');
  if (how.mode === 'standby') {
    directory.standbySignal = true;
    forgetSkipped(directory);
  } else {
    if (!how.mayStart())
      return err(
        failure('start.refused', `${core.name} may not start as primary`, 'the write lease is not held any more', 'it stays down', '', true),
      );
    directory.standbySignal = false;
  }
  let outcome: 'up' | { readonly failed: string } | null = null;
  server.start({ isPrivate: how.reach === 'private', along: how.along ?? 'newest' }, (settled) => {
    outcome = settled;
  });
  const { run } = core;
  try {
    return await waitUp(context, run, signal, () => outcome, startedAt, broken);
  } finally {
    if (core.disk.directory !== null) core.disk.directory.standbySignal = true;
  }
}

async function waitUp(
  context: PortContext,
  run: Run | null,
  signal: AbortSignal,
  outcome: () => 'up' | { readonly failed: string } | null,
  startedAt: number,
  broken: (cause: string) => Result<never, Failure>,
): Promise<Result<{ readonly pid: number; readonly ms: number }, Failure>> {
  const { core, agent } = context;
  let progress = '';
  let movedAt = agent.now();
  for (;;) {
    const settled = outcome();
    if (settled !== null && settled !== 'up') return broken(settled.failed);
    if (run === null || core.run !== run) return broken('ended by a signal');
    if (settled === 'up' && isResponsive(core)) return ok({ pid: run.pid, ms: agent.now() - startedAt });
    if (signal.aborted) return err(cancelled(`start of ${core.name}`));
    // The signal files were read: a long recovery must not run without it.
    if (run.role !== null && core.disk.directory !== null) core.disk.directory.standbySignal = true;
    const seen = `${run.status}/${run.role}/${run.replayed.lsn}`;
    if (seen !== progress) {
      progress = seen;
      movedAt = agent.now();
    }
    if (agent.now() - movedAt > STALL_MS)
      return err(
        failure(
          'start.stalled',
          `${core.name} does not come up`,
          `no progress for ${STALL_MS} ms; ${run.lastError}`,
          'the server is left running',
          '',
          true,
        ),
      );
    await agent.sleep(agent.now() - startedAt > 1000 ? 100 : POLL_MS);
  }
}

function checkStartable({ core }: PortContext): Failure | null {
  if (core.disk.incomplete !== null)
    return failure(
      'start.incomplete',
      `${core.name} must not be started`,
      `a ${core.disk.incomplete} of it was interrupted`,
      'it stays down',
      'take the node back by a clone',
      false,
    );
  if (core.disk.directory === null)
    return failure(
      'start.no-data',
      `${core.name} holds no PostgreSQL data`,
      'it is missing or empty',
      'nothing was started',
      'is the volume mounted?',
      false,
    );
  if (core.run !== null)
    return failure('start.running', `${core.name} is in use`, `process ${core.run.pid}`, 'nothing was started', 'stop it first', true);
  return null;
}

export interface Stopped {
  readonly rung: 'none' | 'fast' | 'immediate' | 'kill';
  readonly clean: boolean;
  readonly shutdownLsn: Lsn | null;
}

/** As stopPostgres: fast, immediate, kill, until nothing is left. Errors: `stop.unkillable`. */
export async function stopServer(
  context: PortContext,
  options: { readonly from: 'fast' | 'immediate'; readonly fastMs: number; readonly immediateMs?: number; readonly onShutDown?: () => void },
  signal: AbortSignal | null,
): Promise<Result<Stopped, Failure>> {
  const { core, agent, server } = context;
  const { run } = core;
  let rung: Stopped['rung'] = 'none';
  const left = (): boolean => core.run !== null && core.run === run;
  const deaf = (): boolean => core.process?.paused() === true;
  if (run !== null) {
    if (options.from === 'fast' && !deaf()) {
      rung = 'fast';
      server.signal('fast');
      await waitFastStop(context, run, options, signal);
    }
    if (left() && !deaf()) {
      rung = 'immediate';
      server.signal('immediate');
      const limit = agent.now() + (options.immediateMs ?? IMMEDIATE_MS);
      while (left() && agent.now() < limit) await agent.sleep(POLL_MS);
    }
    if (left()) rung = 'kill';
  }
  if (core.run !== null) {
    const killed = await killAllProcesses(context);
    if (!killed.ok) return killed;
  }
  const { directory } = core.disk;
  if (directory === null) return ok({ rung, clean: false, shutdownLsn: null });
  directory.standbySignal = true;
  const clean = isCleanlyShutDown(directory);
  return ok({ rung, clean, shutdownLsn: directory.state === 'shut down' ? makeLsn(BigInt(directory.end.lsn)) : null });
}

async function waitFastStop(
  context: PortContext,
  run: Run,
  options: { readonly fastMs: number; readonly onShutDown?: () => void },
  signal: AbortSignal | null,
): Promise<void> {
  const { core, agent } = context;
  const deadline = agent.now() + options.fastMs;
  let writtenAt: number | null = null;
  let said = false;
  while (core.run === run && agent.now() < deadline && (signal?.aborted !== true || said)) {
    await agent.sleep(POLL_MS);
    if (core.process?.paused() === true) return;
    if (run.stopAt === null) continue;
    if (writtenAt === null && run.role === 'primary' && core.disk.directory !== null) {
      core.disk.directory.standbySignal = true;
      said = options.onShutDown !== undefined;
      options.onShutDown?.();
    }
    writtenAt ??= agent.now();
    if (agent.now() - writtenAt > DRAIN_MS) return;
  }
}

export async function killAllProcesses(context: PortContext): Promise<Result<null, Failure>> {
  const { core, agent, server } = context;
  const deadline = agent.now() + KILL_LIMIT_MS;
  for (;;) {
    await agent.sleep(KILL_MS * (0.5 + context.random.next()));
    server.killAll();
    if (core.run === null) return ok(null);
    if (agent.now() > deadline)
      return err(
        failure(
          'stop.unkillable',
          `processes of ${core.name} cannot be ended`,
          `${core.run.pid} (postgres, state D)`,
          'nothing is released: this node may still write',
          '',
          true,
        ),
      );
  }
}

/** As promotePostgres. */
export async function promoteServer(
  context: PortContext,
  options: { readonly requiredLsn: Lsn | null; readonly usedTimeline: number | null; readonly mayPromote: () => boolean },
  signal: AbortSignal,
): Promise<Result<{ readonly timeline: number; readonly ms: number }, Failure>> {
  const { core, agent, server } = context;
  const startedAt = agent.now();
  const nested = await withSession(context, signal, async (session): Promise<Result<number, Failure>> => {
    await session.query();
    if (session.run.role === 'primary')
      return err(failure('promote.not-in-recovery', `${core.name} is no standby`, 'the server is writable already', 'nothing was done', '', false));
    if (options.requiredLsn !== null) {
      const replayed = await waitReplayed(context, session, options.requiredLsn, PROMOTE_LIMIT_MS, signal);
      if (!replayed.ok) return replayed;
    }
    server.resumeReplay();
    if (core.disk.directory !== null) skipTimelines(core.disk.directory, options.usedTimeline);
    return requestPromotion(context, session, options.mayPromote, startedAt + PROMOTE_LIMIT_MS, signal);
  });
  const promoted = nested.ok ? nested.value : nested;
  if (!promoted.ok) return promoted;
  if (core.disk.directory !== null) core.disk.directory.standbySignal = true;
  void tidySoon(context);
  return ok({ timeline: promoted.value, ms: agent.now() - startedAt });
}

async function requestPromotion(
  context: PortContext,
  session: Session,
  mayPromote: () => boolean,
  deadline: number,
  signal: AbortSignal,
): Promise<Result<number, Failure>> {
  const { core, agent, server, random } = context;
  for (let askedAt = Number.NEGATIVE_INFINITY; ; ) {
    if (signal.aborted) return err(cancelled(`promotion of ${core.name}`));
    if (agent.now() - askedAt >= PROMOTE_REPEAT_MS) {
      if (!mayPromote())
        return err(
          failure(
            'promote.refused',
            `${core.name} may not be promoted`,
            'the write lease of the new term is not held',
            'the request may take effect',
            '',
            true,
          ),
        );
      await session.query();
      // Now and then the signal finds the startup process asleep.
      if (!random.chance(0.05)) server.promote();
      askedAt = agent.now();
    }
    await session.query();
    if (session.run.role === 'primary') break;
    if (agent.now() > deadline)
      return err(
        failure(
          'promote.timeout',
          `${core.name} did not leave recovery`,
          'the promotion was requested again and again',
          'the request may still take effect',
          '',
          true,
        ),
      );
    await agent.sleep(POLL_MS);
  }
  await session.query();
  return ok(core.disk.directory?.timeline.tli ?? 0);
}

async function tidySoon(context: PortContext): Promise<void> {
  await context.agent.sleep(TIDY_AFTER_MS);
  await setWinning(context, { primary_conninfo: '', primary_slot_name: '' }, null);
  await takeCheckpoint(context, null);
}

export function takeCheckpoint(context: PortContext, signal: AbortSignal | null): Promise<Result<null, Failure>> {
  return withSession(context, signal, async (session) => {
    let done = false;
    context.server.checkpoint(() => {
      done = true;
    });
    do {
      await context.agent.sleep(POLL_MS);
      await session.query();
    } while (!done);
    return null;
  });
}

/** As waitReplay. */
export async function waitReplay(context: PortContext, required: Lsn, signal: AbortSignal): Promise<Result<Lsn, Failure>> {
  const nested = await withSession(context, signal, (session) => waitReplayed(context, session, required, REPLAY_LIMIT_MS, signal));
  return nested.ok ? nested.value : nested;
}

async function waitReplayed(
  context: PortContext,
  session: Session,
  required: Lsn,
  limitMs: number,
  signal: AbortSignal,
): Promise<Result<Lsn, Failure>> {
  const { core, agent } = context;
  const deadline = agent.now() + limitMs;
  for (;;) {
    await session.query();
    const { run } = session;
    const at = makeLsn(BigInt(run.role === 'primary' ? (core.disk.directory?.durable.lsn ?? 0) : run.replayed.lsn));
    if (at >= required) return ok(at);
    if (signal.aborted) return err(cancelled(`waiting for replay on ${core.name}`));
    if (agent.now() > deadline)
      return err(
        failure(
          'promote.behind',
          `${core.name} has not replayed ${formatLsn(required)}`,
          `it is at ${formatLsn(at)} after ${limitMs} ms`,
          'it is not promoted',
          '',
          true,
        ),
      );
    await agent.sleep(POLL_MS);
  }
}

/** As detachStandby. */
export async function detachServer(context: PortContext, signal: AbortSignal): Promise<Result<Pick<Vote, 'position' | 'final'>, Failure>> {
  const cleared = await clearUpstream(context, signal);
  if (!cleared.ok) return cleared;
  const { core } = context;
  const { directory } = core.disk;
  if (directory === null) return err(failure('postgres.no-data', `cannot read ${core.name}`, 'ENOENT', 'nothing was changed', '', false));
  if (core.run === null)
    return ok({ position: { timeline: makeTimeline(timelineAtEnd(directory).tli), lsn: makeLsn(BigInt(directory.end.lsn)) }, final: true });
  const nested = await withSession(context, signal, async (session) => {
    const refusal = await endWalreceiver(context, session, signal);
    return refusal === null ? ok(await readPosition(context, session, signal)) : err(refusal);
  });
  return nested.ok ? nested.value : nested;
}

async function endWalreceiver(context: PortContext, session: Session, signal: AbortSignal): Promise<Failure | null> {
  const { core, agent, server } = context;
  const deadline = agent.now() + DETACH_LIMIT_MS;
  let quietSince: number | null = null;
  for (;;) {
    if (signal.aborted) return cancelled(`detaching ${core.name}`);
    await session.query();
    if (session.run.role === 'primary')
      return failure('detach.not-standby', `${core.name} is writable`, 'it has no upstream', 'nothing more is done', '', false);
    const living = session.run.receiver !== null;
    server.terminateWalreceiver();
    const quiet = !living && isEffective(session.run, 'primary_conninfo', '');
    quietSince = quiet ? (quietSince ?? agent.now()) : null;
    if (quietSince !== null && agent.now() - quietSince >= QUIET_MS) return null;
    if (agent.now() > deadline)
      return failure(
        'detach.walreceiver',
        `${core.name} is not detached`,
        'the walreceiver does not end',
        'it does not vote',
        'see its PostgreSQL log',
        true,
      );
    await agent.sleep(POLL_MS);
  }
}

async function readPosition(context: PortContext, session: Session, signal: AbortSignal): Promise<Pick<Vote, 'position' | 'final'>> {
  const { core, agent } = context;
  const deadline = agent.now() + EXHAUST_MS;
  for (;;) {
    await session.query();
    const { directory } = core.disk;
    const { replayed } = session.run;
    const end = directory?.end ?? replayed;
    const final = end.lsn <= replayed.lsn;
    if (final || agent.now() > deadline || signal.aborted)
      return { position: { timeline: makeTimeline(Math.max(end.tli, replayed.tli)), lsn: makeLsn(BigInt(Math.max(end.lsn, replayed.lsn))) }, final };
    await agent.sleep(POLL_MS);
  }
}

/** As followUpstream. */
export async function followUpstream(context: PortContext, upstream: Upstream, signal: AbortSignal): Promise<Result<string, Failure>> {
  const { core, agent } = context;
  const startedAt = agent.now();
  const set = await setUpstream(context, upstream, signal);
  if (!set.ok) return set;
  const wanted = conninfoTo(context, upstream);
  const nested = await withSession(context, signal, async (session): Promise<Result<string, Failure>> => {
    let steady = { link: null as Link | null, since: 0 };
    for (;;) {
      await session.query();
      if (session.run.role === 'primary')
        return err(failure('follow.not-standby', `${core.name} is writable`, 'it cannot follow', 'nothing more is done', '', false));
      const link = streamedBy(session.run);
      const isFrom = link !== null && link.upstream.host === upstream.host && link.upstream.port === upstream.port;
      if (isFrom && isEffective(session.run, 'primary_conninfo', wanted)) {
        if (steady.link !== link) steady = { link, since: agent.now() };
        if (agent.now() - steady.since >= STEADY_MS) return ok(`streams from ${upstream.node}`);
      } else steady = { link: null, since: 0 };
      if (signal.aborted) return err(cancelled(`${core.name} following ${upstream.host}`));
      if (agent.now() - startedAt > FOLLOW_LIMIT_MS)
        return err(
          failure(
            'follow.not-streaming',
            `${core.name} does not stream from ${upstream.host}:${upstream.port}`,
            `after ${FOLLOW_LIMIT_MS} ms | ${session.run.lastError}`,
            'the setting stays and PostgreSQL goes on trying',
            'if WAL is missing or the timelines fork, rewind or clone the node',
            true,
          ),
        );
      await agent.sleep(POLL_MS * 2);
    }
  });
  return nested.ok ? nested.value : nested;
}
