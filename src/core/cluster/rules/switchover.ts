/**
 * Planned change of the primary. Phases, journaled in `state.switchover` and in the task:
 *
 *   checkpoint → hold → stop → promote (with an attempt on the path `planned`) → [opened] → follow → done
 *
 * Undo: before the old primary has stopped, it gets its role of the same term again (hold ends). After it has stopped, it opens a further
 * term on the same timeline, if the candidate holds no lease. What neither covers is left to the attempt's own rules.
 */
import { type NodeId, type Now, makeWallMs, nextTerm } from '../../ids.ts';
import { type NodeReport, hasShutDown } from '../../report.ts';
import type { Attempt, ClusterState, Switchover, Task } from '../../state.ts';
import type { ClusterView, Outcome, Rule } from '../../view.ts';
import { PLAIN_ATTEMPT, orderOpening } from '../attempts.ts';
import { openingSet } from '../sync-wish.ts';
import { withGoal, withoutRestart } from '../goals.ts';
import { checkSwitchover, chooseSuccessor } from '../switchover-checks.ts';
import {
  elapsedMs,
  endOfWal,
  gaveUp,
  activityFor,
  hasRead,
  isOpen,
  isStreaming,
  lastKnown,
  live,
  liveSinceLease,
  watchNeededMs,
} from '../observe.ts';
import { reserveTimeline } from '../reserved-timeline.ts';
import { type Problem, addStep, fail, findTask, finish, hasStep, refuse, start, stepSince, taskById, wordedReason } from '../tasks.ts';
import { givenUp, stepBack } from './attempt.ts';
import { restartInPlace } from './primary-lost.ts';

/** A checkpoint of a busy server takes its time; nothing is held meanwhile. */
const CHECKPOINT_LIMIT_MS = 120_000;
/** All new statements wait while the last transactions end; a longer one makes the switchover give up, which costs nobody anything. */
const HOLD_LIMIT_MS = 2000;
/** Beyond the stop ladder's first rung, before the stop counts as failed. */
const STOP_EXTRA_MS = 10_000;
/** A start after a clean stop takes a second; with it ends the hold of a restart in place, and whoever waits sees an error. */
const RESTART_EXTRA_MS = 10_000;
/** The candidate has the lease and promotes; longer than any promotion without a backlog takes. */
const PROMOTE_LIMIT_MS = 20_000;
/** It has not even taken the lease: writes are held, and giving the role back is still free of risk. */
const TAKE_LIMIT_MS = 5000;
/** Two report intervals after the order, a candidate that still lacks the shutdown checkpoint will never get it: its upstream is gone. */
const BEHIND_LIMIT_MS = 1500;
/** The switchover is done even when the old primary does not stream by then; the result says so. */
const FOLLOW_LIMIT_MS = 60_000;

/** The first phase. Also used by a rolling restart, whose last step is a switchover. */
export function beginSwitchover(
  view: ClusterView,
  now: Now,
  options: { readonly task: Task; readonly to: NodeId; readonly from: NodeId },
): ClusterState {
  const { task, to, from } = options;
  const deadline = makeWallMs(now.wall + CHECKPOINT_LIMIT_MS + view.spec.switchoverTimeoutMs);
  const planned: Switchover = {
    taskId: task.id,
    from,
    to,
    phase: 'checkpoint',
    startedWallMs: now.wall,
    phaseWallMs: now.wall,
    deadlineWallMs: deadline,
    holdRoute: 0,
    reason: wordedReason('switchover', task),
  };
  return { ...view.state, switchover: planned };
}

