/**
 * The agent's own decision: from what is true here and what the controller wants, to the ONE next action.
 *
 * Pure. Called after every observation, every change of the state and every finished action; so it never plans ahead.
 * Order of the questions: is it safe, is the goal ours to follow, what is the next step towards it.
 */
import type { MonoMs, NodeId, Term } from '../ids.ts';
import { type PostgresReport, hasShutDown, type Vote } from '../report.ts';
import { assertNever } from '../result.ts';
import type { ClusterState, Goal, GoalKind } from '../state.ts';
import type { NodeAction } from './action.ts';
import { whyParted } from './parted.ts';

/** Everything of this host that the decision may look at. */
export interface LocalFacts {
  readonly node: NodeId;
  readonly witness: boolean;
  readonly postgres: PostgresReport;
  /** Term of the write lease that is valid by our own deadline; null: none. */
  readonly leaseTerm: Term | null;
  /** A renewal that was sent after the promotion or start as primary had ended succeeded. */
  readonly confirmed: boolean;
  /** Clients are let in for writes. */
  readonly open: boolean;
  /** Newest term this agent has seen, persisted. */
  readonly highestTerm: Term;
  readonly vote: Vote | null;
  readonly refusedTerms: readonly Term[];
  /** Steps of goals that were finished, `goalId/step`. */
  readonly finished: ReadonlySet<string>;
  /** The last failure: no new try of this goal before `notBefore`; never when permanent. */
  readonly failure: { readonly goalId: string; readonly permanent: boolean; readonly notBefore: MonoMs } | null;
  /** Since when a standby goal is configured but not streaming; null while it streams. */
  readonly notStreamingSince: MonoMs | null;
  /** The upstream that the running server is configured with; null: none. */
  readonly upstream: NodeId | null;
  /** The server ran as primary under the present goal. */
  readonly ranUnderGoal: boolean;
  /** Since when no process of the data directory is left; null while one lives. */
  readonly downSince: MonoMs | null;
  /** Since when the server has been stopping; null while it is not. */
  readonly stoppingSince: MonoMs | null;
  /** The write lease was refused or the store does not answer, since then. */
  readonly leaseWantedSince: MonoMs | null;
  /** The synchronous set is in force, and after a start enough of its members hold what was recovered. */
  readonly syncReady: boolean;
}

/** How long a primary without a lease stays stopped before it comes back read-only; a lease normally takes milliseconds. */
export const READ_ONLY_COMEBACK_MS = 3000;
/**
 * How long a crashed primary waits for the controller's choice between failover and restart in place. The choice takes
 * milliseconds; without a controller nobody can fail over, and the restart must not wait for long.
 */
export const CRASH_DECISION_MS = 1500;
/** A stop that nobody here asked for (a smart shutdown that waits for clients) is finished by us after this long: until then nobody can connect, and nobody fails over. */
export const STOPPING_PATIENCE_MS = 10_000;
/** A follow that does not stream after this long is tried again. */
export const FOLLOW_RETRY_MS = 5000;

/**
 * True when some process of the data directory may accept writes now. `hung` and `starting` count with the role they had; a living server whose
 * role is not known counts as a primary: a lease must never be given back on the strength of a look that failed. A server that is stopping and has
 * written its shutdown checkpoint accepts nothing any more (`hasShutDown`).
 */
export function mayAcceptWrites(postgres: PostgresReport): boolean {
  return isAlive(postgres) && postgres.role !== 'standby' && !hasShutDown(postgres);
}

export function isAlive(postgres: PostgresReport): boolean {
  return postgres.state === 'running' || postgres.state === 'hung' || postgres.state === 'starting' || postgres.state === 'stopping';
}

const nothing = (why: string): NodeAction => ({ kind: 'none', why, done: false });
const reached = (why: string): NodeAction => ({ kind: 'none', why, done: true });

