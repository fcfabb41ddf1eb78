/**
 * A cluster as a text picture, so that a case of the rule table is a few lines.
 *
 *   term 3 primary n1 lease n1/3 [attempt 4 vote|promote:n2] [goneMs 9000] [watched 100] [frozen] [phase new] [lsn 0/5000] [flapped]
 *   n1 primary|standby|detached|crashed|stopped|hung|starting|absent|incomplete|fenced|dead|witness [@0/5000] [tl2] [fork1@0/4000] [vote4@0/5000|vote4?]
 *      [lease3] [sees:n1=down] [refuses4] [opened4] [fail:CODE] [gaveup:CODE] [busy] [done] [goal:KIND] [prio0] [loc:a] [sys9] [maint] [clean@0/5000] [trusted|untrusted] [seen] [stalled9000] [knows5] [newest20] [other-store] [vip:write=held] [vip:read=conflict/MAC] [inc:NAME] [silent:n2=900] [notinforce@0/5000|inforce@0/5000]
 *
 * With `quorum 1/n2,n3` in the first line replication is synchronous: facts and wanted set are that (`quorum 0/`: nobody is waited for), each node's
 * directory has the incarnation `a`, and the primary reports walsenders of the standbys that stream.
 */
import { NO_SET } from '../../../src/core/cluster/sync-set.ts';
import { withGoal, initialState, type Wanted } from '../../../src/core/cluster/goals.ts';
import { type NodeId, type Now, makeMonoMs, makeNodeId, makeRevision, makeTerm, makeTimeline, makeWallMs } from '../../../src/core/ids.ts';
import { type Lsn, parseLsn } from '../../../src/core/lsn.ts';
import type { NodeReport, PostgresReport, ProbeResult, VipReport } from '../../../src/core/report.ts';
import { type ClusterSpec, clusterSpec } from '../../../src/core/spec.ts';
import type { ClusterState, Task, TaskRequest } from '../../../src/core/state.ts';
import type { ClusterView, SeenReport } from '../../../src/core/view.ts';
import type { VipRole } from '../../../src/core/vips.ts';

export const WALL = 1_800_000_000_000;
export const NOW: Now = { mono: makeMonoMs(1_000_000), wall: makeWallMs(WALL) };
export const later = (ms: number): Now => ({ mono: makeMonoMs(NOW.mono + ms), wall: makeWallMs(WALL + ms) });
export const id = makeNodeId;
export const SYSTEM = '7000000000000000001';

export function lsnOf(text: string): Lsn {
  const value = parseLsn(text);
  if (value === null) throw new Error(`not an LSN: ${text}`);
  return value;
}

export function makeSpec(nodes: readonly object[], extra: object = {}): ClusterSpec {
  const decoded = clusterSpec({ name: 'demo', nodes, durability: { mode: 'async' }, ...extra }, '');
  if (!decoded.ok) throw new Error(`${decoded.error.path}: ${decoded.error.message}`);
  return decoded.value;
}

export function blankPostgres(): PostgresReport {
  return {
    state: 'running',
    role: 'standby',
    systemIdentifier: SYSTEM,
    version: 150018,
    timeline: makeTimeline(1),
    history: [],
    flushLsn: null,
    receivedLsn: null,
    replayedLsn: null,
    walEnd: null,
    cleanShutdown: false,
    shutdownLsn: null,
    streamingFrom: null,
    waitsForDelay: false,
    walsenders: [],
    pendingRestart: [],
    postmasterPid: 1,
    startedAt: makeWallMs(1),
    minimums: {},
    minimumsAfterRestart: {},
    replication: null,
    stalledMs: null,
    incarnation: null,
  };
}

export function blankReport(node: NodeId): NodeReport {
  return {
    version: 1,
    node,
    agentVersion: '0.1.0',
    agentRun: 'r',
    bootId: 'b',
    atWallMs: makeWallMs(WALL),
    stateRevision: makeRevision(10),
    newestRevision: makeRevision(0),
    incarnation: 'store-1',
    highestTerm: makeTerm(0),
    postgres: blankPostgres(),
    leaseTerm: null,
    fenced: true,
    open: false,
    vote: null,
    refusedTerms: [],
    openedTerm: makeTerm(0),
    activity: { kind: 'idle' },
    probes: {},
    guard: 'alive',
    firewall: 'fail-closed',
    watchdog: 'off',
    trustedReachable: null,
    slots: [],
    problems: [],
    sync: null,
    vips: [],
    host: null,
    writes: null,
    diskKnown: true,
    weakCommits: [],
  };
}

