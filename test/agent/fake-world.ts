/** Fake ports for the agent's loop: a PostgreSQL that is a few fields, and a log of what was done to it. */
import { makeMonoMs, makeNodeId, makeRevision, makeTerm, makeTimeline, makeWallMs } from '../../src/core/ids.ts';
import type { NodeId, Term } from '../../src/core/ids.ts';
import { makeLsn } from '../../src/core/lsn.ts';
import type { PostgresReport, Vote } from '../../src/core/report.ts';
import { type Failure, type Result, err, ok } from '../../src/core/result.ts';
import { type ClusterSpec, clusterSpec } from '../../src/core/spec.ts';
import type { ClusterState, Goal } from '../../src/core/state.ts';
import { type AgentLoop, type LoopInput, type LoopPorts, type LoopStatus, createAgentLoop } from '../../src/agent/loop.ts';
import type { BallotPort, MemoryPort, PostgresPort } from '../../src/agent/ports.ts';
import { N1, postgres, stateWith } from '../core/node/facts.ts';

export const failure = (code: string, retryable: boolean): Failure => ({ code, what: code, cause: '', now: '', remedy: '', retryable });

export const spec: ClusterSpec = (() => {
  const decoded = clusterSpec(
    {
      name: 'c',
      nodes: [
        { id: 'n1', host: 'h1' },
        { id: 'n2', host: 'h2' },
        { id: 'n3', host: 'h3' },
      ],
    },
    '',
  );
  if (!decoded.ok) throw new Error(decoded.error.message);
  return decoded.value;
})();

export interface World {
  readonly loop: AgentLoop;
  readonly did: string[];
  /** What was logged, but for the level debug. */
  readonly logged: string[];
  pg: PostgresReport;
  upstream: NodeId | null;
  lease: Term | null;
  at: number;
  status: LoopStatus | null;
  /** PostgreSQL does not answer a look. */
  slowLook: boolean;
  /** Why the last look failed. */
  trouble: string | null;
  /** What the state says beside the goal. */
  state: Partial<ClusterState>;
  /** How often a lease was made ready. */
  prepared: number;
  /** How often the slots were looked after. */
  upkeeps: number;
  /** How often a start began that waits for what it recovered. */
  recoveries: number;
  /** k members hold what was recovered. */
  syncReady: boolean;
  /** What is noted durably of the last start. */
  unopened: boolean;
  /** A stop says when the shutdown checkpoint is written, before it ends. */
  writesShutdownFirst: boolean;
  /** Of the store; the state says `i`. */
  incarnation: string | null;
  spec: ClusterSpec;
  mayVote: ReturnType<BallotPort['mayVote']>;
  /** Results or gates of operations by name; absent: they succeed at once. */
  readonly answers: Map<string, (signal: AbortSignal) => Promise<Result<string, Failure>>>;
  /** Steps until the loop has nothing more to do at once. */
  settle(goal: Goal | null): Promise<void>;
}

