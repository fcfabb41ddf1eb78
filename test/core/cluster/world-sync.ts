/** Synchronous replication in the closed loop: what the keeper of each agent does, who acknowledges, and what must be on every later primary. */
import { NO_SET, mixtureOf, sameSet, voterName } from '../../../src/core/cluster/sync-set.ts';
import type { NodeId } from '../../../src/core/ids.ts';
import { type Lsn, makeLsn } from '../../../src/core/lsn.ts';
import { type WantedSet, wantedSetOf } from '../../../src/core/node/wanted-set.ts';
import type { NodeReport, PostgresReport, Walsender } from '../../../src/core/report.ts';
import type { ClusterState, SyncSet } from '../../../src/core/state.ts';
import { type Host, type World, observe, upstreamOf } from './world-model.ts';

export interface SyncModel {
  incarnation: number;
  wanted: WantedSet | null;
  /** Sets that processes of this server act on; more than one while a new one is being loaded. */
  acting: readonly SyncSet[];
  /** Since when only the last one is acted on. */
  inForceLsn: Lsn | null;
  startedAt: number;
  /** Where this server's WAL ended when it had started as primary; null once clients were let in. */
  recovered: bigint | null;
  readonly current: Map<string, number>;
  report: NodeReport['sync'];
}

export interface Acked {
  readonly by: NodeId;
  readonly timeline: number;
  lsn: bigint;
}

/** A member that was never here yet gets this long to come; as in the agent. */
const ARRIVAL_MS = 1000;

export function newSyncModel(): SyncModel {
  return { incarnation: 0, wanted: null, acting: [NO_SET], inForceLsn: null, startedAt: -1, recovered: null, current: new Map(), report: null };
}

const voterOf = (one: Host): string => voterName(one.id, `i${one.sync.incarnation}`);
const followers = (world: World, primary: Host): readonly Host[] =>
  [...world.hosts.values()].filter((one) => one.up && one !== primary && upstreamOf(world, one) === primary);

function walsendersOf(world: World, primary: Host): readonly Walsender[] {
  return followers(world, primary).map((one) => {
    const lsn = makeLsn(one.pg.lsn);
    const places = { sentLsn: lsn, writeLsn: lsn, flushLsn: lsn, replayLsn: lsn };
    return { node: one.id, state: 'streaming', ...places, replayLagMs: null, syncState: 'async', voter: voterOf(one) };
  });
}

/** What an agent sees of its server, with what synchronous replication adds. */
export function observeAll(world: World, one: Host): PostgresReport {
  const seen = observe(world, one);
  if (seen.role === null) return seen;
  const walsenders = seen.state === 'running' && seen.role === 'primary' ? walsendersOf(world, one) : [];
  return { ...seen, incarnation: `i${one.sync.incarnation}`, walsenders };
}

/** One step of the keeper; true when clients may be let in. An order takes one tick to be loaded everywhere. */
export function stepSync(world: World, one: Host, state: ClusterState | null): boolean {
  const model = one.sync;
  const { pg } = one;
  const next = wantedSetOf(state, one.id);
  const newer =
    next !== null &&
    (model.wanted === null || next.term > model.wanted.term || (next.term === model.wanted.term && next.revision > model.wanted.revision));
  if (next === null) model.wanted = null;
  else if (newer) model.wanted = next;
  const { wanted } = model;
  if (wanted === null || pg.state !== 'running') {
    model.report = null;
    return wanted === null;
  }
  if (pg.startedAt !== model.startedAt) {
    // A server that starts has loaded the last order everywhere; one that was promoted keeps what it has.
    model.startedAt = pg.startedAt;
    model.acting = [wanted.set];
    model.recovered = pg.role === 'primary' && pg.timeline === 1 && pg.lsn === 4096n ? null : pg.role === 'primary' ? pg.lsn : null;
    model.inForceLsn = null;
    model.current.clear();
  } else if (!model.acting.some((set) => sameSet(set, wanted.set))) {
    model.acting = [...model.acting, wanted.set];
    model.inForceLsn = null;
  } else if (model.acting.length > 1) model.acting = [wanted.set];
  const [only, ...rest] = model.acting;
  const inForce = only !== undefined && rest.length === 0 && sameSet(only, wanted.set);
  if (pg.role !== 'primary') return false;
  if (inForce) model.inForceLsn ??= makeLsn(pg.lsn);
  if (one.open) model.recovered = null;
  const attached = new Map(followers(world, one).map((two) => [voterOf(two), two.pg.lsn]));
  for (const voter of wanted.set.members) {
    if (attached.has(voter)) model.current.set(voter, world.t);
    else if (!model.current.has(voter)) model.current.set(voter, world.t + ARRIVAL_MS);
  }
  model.report = {
    revision: inForce ? wanted.revision : 0,
    inForceLsn: inForce ? model.inForceLsn : null,
    silence: wanted.set.members.map((voter) => ({ voter, ms: Math.max(0, world.t - (model.current.get(voter) ?? world.t)) })),
  };
  const { recovered } = model;
  const holding = wanted.set.members.filter((voter) => (attached.get(voter) ?? -1n) >= (recovered ?? 0n)).length;
  return inForce && (recovered === null || holding >= wanted.set.k);
}

/** Up to where commits are acknowledged, by what any mixture of the sets that are acted on lets pass; null: nowhere. */
function acknowledgedUpTo(world: World, primary: Host): bigint | null {
  const weakest = mixtureOf(primary.sync.acting);
  if (weakest.k === 0) return primary.pg.lsn;
  const there = followers(world, primary)
    .filter((one) => weakest.members.includes(voterOf(one)))
    .map((one) => one.pg.lsn)
    .sort((a, b) => (a < b ? 1 : -1));
  return there[weakest.k - 1] ?? null;
}

export function canAcknowledge(world: World, primary: Host): boolean {
  return acknowledgedUpTo(world, primary) !== null;
}

/** Every open primary writes; what is acknowledged while it waits for somebody must never be lost. */
export function acknowledge(world: World): void {
  for (const one of world.hosts.values()) {
    if (!one.up || !one.open || one.pg.state !== 'running' || one.pg.role !== 'primary') continue;
    const upTo = mixtureOf(one.sync.acting).k === 0 ? null : acknowledgedUpTo(world, one);
    if (upTo === null) continue;
    const known = world.acked.find((acked) => acked.by === one.id && acked.timeline === one.pg.timeline);
    if (known === undefined) world.acked.push({ by: one.id, timeline: one.pg.timeline, lsn: upTo });
    else if (upTo > known.lsn) known.lsn = upTo;
  }
}

/** I4: what a node that opens a term lacks of what was acknowledged; empty when it has all. */
export function missingOn(world: World, opening: Host): readonly string[] {
  return world.acked.flatMap((acked) => {
    const fork = opening.pg.history.find((one) => one.timeline === acked.timeline);
    const end = opening.pg.timeline === acked.timeline ? opening.pg.lsn : (fork?.forkLsn ?? -1n);
    return end >= acked.lsn
      ? []
      : [`${opening.id} opens without what ${acked.by} acknowledged up to ${acked.lsn} on timeline ${acked.timeline} (it has ${end})`];
  });
}
