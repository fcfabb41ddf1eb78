/**
 * The state: what the controller decided last. Only the elected controller writes it, in one transaction that is
 * guarded by its election key and by the revision of `state` that it read.
 */
import { type Decoded, bool, integer, list, literal, lsn, nullable, object, oneOf, record, text, union, withDefault } from './decode.ts';
import type { NodeId } from './ids.ts';
import { fork, position, term, timeline, wallMs } from './report.ts';
import { nodeId } from './spec.ts';

/**
 * What one node is to become. `id` changes whenever the controller wants the work done anew (it names the attempt);
 * `term` is compared by the agent with the newest it has seen: a goal of a lower term is refused.
 * `restart` names a request (a task id) to stop and start the running server once; null: no goal change ever restarts it.
 */
const goalBase = { id: text, term };
export const goal = union({
  /** Nothing: leave PostgreSQL as it is (before bootstrap, maintenance). */
  none: object({ kind: literal('none'), ...goalBase }),
  /** initdb, start, take the lease of `term`, open. Refused unless the directory is absent. */
  create: object({ kind: literal('create'), ...goalBase }),
  /** Take over the running server without a restart: managed files, slots, lease of `term`. */
  adopt: object({ kind: literal('adopt'), ...goalBase }),
  /** Be the primary of `term`: hold the lease, run writable, open. Restarts a crashed one in place. */
  primary: object({ kind: literal('primary'), ...goalBase, generation: withDefault(integer, 0), restart: withDefault(nullable(text), null) }),
  /** Vote for `term`: durable promise, walreceiver gone, position reported. */
  vote: object({ kind: literal('vote'), ...goalBase }),
  /** Point of no return: take the lease for `term`, promote with clients blocked, open after one more renewal. Wait until replayed ≥ requiredLsn first. */
  promote: object({ kind: literal('promote'), ...goalBase, requiredLsn: nullable(lsn) }),
  /** Stream from `upstream`. `via` is the rung of the recovery ladder. */
  standby: object({
    kind: literal('standby'),
    ...goalBase,
    upstream: nodeId,
    via: oneOf('stream', 'rewind', 'clone'),
    /** The member that is copied by a clone; null: the upstream. */
    source: withDefault(nullable(nodeId), null),
    /** A clone reads at most this many KiB a second; null: as fast as it can. */
    rateKb: withDefault(nullable(integer), null),
    generation: withDefault(integer, 0),
    restart: withDefault(nullable(text), null),
  }),
  /** Planned stop of a primary for a switchover: checkpointed, fast, then release the lease and report shutdownLsn. Undo is `primary` again. */
  handover: object({ kind: literal('handover'), ...goalBase, to: nodeId }),
  /** Not writable, no process if it was writable: after a fence, a divergence under `recovery: manual`, or a hang. */
  fenced: object({ kind: literal('fenced'), ...goalBase, reason: text }),
  /** Stopped on request (fast). A primary releases its lease. */
  stopped: object({ kind: literal('stopped'), ...goalBase, reason: text }),
  /** Stopped for good, since the node leaves the cluster; `dropData`: the data directory is deleted too. Never given to a primary. */
  removed: object({ kind: literal('removed'), ...goalBase, dropData: bool, reason: text }),
});
export type Goal = Decoded<typeof goal>;
export type GoalKind = Goal['kind'];

/** What synchronous_standby_names is to say; members are voters (`NODE.INCARNATION`). k = 0: nothing is waited for. */
export const syncSet = object({ method: oneOf('any', 'first'), k: integer, members: list(text) });
export type SyncSet = Decoded<typeof syncSet>;

/** Every acknowledged commit is on the primary and on at least k of the voters. k = 0: on the primary only. */
export interface Facts {
  readonly k: number;
  readonly voters: readonly string[];
}