interface Header {
  readonly words: readonly string[];
  has(word: string): boolean;
  after(word: string): string | null;
}

function header(line: string): Header {
  const words = line.trim().split(/\s+/);
  return { words, has: (word) => words.includes(word), after: (word) => (words.includes(word) ? (words[words.indexOf(word) + 1] ?? null) : null) };
}

export interface Picture {
  readonly spec?: object;
  readonly state?: (state: ClusterState) => ClusterState;
  readonly tasks?: readonly Task[];
  readonly members?: ClusterView['members'];
  readonly acks?: Readonly<Record<string, number>>;
}

/** The view of the picture. Goals default to those of a steady cluster; reports are fresh and know the present state. */
export function picture(text: string, extra: Picture = {}): ClusterView {
  const [first = '', ...lines] = text
    .trim()
    .split('\n')
    .map((line) => line.trim())
    .filter((line) => line !== '');
  const head = header(first);
  const term = makeTerm(Number(head.after('term') ?? 0));
  const primary = head.after('primary') === null ? null : id(head.after('primary') ?? '');
  const spec = makeSpec(lines.map(nodeSpec), head.has('quorum') ? { durability: { mode: 'quorum', k: 1 }, ...extra.spec } : extra.spec);
  let state = baseState(head, term, primary, spec);
  const reports: Record<string, SeenReport> = {};
  for (const line of lines) {
    const seen = parseNode(line, term, primary, state);
    if (seen !== null) reports[seen.report.node] = seen;
  }
  for (const line of lines) state = lineGoal(state, line, head);
  if (head.has('quorum')) state = synchronous(state, head.after('quorum') ?? '0/');
  if (extra.state !== undefined) state = extra.state(state);
  if (head.has('quorum')) {
    for (const line of lines) withIncarnation(reports, line);
    for (const line of lines) withSync(reports, line, state);
  }
  for (const line of lines) {
    const seen = reports[line.split(/\s+/)[0] ?? ''];
    if (seen !== undefined) reports[seen.report.node] = { ...seen, report: withActivity(seen.report, line, state) };
  }
  const [holder, leaseTerm] = (head.after('lease') ?? '').split('/');
  return {
    spec,
    state,
    stateRevision: makeRevision(10),
    reports: reports as ClusterView['reports'],
    members: extra.members ?? {},
    writeLease: holder === undefined || holder === '' ? null : { term: makeTerm(Number(leaseTerm)), holder: id(holder) },
    writeLeaseGoneMs: holder === undefined || holder === '' ? Number(head.after('goneMs') ?? 5000) : 0,
    tasks: extra.tasks ?? [],
    proxyAcks: extra.acks ?? {},
    fenceResult: null,
    watchedMs: Number(head.after('watched') ?? 60_000),
    incarnation: 'store-1',
  };
}

function synchronous(state: ClusterState, text: string): ClusterState {
  const [k = '0', nodes = ''] = text.split('/');
  const voters = nodes.split(',').flatMap((node) => (node === '' ? [] : [`${node}.a`]));
  const set = Number(k) === 0 ? NO_SET : { method: 'any' as const, k: Number(k), members: voters };
  return { ...state, quorum: { ...state.quorum, k: Number(k), voters, wanted: set, mayStand: [set] } };
}

function withIncarnation(reports: Record<string, SeenReport>, line: string): void {
  const words = line.split(/\s+/);
  const seen = reports[words[0] ?? ''];
  if (seen === undefined || seen.report.postgres.timeline === null) return;
  const incarnation = words.find((word) => word.startsWith('inc:'))?.slice(4) ?? 'a';
  reports[seen.report.node] = { ...seen, report: { ...seen.report, postgres: { ...seen.report.postgres, incarnation } } };
}

