/** Makers of goals and state changes. An id changes only when the work is to be done anew. */
import { type NodeId, type Now, type Term, makeTerm } from '../ids.ts';
import type { Lsn } from '../lsn.ts';
import { NO_SET } from './sync-set.ts';
import { type ClusterState, type Goal, NO_VIPS, type RecoveryProgress } from '../state.ts';

/**
 * Begins `lastError` of a node whose promotion was ordered and not seen to its end. It may have opened a timeline that another candidate opened
 * again later, with the same number and, when both were equally far, the same fork: nothing but its own word tells the two apart.
 */
export const UNFINISHED_PROMOTION = 'a promotion was not completed';

/** False for a node of which nothing is noted. */
export function isPromotionUnfinished(progress: RecoveryProgress | null | undefined): boolean {
  return progress?.lastError?.startsWith(UNFINISHED_PROMOTION) === true;
}

export type Via = 'stream' | 'rewind' | 'clone';

/** What a goal asks, without its identity. */
export type Wanted =
  | { readonly kind: 'none' | 'create' | 'adopt' | 'vote' }
  /** `restart` names the request for one restart of a running server; absent: whatever the present goal says. */
  | { readonly kind: 'primary'; readonly restart?: string }
  | { readonly kind: 'promote'; readonly requiredLsn: Lsn | null }
  /** `source`, `rateKb`: of a clone; absent: the upstream, without a limit. */
  | {
      readonly kind: 'standby';
      readonly upstream: NodeId;
      readonly via: Via;
      readonly restart?: string;
      readonly source?: NodeId | null;
      readonly rateKb?: number | null;
    }
  | { readonly kind: 'removed'; readonly dropData: boolean; readonly reason: string }
  | { readonly kind: 'handover'; readonly to: NodeId }
  | { readonly kind: 'fenced' | 'stopped'; readonly reason: string };

/** `anew`: the work is to be done again although the goal asks the same. */
export type Repeat = 'as-is' | 'anew';

/**
 * The same state object when the node has this goal already, so that no write follows.
 * `since`: the least number of the goal within its term; for a node that may have been a member before, whose agent remembers what it finished then.
 */
export function withGoal(state: ClusterState, node: NodeId, term: Term, wanted: Wanted, repeat: Repeat = 'as-is', since = 0): ClusterState {
  const present = state.goals[node];
  const isOrder = node !== state.primary && term === state.primaryTerm && wanted.kind !== 'handover' && wanted.kind !== 'primary';
  const of = isOrder ? orderTerm(state) : term;
  if (present !== undefined && repeat === 'as-is' && asks(present, of, wanted)) return state;
  const generation = Math.max(since, generationAfter(present, of));
  const id = `${wanted.kind}-${of}-g${generation}`;
  return { ...state, goals: { ...state.goals, [node]: makeGoal(id, of, generation, wanted) } };
}

/**
 * The term of orders to others than the primary: its own, or a newer one that members have seen and that nobody opened (the store forgot the attempt for it,
 * or somebody else's): they refuse every order of a lower one, and would follow nobody before the next term is opened.
 */
export function orderTerm({ attempt, switchover, term, primaryTerm }: ClusterState): Term {
  return attempt === null && switchover === null && term > primaryTerm ? term : primaryTerm;
}

function makeGoal(id: string, term: Term, generation: number, wanted: Wanted): Goal {
  switch (wanted.kind) {
    case 'primary':
      return { kind: 'primary', id, term, generation, restart: wanted.restart ?? null };
    case 'standby':
      return {
        kind: 'standby',
        id,
        term,
        upstream: wanted.upstream,
        via: wanted.via,
        source: wanted.source ?? null,
        rateKb: wanted.rateKb ?? null,
        generation,
        restart: wanted.restart ?? null,
      };
    case 'removed':
      return { kind: 'removed', id, term, dropData: wanted.dropData, reason: wanted.reason };
    case 'promote':
      return { kind: 'promote', id, term, requiredLsn: wanted.requiredLsn };
    case 'handover':
      return { kind: 'handover', id, term, to: wanted.to };
    case 'fenced':
    case 'stopped':
      return { kind: wanted.kind, id, term, reason: wanted.reason };
    default:
      return { kind: wanted.kind, id, term };
  }
}

function asks(present: Goal, term: Term, wanted: Wanted): boolean {
  if (present.kind !== wanted.kind || present.term !== term) return false;
  const { id: _id, term: _term, ...rest } = present;
  return Object.entries(wanted).every(([key, value]) => (rest as Readonly<Record<string, unknown>>)[key] === value);
}

/** Each goal of a node has its own number within its term, so that an id never comes back. */
function generationAfter(present: Goal | undefined, term: Term): number {
  if (present === undefined || present.term !== term) return 0;
  const match = /-g(\d+)$/.exec(present.id);
  return match === null ? 0 : Number(match[1]) + 1;
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
    setBack: null,
    phase: 'new',
    systemIdentifier: null,
    term: zero,
    primary: null,
    primaryTerm: zero,
    timeline: null,
    history: [],
    reservedTimeline: null,
    goals: {},
    electorate: { revision: 0, members: [], former: [] },
    quorum: {
      revision: 0,
      term: zero,
      k: 0,
      voters: [],
      wanted: NO_SET,
      wantedRevision: 0,
      mayStand: [NO_SET],
      lowered: null,
      floor: null,
      floorPending: false,
    },
    attempt: null,
    switchover: null,
    draining: null,
    fence: null,
    overrides: {},
    recovery: {},
    cascades: {},
    positions: {},
    frozen: null,
    lastFailoverWallMs: null,
    primaryLsn: null,
    terms: [],
    route: { epoch: 0, writer: null, readers: [], hold: false },
    vips: NO_VIPS,
    diskProblems: {},
    decided: { rule: 'cluster.new', why: 'nothing was decided yet', atWallMs: now.wall },
  };
}

/** The request for a restart was fulfilled; the goal keeps its id, so that nothing is done anew. */
export function withoutRestart(state: ClusterState, node: NodeId): ClusterState {
  const goal = state.goals[node];
  if (goal === undefined || (goal.kind !== 'primary' && goal.kind !== 'standby') || goal.restart === null) return state;
  return { ...state, goals: { ...state.goals, [node]: { ...goal, restart: null } } };
}
