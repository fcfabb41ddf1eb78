/** Executors: one for each NodeAction. Each looks again at its precondition right beside the action. */
import { usedTimeline } from '../core/cluster/reserved-timeline.ts';
import type { NodeAction, NodeActionKind } from '../core/node/action.ts';
import { isAlive, mayAcceptWrites, restartStep } from '../core/node/decide.ts';
import type { NodeId, Term } from '../core/ids.ts';
import { wantedSetOf } from '../core/node/wanted-set.ts';
import type { PostgresReport } from '../core/report.ts';
import { type Failure, type Result, err, ok } from '../core/result.ts';
import { type ClusterSpec, findNode, internalHost } from '../core/spec.ts';
import type { Goal } from '../core/state.ts';
import type { LoopInput, LoopPorts } from './loop.ts';
import type { Progress, Upstream } from './ports.ts';

export interface ExecuteContext extends LoopPorts {
  readonly input: LoopInput & { readonly spec: ClusterSpec };
  readonly goal: Goal | null;
  readonly signal: AbortSignal;
  readonly setOpen: (open: boolean) => void;
  /** The server has just become writable: the renewal that the opening waits for is sent. Returns at once. */
  readonly confirm: () => void;
  readonly onProgress: (progress: Progress) => void;
  /** PostgreSQL as it is now: the look that led to this action when that was a moment ago, else another one. */
  readonly look: () => Promise<PostgresReport>;
  /** Looks at PostgreSQL and tells the cluster at once, while the action still runs. */
  readonly tell: () => Promise<void>;
}

type Executor<K extends NodeActionKind> = (action: Extract<NodeAction, { kind: K }>, context: ExecuteContext) => Promise<Result<string, Failure>>;

const EXECUTORS: { readonly [K in Exclude<NodeActionKind, 'none'>]: Executor<K> } = {
  initdb: async (_action, context) => {
    const made = await context.postgres.initdb(context.input.spec, context.signal);
    if (made.ok) await context.memory.finish(step(context, 'initdb'));
    return made;
  },
  'start-primary': startPrimary,
  'start-standby': async (action, context) => {
    await context.firewall.openStandby();
    // What it recovered as a primary that nobody was let into is a standby's WAL now. Broken if: it is promoted later and still waits for standbys to hold
    // that, which get their upstream only when it is open.
    await context.memory.setUnopened(false);
    context.sync.startsAsStandby();
    const started = await context.postgres.startStandby(context.input.spec, upstreamOf(context, action.upstream), context.signal);
    if (started.ok) await rememberStart(context);
    return started;
  },
  stop,
  fence: (_action, context) => {
    context.setOpen(false);
    // Whoever is to be fenced does not get this term back. When something here cannot be ended (it waits for a disk), the lease runs out meanwhile.
    context.lease.lapse();
    return context.postgres.kill();
  },
  'acquire-lease': acquireLease,
  'release-lease': releaseLease,
  'wait-replay': async (action, context) => {
    const waited = await context.postgres.waitReplay(action.requiredLsn, context.signal);
    if (waited.ok) await context.memory.finish(step(context, 'wait-replay'));
    return waited;
  },
  promote,
  open: openForWrites,
  vote,
  follow: (action, context) => {
    const upstream = upstreamOf(context, action.upstream);
    return upstream === null ? Promise.resolve(err(noSuchMember(action.upstream))) : context.postgres.follow(upstream, context.signal);
  },
  rewind: async (action, context) => {
    const upstream = upstreamOf(context, action.upstream);
    if (upstream === null) return err(noSuchMember(action.upstream));
    const rewound = await context.postgres.rewind(context.input.spec, upstream, context.signal, context.onProgress);
    if (rewound.ok) await context.memory.finish(step(context, 'rewind'));
    return rewound;
  },
  clone: async (action, context) => {
    const upstream = upstreamOf(context, action.upstream);
    if (upstream === null) return err(noSuchMember(action.upstream));
    const source = upstreamOf(context, action.source);
    if (source === null) return err(noSuchMember(action.source));
    const plan = { upstream, source, rateKb: action.rateKb };
    const cloned = await context.postgres.clone(context.input.spec, plan, context.signal, context.onProgress);
    if (cloned.ok) await context.memory.finish(step(context, 'clone'));
    return cloned;
  },
  'drop-data': dropData,
  checkpoint: async (_action, context) => {
    const done = await context.postgres.checkpoint(context.signal);
    if (done.ok) await context.memory.finish(`${context.input.state?.switchover?.taskId ?? ''}/checkpoint`);
    return done;
  },
  adopt: async (_action, context) => {
    const settings = await context.postgres.applySettings(context.input.spec);
    if (!settings.ok) return settings;
    const roles = await context.postgres.ensureRolesAndSlots(context.input.spec, context.signal);
    if (roles.ok) await context.memory.finish(step(context, 'adopt'));
    return roles;
  },
  refuse: async (action, context) => {
    await context.memory.refuse(action.term);
    return ok(`refused term ${action.term}: ${action.why}`);
  },
};

