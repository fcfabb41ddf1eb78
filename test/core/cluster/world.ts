/** A small closed loop: decideCluster and decideNode over a model. Each tick of 50 ms checks the invariants; a broken one throws with the story. */
import { decideCluster } from '../../../src/core/cluster/decide.ts';
import { initialState } from '../../../src/core/cluster/goals.ts';
import { type NodeId, type Now, type Term, makeMonoMs, makeRevision, makeTerm, makeTimeline, makeWallMs } from '../../../src/core/ids.ts';
import { makeLsn } from '../../../src/core/lsn.ts';
import type { NodeAction } from '../../../src/core/node/action.ts';
import { decideNode } from '../../../src/core/node/decide.ts';
import type { NodeReport } from '../../../src/core/report.ts';
import { slotName } from '../../../src/core/slot-name.ts';
import type { Task } from '../../../src/core/state.ts';
import type { ClusterView, SeenReport } from '../../../src/core/view.ts';
import { mayClaimAgain } from '../../../src/agent/lease/lease-rules.ts';
import { WALL, blankReport, id, makeSpec } from './picture.ts';
import { FIRST_MINIMUMS, type Host, type World, big, memberOf, minimumsAfterStart, upstreamOf } from './world-model.ts';
import { acknowledge, canAcknowledge, missingOn, newSyncModel, observeAll, stepSync } from './world-sync.ts';

export type { Host, World } from './world-model.ts';

export const TICK_MS = 50;
const TTL_MS = 3000;
/** The incarnation of the world's store. */
const STORE = 'store-1';

export function createWorld(names: readonly string[] = ['n1', 'n2', 'n3'], extra: object = {}): World {
  const spec = makeSpec(
    names.map((name) => ({ id: name, host: `${name}.example` })),
    extra,
  );
  const hosts = new Map<NodeId, Host>();
  for (const node of spec.nodes) {
    hosts.set(node.id, {
      id: node.id,
      up: true,
      linked: true,
      isolated: false,
      sync: newSyncModel(),
      pg: {
        state: 'absent',
        role: null,
        timeline: 1,
        history: [],
        lsn: 0n,
        clean: false,
        upstream: null,
        startedAt: 0,
        minimums: FIRST_MINIMUMS,
        replayed: FIRST_MINIMUMS,
      },
      highestTerm: makeTerm(0),
      vote: null,
      refused: [],
      finished: new Set(),
      failure: null,
      activity: { kind: 'idle' },
      leaseTerm: null,
      deadline: 0,
      confirmed: false,
      open: false,
      ranUnder: null,
      downSince: null,
      lastReportAt: 0,
      report: null,
      known: null,
      knownRevision: 0,
      broken: new Set(),
    });
  }
  return {
    t: 0,
    spec,
    state: null,
    revision: 1,
    stateRevision: 0,
    lease: null,
    leaseGoneAt: 0,
    hosts,
    tasks: new Map(),
    controllerUp: true,
    controllerSince: -60_000,
    decisions: [],
    story: [],
    highestOpened: 0,
    backup: null,
    acknowledged: new Map(),
    acked: [],
    audit: () => null,
  };
}

export const nowOf = (world: World): Now => ({ mono: makeMonoMs(world.t + 1_000_000), wall: makeWallMs(WALL + world.t) });

export function host(world: World, name: string): Host {
  const found = world.hosts.get(id(name));
  if (found === undefined) throw new Error(`no host ${name}`);
  return found;
}

export function addTask(world: World, task: Task): void {
  world.tasks.set(task.id, { ...task, createdWallMs: nowOf(world).wall });
}

/** Ticks until `done`, at most `limitMs`; throws with the story when it does not come true. */
export function runUntil(world: World, what: string, done: (world: World) => boolean, limitMs = 60_000): number {
  const start = world.t;
  while (!done(world)) {
    if (world.t - start > limitMs)
      throw new Error(`not within ${limitMs} ms: ${what}\n${world.story.slice(-40).join('\n')}\n${JSON.stringify(world.state?.decided)}`);
    tick(world);
  }
  return world.t - start;
}