function started(view: ClusterView, now: Now): Outcome | null {
  const task = findTask(view, 'switchover', 'pending');
  const from = view.state.primary;
  if (task === null) return null;
  const chosen = task.request.to === null ? chooseSuccessor(view, now) : { to: task.request.to, problems: checkSwitchover(view, task.request.to) };
  if (chosen.to === null || from === null || chosen.problems.length > 0) return null;
  const why = `switchover from ${from} to ${chosen.to}`;
  return {
    why,
    state: beginSwitchover(view, now, { task, to: chosen.to, from }),
    tasks: [start(task, now, 'checkpoint', why)],
    again: 50,
    events: [{ level: 'info', node: from, text: `${why} begins`, detail: { by: task.by, reason: task.reason } }],
  };
}

function refused(view: ClusterView, now: Now): Outcome | null {
  const task = findTask(view, 'switchover', 'pending');
  if (task === null) return null;
  const problems = task.request.to === null ? chooseSuccessor(view, now).problems : checkSwitchover(view, task.request.to);
  if (problems.length === 0) return null;
  return { why: `switchover refused: ${problems.map((problem) => problem.text).join(' ')}`, tasks: [refuse(task, now, problems)], then: 'continue' };
}

interface Running {
  readonly planned: Switchover;
  readonly from: NodeReport | null;
  readonly task: Task | null;
}

function running(view: ClusterView): Running | null {
  const planned = view.state.switchover;
  return planned === null ? null : { planned, from: live(view, planned.from), task: taskById(view, planned.taskId) };
}

function enter(view: ClusterView, now: Now, planned: Switchover, phase: Switchover['phase']): ClusterState {
  return { ...view.state, switchover: { ...planned, phase, phaseWallMs: now.wall } };
}

function journal(task: Task | null, now: Now, step: string, detail: string): readonly Task[] {
  return task === null ? [] : [addStep(task, now, step, detail)];
}

function hold(view: ClusterView, now: Now): Outcome | null {
  const one = running(view);
  if (one === null || one.planned.phase !== 'checkpoint') return null;
  if (!hasCheckpoint(view, one)) return null;
  const epoch = view.state.route.epoch + 1;
  const state: ClusterState = {
    ...view.state,
    route: { ...view.state.route, epoch, hold: true },
    switchover: { ...one.planned, phase: 'hold', phaseWallMs: now.wall, holdRoute: epoch },
  };
  return {
    why: `proxies hold new transactions for the switchover to ${one.planned.to}`,
    state,
    tasks: journal(one.task, now, 'hold', `route ${epoch}`),
    again: 20,
    then: 'continue',
  };
}

/**
 * The old primary's agent says so, or it has read this very state and has nothing left to do: its checkpoint comes before everything else
 * that its goal asks (core/node/decide.ts).
 */
function hasCheckpoint(view: ClusterView, { planned, from }: Running): boolean {
  if (from === null || from.activity.kind !== 'done') return false;
  if (from.activity.goalId === `${planned.taskId}/checkpoint`) return true;
  return hasRead(view, from) && from.activity.goalId === view.state.goals[planned.from]?.id && isOpen(from, view.state.primaryTerm);
}

function stop(view: ClusterView, now: Now): Outcome | null {
  const one = running(view);
  if (one === null || one.planned.phase !== 'hold') return null;
  const late = Object.entries(view.proxyAcks).filter(([, epoch]) => epoch < one.planned.holdRoute);
  if (late.length > 0) return null;
  const entered = enter(view, now, one.planned, 'stop');
  if (isInPlace(one.planned)) {
    const { from, taskId } = one.planned;
    const tasks = journal(one.task, now, `restart ${from}`, 'in place');
    return { why: `${from} is restarted in place`, state: restartInPlace(entered, now, from, `${taskId}-${from}`), tasks, again: 20 };
  }
  const state = withGoal(entered, one.planned.from, view.state.primaryTerm, { kind: 'handover', to: one.planned.to });
  return { why: `${one.planned.from} stops and hands over to ${one.planned.to}`, state, tasks: journal(one.task, now, 'stop', ''), again: 20 };
}

/** The primary keeps its role and its term, and only its server is another one afterwards. */
function isInPlace(planned: Switchover): boolean {
  return planned.from === planned.to;
}

