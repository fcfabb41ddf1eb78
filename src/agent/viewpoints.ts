/**
 * This agent's view of the primary: is its PostgreSQL writable, is its agent alive. One viewpoint of several (§4.6).
 *
 * Each round is bounded and never waits for the one before; a probe that hangs is a failure of that round, nothing else.
 */
import type { MonoMs, NodeId } from '../core/ids.ts';
import type { ProbeResult } from '../core/report.ts';
import { type ClusterSpec, findNode, internalHost } from '../core/spec.ts';
import type { ClockPort, ViewpointPort } from './ports.ts';

/** One bounded look at a member's PostgreSQL. Never throws. */
export type ProbeMember = (target: { node: NodeId; host: string; port: number; timeoutMs: number }) => Promise<{
  readonly verdict: 'primary' | 'standby' | 'blocked' | 'failed';
  readonly error: string | null;
  /** How many independent looks this one stands for, over different connections; default 1. */
  readonly looks?: number;
}>;

export interface ViewpointOptions {
  readonly node: NodeId;
  readonly clock: ClockPort;
  readonly probe: ProbeMember;
  /** True when that member's agent answers within the time limit. */
  readonly agentAlive: (node: NodeId, timeoutMs: number) => Promise<boolean>;
  /** True when at least one answers, null when none could be asked; called only when some are configured. */
  readonly trusted: (addresses: readonly string[], timeoutMs: number) => Promise<boolean | null>;
  readonly onChange: () => void;
}

interface Seen {
  failures: number;
  lastOk: MonoMs | null;
  verdict: ProbeResult['verdict'];
  error: string | null;
  agentAlive: boolean;
}

export interface Viewpoints extends ViewpointPort {
  /** One round: probes `target` (the primary; null: nobody) and the trusted addresses. */
  round(spec: ClusterSpec, target: NodeId | null): Promise<void>;
}

/** A call to another agent costs both sides a millisecond of processor. */
const AGENT_EVERY = 4;

export function createViewpoints(options: ViewpointOptions): Viewpoints {
  const seen = new Map<NodeId, Seen>();
  /** Ways between a node that is being added and everybody else: only whether the agent there answers. */
  const ways = new Map<NodeId, boolean>();
  let trusted: boolean | null = null;
  let rounds = 0;

  async function probeOne(spec: ClusterSpec, target: NodeId): Promise<void> {
    const member = findNode(spec, target);
    if (member === null || member.kind === 'witness') return;
    const before = seen.get(target);
    // While PostgreSQL takes writes its agent is asked now and then; when it does not, each time: the two together tell a host's end from a server's.
    const asks = before === undefined || before.verdict !== 'primary' || !before.agentAlive || rounds % AGENT_EVERY === 0;
    const [result, alive] = await Promise.all([
      options.probe({ node: target, host: internalHost(member), port: member.port, timeoutMs: spec.probeTimeoutMs }),
      asks ? options.agentAlive(target, spec.probeTimeoutMs) : true,
    ]);
    const previous = before?.verdict ?? 'unknown';
    const failures = result.verdict === 'failed' ? (before?.failures ?? 0) + (result.looks ?? 1) : 0;
    // One failure is not "down": the verdict falls to unknown until enough came in a row.
    const verdict: ProbeResult['verdict'] = result.verdict !== 'failed' ? result.verdict : failures >= spec.probeAttempts ? 'down' : 'unknown';
    seen.set(target, {
      failures,
      verdict,
      error: result.error,
      agentAlive: alive,
      lastOk: result.verdict === 'failed' || result.verdict === 'blocked' ? (before?.lastOk ?? null) : options.clock.now().mono,
    });
    if (verdict !== previous || alive !== before?.agentAlive) options.onChange();
  }

  /** The node that is being added asks everybody, and everybody asks it: a way that works in one direction only is found before the copy. */
  function tryWays(spec: ClusterSpec, target: NodeId | null): Promise<void>[] {
    const joining = findNode(spec, options.node)?.membership === 'joining';
    const asked = spec.nodes.filter((node) => node.id !== options.node && node.id !== target && (joining || node.membership === 'joining'));
    for (const node of ways.keys()) if (!asked.some((one) => one.id === node)) ways.delete(node);
    return asked.map(async ({ id }) => {
      const alive = await options.agentAlive(id, spec.probeTimeoutMs);
      if (ways.get(id) !== alive) options.onChange();
      ways.set(id, alive);
    });
  }

  return {
    round: async (spec, target) => {
      rounds += 1;
      for (const node of seen.keys()) if (node !== target) seen.delete(node);
      const work: Promise<void>[] = tryWays(spec, target);
      if (target !== null && target !== options.node) work.push(probeOne(spec, target));
      if (spec.trustedAddresses.length > 0) {
        work.push(
          options.trusted(spec.trustedAddresses, spec.probeTimeoutMs).then((reachable) => {
            if (trusted !== reachable) options.onChange();
            trusted = reachable;
          }),
        );
      } else trusted = null;
      await Promise.all(work);
    },
    probes: () => {
      const now = options.clock.now().mono;
      const out: Record<string, ProbeResult> = {};
      for (const [node, agentAlive] of ways) out[node] = { verdict: 'unknown', failures: 0, lastOkAgoMs: null, error: null, agentAlive };
      for (const [node, one] of seen) {
        out[node] = {
          verdict: one.verdict,
          failures: one.failures,
          lastOkAgoMs: one.lastOk === null ? null : Math.max(0, Math.round(now - one.lastOk)),
          error: one.error,
          agentAlive: one.agentAlive,
        };
      }
      return out;
    },
    trustedReachable: () => trusted,
  };
}