export function runFor(world: World, ms: number): void {
  const end = world.t + ms;
  while (world.t < end) tick(world);
}

export function tick(world: World): void {
  world.t += TICK_MS;
  if (world.lease !== null && world.lease.expires <= world.t) dropLease(world, 'expired');
  for (const one of world.hosts.values()) if (one.up) replicate(world, one);
  acknowledge(world);
  for (const one of world.hosts.values()) if (one.up) stepAgent(world, one);
  if (world.controllerUp) stepController(world);
  check(world);
}

export function dropLease(world: World, why: string): void {
  tell(world, `lease of ${world.lease?.holder}/${world.lease?.term} ${why}`);
  world.lease = null;
  world.leaseGoneAt = world.t;
}

export function tell(world: World, text: string): void {
  world.story.push(`${String(world.t).padStart(6)} ${text}`);
}

function replicate(world: World, one: Host): void {
  if (one.open && one.pg.state === 'running') {
    one.pg.lsn += 100n;
    world.acknowledged.set(`${one.pg.timeline} ${JSON.stringify(one.pg.history, big)}`, { ...one.pg });
  }
  const up = upstreamOf(world, one);
  if (up === null) return;
  one.pg.timeline = up.pg.timeline;
  one.pg.history = up.pg.history;
  one.pg.lsn = up.pg.lsn;
  one.pg.replayed = up.pg.replayed;
}

function stepAgent(world: World, one: Host): void {
  if (one.linked) {
    one.known = world.state;
    one.knownRevision = world.stateRevision;
  }
  renew(world, one);
  const state = one.known;
  const goal = state?.goals[one.id] ?? null;
  if (goal !== null && goal.term > one.highestTerm) one.highestTerm = goal.term;
  if (one.leaseTerm === null) {
    one.open = false;
    one.confirmed = false;
  }
  const running = one.pg.state === 'running';
  if (running && one.pg.role === 'primary' && goal !== null) one.ranUnder = goal.id;
  one.downSince = running ? null : (one.downSince ?? world.t);
  const action = decideNode(
    {
      node: one.id,
      witness: false,
      postgres: observeAll(world, one),
      leaseTerm: one.leaseTerm,
      confirmed: one.confirmed,
      open: one.open,
      highestTerm: one.highestTerm,
      vote: one.vote,
      refusedTerms: one.refused,
      finished: one.finished,
      failure: one.failure,
      notStreamingSince: null,
      upstream: one.pg.upstream,
      ranUnderGoal: goal !== null && one.ranUnder === goal.id,
      downSince: one.downSince === null ? null : makeMonoMs(one.downSince + 1_000_000),
      stoppingSince: null,
      leaseWantedSince: null,
      syncReady: stepSync(world, one, state),
    },
    state,
    nowOf(world).mono,
  );
  const goalId = goal?.id ?? '';
  if (action.kind === 'none') {
    if (one.failure?.goalId !== goalId) one.activity = action.done ? { kind: 'done', goalId, detail: action.why } : { kind: 'idle' };
  } else execute(world, one, action, goalId);
  if (one.linked) publish(world, one);
}

function renew(world: World, one: Host): void {
  if (one.leaseTerm === null) return;
  if (one.linked && world.lease === null && world.state !== null) {
    // As claimAgain does: a state of an older term says nothing before our own deadline.
    if (world.state.term < one.leaseTerm && world.t < one.deadline) return;
    if (mayClaimAgain(world.state, { term: one.leaseTerm, node: one.id }) && world.t < one.deadline)
      world.lease = { term: one.leaseTerm, holder: one.id, expires: world.t + TTL_MS };
  }
  const held = world.lease !== null && world.lease.holder === one.id && world.lease.term === one.leaseTerm;
  if (one.linked && held && world.lease !== null) {
    world.lease.expires = world.t + TTL_MS;
    one.deadline = world.t + TTL_MS - 500;
    if (one.pg.state === 'running' && one.pg.role === 'primary') one.confirmed = true;
  } else if (world.t >= one.deadline || (one.linked && !held)) {
    tell(world, `${one.id} fences itself`);
    kill(one);
    one.leaseTerm = null;
    one.open = false;
  }
}

