/** Answers of a server about a small cluster. */
import type { ShowAnswer, TaskView } from '../../src/api/schema.ts';

type ShowNode = ShowAnswer['nodes'][number];

export function node(id: string, more: Partial<ShowNode> = {}): ShowNode {
  const primary = more.role === 'primary';
  return {
    id,
    host: '10.0.0.11',
    port: 5432,
    role: 'standby',
    state: 'running',
    wantedRole: more.role ?? 'standby',
    internalHost: null,
    streaming: !primary,
    timeline: 2,
    lsn: '0/3000148',
    replayLagBytes: primary ? null : 0,
    upstream: primary ? null : 'n1',
    priority: 100,
    location: null,
    agent: { version: '0.1.0', seenMs: 120 },
    problems: [],
    ...more,
  };
}

export function show(more: Partial<ShowAnswer> = {}): ShowAnswer {
  return {
    cluster: 'demo',
    state: 'healthy',
    term: 3,
    timeline: 2,
    primary: 'n1',
    frozen: false,
    sync: { mode: 'async', strict: false, k: 0, voters: [], members: [] },
    nodes: [node('n1', { role: 'primary' }), node('n2', { host: '10.0.0.12' }), node('n3', { host: '10.0.0.13', replayLagBytes: 16_777_216 })],
    vips: { write: null, read: null },
    proxies: [],
    problems: [],
    ...more,
  };
}

/** Everything wrong at once, with Chinese names of places. */
export function troubled(): ShowAnswer {
  return show({
    state: 'degraded',
    frozen: true,
    sync: { mode: 'quorum', strict: true, k: 1, voters: ['n2', 'n3'], members: ['n1', 'n2', 'n3'] },
    vips: { write: { address: '10.0.0.100', node: 'n1' }, read: { address: '10.0.0.101', node: null } },
    proxies: [{ id: 'p1', host: '10.0.0.21', term: 2, seenMs: 400 }],
    nodes: [
      node('n1', { role: 'primary', location: '北京-一号机房' }),
      node('n2', {
        host: '10.0.0.12',
        location: '上海-二号机房',
        streaming: false,
        replayLagBytes: 1_503_238_553,
        problems: [{ code: 'standby.not-streaming', text: 'n2 does not stream from n1', remedy: 'pgherd node rejoin n2' }],
      }),
      node('n3', {
        host: '10.0.0.13',
        location: '广州',
        role: 'primary',
        wantedRole: 'standby',
        state: 'diverged',
        replayLagBytes: null,
        agent: { version: '0.1.0', seenMs: 65_000 },
      }),
    ],
    problems: [{ code: 'role.mismatch', text: 'n3 is registered as standby, but runs as primary', remedy: 'pgherd node rejoin n3' }],
  });
}

export function task(more: Partial<TaskView> = {}): TaskView {
  return {
    id: 't-1',
    cluster: 'demo',
    kind: 'switchover',
    request: { kind: 'switchover', to: 'n2' },
    reason: '',
    by: 'alice',
    createdAt: '2026-11-21T04:00:00.000Z',
    status: 'pending',
    cancelRequested: false,
    steps: [],
    problems: [],
    finishedAt: null,
    progress: null,
    result: null,
    ...more,
  };
}

export const summary = { cluster: 'demo', state: 'healthy', term: 3, primary: 'n1', nodes: 3, nodesLive: 3, problems: 0, frozen: false };
