/** Builders for decideNode's tables: a healthy standby, changed by what a case names. */
import { NO_SET } from '../../../src/core/cluster/sync-set.ts';
import { makeMonoMs, makeNodeId, makeRevision, makeTerm, makeTimeline, makeWallMs } from '../../../src/core/ids.ts';
import { makeLsn } from '../../../src/core/lsn.ts';
import type { LocalFacts } from '../../../src/core/node/decide.ts';
import type { PostgresReport } from '../../../src/core/report.ts';
import { type ClusterState, type Goal, NO_VIPS } from '../../../src/core/state.ts';

export const N1 = makeNodeId('n1');
export const N2 = makeNodeId('n2');
export const T = makeTerm;
export const NOW = makeMonoMs(100_000);

export function postgres(change: Partial<PostgresReport> = {}): PostgresReport {
  return {
    state: 'running',
    role: 'standby',
    systemIdentifier: '1',
    version: 150018,
    timeline: makeTimeline(1),
    history: [],
    flushLsn: null,
    receivedLsn: makeLsn(0x3000000n),
    replayedLsn: makeLsn(0x3000000n),
    walEnd: null,
    cleanShutdown: false,
    shutdownLsn: null,
    waitsForDelay: false,
    streamingFrom: N2,
    walsenders: [],
    pendingRestart: [],
    postmasterPid: 42,
    startedAt: makeWallMs(1),
    minimums: {},
    minimumsAfterRestart: {},
    replication: null,
    stalledMs: null,
    incarnation: null,
    ...change,
  };
}

export const primaryRunning = postgres({ role: 'primary', streamingFrom: null, receivedLsn: null, replayedLsn: null, flushLsn: makeLsn(0x3000000n) });
export const down = (state: PostgresReport['state'], role: PostgresReport['role']): PostgresReport =>
  postgres({ state, role, streamingFrom: null, postmasterPid: null });

export function facts(change: Partial<LocalFacts> = {}): LocalFacts {
  return {
    node: N1,
    witness: false,
    postgres: postgres(),
    leaseTerm: null,
    confirmed: false,
    open: false,
    highestTerm: T(1),
    vote: null,
    refusedTerms: [],
    finished: new Set(),
    failure: null,
    notStreamingSince: null,
    upstream: N2,
    ranUnderGoal: false,
    downSince: null,
    stoppingSince: null,
    leaseWantedSince: null,
    syncReady: true,
    ...change,
  };
}

export function stateWith(goal: Goal | null, change: Partial<ClusterState> = {}): ClusterState {
  return {
    version: 1,
    incarnation: 'i',
    setBack: null,
    phase: 'running',
    systemIdentifier: '1',
    term: T(1),
    primary: N2,
    primaryTerm: T(1),
    timeline: makeTimeline(1),
    reservedTimeline: null,
    history: [],
    cascades: {},
    positions: {},
    goals: goal === null ? {} : { [N1]: goal },
    electorate: { revision: 1, members: [N1, N2], former: [] },
    quorum: {
      revision: 0,
      term: T(1),
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
    frozen: null,
    lastFailoverWallMs: null,
    primaryLsn: null,
    terms: [],
    route: { epoch: 1, writer: N2, readers: [], hold: false },
    vips: NO_VIPS,
    diskProblems: {},
    decided: { rule: 'test', why: 'test', atWallMs: makeWallMs(0) },
    ...change,
  };
}

export { makeLsn, makeMonoMs, makeRevision, makeTimeline, makeWallMs };