/** Its agent says of this very goal, which names the restart, that it is reached: another server runs and is open. */
function restarted(view: ClusterView): Outcome | null {
  const one = running(view);
  if (one === null || one.planned.phase !== 'stop' || !isInPlace(one.planned)) return null;
  const { from } = one.planned;
  const goal = view.state.goals[from] ?? null;
  if (one.from === null || activityFor(one.from, goal)?.kind !== 'done' || !isOpen(one.from, view.state.primaryTerm)) return null;
  const state = withoutRestart({ ...view.state, switchover: null }, from);
  return { why: `${from} was restarted in place and is open again`, state, again: 20 };
}

/** Its shutdown checkpoint is written, its lease released: nothing that it acknowledged is missing in `shutdownLsn`. */
function hasHandedOver(view: ClusterView, report: NodeReport | null): report is NodeReport {
  return report !== null && view.writeLease === null && report.leaseTerm === null && hasShutDown(report.postgres);
}

function promote(view: ClusterView, now: Now): Outcome | null {
  const one = running(view);
  if (one === null || one.planned.phase !== 'stop' || isInPlace(one.planned) || !hasHandedOver(view, one.from)) return null;
  const { planned, from } = one;
  const term = nextTerm(view.state.term);
  const reason = planned.reason;
  const attempt: Attempt = {
    ...PLAIN_ATTEMPT,
    term,
    path: 'planned',
    phase: 'promote',
    rule: 'switchover.promote',
    reason,
    candidate: planned.to,
    startedWallMs: now.wall,
    outageFromWallMs: planned.phaseWallMs,
    lostBytes: 0,
    target: planned.to,
    taskId: planned.taskId,
    sync: openingSet(view, planned.to, term),
  };
  const entered = reserveTimeline(view, { ...enter(view, now, planned, 'promote'), term, attempt });
  const state = withGoal(entered, planned.to, term, {
    kind: 'promote',
    requiredLsn: from.postgres.shutdownLsn,
  });
  return {
    why: `${planned.to} is promoted in term ${term}: ${planned.from} is stopped and released its lease`,
    state,
    tasks: journal(one.task, now, 'promote', `term ${term}`),
    again: 20,
    events: [{ level: 'info', node: planned.to, text: `${planned.to} is promoted in term ${term} by switchover`, detail: { reason } }],
  };
}