/** Action kinds with an executor; compared with NodeAction by a test (Q1). */
export const executableActions: readonly string[] = Object.keys(EXECUTORS);

export function executeAction(action: Exclude<NodeAction, { kind: 'none' }>, context: ExecuteContext): Promise<Result<string, Failure>> {
  return EXECUTORS[action.kind](action as never, context);
}

/**
 * A handover releases as soon as the shutdown checkpoint is written: from then on nothing here accepts a write (`hasShutDown`), and the rest of the
 * stop, which sends that checkpoint to the standbys, is the same wait that the successor has anyway.
 */
async function stop(_action: Extract<NodeAction, { kind: 'stop' }>, context: ExecuteContext): Promise<Result<string, Failure>> {
  if (context.goal?.kind !== 'handover') return context.postgres.stop(context.input.spec, context.signal);
  let handed: ReturnType<typeof handOver> | null = null;
  const once = (): ReturnType<typeof handOver> => (handed ??= handOver(context));
  // PostgreSQL refuses new connections from here on, each with a process of its own.
  void context.firewall.turnAway();
  const stopped = await context.postgres.stop(context.input.spec, context.signal, () => void once());
  if (!stopped.ok) return stopped;
  // Without an early word: `stop` answers only when no process of the data directory is left, so that this release rests on a fresh look.
  const released = await once();
  return released.ok ? stopped : released;
}

/** The successor waits for both, the released lease and the position of the shutdown checkpoint: they are written at the same time. */
async function handOver(context: ExecuteContext): Promise<Result<null, Failure>> {
  context.setOpen(false);
  context.log.info({ term: context.goal?.term }, 'the shutdown checkpoint is written; releasing the write lease');
  const [released] = await Promise.all([context.lease.release(), context.tell()]);
  context.log.info({ term: context.goal?.term, released: released.ok }, 'handed over');
  return released;
}

async function startPrimary(action: Extract<NodeAction, { kind: 'start-primary' }>, context: ExecuteContext): Promise<Result<string, Failure>> {
  context.setOpen(false);
  await context.firewall.close();
  const prepared = await prepareSync(context);
  if (!prepared.ok) return prepared;
  context.sync.startsAfterCrash();
  await context.memory.setUnopened(true);
  const started = await context.postgres.startPrimary(context.input.spec, () => holds(context, action.term), context.signal);
  if (started.ok) await rememberStart(context);
  return started;
}

/**
 * Invariant: the lease is taken only while nothing here can accept writes, except a primary that is being adopted.
 * Because: a writable server that got its lease late may have acknowledged rows that another term does not have.
 */
async function acquireLease(action: Extract<NodeAction, { kind: 'acquire-lease' }>, context: ExecuteContext): Promise<Result<string, Failure>> {
  const observed = await context.look();
  if (mayAcceptWrites(observed) && context.goal?.kind !== 'adopt') {
    return err(refused('lease.still-writable', `the write lease of term ${action.term} was not asked for`, 'PostgreSQL here can accept writes'));
  }
  // Invariant: nobody becomes a primary by the word of a restored store before the controller has confirmed it (§4.10). Because: the state may be older
  // than the term that is open somewhere, and its write lease is free: an old primary that missed the newer terms would take it. Who is open goes on
  // by its own deadline and takes its key again. Broken if: a restore leaves the incarnation of the state equal to that of the store.
  const { state, incarnation } = context.input;
  if (state === null || incarnation === null || state.incarnation !== incarnation)
    return err(unconfirmed(action.term, incarnation === null ? null : (state?.incarnation ?? null)));
  const acquired = await context.lease.acquire(action.term, context.input.stateRevision, replaceable(context));
  return acquired.ok ? ok(`write lease of term ${action.term}`) : acquired;
}