/** The attempt to open a new term. */
export const attempt = object({
  term,
  /** `lease`: asynchronous mode, the old lease is gone. `quorum`: more than |voters| − k detached voters. `planned`: switchover. `manual`: a person's failover. */
  path: oneOf('lease', 'quorum', 'planned', 'manual'),
  /** `vote`: positions are collected. `promote`: the order was given (point of no return). */
  phase: oneOf('vote', 'promote'),
  rule: text,
  reason: text,
  candidate: nullable(nodeId),
  /** Positions that the decision rested on. */
  positions: record(position),
  startedWallMs: wallMs,
  /** When writes stopped, as well as it is known. */
  outageFromWallMs: wallMs,
  /** Bytes of WAL that the old primary had and the candidate has not; null when unknown. */
  lostBytes: nullable(integer),
  acceptLoss: bool,
  /**
   * Candidates of earlier attempts since the last opening that were ordered to promote and did not durably refuse: each may have been open for
   * a moment, with rows that nobody here knows of. Then no loss is known exactly.
   */
  mayHaveOpened: withDefault(list(object({ node: nodeId, term })), []),
  /** The store was restored when a person began this: terms that it forgot may have been open, so that no loss is known. */
  afterRestore: withDefault(bool, false),
  /** A person said that the votes that are missing are not waited for: the old primary is surely off. */
  acceptTwoPrimaries: withDefault(bool, false),
  /** A person's target; null: the best. */
  target: nullable(nodeId),
  taskId: nullable(text),
  /** The synchronous set with which the candidate opens; null: it waits for nobody. The facts of the old term stay as they are until it is open. */
  sync: withDefault(nullable(syncSet), null),
});
export type Attempt = Decoded<typeof attempt>;

/** Lineage is identified by (timeline, fork LSN, creating node, term): two late promotions can share a timeline number. */
export const termRecord = object({
  term,
  timeline: nullable(timeline),
  primary: nodeId,
  forkLsn: nullable(lsn),
  rule: text,
  reason: text,
  startedWallMs: wallMs,
  outageMs: nullable(integer),
  lostBytes: nullable(integer),
});
export type TermRecord = Decoded<typeof termRecord>;

export const switchover = object({
  taskId: text,
  from: nodeId,
  to: nodeId,
  /**
   * checks → checkpoint → hold → stop → promote → follow. `undo`: give the old primary its role back. With `from` = `to` the primary is restarted in
   * place while proxies hold: checkpoint → hold → stop, and it is over when it is open again.
   */
  phase: oneOf('checkpoint', 'hold', 'stop', 'promote', 'undo'),
  startedWallMs: wallMs,
  phaseWallMs: wallMs,
  deadlineWallMs: wallMs,
  /** Epoch of the route that proxies must have acknowledged before the phase `stop`. */
  holdRoute: integer,
  reason: text,
});
export type Switchover = Decoded<typeof switchover>;

/** What a person asked of one node; stays until the person takes it back. */
export const nodeOverride = object({ kind: oneOf('stopped', 'maintenance', 'manual'), reason: text, by: text, sinceWallMs: wallMs });

/** Progress of taking a node back: kept in the state so that a new controller does not start counting again. */
export const recoveryProgress = object({
  /** Good looks at the returned node so far. */
  checks: integer,
  firstSeenWallMs: wallMs,
  attempts: integer,
  /** Not before this time (back-off). */
  notBeforeWallMs: wallMs,
  lastError: nullable(text),
});
export type RecoveryProgress = Decoded<typeof recoveryProgress>;

/**
 * A standby whose settings name another standby as upstream, and that one is not in order. `away`: it streams from the primary meanwhile.
 * `healthySinceWallMs`: since when the upstream is in order again; it goes back after `settleMs` of that.
 */
export const cascade = object({ away: bool, reason: text, sinceWallMs: wallMs, healthySinceWallMs: nullable(wallMs), settleMs: integer });
export type Cascade = Decoded<typeof cascade>;

/** Who holds a virtual address by its own word, and who else answers for it. */
const vipSeen = object({ node: nullable(nodeId), otherMac: nullable(text) });
const NO_VIP_SEEN = { node: null, otherMac: null };
export const NO_VIPS = { read: null, seen: { write: NO_VIP_SEEN, read: NO_VIP_SEEN } } as const;

/** Begins the incarnation of each state that came back from an older time; no store's own begins like it. */
export const OF_A_BACKUP = 'restored from ';