function kill(one: Host): void {
  if (one.pg.state === 'running') one.pg = { ...one.pg, state: one.pg.role === 'primary' ? 'crashed' : 'stopped', clean: false };
  one.open = false;
}

function execute(world: World, one: Host, action: Exclude<NodeAction, { kind: 'none' }>, goalId: string): void {
  if (one.broken.has(action.kind)) {
    const permanent = action.kind === 'promote' || action.kind === 'rewind' || action.kind === 'start-primary';
    if (action.kind === 'promote') one.refused = [...one.refused, action.term];
    if (one.failure?.goalId !== goalId) tell(world, `${one.id} fails to ${action.kind}`);
    one.failure = { goalId, permanent, notBefore: makeMonoMs(world.t + 1_000_000 + 1000) };
    one.activity = {
      kind: 'failed',
      goalId,
      step: action.kind,
      code: `${action.kind}.failed`,
      message: 'broken',
      attempts: 1,
      atWallMs: nowOf(world).wall,
      retrying: !permanent,
    };
    return;
  }
  tell(world, `${one.id} ${action.kind}: ${action.why}`);
  one.activity = { kind: 'busy', goalId, step: action.kind, sinceWallMs: nowOf(world).wall, doneBytes: null, totalBytes: null };
  const up = 'upstream' in action && action.upstream !== null && !one.isolated ? world.hosts.get(action.upstream) : undefined;
  const source = up?.up && !up.isolated && up.pg.state === 'running' && up.pg.role === 'primary' ? up.pg : null;
  switch (action.kind) {
    case 'initdb':
      one.sync.incarnation += 1;
      one.pg = { ...one.pg, state: 'stopped', role: 'primary', timeline: 1, history: [], lsn: 4096n, clean: true };
      one.finished.add(`${goalId}/initdb`);
      break;
    case 'start-primary':
      if (one.leaseTerm === action.term) {
        const minimums = minimumsAfterStart(world, one, 'primary');
        one.pg = { ...one.pg, state: 'running', role: 'primary', upstream: null, clean: false, startedAt: world.t, minimums, replayed: minimums };
      }
      one.confirmed = false;
      finishRestart(one);
      break;
    case 'start-standby':
      one.pg = { ...one.pg, state: 'running', role: 'standby', upstream: action.upstream, clean: false, startedAt: world.t };
      one.pg.minimums = minimumsAfterStart(world, one, 'standby');
      finishRestart(one);
      break;
    case 'stop':
      stopServer(world, one);
      break;
    case 'fence':
      kill(one);
      break;
    case 'acquire-lease':
      acquire(world, one, action.term);
      break;
    case 'release-lease':
      if (world.lease?.holder === one.id && one.linked) dropLease(world, 'released');
      one.leaseTerm = null;
      break;
    case 'wait-replay':
      if (one.pg.lsn >= action.requiredLsn) one.finished.add(`${goalId}/wait-replay`);
      break;
    case 'promote':
      if (one.leaseTerm !== action.term) break;
      one.pg = {
        ...one.pg,
        role: 'primary',
        upstream: null,
        history: [...one.pg.history, { timeline: makeTimeline(one.pg.timeline), forkLsn: makeLsn(one.pg.lsn) }],
        timeline: one.pg.timeline + 1,
        replayed: one.pg.minimums,
      };
      one.confirmed = false;
      break;
    case 'open':
      one.open = one.leaseTerm === action.term && world.t < one.deadline;
      break;
    case 'vote':
      one.pg = { ...one.pg, upstream: null };
      one.vote = { term: action.term, position: { timeline: makeTimeline(one.pg.timeline), lsn: makeLsn(one.pg.lsn) }, final: true };
      break;
    case 'follow':
      one.pg = { ...one.pg, upstream: action.upstream };
      break;
    case 'rewind':
    case 'clone':
      if (source === null) break;
      one.pg = {
        ...one.pg,
        state: 'stopped',
        role: 'standby',
        timeline: source.timeline,
        history: source.history,
        lsn: source.lsn,
        replayed: source.replayed,
      };
      one.sync.incarnation += 1;
      one.finished.add(`${goalId}/${action.kind}`);
      break;
    case 'checkpoint':
      one.finished.add(`${one.known?.switchover?.taskId ?? ''}/checkpoint`);
      break;
    case 'drop-data':
      one.pg = { ...one.pg, state: 'absent', role: null, upstream: null };
      break;
    case 'adopt':
      one.finished.add(`${goalId}/adopt`);
      break;
    case 'refuse':
      one.refused = [...one.refused, action.term];
      break;
  }
}