/** The primary's walsenders, and what it says of its set. */
function withSync(reports: Record<string, SeenReport>, line: string, state: ClusterState): void {
  const words = line.split(/\s+/);
  const seen = reports[words[0] ?? ''];
  if (seen === undefined) return;
  const { report } = seen;
  let changed: NodeReport = report;
  if (report.postgres.role === 'primary') {
    const walsenders = Object.values(reports).flatMap((one) => {
      const { node, postgres } = one.report;
      if (postgres.streamingFrom !== report.node) return [];
      const lsn = postgres.receivedLsn;
      return [
        {
          node,
          state: 'streaming',
          sentLsn: lsn,
          writeLsn: lsn,
          flushLsn: lsn,
          replayLsn: lsn,
          replayLagMs: null,
          syncState: 'quorum',
          voter: `${node}.${postgres.incarnation ?? 'a'}`,
        },
      ];
    });
    const silence = words.flatMap((word) => {
      const match = /^silent:(\w+)=(\d+)$/.exec(word);
      return match === null ? [] : [{ voter: `${match[1]}.a`, ms: Number(match[2]) }];
    });
    const at = words.find((word) => word.startsWith('inforce@'))?.slice(8) ?? '0/1';
    const inForce = !words.includes('notinforce');
    changed = {
      ...changed,
      postgres: { ...changed.postgres, walsenders },
      sync: { revision: inForce ? state.quorum.wantedRevision : 0, inForceLsn: inForce ? lsnOf(at) : null, silence },
    };
  }
  reports[words[0] ?? ''] = { ...seen, report: changed };
}

function nodeSpec(line: string): object {
  const words = line.split(/\s+/);
  const name = words[0] ?? '';
  const location = words.find((word) => word.startsWith('loc:'))?.slice(4) ?? null;
  const priority = words.find((word) => /^prio\d+$/.test(word))?.slice(4);
  return {
    id: name,
    host: `${name}.example`,
    kind: words.includes('witness') ? 'witness' : 'data',
    maintenance: words.includes('maint'),
    location,
    ...(priority === undefined ? {} : { priority: Number(priority) }),
  };
}

function baseState(head: Header, term: ReturnType<typeof makeTerm>, primary: NodeId | null, spec: ClusterSpec): ClusterState {
  const blank = initialState('store-1', NOW);
  const running = primary !== null;
  let state: ClusterState = {
    ...blank,
    phase: (head.after('phase') ?? (running ? 'running' : 'new')) as ClusterState['phase'],
    systemIdentifier: running ? SYSTEM : null,
    term,
    primary,
    primaryTerm: term,
    timeline: running ? makeTimeline(Number(head.after('timeline') ?? 1)) : null,
    history: (head.after('forks') ?? '')
      .split(',')
      .filter((one) => one !== '')
      .map(parseFork),
    electorate: { revision: 1, members: spec.nodes.filter((node) => !node.maintenance).map((node) => node.id), former: [] },
    quorum: {
      revision: 1,
      term,
      k: 0,
      voters: [],
      wanted: NO_SET,
      wantedRevision: 1,
      mayStand: [NO_SET],
      lowered: null,
      floor: null,
      floorPending: false,
    },
    primaryLsn: head.after('lsn') === null ? (running ? lsnOf('0/5000') : null) : lsnOf(head.after('lsn') ?? ''),
    frozen: head.has('frozen') ? { reason: 'work on the network', by: 'anna', sinceWallMs: makeWallMs(WALL - 1000), untilWallMs: null } : null,
    lastFailoverWallMs: head.has('flapped') ? makeWallMs(WALL - 10_000) : null,
    terms: running
      ? [
          {
            term,
            timeline: makeTimeline(1),
            primary: primary ?? id('n1'),
            forkLsn: null,
            rule: 'bootstrap.created',
            reason: '',
            startedWallMs: makeWallMs(WALL - 3_600_000),
            outageMs: null,
            lostBytes: null,
          },
        ]
      : [],
  };
  if (!running) return state;
  for (const node of spec.nodes) state = withGoal(state, node.id, term, defaultGoal(node.id, node.kind === 'witness' || node.maintenance, primary));
  const attempt = head.after('attempt');
  if (attempt === null) return state;
  const [phase = 'vote', candidate] = (head.words[head.words.indexOf('attempt') + 2] ?? 'vote').split(':');
  return {
    ...state,
    term: makeTerm(Number(attempt)),
    attempt: {
      term: makeTerm(Number(attempt)),
      path: 'lease',
      phase: phase === 'promote' ? 'promote' : 'vote',
      rule: 'primary.lost',
      reason: 'n1 is lost',
      candidate: candidate === undefined ? null : id(candidate),
      positions: {},
      startedWallMs: makeWallMs(WALL),
      outageFromWallMs: makeWallMs(WALL - 3000),
      lostBytes: null,
      acceptLoss: false,
      acceptTwoPrimaries: false,
      mayHaveOpened: [],
      afterRestore: false,
      target: null,
      taskId: null,
      sync: null,
    },
  };
}