/** Why the old primary gets its role of the same term back; null: go on. Only before it has handed over. */
function undoReason(view: ClusterView, now: Now, one: Running): Problem | null {
  const { planned, from, task } = one;
  const phaseMs = elapsedMs(now, planned.phaseWallMs);
  const problem = (code: string, text: string, remedy: string): Problem => ({ code: `switchover.${code}`, text, remedy });
  if (planned.phase === 'promote') return null;
  if (isInPlace(planned) && planned.phase === 'stop') return restartTrouble(view, one, phaseMs);
  if (task === null || task.cancelRequested) return problem('cancelled', 'The switchover was cancelled.', '');
  if (from === null)
    return problem(
      'primary-lost',
      `The agent of ${planned.from} fell silent during the switchover.`,
      'The failover rules decide now; see "pgherd explain".',
    );
  const goal = view.state.goals[planned.from] ?? null;
  const activity = activityFor(from, goal);
  if (activity?.kind === 'failed' && !activity.retrying)
    return problem('stop-failed', `${planned.from} could not stop: ${activity.message}`, 'See its log ("pgherd log").');
  const { state } = from.postgres;
  if (state === 'crashed' || (state === 'stopped' && planned.phase !== 'stop'))
    return problem(
      'primary-crashed',
      `PostgreSQL of ${planned.from} ended during the phase ${planned.phase}.`,
      'It is started again, or a failover decided.',
    );
  if (state === 'stopped' && !from.postgres.cleanShutdown && from.leaseTerm === null)
    return problem('unclean-stop', `${planned.from} stopped without a shutdown checkpoint.`, 'It is started again; look at its log.');
  if (planned.phase === 'checkpoint') {
    if (from.activity.kind === 'failed' && from.activity.goalId === `${planned.taskId}/checkpoint`)
      return problem('checkpoint-failed', `The checkpoint of ${planned.from} failed: ${from.activity.message}`, 'Correct the cause, then try again.');
    if (phaseMs > CHECKPOINT_LIMIT_MS)
      return problem(
        'checkpoint-slow',
        `The checkpoint of ${planned.from} took longer than ${CHECKPOINT_LIMIT_MS} ms.`,
        'Try again when there is less to write.',
      );
  }
  if (live(view, planned.to) === null && planned.phase !== 'stop')
    return problem('candidate-lost', `The agent of ${planned.to} fell silent.`, 'Choose another standby.');
  if (planned.phase === 'hold' && phaseMs > HOLD_LIMIT_MS) {
    const late = Object.entries(view.proxyAcks)
      .filter(([, epoch]) => epoch < planned.holdRoute)
      .map(([proxy]) => proxy);
    return problem(
      'hold-not-acknowledged',
      `Transactions of clients of ${late.join(', ')} did not end within ${HOLD_LIMIT_MS} ms.`,
      'Wait until they are over, or end them; see "select * from pg_stat_activity". A proxy that hangs is left out 3 s after it fell silent.',
    );
  }
  if (planned.phase === 'stop' && state !== 'stopped' && phaseMs > view.spec.stopFastMs + STOP_EXTRA_MS)
    return problem(
      'stop-slow',
      `${planned.from} did not stop within ${view.spec.stopFastMs + STOP_EXTRA_MS} ms.`,
      'End long transactions first; see "pgherd log".',
    );
  return null;
}

/** Why nobody waits any more for a restart in place: writes are held meanwhile. The failover rules then decide, as after any other stop. */
function restartTrouble(view: ClusterView, { planned, from }: Running, phaseMs: number): Problem | null {
  const remedy = 'The failover rules decide now; see "pgherd explain".';
  if (from === null) return { code: 'switchover.primary-lost', text: `The agent of ${planned.from} fell silent during its restart.`, remedy };
  if (gaveUp(from, view.state.goals[planned.from] ?? null))
    return { code: 'switchover.restart-failed', text: `${planned.from} could not be restarted.`, remedy: `See "pgherd log ${planned.from}".` };
  const limitMs = view.spec.stopFastMs + STOP_EXTRA_MS + RESTART_EXTRA_MS;
  if (phaseMs <= limitMs) return null;
  return { code: 'switchover.restart-slow', text: `${planned.from} was not open again ${limitMs} ms after the order to restart.`, remedy };
}

function undo(view: ClusterView, now: Now): Outcome | null {
  const one = running(view);
  const problem = one === null ? null : undoReason(view, now, one);
  if (one === null || problem === null) return null;
  const { planned } = one;
  const kept = { ...view.state, switchover: null, attempt: null };
  const touched = view.state.goals[planned.from]?.kind !== 'primary';
  const state = touched ? restartInPlace(kept, now, planned.from) : kept;
  const why = `the switchover to ${planned.to} is undone: ${problem.text}`;
  const tasks = one.task === null ? [] : [fail(one.task, now, problem, 'undone')];
  return { why, state, tasks, events: [{ level: 'warn', node: planned.from, text: why, detail: {} }] };
}

