/**
 * The guard's mind. Pure.
 *
 * Phases: idle → armed (arm) → idle (disarm) | fencing (deadline passed) → fenced (processes gone, recorded) → idle (acknowledged).
 *
 * Invariant: an armed guard fences at the newest deadline it was given, less the time that its clock did not count, whatever else happens or does not happen.
 * Because: each deadline it is given was confirmed by the store (or by a complete set of promises) for its own lease, so the latest one counts; nothing
 *   but `disarm` takes the deadline away, and nothing stops a fence that has begun. The store's clock goes on while a machine is paused: that time is
 *   taken off here (`noteLostTime`), whoever notices it first.
 * Broken if: the agent arms with a deadline that was not confirmed, or disarms while its PostgreSQL can accept writes.
 */
import { type MonoMs, addMono } from '../../core/ids.ts';
import type { Armed, FenceRecord } from './protocol.ts';

export type GuardPhase = 'idle' | 'armed' | 'fencing' | 'fenced';

export interface GuardState {
  readonly phase: GuardPhase;
  readonly armed: Armed | null;
  readonly fenced: FenceRecord | null;
}

export interface GuardReply {
  readonly state: GuardState;
  readonly ok: boolean;
  /** Why it was refused; empty otherwise. */
  readonly why: string;
}

export const IDLE: GuardState = { phase: 'idle', armed: null, fenced: null };

const accept = (state: GuardState): GuardReply => ({ state, ok: true, why: '' });
const refuse = (state: GuardState, why: string): GuardReply => ({ state, ok: false, why });

/** A refused arm means for the agent that the renewal does not count. */
export function arm(state: GuardState, request: Armed, now: MonoMs): GuardReply {
  if (state.phase === 'fencing' || state.phase === 'fenced')
    return refuse(state, `term ${state.armed?.term ?? state.fenced?.term ?? 0} was fenced; acknowledge that first`);
  if (request.deadline <= now) return refuse(state, 'the deadline has passed');
  const old = state.armed;
  if (old !== null && request.term < old.term) return refuse(state, `armed for the newer term ${old.term}`);
  const sameLease = old !== null && old.term === request.term && old.leaseId === request.leaseId;
  // Answers can overtake each other: a confirmed later deadline stays true.
  const deadline = sameLease && old.deadline > request.deadline ? old.deadline : request.deadline;
  return accept({ phase: 'armed', armed: { ...request, deadline }, fenced: null });
}

/**
 * A deadline that is earlier than the one that stands, because the agent found that time was lost. One that has passed makes the fence due at once.
 * Refused for another lease than the armed one: then there is nothing to shorten.
 */
export function shorten(state: GuardState, request: Armed): GuardReply {
  const old = state.armed;
  if (state.phase !== 'armed' || old === null) return refuse(state, `the guard is ${state.phase}`);
  if (old.term !== request.term || old.leaseId !== request.leaseId) return refuse(state, `armed for term ${old.term}`);
  return accept({ ...state, armed: { ...old, deadline: request.deadline < old.deadline ? request.deadline : old.deadline } });
}

/** The guard's own clocks say that `lostMs` passed uncounted; 0 changes nothing. */
export function noteLostTime(state: GuardState, lostMs: number): GuardState {
  if (lostMs === 0 || state.phase !== 'armed' || state.armed === null) return state;
  return { ...state, armed: { ...state.armed, deadline: addMono(state.armed.deadline, -lostMs) } };
}

export function disarm(state: GuardState): GuardReply {
  if (state.phase === 'fencing') return refuse(state, 'the fence has begun');
  return accept({ ...state, phase: state.phase === 'fenced' ? 'fenced' : 'idle', armed: null });
}

export function acknowledge(state: GuardState): GuardReply {
  if (state.phase === 'fencing') return refuse(state, 'the fence has begun');
  if (state.phase === 'fenced' && state.fenced?.complete === false) return refuse(state, 'processes are left that could not be killed');
  return state.phase === 'fenced' ? accept(IDLE) : accept(state);
}

/** True when the fence is due now. */
export function isDue(state: GuardState, now: MonoMs): boolean {
  return state.phase === 'armed' && state.armed !== null && state.armed.deadline <= now;
}

export function beginFence(state: GuardState): GuardState {
  return { ...state, phase: 'fencing' };
}

/** An incomplete fence stays `fencing`: the guard goes on killing. */
export function noteFence(state: GuardState, record: FenceRecord): GuardState {
  return { phase: record.complete ? 'fenced' : 'fencing', armed: record.complete ? null : state.armed, fenced: record };
}

export function mayQuit(state: GuardState): boolean {
  return state.phase === 'idle' || state.phase === 'fenced';
}
