/** What the small closed loop is made of: hosts, their servers, the store; and what an agent sees of a server. */
import { type NodeId, type Term, makeTimeline, makeWallMs } from '../../../src/core/ids.ts';
import { makeLsn } from '../../../src/core/lsn.ts';
import type { makeMonoMs } from '../../../src/core/ids.ts';
import type { Activity, Fork, Member, NodeReport, PostgresReport, Vote } from '../../../src/core/report.ts';
import type { ClusterSpec } from '../../../src/core/spec.ts';
import type { ClusterState, Task } from '../../../src/core/state.ts';
import type { Decision } from '../../../src/core/view.ts';
import type { Acked, SyncModel } from './world-sync.ts';
import { SYSTEM, WALL, blankPostgres } from './picture.ts';

export interface Server {
  state: PostgresReport['state'];
  role: 'primary' | 'standby' | null;
  timeline: number;
  history: readonly Fork[];
  lsn: bigint;
  clean: boolean;
  upstream: NodeId | null;
  startedAt: number;
  /** What the server runs with, of the settings that a standby may not have lower than its primary; and what its WAL says that the primary had. */
  minimums: Minimums;
  replayed: Minimums;
}

export type Minimums = Readonly<Record<'max_connections' | 'max_prepared_transactions', number>>;
export const FIRST_MINIMUMS: Minimums = { max_connections: 100, max_prepared_transactions: 0 };

/** What a start as `role` brings: a standby keeps what its WAL needs (agent/postgres/managed-files.ts). */
export function minimumsAfterStart(world: World, one: Host, role: 'primary' | 'standby'): Minimums {
  const { parameters } = world.spec.postgres;
  const of = (name: keyof Minimums): number => {
    const wanted = Number(parameters[name] ?? FIRST_MINIMUMS[name]);
    return role === 'primary' ? wanted : Math.max(wanted, one.pg.replayed[name]);
  };
  return { max_connections: of('max_connections'), max_prepared_transactions: of('max_prepared_transactions') };
}

export interface Host {
  readonly id: NodeId;
  up: boolean;
  /** Agent can reach the store. */
  linked: boolean;
  /** No other host is reached; clients are. */
  isolated: boolean;
  sync: SyncModel;
  pg: Server;
  highestTerm: Term;
  vote: Vote | null;
  refused: Term[];
  finished: Set<string>;
  failure: { goalId: string; permanent: boolean; notBefore: ReturnType<typeof makeMonoMs> } | null;
  activity: Activity;
  leaseTerm: Term | null;
  deadline: number;
  confirmed: boolean;
  open: boolean;
  ranUnder: string | null;
  downSince: number | null;
  lastReportAt: number;
  report: NodeReport | null;
  /** The state as this agent read it last: one that is cut off from the store knows no newer one. */
  known: ClusterState | null;
  knownRevision: number;
  /** Actions that this host's executor refuses. */
  broken: Set<string>;
}

export interface World {
  t: number;
  spec: ClusterSpec;
  state: ClusterState | null;
  revision: number;
  stateRevision: number;
  lease: { term: Term; holder: NodeId; expires: number } | null;
  leaseGoneAt: number;
  hosts: Map<NodeId, Host>;
  tasks: Map<string, Task>;
  controllerUp: boolean;
  controllerSince: number;
  decisions: string[];
  story: string[];
  highestOpened: number;
  /** What an operator saved of the store; null: nothing yet. */
  backup: ClusterState | null;
  /** What clients were told, by history: the newest position on each timeline that was open. */
  acknowledged: Map<string, Server>;
  /** Commits that were acknowledged at synchronous durability: the last one of each timeline and primary. */
  acked: Acked[];
  /** Looks at each decision; the text is what is wrong with it. */
  audit: (world: World, decision: Decision) => string | null;
}

export function upstreamOf(world: World, one: Host): Host | null {
  const up = one.pg.upstream === null ? null : (world.hosts.get(one.pg.upstream) ?? null);
  if (
    one.pg.state !== 'running' ||
    one.pg.role !== 'standby' ||
    up === null ||
    !up.up ||
    up.isolated ||
    one.isolated ||
    up.pg.state !== 'running' ||
    up.pg.role !== 'primary'
  )
    return null;
  return isBehind(one.pg, up.pg) ? up : null;
}

/** A standby streams only from a history that contains what it has. */
function isBehind(mine: Server, theirs: Server): boolean {
  if (mine.timeline === theirs.timeline) return mine.lsn <= theirs.lsn && JSON.stringify(mine.history, big) === JSON.stringify(theirs.history, big);
  const fork = theirs.history.find((one) => one.timeline === mine.timeline);
  return fork !== undefined && mine.lsn <= fork.forkLsn;
}

export const big = (_key: string, value: unknown): unknown => (typeof value === 'bigint' ? String(value) : value);

export function observe(world: World, one: Host): PostgresReport {
  const { pg } = one;
  const blank = blankPostgres();
  if (pg.state === 'absent') return { ...blank, state: 'absent', role: null, systemIdentifier: null, timeline: null };
  const lsn = makeLsn(pg.lsn);
  const up = pg.state === 'running';
  const primary = pg.role === 'primary';
  return {
    ...blank,
    state: pg.state,
    role: pg.role,
    systemIdentifier: SYSTEM,
    timeline: makeTimeline(pg.timeline),
    history: pg.history,
    flushLsn: up && primary ? lsn : null,
    receivedLsn: up && !primary ? lsn : null,
    replayedLsn: up && !primary ? lsn : null,
    walEnd: up ? null : lsn,
    cleanShutdown: pg.clean && !up,
    shutdownLsn: pg.clean && primary && !up ? lsn : null,
    streamingFrom: upstreamOf(world, one)?.id ?? null,
    startedAt: makeWallMs(WALL + pg.startedAt),
    ...settingsOf(world, one),
    postmasterPid: 100 + pg.startedAt,
  };
}

function settingsOf(world: World, one: Host): Pick<PostgresReport, 'minimums' | 'minimumsAfterRestart' | 'pendingRestart'> {
  const after: Readonly<Record<string, number>> = minimumsAfterStart(world, one, one.pg.role ?? 'standby');
  const now: Readonly<Record<string, number>> = one.pg.minimums;
  const pending = Object.keys(now).filter((name) => now[name] !== after[name]);
  return { minimums: now, pendingRestart: pending, minimumsAfterRestart: Object.fromEntries(pending.map((name) => [name, after[name] ?? 0])) };
}

/** What a node of the model registered. */
export function memberOf(node: NodeId): Member {
  return {
    version: 1,
    node,
    host: `${node}.example`,
    internalHost: null,
    port: 5432,
    agentPort: 8432,
    dataDirectory: '/data',
    agentVersion: '0.1.0',
    postgresVersion: 150_018,
    registeredWallMs: makeWallMs(WALL),
    macs: [],
  };
}