export const clusterState = object({
  version: integer,
  /** Incarnation of the store in which this was decided. */
  incarnation: text,
  /** How far this store had once come when its files were set back last (by what members had read of it); null: it never was. */
  setBack: withDefault(nullable(object({ incarnation: text, revision: integer })), null),
  phase: oneOf('new', 'creating', 'adopting', 'running', 'stopping', 'stopped'),
  systemIdentifier: nullable(text),
  /** The newest term assigned, opened or not. */
  term,
  /** Primary of the newest *opened* term. */
  primary: nullable(nodeId),
  primaryTerm: term,
  /** Timeline of `primaryTerm`, and where each older one ended. */
  timeline: nullable(timeline),
  history: list(fork),
  /** What the last order to promote was given for its timeline: the least number that nobody has used. Never lowered; null before the first. */
  reservedTimeline: withDefault(nullable(timeline), null),
  goals: record(goal),
  /** Who votes, with a rising revision: a promotion needs P of them, a primary without the store F (F + P > M). */
  electorate: object({
    revision: integer,
    members: list(nodeId),
    /** Who voted before, until the primary counts its promises with `members`: a promotion needs votes of both then. Empty: settled. */
    former: withDefault(list(nodeId), []),
  }),
  /** Published quorum facts; k = 0 in asynchronous mode. */
  quorum: object({
    /** Rises with every change of this record. */
    revision: integer,
    term,
    k: integer,
    /** `NODE.INCARNATION` */
    voters: list(text),
    /** What the primary is to wait for, and the revision in which that was last asked anew. */
    wanted: withDefault(syncSet, { method: 'any', k: 0, members: [] }),
    wantedRevision: withDefault(integer, 0),
    /** Every set that some process of the primary may still act on; empty in a state of an older version. */
    mayStand: withDefault(list(syncSet), []),
    /** Since when less is waited for than the spec asks, and why; null: as asked. */
    lowered: withDefault(nullable(object({ sinceWallMs: wallMs, reason: text })), null),
    /** While k = 0: whoever holds WAL up to here holds every commit that was acknowledged by standbys before. Null: there was none. */
    floor: withDefault(nullable(position), null),
    /** The floor is not known yet: the set that waits for nobody was asked for, and is not in force. */
    floorPending: withDefault(bool, false),
  }),
  attempt: nullable(attempt),
  switchover: nullable(switchover),
  /** A standby that gets no new reads, because it is to be restarted; from which route on, and since when. */
  draining: withDefault(nullable(object({ node: nodeId, epoch: integer, sinceWallMs: wallMs })), null),
  /** The fencing command that was asked for last; forgotten when the primary is open again. */
  fence: withDefault(
    nullable(object({ id: text, node: nodeId, term, tries: integer, askedWallMs: wallMs, failed: nullable(object({ text, atWallMs: wallMs })) })),
    null,
  ),
  overrides: record(nodeOverride),
  recovery: record(recoveryProgress),
  /** Only of standbys whose upstream of the settings is not in order. */
  cascades: withDefault(record(cascade), {}),
  /** How far each standby is known to have WAL on the present history; members advance the slots that they keep ready for it up to there. */
  positions: withDefault(record(lsn), {}),
  frozen: nullable(object({ reason: text, by: text, sinceWallMs: wallMs, untilWallMs: nullable(wallMs) })),
  /** Last automatic failover, for the anti-flapping window. */
  lastFailoverWallMs: nullable(wallMs),
  /** Newest position the old primary is known to have reached (kept when it dies). */
  primaryLsn: nullable(lsn),
  /** Terms, newest last, at most 32; the full list is under `history/`. */
  terms: list(termRecord),
  /** Grows with every change that a proxy must apply. */
  route: object({ epoch: integer, writer: nullable(nodeId), readers: list(nodeId), hold: bool }),
  /** The write address needs no decision here: it is where the write lease is open. */
  /** Codes of the disk troubles that were told last, by node. */
  diskProblems: withDefault(record(text), {}),
  vips: withDefault(
    object({
      /** Who is to hold the read address, since when, and why that node. Null: nobody can serve reads, or there is no read address. */
      read: nullable(object({ node: nodeId, sinceWallMs: wallMs, why: text })),
      seen: object({ write: vipSeen, read: vipSeen }),
    }),
    NO_VIPS,
  ),
  /** Last decision: rule id and why. */
  decided: object({ rule: text, why: text, atWallMs: wallMs }),
});
export type ClusterState = Decoded<typeof clusterState>;

/** A person's command, kept under `tasks/ID`; survives the death of CLI, server and controller. */
export const taskRequest = union({
  create: object({ kind: literal('create') }),
  switchover: object({ kind: literal('switchover'), to: nullable(nodeId) }),
  failover: object({ kind: literal('failover'), to: nullable(nodeId), acceptLoss: bool, acceptTwoPrimaries: withDefault(bool, false) }),
  nodeStop: object({ kind: literal('nodeStop'), node: nodeId }),
  nodeStart: object({ kind: literal('nodeStart'), node: nodeId }),
  nodeRestart: object({ kind: literal('nodeRestart'), node: nodeId }),
  /** `source`: which member is copied when it comes to a clone; null: the primary. */
  nodeRejoin: object({
    kind: literal('nodeRejoin'),
    node: nodeId,
    via: nullable(oneOf('stream', 'rewind', 'clone')),
    source: withDefault(nullable(nodeId), null),
    rateKb: withDefault(nullable(integer), null),
  }),
  nodeMaintenance: object({ kind: literal('nodeMaintenance'), node: nodeId, on: bool }),
  /** `upstream` null: the primary, whoever that is. */
  nodeFollow: object({ kind: literal('nodeFollow'), node: nodeId, upstream: nullable(nodeId) }),
  /** Null: what the node's agent registered (host, internalHost, port), or the best (source). `source`: which member is copied. */
  nodeAdd: object({
    kind: literal('nodeAdd'),
    node: nodeId,
    host: nullable(text),
    internalHost: nullable(text),
    port: nullable(integer),
    role: oneOf('data', 'witness'),
    priority: integer,
    location: nullable(text),
    tags: record(text),
    source: nullable(nodeId),
    rateKb: nullable(integer),
  }),
  nodeRemove: object({ kind: literal('nodeRemove'), node: nodeId, dropData: bool }),
  clusterStop: object({ kind: literal('clusterStop') }),
  clusterStart: object({ kind: literal('clusterStart') }),
  clusterRestart: object({ kind: literal('clusterRestart'), rolling: bool }),
  freeze: object({ kind: literal('freeze'), forMs: nullable(integer) }),
  unfreeze: object({ kind: literal('unfreeze') }),
});
export type TaskRequest = Decoded<typeof taskRequest>;