/** Why the candidate will not open its term, so that the old primary opens a further one; null: wait. */
function candidateFailure(view: ClusterView, now: Now, planned: Switchover): string | null {
  const term = view.state.attempt?.term ?? view.state.term;
  const report = live(view, planned.to);
  if (report === null) return view.watchedMs < watchNeededMs(view.spec) ? null : `${planned.to} was lost before it opened term ${term}`;
  if (report.refusedTerms.includes(term)) return `${planned.to} refused term ${term}`;
  const goal = view.state.goals[planned.to] ?? null;
  if (goal?.kind === 'fenced') return goal.reason;
  if (gaveUp(report, goal)) return `${planned.to} could not be promoted`;
  const phaseMs = elapsedMs(now, planned.phaseWallMs);
  // One that took the lease and lost it since was not behind, whatever it had said before.
  const since = liveSinceLease(view, planned.to);
  const end = since === null ? null : endOfWal(since);
  const required = goal?.kind === 'promote' ? goal.requiredLsn : null;
  if (phaseMs > BEHIND_LIMIT_MS && required !== null && end !== null && end.lsn < required) {
    return `${planned.to} did not receive the shutdown checkpoint`;
  }
  if (view.writeLease === null && phaseMs > TAKE_LIMIT_MS)
    return `${planned.to} did not take the write lease of term ${term} within ${TAKE_LIMIT_MS} ms`;
  if (activityFor(report, goal)?.kind !== 'busy' && phaseMs > PROMOTE_LIMIT_MS)
    return `${planned.to} did not open term ${term} within ${PROMOTE_LIMIT_MS} ms`;
  return null;
}

/**
 * *Invariant:* the old primary opens a further term only while nobody holds the lease, and its WAL ends at the shutdown checkpoint.
 * *Because:* this write changes `state`, with which taking the lease is compared, so the candidate's order is void unless it holds
 * the lease already; then we wait for it to expire. *Broken if:* the same term were given back.
 */
function undoAfterStop(view: ClusterView, now: Now): Outcome | null {
  const one = running(view);
  const attempt = view.state.attempt;
  if (one === null || one.planned.phase !== 'promote' || attempt === null || attempt.candidate !== one.planned.to) return null;
  const { planned } = one;
  const candidate = live(view, planned.to);
  if (isOpen(candidate, attempt.term)) return null;
  const reason = candidateFailure(view, now, planned);
  if (reason === null) return null;
  if (view.writeLease?.holder === planned.to && candidate !== null) {
    const called = withGoal(view.state, planned.to, attempt.term, { kind: 'fenced', reason });
    return { why: `${reason}: it gives its write lease back first`, state: called, again: 20 };
  }
  if (!hasHandedOver(view, one.from)) return null;
  const term = nextTerm(view.state.term);
  const marked: ClusterState = {
    ...view.state,
    term,
    switchover: null,
    recovery: { ...view.state.recovery, [planned.to]: stepBack(view.state, now, planned.to, attempt) },
  };
  const mayHaveOpened = givenUp(view, attempt);
  const again: Attempt = {
    ...attempt,
    term,
    mayHaveOpened,
    lostBytes: mayHaveOpened.length === 0 && !attempt.afterRestore ? 0 : null,
    rule: 'switchover.undone-after-stop',
    reason,
    candidate: planned.from,
    startedWallMs: now.wall,
    target: null,
    taskId: null,
  };
  const state = orderOpening({ ...view, state: withGoal(marked, planned.to, term, { kind: 'vote' }) }, planned.from, again);
  const why = `${planned.from} opens term ${term}, on the same timeline: ${reason}`;
  const tasks =
    one.task === null
      ? []
      : [
          fail(
            one.task,
            now,
            {
              code: 'switchover.candidate-failed',
              text: `${reason}; ${planned.from} is the primary again.`,
              remedy: 'See the log of the candidate ("pgherd log").',
            },
            'undone',
          ),
        ];
  return { why, state, tasks, again: 20, events: [{ level: 'error', node: planned.from, text: why, detail: {} }] };
}

/** The task that ran a switchover which is over, or null. */
function endedTask(view: ClusterView): Task | null {
  if (view.state.switchover !== null || view.state.attempt !== null) return null;
  const task = findTask(view, 'switchover', 'running');
  return task !== null && hasStep(task, 'checkpoint') ? task : null;
}