export function decideNode(facts: LocalFacts, state: ClusterState | null, now: MonoMs): NodeAction {
  if (state === null) return decideSafety(facts, null, 'unknown') ?? nothing('the state of the cluster is not known yet');
  const goal = state.goals[facts.node] ?? null;
  if (goal === null || goal.kind === 'none') return nothing(goal === null ? 'no goal' : 'left as it is');
  // Invariant: a goal of a lower term than one already seen is never followed (§4.10).
  // Because: a store restored from an old backup would otherwise bring back an old primary.
  // Broken if: highestTerm is not persisted before the first action of a term.
  const outdated = goal.term < facts.highestTerm;
  const safety = decideSafety(facts, outdated ? null : goal, 'known');
  if (safety !== null) return safety;
  const foreign = decideForeign(facts, state);
  if (foreign !== null) return foreign;
  if (outdated) return nothing(`refused: the goal is of term ${goal.term}, and term ${facts.highestTerm} was seen`);
  const checkpoint = decideCheckpoint(facts, state);
  if (checkpoint !== null) return checkpoint;
  if (facts.failure !== null && facts.failure.goalId === goal.id && !keepsTrying(goal)) {
    if (facts.failure.permanent) return nothing('this goal failed for good; waiting for another');
    if (now < facts.failure.notBefore) return nothing('waiting before the next try');
  }
  return HANDLERS[goal.kind](facts, goal as never, now, state);
}

/** A data directory of another cluster (a wrong mount) is never started, promoted, rewound or wiped for this one (I11, §4.1). */
function decideForeign(facts: LocalFacts, state: ClusterState): NodeAction | null {
  const own = facts.postgres.systemIdentifier;
  if (own === null || state.systemIdentifier === null || own === state.systemIdentifier) return null;
  if (mayAcceptWrites(facts.postgres)) return { kind: 'fence', why: `the running server belongs to another cluster (system identifier ${own})` };
  if (facts.leaseTerm !== null) return { kind: 'release-lease', why: 'the data directory belongs to another cluster' };
  return nothing(`refused: the data directory belongs to another cluster (system identifier ${own}, expected ${state.systemIdentifier})`);
}

/** A fence or a stop is repeated until it worked; there is nothing else to wait for. */
function keepsTrying(goal: Goal): boolean {
  return goal.kind === 'fenced' || goal.kind === 'stopped';
}

/**
 * Invariant: a server that can accept writes runs only under a valid lease (§4.2), or before pgherd took it over (`adopt`).
 * Because: whoever opens the next term counts on it; the lease keeper fences at the deadline by itself, this is the second look.
 * Broken if: a goal kind is added here as an exception without a lease of its own.
 */
function decideSafety(facts: LocalFacts, goal: Goal | null, state: 'known' | 'unknown'): NodeAction | null {
  if (!mayAcceptWrites(facts.postgres) || facts.leaseTerm !== null) return null;
  // Before its first goal a node is not pgherd's: a running server that is to be adopted is left alone.
  if (state === 'unknown' && facts.highestTerm === 0) return null;
  if (goal?.kind === 'adopt') return null;
  return { kind: 'fence', why: 'PostgreSQL may accept writes and no write lease is held' };
}

function decideCheckpoint(facts: LocalFacts, state: ClusterState): NodeAction | null {
  const planned = state.switchover;
  if (planned === null || planned.phase !== 'checkpoint' || planned.from !== facts.node) return null;
  if (facts.finished.has(`${planned.taskId}/checkpoint`) || facts.postgres.state !== 'running') return null;
  return { kind: 'checkpoint', why: 'before a switchover, so that the stop is quick' };
}

type Handler<K extends GoalKind> = (facts: LocalFacts, goal: Extract<Goal, { kind: K }>, now: MonoMs, state: ClusterState) => NodeAction;

const HANDLERS: { readonly [K in GoalKind]: Handler<K> } = {
  none: () => nothing('left as it is'),
  create: decideCreate,
  adopt: decideAdopt,
  primary: decidePrimary,
  vote: decideVote,
  promote: decidePromote,
  standby: decideStandby,
  handover: decideHandover,
  fenced: decideFenced,
  stopped: decideStopped,
  removed: decideRemoved,
};

/** Goal kinds that this agent can execute; compared with what decideCluster can give (Q1). */
export const handledGoals: readonly GoalKind[] = Object.keys(HANDLERS) as GoalKind[];