function finishRestart(one: Host): void {
  const goal = one.known?.goals[one.id];
  if (goal !== undefined && (goal.kind === 'primary' || goal.kind === 'standby') && goal.restart !== null)
    one.finished.add(`restart/${goal.restart}`);
}

/** A planned stop delivers the shutdown checkpoint to whoever streams. */
function stopServer(world: World, one: Host): void {
  if (one.pg.state !== 'running') return;
  if (one.pg.role === 'primary') {
    const followers = [...world.hosts.values()].filter((other) => other.up && upstreamOf(world, other) === one);
    one.pg.lsn += 100n;
    for (const other of followers) other.pg = { ...other.pg, lsn: one.pg.lsn, timeline: one.pg.timeline, history: one.pg.history };
  }
  one.pg = { ...one.pg, state: 'stopped', clean: true };
  one.open = false;
}

function acquire(world: World, one: Host, term: Term): void {
  if (!one.linked || one.knownRevision !== world.stateRevision || one.known?.incarnation !== STORE) return;
  const over = world.state?.attempt?.path === 'quorum' && world.lease !== null && world.lease.term <= world.state.primaryTerm;
  if (world.lease !== null && !over && !(world.lease.holder === one.id && world.lease.term === term)) return;
  world.lease = { term, holder: one.id, expires: world.t + TTL_MS };
  one.leaseTerm = term;
  one.deadline = world.t + TTL_MS - 500;
}

function probesOf(world: World, one: Host): NodeReport['probes'] {
  const probes: Record<string, NodeReport['probes'][string]> = {};
  for (const other of world.hosts.values()) {
    if (other === one) continue;
    const reachable = other.up && other.pg.state === 'running' && !other.isolated && !one.isolated;
    const verdict = !reachable ? 'down' : other.pg.role === 'primary' ? (other.open ? 'primary' : 'blocked') : 'standby';
    probes[other.id] = { verdict, failures: reachable ? 0 : 2, lastOkAgoMs: null, error: null, agentAlive: other.up };
  }
  return probes;
}

function publish(world: World, one: Host): void {
  const postgres = observeAll(world, one);
  const fenced = one.leaseTerm === null && !(postgres.state === 'running' && postgres.role === 'primary');
  one.report = {
    ...blankReport(one.id),
    postgres,
    stateRevision: makeRevision(one.knownRevision),
    newestRevision: makeRevision(one.knownRevision),
    highestTerm: one.highestTerm,
    leaseTerm: one.leaseTerm,
    fenced,
    open: one.open,
    vote: one.vote,
    refusedTerms: one.refused,
    activity: one.activity,
    probes: probesOf(world, one),
    sync: one.sync.report,
    // A server keeps a slot for each other member that it knows of; it looks at once when that changes.
    slots: postgres.state === 'running' ? slotsOf(world, one) : [],
    atWallMs: nowOf(world).wall,
  };
  one.lastReportAt = world.t;
}

function slotsOf(world: World, one: Host): NodeReport['slots'] {
  return world.spec.nodes
    .filter((node) => node.id !== one.id)
    .map((node) => ({ name: slotName(node.id), active: true, retainedBytes: 0, walStatus: 'reserved' }));
}