function finished(view: ClusterView, now: Now): Outcome | null {
  const task = endedTask(view);
  const { primary, terms } = view.state;
  if (task === null) return null;
  if (!hasStep(task, 'follow')) {
    const text = `The switchover did not end as planned; the primary is ${primary ?? 'unknown'}.`;
    return { why: text, tasks: [fail(task, now, { code: 'switchover.overtaken', text, remedy: 'See "pgherd events".' })], then: 'continue' };
  }
  const old = terms.at(-2)?.primary ?? null;
  const done = old === null || old === primary || isStreaming(live(view, old), primary);
  if (!done && elapsedMs(now, stepSince(task)) < FOLLOW_LIMIT_MS) return null;
  const note = done
    ? ''
    : `; ${old} does not stream from it yet (${lastKnown(view, old)?.postgres.state ?? 'its agent is silent'}), see "pgherd show"`;
  const text = `${primary} is the primary of term ${view.state.primaryTerm}${note}`;
  return {
    why: text,
    tasks: [finish(task, now, text)],
    events: [{ level: 'info', node: primary, text: `switchover finished: ${text}`, detail: {} }],
    then: 'continue',
  };
}

function waiting(view: ClusterView): Outcome | null {
  const { switchover } = view.state;
  if (switchover === null || view.state.attempt !== null) return null;
  return { why: `switchover from ${switchover.from} to ${switchover.to}: ${switchover.phase}`, again: 50 };
}

export const switchoverRules: readonly Rule[] = [
  {
    id: 'switchover.refused',
    when: 'a switchover was asked, and a precondition does not hold',
    why: 'Each one is named before anything is touched; a refusal costs no write outage (H59).',
    decide: refused,
  },
  {
    id: 'switchover.started',
    when: 'a switchover was asked, and every precondition holds',
    why: 'The intent is journaled before the first step, so that another controller can go on (H45, Q32).',
    decide: started,
  },
  {
    id: 'switchover.undone',
    when: 'a step failed, took too long, or was cancelled, and the old primary has not handed over',
    why: 'It keeps its term and goes on; proxies resume (I12, I15, Q37).',
    decide: undo,
  },
  {
    id: 'switchover.undone-after-stop',
    when: 'the candidate failed after the old primary had stopped, and holds no lease',
    why: 'The old primary opens a further term on the same timeline; a writer is back in bounded time (I15).',
    decide: undoAfterStop,
  },
  {
    id: 'switchover.hold',
    when: 'the checkpoint of the old primary is done',
    why: 'The stop is quick then; proxies hold before the old primary stops, so that no client sees an error (Q28).',
    decide: hold,
  },
  {
    id: 'switchover.stop',
    when: 'every live proxy acknowledged that it holds',
    why: 'A proxy that does not know of the hold would show errors.',
    decide: stop,
  },
  {
    id: 'switchover.restarted',
    when: 'the primary was to be restarted in place, and is open again',
    why: 'Its agent says so of the goal that named the restart; proxies resume.',
    decide: restarted,
  },
  {
    id: 'switchover.promote',
    when: 'the old primary stopped with a shutdown checkpoint and released its lease',
    why: 'The candidate waits for exactly that checkpoint, so nothing is lost and the old primary needs no rewind (Z28, Z29, Z42).',
    decide: promote,
  },
  {
    id: 'switchover.finished',
    when: 'the candidate is open and the old primary streams from it, or its time is over',
    why: 'The task ends when its effect was seen, or says what is missing (I10, H39, H57).',
    decide: finished,
  },
  {
    id: 'switchover.waiting',
    when: 'a step of a switchover is not over',
    why: 'A planned operation takes the same lock as the recovery: no failover rule speaks meanwhile (Q38).',
    decide: waiting,
  },
];