function decideCreate(facts: LocalFacts, goal: Extract<Goal, { kind: 'create' }>, now: MonoMs): NodeAction {
  const { postgres } = facts;
  if (postgres.state === 'absent') return { kind: 'initdb', why: 'a new cluster' };
  if (!facts.finished.has(`${goal.id}/initdb`)) {
    return nothing('refused: the data directory is not empty and was not made for this goal');
  }
  return towardsOpen(facts, goal.term, now);
}

function decideAdopt(facts: LocalFacts, goal: Extract<Goal, { kind: 'adopt' }>, now: MonoMs): NodeAction {
  if (facts.leaseTerm !== goal.term) return { kind: 'acquire-lease', why: 'taking over a running primary', term: goal.term };
  if (!facts.finished.has(`${goal.id}/adopt`)) return { kind: 'adopt', why: 'managed files, roles and slots of a running server' };
  return towardsOpen(facts, goal.term, now);
}

function decidePrimary(facts: LocalFacts, goal: Extract<Goal, { kind: 'primary' }>, now: MonoMs): NodeAction {
  const { postgres } = facts;
  if (postgres.state === 'absent' || postgres.state === 'incomplete') {
    return nothing('refused: there is no complete data directory to be a primary with');
  }
  if (facts.leaseTerm !== null && facts.leaseTerm !== goal.term) return giveUpRole(facts, 'the lease is of another term');
  if (facts.leaseTerm === null) {
    const waited = facts.leaseWantedSince === null ? 0 : now - facts.leaseWantedSince;
    const down = postgres.state === 'stopped' || postgres.state === 'crashed';
    if (down && waited > READ_ONLY_COMEBACK_MS) {
      return { kind: 'start-standby', why: 'no write lease can be had; reads go on meanwhile', upstream: null };
    }
    return { kind: 'acquire-lease', why: `primary of term ${goal.term}`, term: goal.term };
  }
  const restart = wantsRestart(facts, goal);
  if (restart && postgres.state === 'running') return { kind: 'stop', why: 'restart on request' };
  if (postgres.role === 'standby' && isAlive(postgres)) {
    return { kind: 'stop', why: 'it runs read-only and is to be the primary of this term again' };
  }
  if (restart) return towardsOpen(facts, goal.term, now);
  const down = postgres.state === 'crashed' || postgres.state === 'stopped';
  if (down && facts.ranUnderGoal && facts.downSince !== null && now - facts.downSince < CRASH_DECISION_MS) {
    return nothing('PostgreSQL is gone; the controller chooses between failover and restart in place');
  }
  return towardsOpen(facts, goal.term, now);
}

function wantsRestart(facts: LocalFacts, goal: { readonly restart: string | null }): boolean {
  return goal.restart !== null && !facts.finished.has(restartStep(goal.restart));
}

/** What is remembered as finished once the server was started after the request. */
export function restartStep(request: string): string {
  return `restart/${request}`;
}

/** Lease held → PostgreSQL writable → clients let in. */
function towardsOpen(facts: LocalFacts, term: Term, now: MonoMs): NodeAction {
  const { postgres } = facts;
  if (facts.leaseTerm !== term) return { kind: 'acquire-lease', why: `to open term ${term}`, term };
  if (postgres.state === 'stopped' || postgres.state === 'crashed') {
    return { kind: 'start-primary', why: postgres.state === 'crashed' ? 'restart in place after a crash' : 'start as primary', term };
  }
  if (postgres.state === 'hung') return nothing('PostgreSQL does not answer; the controller decides');
  if (facts.stoppingSince !== null && now - facts.stoppingSince > STOPPING_PATIENCE_MS) {
    return { kind: 'stop', why: 'it has been stopping for long, and nobody can connect' };
  }
  if (postgres.state !== 'running') return nothing(`PostgreSQL is ${postgres.state}`);
  if (facts.open) return reached(`primary of term ${term}`);
  // Invariant: a node opens only after one more successful renewal since it became writable (§4.5).
  // Because: a promotion can outlast the lease; the renewal proves that nobody opened a newer term meanwhile.
  // Broken if: `confirmed` outlives the start of another promotion, start or lease.
  if (!facts.confirmed) return nothing('waiting for one more renewal of the write lease');
  // Invariant: nobody reads a commit that a crash released before enough standbys hold it, and no commit of a new term is acknowledged without its set.
  // Because: a crash ends the waiting of commits that were never acknowledged, and recovery shows them (Q27, I8).
  // Broken if: the port is opened while the set is only written.
  if (!facts.syncReady) return nothing('waiting for the synchronous set to be in force');
  return { kind: 'open', why: `term ${term} is ours and confirmed`, term };
}

