/** Makers of goals and state changes. An id changes only when the work is to be done anew. */
import { type NodeId, type Now, type Term, makeTerm } from '../ids.ts';
import type { Lsn } from '../lsn.ts';
import type { ClusterState, Goal } from '../state.ts';

export type Via = 'stream' | 'rewind' | 'clone';

export const noneGoal = (term: Term): Goal => ({ kind: 'none', id: `none-${term}`, term });
export const createGoal = (term: Term): Goal => ({ kind: 'create', id: `create-${term}`, term });
export const adoptGoal = (term: Term): Goal => ({ kind: 'adopt', id: `adopt-${term}`, term });
export const primaryGoal = (term: Term, generation: number): Goal => ({ kind: 'primary', id: `primary-${term}-${generation}`, term, generation });
export const voteGoal = (term: Term): Goal => ({ kind: 'vote', id: `vote-${term}`, term });
export const promoteGoal = (term: Term, requiredLsn: Lsn | null): Goal => ({ kind: 'promote', id: `promote-${term}`, term, requiredLsn });
export const handoverGoal = (term: Term, to: NodeId, taskId: string): Goal => ({ kind: 'handover', id: `handover-${term}-${taskId}`, term, to });
export const fencedGoal = (term: Term, reason: string): Goal => ({ kind: 'fenced', id: `fenced-${term}`, term, reason });
export const stoppedGoal = (term: Term, reason: string, taskId: string): Goal => ({ kind: 'stopped', id: `stopped-${term}-${taskId}`, term, reason });

export function standbyGoal(options: { term: Term; upstream: NodeId; via: Via; generation: number }): Goal {
  return { kind: 'standby', id: `standby-${options.term}-${options.upstream}-${options.via}-${options.generation}`, ...options };
}

/** The generation that makes a new id beside the present goal: one more on the same kind and term, else 0. */
export function nextGeneration(present: Goal | undefined, kind: 'primary' | 'standby', term: Term): number {
  if (present === undefined || present.term !== term) return 0;
  return present.kind === kind ? present.generation + 1 : kind === 'primary' ? generationAfter(present) : 0;
}

/** A goal between two `primary` goals of one term (stopped, handover, fenced) forgets the generation: a clock-free unique one is needed. */
function generationAfter(present: Goal): number {
  let hash = 7;
  for (const char of present.id) hash = (hash * 31 + char.charCodeAt(0)) % 1_000_003;
  return 1000 + hash;
}

/** The same object when nothing changes, so that no write follows. */
export function withGoal(state: ClusterState, node: NodeId, goal: Goal): ClusterState {
  const present = state.goals[node];
  if (present !== undefined && present.id === goal.id && present.kind === goal.kind && sameReason(present, goal)) return state;
  return { ...state, goals: { ...state.goals, [node]: goal } };
}

function sameReason(a: Goal, b: Goal): boolean {
  return ('reason' in a ? a.reason : '') === ('reason' in b ? b.reason : '');
}

export function withGoals(state: ClusterState, goals: readonly (readonly [NodeId, Goal])[]): ClusterState {
  return goals.reduce((next, [node, goal]) => withGoal(next, node, goal), state);
}

/** A copy without the key; the same object when it is not there. */
export function without<T>(record: Readonly<Record<string, T>>, key: string): Readonly<Record<string, T>> {
  if (!(key in record)) return record;
  return Object.fromEntries(Object.entries(record).filter(([name]) => name !== key));
}

/** What a cluster without any decision looks like. Used when `state` does not exist in the store. */
export function initialState(incarnation: string, now: Now): ClusterState {
  const zero = makeTerm(0);
  return {
    version: 1,
    incarnation,
    phase: 'new',
    systemIdentifier: null,
    term: zero,
    primary: null,
    primaryTerm: zero,
    timeline: null,
    history: [],
    goals: {},
    electorate: { revision: 0, members: [] },
    quorum: { revision: 0, term: zero, k: 0, voters: [] },
    attempt: null,
    switchover: null,
    overrides: {},
    recovery: {},
    frozen: null,
    lastFailoverWallMs: null,
    primaryLsn: null,
    terms: [],
    route: { epoch: 0, writer: null, readers: [], hold: false },
    decided: { rule: 'cluster.new', why: 'nothing was decided yet', atWallMs: now.wall },
  };
}