function defaultGoal(node: NodeId, idle: boolean, primary: NodeId | null): Wanted {
  if (node === primary) return { kind: 'primary' };
  return idle || primary === null ? { kind: 'none' } : { kind: 'standby', upstream: primary, via: 'stream' };
}

function parseFork(word: string): { timeline: ReturnType<typeof makeTimeline>; forkLsn: Lsn } {
  const [timeline = '1', lsn = '0/0'] = word.split('@');
  return { timeline: makeTimeline(Number(timeline)), forkLsn: lsnOf(lsn) };
}

function lineGoal(state: ClusterState, line: string, head: Header): ClusterState {
  const words = line.split(/\s+/);
  const node = id(words[0] ?? '');
  const kind = words.find((word) => word.startsWith('goal:'))?.slice(5);
  const attemptTerm = state.attempt?.term ?? state.term;
  if (kind === undefined) {
    if (head.has('attempt') && state.attempt !== null) {
      if (node === state.primary)
        return withGoal(state, node, attemptTerm, { kind: state.attempt.candidate === node ? 'primary' : 'fenced', reason: 'n1 is lost' } as Wanted);
      return withGoal(state, node, attemptTerm, state.attempt.candidate === node ? { kind: 'promote', requiredLsn: null } : { kind: 'vote' });
    }
    return state;
  }
  const primary = state.primary ?? node;
  if (kind === 'unset') return { ...state, goals: Object.fromEntries(Object.entries(state.goals).filter(([name]) => name !== node)) };
  const wanted: Wanted =
    kind === 'fenced' || kind === 'stopped'
      ? { kind, reason: 'n1 is lost' }
      : kind === 'stream' || kind === 'rewind' || kind === 'clone'
        ? { kind: 'standby', upstream: primary, via: kind }
        : kind === 'handover'
          ? { kind, to: id('n2') }
          : ({ kind } as Wanted);
  return withGoal(state, node, attemptTerm, wanted);
}

function parseNode(line: string, term: ReturnType<typeof makeTerm>, primary: NodeId | null, state: ClusterState): SeenReport | null {
  const words = line.split(/\s+/);
  const node = id(words[0] ?? '');
  const what = words[1] ?? '';
  if (what === 'silent') return null;
  const at = words.find((word) => word.startsWith('@'));
  const lsn = at === undefined ? lsnOf('0/5000') : lsnOf(at.slice(1));
  const blank = blankReport(node);
  const timeline = makeTimeline(Number(words.find((word) => /^tl\d+$/.test(word))?.slice(2) ?? state.timeline ?? 1));
  const history = words.filter((word) => word.startsWith('fork')).map((word) => parseFork(word.slice(4)));
  const system = words.find((word) => /^sys\d+$/.test(word));
  let postgres: PostgresReport = {
    ...blank.postgres,
    timeline,
    history: history.length > 0 ? history : state.history,
    systemIdentifier: system === undefined ? SYSTEM : system,
  };
  let report: NodeReport = { ...blank, fenced: true };
  switch (what) {
    case 'primary':
      postgres = { ...postgres, role: 'primary', flushLsn: lsn };
      report = { ...report, leaseTerm: term, open: true, fenced: false };
      break;
    case 'rogue':
      postgres = { ...postgres, role: 'primary', flushLsn: lsn };
      report = { ...report, fenced: false };
      break;
    case 'standby':
    case 'dead':
      postgres =
        what === 'dead' && node === primary
          ? { ...postgres, role: 'primary', flushLsn: lsn }
          : { ...postgres, receivedLsn: lsn, replayedLsn: lsn, streamingFrom: primary };
      break;
    case 'detached':
      postgres = { ...postgres, receivedLsn: lsn, replayedLsn: lsn };
      break;
    case 'absent':
    case 'witness':
      postgres = { ...postgres, state: 'absent', role: null, systemIdentifier: null, timeline: null, history: [] };
      break;
    case 'fenced':
      postgres = { ...postgres, state: 'stopped', role: 'primary', walEnd: lsn };
      break;
    case 'hung':
      postgres = { ...postgres, state: 'hung', role: 'primary', flushLsn: lsn };
      report = { ...report, leaseTerm: term, open: true, fenced: false };
      break;
    default:
      postgres = { ...postgres, state: what as PostgresReport['state'], role: node === primary ? 'primary' : 'standby', walEnd: lsn };
  }
  for (const word of words) if (/^stalled\d+$/.test(word)) postgres = { ...postgres, stalledMs: Number(word.slice(7)) };
  const clean = words.find((word) => word.startsWith('clean@'));
  if (clean !== undefined) postgres = { ...postgres, cleanShutdown: true, shutdownLsn: lsnOf(clean.slice(6)) };
  report = { ...report, ...overridesOf(words), postgres };
  return { report, ageMs: what === 'dead' ? 5000 : 100, alive: what !== 'dead' };
}