export function viewOf(world: World): ClusterView {
  const reports: Record<string, SeenReport> = {};
  for (const one of world.hosts.values()) {
    if (one.report !== null) reports[one.id] = { report: one.report, ageMs: world.t - one.lastReportAt, alive: world.t - one.lastReportAt < TTL_MS };
  }
  return {
    spec: world.spec,
    state: world.state ?? initialState(STORE, nowOf(world)),
    stateRevision: makeRevision(world.stateRevision),
    reports: reports as ClusterView['reports'],
    members: Object.fromEntries([...world.hosts.keys()].map((node) => [node, memberOf(node)])) as ClusterView['members'],
    writeLease: world.lease && { term: world.lease.term, holder: world.lease.holder },
    writeLeaseGoneMs: world.lease === null ? world.t - world.leaseGoneAt : 0,
    tasks: [...world.tasks.values()].filter((task) => task.status === 'pending' || task.status === 'running'),
    proxyAcks: {},
    fenceResult: null,
    watchedMs: world.t - world.controllerSince,
    incarnation: STORE,
  };
}

function stepController(world: World): void {
  const view = viewOf(world);
  const decision = decideCluster(view, nowOf(world));
  const lost = world.audit(world, decision);
  if (lost !== null) throw new Error(`${lost}\n${world.story.slice(-60).join('\n')}`);
  if (decision.state === null && decision.spec === null && decision.tasks.length === 0) return;
  const promoted = decision.state !== null && decision.state.attempt?.phase === 'promote' && view.state.attempt?.phase !== 'promote';
  if (promoted && view.writeLease !== null && decision.state?.attempt?.path !== 'quorum')
    throw new Error(`promote order while ${view.writeLease.holder} holds the lease`);
  world.revision += 1;
  if (decision.state !== null) {
    world.state = decision.state;
    world.stateRevision = world.revision;
  }
  if (decision.spec !== null) world.spec = decision.spec;
  for (const task of decision.tasks) world.tasks.set(task.id, task);
  world.decisions.push(decision.rule);
  tell(world, `controller ${decision.rule}: ${decision.why} [${decision.tasks.map((task) => task.status).join()}]`);
}

/** I1, I3: at most one open node, and none in a lower term than one that opened. */
function check(world: World): void {
  // On the quorum path an isolated old primary may stay open; it must not be able to acknowledge.
  const open = [...world.hosts.values()].filter(
    (one) => one.up && one.open && one.pg.state === 'running' && one.pg.role === 'primary' && canAcknowledge(world, one),
  );
  const broken = (text: string): never => {
    throw new Error(`${text}\n${world.story.slice(-60).join('\n')}`);
  };
  if (open.length > 1) broken(`two writable nodes: ${open.map((one) => `${one.id} in term ${one.leaseTerm}`).join(', ')}`);
  for (const one of open) {
    const term = one.leaseTerm ?? 0;
    if (term > world.highestOpened) for (const text of missingOn(world, one)) broken(text);
    if (term < world.highestOpened) broken(`${one.id} is open in term ${term} after ${world.highestOpened}`);
    world.highestOpened = Math.max(world.highestOpened, term);
  }
}

/** kill -9 of everything on the host. */
export function killHost(one: Host): void {
  kill(one);
  one.up = false;
  one.leaseTerm = null;
}

/** kill -9 of PostgreSQL only. */
export function killPostgres(one: Host): void {
  kill(one);
}

export function boot(one: Host): void {
  one.up = true;
  one.ranUnder = null;
  one.downSince = null;
  if (one.pg.state === 'running') one.pg = { ...one.pg, state: 'crashed' };
}

export function isHealthy(world: World): boolean {
  const { state } = world;
  if (state === null || state.primary === null || state.attempt !== null || state.switchover !== null) return false;
  for (const one of world.hosts.values()) {
    if (one.id === state.primary ? !one.open : upstreamOf(world, one)?.id !== state.primary) return false;
  }
  return true;
}