function decideVote(facts: LocalFacts, goal: Extract<Goal, { kind: 'vote' }>): NodeAction {
  if (facts.leaseTerm !== null) return giveUpRole(facts, `a vote for term ${goal.term} was asked`);
  if (facts.vote !== null && facts.vote.term >= goal.term && (facts.witness || facts.vote.final)) {
    return reached(`voted for term ${facts.vote.term}`);
  }
  return { kind: 'vote', why: `term ${goal.term} is being decided`, term: goal.term };
}

function decidePromote(facts: LocalFacts, goal: Extract<Goal, { kind: 'promote' }>, now: MonoMs): NodeAction {
  const { postgres } = facts;
  if (facts.refusedTerms.includes(goal.term)) return nothing(`term ${goal.term} was refused`);
  if (postgres.state === 'running' && postgres.role === 'primary') return towardsOpen(facts, goal.term, now);
  if (postgres.state === 'stopped' || postgres.state === 'crashed') {
    return { kind: 'start-standby', why: 'only a running standby can be promoted', upstream: null };
  }
  if (postgres.state === 'starting' || postgres.state === 'stopping') return nothing(`PostgreSQL is ${postgres.state}`);
  if (postgres.state !== 'running') {
    // A candidate that cannot promote says so durably, so that the next one may be ordered (§4.5).
    return { kind: 'refuse', why: `PostgreSQL is ${postgres.state}, it cannot be promoted`, term: goal.term };
  }
  const behind = goal.requiredLsn !== null && (postgres.replayedLsn === null || postgres.replayedLsn < goal.requiredLsn);
  if (behind && goal.requiredLsn !== null && !facts.finished.has(`${goal.id}/wait-replay`)) {
    return { kind: 'wait-replay', why: 'the shutdown checkpoint must be here first', requiredLsn: goal.requiredLsn };
  }
  if (facts.leaseTerm !== goal.term) return { kind: 'acquire-lease', why: `promotion for term ${goal.term}`, term: goal.term };
  return { kind: 'promote', why: `elected for term ${goal.term}`, term: goal.term, requiredLsn: goal.requiredLsn };
}

function decideStandby(facts: LocalFacts, goal: Extract<Goal, { kind: 'standby' }>, now: MonoMs, state: ClusterState): NodeAction {
  const { postgres } = facts;
  const unlessParted = (action: NodeAction): NodeAction => {
    const parted = whyParted(postgres, state, goal);
    return parted === null ? action : nothing(`not brought to ${goal.upstream}: it ${parted}`);
  };
  if (facts.leaseTerm !== null) return giveUpRole(facts, `another node is the primary of term ${goal.term}`);
  if (goal.via !== 'stream' && !facts.finished.has(`${goal.id}/${goal.via}`)) {
    if (isAlive(postgres)) return { kind: 'stop', why: `to ${goal.via}` };
    if (goal.via === 'rewind') return { kind: 'rewind', why: `to follow ${goal.upstream}`, upstream: goal.upstream };
    return { kind: 'clone', why: `to follow ${goal.upstream}`, upstream: goal.upstream, source: goal.source ?? goal.upstream, rateKb: goal.rateKb };
  }
  if (postgres.state === 'absent' || postgres.state === 'incomplete') {
    return nothing(`there is no complete data directory to start (${postgres.state})`);
  }
  if (postgres.state === 'stopped' || postgres.state === 'crashed') {
    return unlessParted({ kind: 'start-standby', why: `to follow ${goal.upstream}`, upstream: goal.upstream });
  }
  if (postgres.state === 'hung') return { kind: 'stop', why: 'it does not answer' };
  if (postgres.state !== 'running') return nothing(`PostgreSQL is ${postgres.state}`);
  const restart = wantsRestart(facts, goal);
  if (restart) return { kind: 'stop', why: 'restart on request' };
  if (facts.upstream !== goal.upstream) return unlessParted({ kind: 'follow', why: `upstream is to be ${goal.upstream}`, upstream: goal.upstream });
  if (postgres.streamingFrom === goal.upstream) return reached(`streams from ${goal.upstream}`);
  // Nothing that could be done here would make it stream sooner; what it will need is kept by its slot there.
  if (postgres.waitsForDelay) return reached(`replays later on purpose what it has, and streams from ${goal.upstream} after that`);
  if (facts.notStreamingSince !== null && now - facts.notStreamingSince > FOLLOW_RETRY_MS) {
    return unlessParted({ kind: 'follow', why: `it does not stream from ${goal.upstream}`, upstream: goal.upstream });
  }
  return nothing(`waiting for the stream from ${goal.upstream}`);
}