/**
 * On the quorum path the lease of the old term may still stand: the order to promote says that its holder can acknowledge nothing that this node lacks, and
 * it is compared with the very state that says so.
 */
function replaceable(context: ExecuteContext): Term | null {
  const { state } = context.input;
  const attempt = state?.attempt;
  const ordered = attempt?.path === 'quorum' && attempt.phase === 'promote' && attempt.candidate === context.node;
  return ordered && state !== null ? state.primaryTerm : null;
}

/**
 * Invariant: "released" means that no process of the data directory can accept writes (§4.3).
 * Because: the next primary opens on the strength of the missing lease.
 * Broken if: the look at PostgreSQL is older than the release.
 */
async function releaseLease(_action: Extract<NodeAction, { kind: 'release-lease' }>, context: ExecuteContext): Promise<Result<string, Failure>> {
  const observed = await context.postgres.observe();
  if (mayAcceptWrites(observed) || (isAlive(observed) && observed.state !== 'running')) {
    return err(refused('lease.still-writable', 'the write lease was not released', 'PostgreSQL here can still accept writes'));
  }
  context.setOpen(false);
  const released = await context.lease.release();
  if (!released.ok) return released;
  await context.firewall.openStandby();
  return ok('write lease released');
}

async function promote(action: Extract<NodeAction, { kind: 'promote' }>, context: ExecuteContext): Promise<Result<string, Failure>> {
  context.setOpen(false);
  // Invariant: no client gets in, and nobody is waited for who is not of the new set, when the server becomes writable. Because: the request is made only
  // after both have ended well. Broken if: `mayPromote` forgets one of them, which go on beside what the promotion looks at first.
  let isReady = false;
  const ready = Promise.all([prepareSync(context), context.firewall.close()]).then(([sync]) => sync);
  const promoted = await context.postgres.promote({
    requiredLsn: action.requiredLsn,
    usedTimeline: context.input.state === null ? null : usedTimeline(context.input.state),
    mayPromote: () => isReady && holds(context, action.term),
    ready: ready.then(
      (sync) => {
        isReady = sync.ok;
      },
      () => undefined,
    ),
    onWritable: () => {
      context.confirm();
      // It is waited for before the opening; a failure is met there.
      context.memory.setOpened(action.term).catch(() => undefined);
    },
    signal: context.signal,
  });
  const prepared = await ready;
  if (promoted.ok) return promoted;
  // Nothing was requested.
  if (!prepared.ok) return prepared;
  // The request may still work inside the server. Only a server that is gone, and a refusal on disk, make the term free (§4.5).
  const killed = await context.postgres.kill();
  if (!killed.ok) {
    context.lease.lapse();
    return killed;
  }
  await context.memory.refuse(action.term);
  await context.lease.release();
  await context.firewall.openStandby();
  return err({ ...promoted.error, now: `this node refuses term ${action.term} for good; another candidate may be chosen`, retryable: false });
}

async function openForWrites(action: Extract<NodeAction, { kind: 'open' }>, context: ExecuteContext): Promise<Result<string, Failure>> {
  const first = context.goal?.kind === 'create' || context.goal?.kind === 'adopt';
  if (first) {
    const roles = await context.postgres.ensureRolesAndSlots(context.input.spec, context.signal);
    if (!roles.ok) return roles;
  }
  // Before the first client: whatever is acknowledged in this term lies behind the mark, and a later refusal of this term says that it was open.
  const [marked] = await Promise.all([context.postgres.markOpening(action.term, context.signal), context.memory.setOpened(action.term)]);
  if (!marked.ok) return marked;
  if (!holds(context, action.term)) return err(refused('lease.lost', `term ${action.term} was not opened`, 'the write lease is not held any more'));
  await context.firewall.openTimed();
  context.sync.opened();
  context.setOpen(true);
  // Not waited for: an agent that forgets it looks once more before it lets clients in.
  context.memory
    .setUnopened(false)
    .catch((cause: unknown) => context.log.warn({ cause: String(cause) }, 'that clients were let in could not be noted'));
  return ok(`open for writes in term ${action.term}`);
}