export function createWorld(): World {
  const did: string[] = [];
  const logged: string[] = [];
  const note = (_fields: unknown, text: string): void => void logged.push(text);
  const answers: World['answers'] = new Map();
  let woken = false;
  const run = async (name: string, signal: AbortSignal, effect: () => void): Promise<Result<string, Failure>> => {
    did.push(name);
    const answer = answers.get(name);
    const result = answer === undefined ? ok('') : await answer(signal);
    if (result.ok) effect();
    return result;
  };
  const never = new AbortController().signal;
  const port: PostgresPort = {
    observe: () => (world.slowLook ? new Promise(() => undefined) : Promise.resolve(world.pg)),
    configuredUpstream: () => Promise.resolve(world.upstream),
    initdb: (_spec, signal) => run('initdb', signal, () => set({ state: 'stopped', role: 'primary' })),
    applySettings: () => Promise.resolve(ok({ changed: false })),
    trouble: () => world.trouble,
    settingsOutdated: () => false,
    startPrimary: (_spec, may, signal) =>
      may() ? run('start-primary', signal, () => set({ state: 'running', role: 'primary' })) : Promise.resolve(err(failure('start.no-lease', true))),
    startStandby: (_spec, upstream, signal) =>
      run('start-standby', signal, () => {
        set({ state: 'running', role: 'standby', streamingFrom: upstream?.node ?? null });
        world.upstream = upstream?.node ?? null;
      }),
    stop: async (_spec, signal, onShutDown) => {
      if (world.writesShutdownFirst && onShutDown !== undefined) {
        set({ state: 'stopping', cleanShutdown: true, shutdownLsn: makeLsn(7n) });
        onShutDown();
        await new Promise((resolve) => setImmediate(resolve));
      }
      return run('stop', signal, () => set({ state: 'stopped', cleanShutdown: true }));
    },
    kill: () =>
      run('kill', never, () => {
        set({ state: 'crashed' });
        world.slowLook = false;
      }),
    preparePromotion: () => undefined,
    waitReplay: (required, signal) => run('wait-replay', signal, () => set({ replayedLsn: required })),
    promote: async ({ mayPromote, ready, onWritable, signal }) => {
      await ready;
      if (!mayPromote()) return err(failure('promote.no-lease', true));
      const promoted = await run('promote', signal, () => set({ role: 'primary', streamingFrom: null }));
      if (promoted.ok) onWritable();
      return promoted;
    },
    detach: async (signal) => {
      const result = await run('detach', signal, () => set({ streamingFrom: null }));
      return result.ok ? ok({ position: { timeline: makeTimeline(1), lsn: makeLsn(5n) }, final: true }) : result;
    },
    follow: (upstream, signal) =>
      run('follow', signal, () => {
        world.upstream = upstream.node;
        set({ streamingFrom: upstream.node });
      }),
    rewind: (_spec, _upstream, signal) => run('rewind', signal, () => set({ state: 'stopped', role: 'standby' })),
    clone: (_spec, _upstream, signal) => run('clone', signal, () => set({ state: 'stopped', role: 'standby' })),
    dropData: () => run('drop-data', never, () => set({ state: 'absent', role: null })),
    markOpening: (term, signal) => run(`mark ${term}`, signal, () => undefined),
    checkpoint: (signal) => run('checkpoint', signal, () => undefined),
    ensureRolesAndSlots: (_spec, signal) => run('roles', signal, () => undefined),
    ensureSlots: () => {
      world.upkeeps += 1;
      return Promise.resolve(ok(''));
    },
    listSlots: () => Promise.resolve([]),
    onGone: () => undefined,
    problems: () => [],
  };
  const set = (change: Partial<PostgresReport>): void => {
    world.pg = { ...world.pg, ...change };
  };
  const ports: LoopPorts = {
    node: N1,
    witness: false,
    sync: {
      step: () => undefined,
      prepare: () => Promise.resolve(ok(null)),
      startsAfterCrash: () => {
        world.recoveries += 1;
      },
      startsAsStandby: () => {
        world.recoveries = 0;
      },
      opened: () => undefined,
      ready: () => world.syncReady,
      report: () => null,
    },
    postgres: port,
    lease: {
      heldTerm: () => world.lease,
      renewNow: () => Promise.resolve(world.lease === null ? null : ('store' as const)),
      prepare: () => {
        world.prepared += 1;
      },
      lapse: () => void did.push('lapse'),
      acquire: async (term) => {
        const result = await run(`acquire ${term}`, never, () => {
          world.lease = term;
        });
        return result.ok ? ok(null) : result;
      },
      release: async () => {
        const result = await run('release', never, () => {
          world.lease = null;
        });
        return result.ok ? ok(null) : result;
      },
    },
    firewall: {
      kind: 'off',
      close: async () => {
        did.push('close');
        const answer = await answers.get('close')?.(never);
        if (answer?.ok === false) throw new Error(answer.error.what);
      },
      openTimed: () => Promise.resolve(void did.push('open')),
      openStandby: () => Promise.resolve(void did.push('open-standby')),
      turnAway: () => Promise.resolve(void did.push('turn-away')),
    },
    memory: memory(did, answers, {
      get: () => world.unopened,
      set: (value) => {
        world.unopened = value;
      },
    }),
    ballot: { mayVote: () => world.mayVote },
    // Time passes only when a test says so: a look is never late here unless `slowLook` says it.
    clock: {
      now: () => ({ mono: makeMonoMs(world.at), wall: makeWallMs(world.at) }),
      sleep: () => (world.slowLook ? Promise.resolve() : new Promise(() => undefined)),
    },
    log: { debug: () => undefined, info: note, warn: note, error: note } as never,
    onStatus: (status) => {
      world.status = status;
    },
    wake: () => {
      woken = true;
    },
  };
  const world: World = {
    loop: createAgentLoop(ports),
    did,
    pg: postgres(),
    upstream: makeNodeId('n2'),
    lease: null,
    at: 1000,
    status: null,
    slowLook: false,
    trouble: null,
    state: {},
    prepared: 0,
    upkeeps: 0,
    logged,
    recoveries: 0,
    syncReady: true,
    unopened: false,
    writesShutdownFirst: false,
    incarnation: 'i',
    spec,
    mayVote: { kind: 'granted' },
    answers,
    settle: async (goal) => {
      const input: LoopInput = {
        spec: world.spec,
        state: { ...stateWith(goal), ...world.state },
        stateRevision: makeRevision(7),
        incarnation: world.incarnation,
      };
      for (let i = 0; i < 50; i++) {
        woken = false;
        await world.loop.step(input);
        await new Promise((resolve) => setImmediate(resolve));
        if (!woken) return;
      }
      throw new Error(`the loop does not come to rest: ${did.slice(-10).join(', ')}`);
    },
  };
  return world;
}

function memory(
  did: string[],
  answers: World['answers'],
  unopened: { readonly get: () => boolean; readonly set: (value: boolean) => void },
): MemoryPort {
  let highest = makeTerm(0);
  let vote: Vote | null = null;
  const refused: Term[] = [];
  let opened = makeTerm(0);
  const finished = new Set<string>();
  return {
    highestTerm: () => highest,
    vote: () => vote,
    refusedTerms: () => refused,
    openedTerm: () => opened,
    setOpened: async (term) => {
      did.push(`note-opening ${term}`);
      const noted = await answers.get(`note-opening ${term}`)?.(new AbortController().signal);
      if (noted?.ok === false) throw new Error(noted.error.code);
      opened = term;
    },
    finished: () => finished,
    sawTerm: (term) => {
      highest = term;
      return Promise.resolve();
    },
    setVote: (given) => {
      did.push(given.final ? `vote ${given.term} final` : `vote ${given.term}`);
      vote = given;
      return Promise.resolve();
    },
    refuse: (term) => {
      did.push(`refuse ${term}`);
      refused.push(term);
      return Promise.resolve();
    },
    unopened: unopened.get,
    setUnopened: (value) => {
      unopened.set(value);
      return Promise.resolve();
    },
    finish: (step) => {
      finished.add(step);
      return Promise.resolve();
    },
  };
}