export const taskStep = object({ name: text, state: oneOf('running', 'done', 'failed', 'undone'), atWallMs: wallMs, detail: text });
export const task = object({
  version: integer,
  id: text,
  request: taskRequest,
  reason: text,
  by: text,
  createdWallMs: wallMs,
  status: oneOf('pending', 'running', 'done', 'failed', 'refused', 'cancelled'),
  cancelRequested: bool,
  /** Journal, at most 200 entries. */
  steps: list(taskStep),
  /** What its later steps must remember of the earlier ones. */
  notes: withDefault(record(text), {}),
  /** Refusals and failures in words, one a line; empty otherwise. */
  problems: list(object({ code: text, text, remedy: text })),
  finishedWallMs: nullable(wallMs),
  result: nullable(text),
});
export type Task = Decoded<typeof task>;

/** Who may accept writes; under the lease of the holder's agent. */
export const writeLease = object({ version: integer, term, holder: nodeId });
export type WriteLease = Decoded<typeof writeLease>;

/** An event as people read it; bounded in the store. */
export const clusterEvent = object({
  atWallMs: wallMs,
  level: oneOf('info', 'warn', 'error'),
  /** Rule id, or the part that speaks (`agent.…`). */
  rule: text,
  node: nullable(nodeId),
  term,
  text,
  detail: withDefault(record(text), {}),
});
export type ClusterEvent = Decoded<typeof clusterEvent>;

/** Votes that a promotion needs (P) and promises that a primary without the store needs (F), of `members` voters: F + P > M. */
export function votesNeeded(members: number): { readonly promotion: number; readonly promises: number } {
  const promotion = Math.max(1, Math.ceil(members / 2));
  return { promotion, promises: members - promotion + 1 };
}

export function goalOf(state: ClusterState, node: NodeId): Goal | null {
  return state.goals[node] ?? null;
}

/** A switchover is between the order to stop and the opening: writes wait for it. False in every other phase, and without a state. */
export function isHandingOver(state: ClusterState | null): boolean {
  return state?.switchover?.phase === 'stop' || state?.switchover?.phase === 'promote';
}

/**
 * `taking`: it is to become the primary. `left`: it has handed over, and its successor is ordered. `watching`: everybody else, and the old primary while it
 * stops. `none`: nobody hands over.
 */
export type HandoverPart = 'none' | 'watching' | 'taking' | 'left';

export function handoverPart(state: ClusterState | null, node: NodeId): HandoverPart {
  const switchover = state?.switchover ?? null;
  if (switchover === null || !isHandingOver(state)) return 'none';
  if (switchover.from === switchover.to) return 'watching';
  if (switchover.to === node) return 'taking';
  return switchover.from === node && switchover.phase === 'promote' ? 'left' : 'watching';
}

/** A successor is ordered, and it is not this node: nothing that this node does is waited for any more. */
export function isAside(state: ClusterState | null, node: NodeId): boolean {
  return state?.switchover?.phase === 'promote' && state.switchover.to !== node;
}

/**
 * Nothing of the change from `before` to `after` is this node's business: two others hand over, and its own goal is as before. Whoever looks at its
 * server for each of these changes takes processor time from those two. False when either is missing.
 */
export function isBystander(before: ClusterState | null, after: ClusterState | null, node: NodeId): boolean {
  if (before === null || after === null || !isHandingOver(after)) return false;
  const { switchover } = after;
  return switchover?.from !== node && switchover?.to !== node && before.goals[node]?.id === after.goals[node]?.id;
}