/** The promise is on disk before the walreceiver is touched; the position is read only after the walreceiver is gone. */
async function vote(action: Extract<NodeAction, { kind: 'vote' }>, context: ExecuteContext): Promise<Result<string, Failure>> {
  const given = context.memory.vote();
  if (given === null || given.term < action.term) {
    const allowed = context.ballot.mayVote(action.term);
    if (allowed.kind !== 'granted') {
      const failure = refused(`vote.${allowed.kind}`, `no vote for term ${action.term}`, allowed.why);
      return err({ ...failure, retryable: allowed.kind === 'wait' });
    }
    await context.memory.setVote({ term: action.term, position: null, final: false });
  }
  if (context.witness) {
    await context.memory.setVote({ term: action.term, position: null, final: true });
    return ok(`voted for term ${action.term}`);
  }
  const position = await context.postgres.detach(context.signal);
  if (!position.ok) return position;
  await context.memory.setVote({ term: action.term, ...position.value });
  if (!position.value.final)
    return err(refused('vote.not-final', `the position for term ${action.term} is not final`, 'replay has not exhausted local WAL yet'));
  return ok(`voted for term ${action.term}`);
}

/** The set that this node is to open with: none that a clone or a former term left behind may stand in its file (Z56). */
function prepareSync(context: ExecuteContext): Promise<Result<null, Failure>> {
  const asked = wantedSetOf(context.input.state, context.node);
  return asked === null ? Promise.resolve(ok(null)) : context.sync.prepare(asked);
}

/**
 * *Invariant:* data is deleted only under an order to leave, of a node that runs nothing and holds no lease (§4.9).
 * *Because:* both are looked at again right here. *Broken if:* the order of an older state is carried out after a newer one.
 */
async function dropData(_action: Extract<NodeAction, { kind: 'drop-data' }>, context: ExecuteContext): Promise<Result<string, Failure>> {
  const observed = await context.postgres.observe();
  const ordered = context.goal?.kind === 'removed' && context.goal.dropData;
  if (!ordered || isAlive(observed) || context.lease.heldTerm() !== null || context.signal.aborted)
    return err(refused('drop-data.refused', 'the data directory was not removed', 'it is in use, or the order was taken back'));
  return context.postgres.dropData();
}

function holds(context: ExecuteContext, term: Term): boolean {
  return context.lease.heldTerm() === term && !context.signal.aborted;
}

async function rememberStart(context: ExecuteContext): Promise<void> {
  const { goal } = context;
  const request = goal?.kind === 'primary' || goal?.kind === 'standby' ? goal.restart : null;
  if (request !== null) await context.memory.finish(restartStep(request));
}

function step(context: ExecuteContext, name: string): string {
  return `${context.goal?.id ?? ''}/${name}`;
}

function upstreamOf(context: ExecuteContext, node: NodeId | null): Upstream | null {
  const member = node === null ? null : findNode(context.input.spec, node);
  return member === null ? null : { node: member.id, host: internalHost(member), port: member.port };
}

function noSuchMember(node: NodeId): Failure {
  return {
    code: 'follow.no-member',
    what: `cannot follow ${node}`,
    cause: 'the spec of the cluster has no such node',
    now: 'PostgreSQL stays as it is',
    remedy: 'compare `pgherd meta get` with the nodes that exist',
    retryable: true,
  };
}

function refused(code: string, what: string, cause: string): Failure {
  return { code, what, cause, now: 'nothing was changed; it is looked at again at once', remedy: '', retryable: true };
}

function unconfirmed(term: Term, decidedIn: string | null): Failure {
  return {
    code: 'lease.store-unconfirmed',
    what: `the write lease of term ${term} was not asked for`,
    cause:
      decidedIn === null
        ? 'the store has not answered yet, and what is remembered of it may be old'
        : `the state was decided in another store (${decidedIn}): the store was restored or made anew`,
    now: `nothing here accepts writes; it goes on when ${decidedIn === null ? 'the store answers' : 'the controller has confirmed that no newer term was opened'}`,
    remedy: decidedIn === null ? '' : 'start the agents of all members; when one of them is gone for good, "pgherd failover" decides',
    retryable: true,
  };
}