function overridesOf(words: readonly string[]): Partial<NodeReport> {
  const out: { -readonly [K in keyof NodeReport]?: NodeReport[K] } = {};
  const probes: Record<string, ProbeResult> = {};
  for (const word of words) {
    const vote = /^vote(\d+)(?:@(.+)|(\?))?$/.exec(word);
    if (vote !== null)
      out.vote = {
        term: makeTerm(Number(vote[1])),
        position:
          vote[2] === undefined
            ? null
            : { timeline: makeTimeline(Number(words.find((one) => /^tl\d+$/.test(one))?.slice(2) ?? 1)), lsn: lsnOf(vote[2]) },
        final: vote[3] === undefined,
      };
    const lease = /^lease(\d+)$/.exec(word);
    if (lease !== null) Object.assign(out, { leaseTerm: makeTerm(Number(lease[1])), open: words.includes('open'), fenced: false });
    const sees = /^sees:(\w+)=(\w+)$/.exec(word);
    if (sees !== null)
      probes[sees[1] ?? ''] = { verdict: sees[2] as ProbeResult['verdict'], failures: 2, lastOkAgoMs: 2500, error: null, agentAlive: false };
    const vip = /^vip:(write|read)=(held|conflict|failed)(?:\/(.+))?$/.exec(word);
    if (vip !== null) {
      const one = { vip: vip[1] as VipRole, address: '10.0.0.9', state: vip[2] as VipReport['state'], otherMac: vip[3] ?? null, detail: '' };
      out.vips = [...(out.vips ?? []), one];
    }
    if (word.startsWith('opened')) out.openedTerm = makeTerm(Number(word.slice(6)));
    if (word.startsWith('refuses')) out.refusedTerms = [makeTerm(Number(word.slice(7)))];
    if (word === 'trusted' || word === 'untrusted') out.trustedReachable = word === 'trusted';
    if (/^knows\d+$/.test(word)) out.highestTerm = makeTerm(Number(word.slice(5)));
    if (word === 'other-store') out.incarnation = 'store-0';
    if (word === 'stale') out.stateRevision = makeRevision(9);
    if (word.startsWith('newest')) out.newestRevision = makeRevision(Number(word.slice(6)));
  }
  out.probes = probes;
  return out;
}

function withActivity(report: NodeReport, line: string, state: ClusterState): NodeReport {
  const goalId = state.goals[report.node]?.id ?? 'none';
  for (const word of line.split(/\s+/)) {
    const failed = /^(fail|gaveup):(.+)$/.exec(word);
    if (failed !== null)
      return {
        ...report,
        activity: {
          kind: 'failed',
          goalId,
          step: 'work',
          code: failed[2] ?? '',
          message: 'it did not work',
          attempts: 1,
          atWallMs: makeWallMs(WALL),
          retrying: failed[1] === 'fail',
        },
      };
    if (word === 'busy')
      return { ...report, activity: { kind: 'busy', goalId, step: 'work', sinceWallMs: makeWallMs(WALL), doneBytes: null, totalBytes: null } };
    if (word === 'done' || word.startsWith('done:')) return { ...report, activity: { kind: 'done', goalId, detail: word.slice(5) } };
    const done = /^did:(.+)$/.exec(word);
    if (done !== null) return { ...report, activity: { kind: 'done', goalId: done[1] ?? '', detail: '' } };
  }
  return report;
}

export function makeTask(request: TaskRequest, extra: Partial<Task> = {}): Task {
  return {
    version: 1,
    id: 't1',
    request,
    reason: '',
    by: 'anna',
    createdWallMs: makeWallMs(WALL),
    status: 'pending',
    cancelRequested: false,
    notes: {},
    steps: [],
    problems: [],
    finishedWallMs: null,
    result: null,
    ...extra,
  };
}

/** `n1:fenced n2:vote n3:standby/stream` in the order of the spec. */
export function goalsOf(state: ClusterState, spec: ClusterSpec): string {
  return spec.nodes
    .map((node) => {
      const goal = state.goals[node.id];
      if (goal === undefined) return `${node.id}:-`;
      return `${node.id}:${goal.kind === 'standby' ? goal.via : goal.kind}`;
    })
    .join(' ');
}