function decideHandover(facts: LocalFacts): NodeAction {
  if (isAlive(facts.postgres)) return { kind: 'stop', why: 'planned switchover' };
  if (facts.leaseTerm !== null) return { kind: 'release-lease', why: 'the old primary is stopped' };
  return reached('stopped and released');
}

function decideFenced(facts: LocalFacts, goal: Extract<Goal, { kind: 'fenced' }>): NodeAction {
  if (mayAcceptWrites(facts.postgres) || (facts.postgres.state === 'hung' && facts.leaseTerm !== null)) {
    return { kind: 'fence', why: goal.reason };
  }
  if (facts.leaseTerm !== null) return { kind: 'release-lease', why: goal.reason };
  return reached(goal.reason);
}

function decideStopped(facts: LocalFacts, goal: Extract<Goal, { kind: 'stopped' }>): NodeAction {
  if (isAlive(facts.postgres)) return { kind: 'stop', why: goal.reason };
  if (facts.leaseTerm !== null) return { kind: 'release-lease', why: goal.reason };
  return reached(goal.reason);
}

function decideRemoved(facts: LocalFacts, goal: Extract<Goal, { kind: 'removed' }>): NodeAction {
  if (facts.leaseTerm !== null) return giveUpRole(facts, goal.reason);
  if (isAlive(facts.postgres)) return { kind: 'stop', why: goal.reason };
  if (!goal.dropData || facts.postgres.state === 'absent') return reached(goal.reason);
  return { kind: 'drop-data', why: goal.reason };
}

/** A role that is not ours any more: no writes first, then the lease. */
function giveUpRole(facts: LocalFacts, why: string): NodeAction {
  if (mayAcceptWrites(facts.postgres)) return { kind: 'stop', why };
  return { kind: 'release-lease', why };
}

/** Kept exhaustive by the compiler: a new goal kind without a handler does not compile. */
export function describeGoal(goal: Goal): string {
  switch (goal.kind) {
    case 'none':
      return 'left as it is';
    case 'create':
      return `create the cluster (term ${goal.term})`;
    case 'adopt':
      return `adopt the running primary (term ${goal.term})`;
    case 'primary':
      return `primary of term ${goal.term}`;
    case 'vote':
      return `vote for term ${goal.term}`;
    case 'promote':
      return `promote for term ${goal.term}`;
    case 'standby':
      return `standby of ${goal.upstream}${goal.via === 'stream' ? '' : ` by ${goal.via}`}`;
    case 'handover':
      return `hand over to ${goal.to}`;
    case 'fenced':
      return `fenced: ${goal.reason}`;
    case 'stopped':
      return `stopped: ${goal.reason}`;
    case 'removed':
      return `removed${goal.dropData ? ' with its data' : ''}: ${goal.reason}`;
    default:
      return assertNever(goal, 'describeGoal');
  }
}
