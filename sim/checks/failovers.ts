/**
 * What stands before a change that nobody asked for, looked at with every state that is written.
 *
 * I23 *Invariant:* no failover for a lost, hanging or stuck primary is begun while another member that can be heard has said on end that it writes to that
 *    primary, nor when its agent is silent and nobody saw it down (architecture 4.6). Its reports in the store are what it said; a controller may hear them late, so only what it went on saying for longer than that counts.
 * I24 *Invariant:* while the cluster is frozen no failover is begun, no node is rewound or cloned, and neither the synchronous set nor the read address is
 *    changed, but by a command (architecture 4.11).
 * I26 *Invariant:* nobody is promoted by itself who lacks more than `maxLagOnFailoverBytes` of what the state knows of the old primary, where nobody acknowledged
 *    (architecture 4.5).
 * I27 *Invariant:* with `crossLocation: manual` nobody is promoted at another location than the primary's, unless a person named that node.
 * I28 *Invariant:* no failover is begun by itself with `failover: manual`, nor within `antiFlappingMs` of the last one; nor, where trusted addresses
 *    are configured, for a silent primary that no member saw down that reaches one of them (architecture 4.5).
 */
import { decodeJson, decodeShared } from '../../src/core/decode.ts';
import type { NodeId } from '../../src/core/ids.ts';
import { type NodeReport, nodeReport } from '../../src/core/report.ts';
import { type Attempt, type ClusterState, task } from '../../src/core/state.ts';
import { type World, nodeOf } from '../world/world.ts';
import { Violation } from './violation.ts';

export interface FailoverChecks {
  /** Answers what a state breaks that was written after `before`; null: there was none in this store. */
  takeState(before: ClusterState | null, state: ClusterState): Violation | null;
  /** Each report that was written. */
  takeReport(node: string, text: string): void;
  /** Another store stands in the place of the one that was told everything so far. */
  forget(): void;
}

/** What others see decides, not the word of a living agent that its PostgreSQL is gone. */
const BY_VIEW: ReadonlySet<string> = new Set(['primary.lost', 'hung.failover', 'start.stalled', 'disk.failover']);
const AUTOMATIC: ReadonlySet<string> = new Set([...BY_VIEW, 'crash.failover', 'crash.restart-failed']);
/** A dead watch is given up after 6 s and everything listed again; a decision that was begun before that. */
const SAID_FOR_MS = 8000;
/** A member that is silent for longer is not heard (freshLimitMs). */
const HEARD_MS = 1500;

interface Said {
  readonly at: number;
  /** The member's own clock at that time. */
  readonly ownWall: number;
  readonly text: string;
}

/** Since it was made: one that was held up on its way to the store says what was true when it left. */
function ageMs(one: Said | undefined, now: number): number {
  if (one === undefined) return Number.POSITIVE_INFINITY;
  const report = decodeShared(nodeReport, one.text);
  return now - one.at + (report.ok ? Math.max(0, one.ownWall - report.value.atWallMs) : 0);
}

export function createFailoverChecks(world: World): FailoverChecks {
  /** Oldest first; the first one may be older than the window, and says what was true at its beginning. Decoded only when a failover is begun. */
  const said = new Map<string, Said[]>();

  function takeReport(node: string, text: string): void {
    const at = world.clock.now();
    const ownWall = nodeOf(world, node).clock.now().wall;
    const list = said.get(node);
    if (list === undefined) {
      said.set(node, [{ at, ownWall, text }]);
      return;
    }
    list.push({ at, ownWall, text });
    while ((list[1]?.at ?? at) < at - SAID_FOR_MS) list.shift();
  }

  /** What it said since the window began is known: a store that was replaced has nothing of before. */
  const isKnown = (node: string): boolean => (said.get(node)?.[0]?.at ?? Number.POSITIVE_INFINITY) <= world.clock.now() - SAID_FOR_MS;

  /** It said nothing else since the window began, and spoke a moment ago. */
  function hasSaid(node: string, what: (report: NodeReport) => boolean): boolean {
    const list = said.get(node) ?? [];
    const now = world.clock.now();
    if (!isKnown(node) || ageMs(list.at(-1), now) > HEARD_MS) return false;
    return list.every(({ text }, index) => {
      const report = decodeShared(nodeReport, text);
      return (list[index + 1]?.at ?? now) <= now - SAID_FOR_MS || (report.ok && what(report.value));
    });
  }

  /** At some time in the window. */
  function hasEverSaid(node: string, what: (report: NodeReport) => boolean): boolean {
    const list = said.get(node) ?? [];
    return list.some(({ text }) => {
      const report = decodeShared(nodeReport, text);
      return report.ok && what(report.value);
    });
  }

  function checkViews({ primary }: ClusterState, { rule, term }: Attempt): Violation | null {
    if (primary === null || !BY_VIEW.has(rule)) return null;
    const { nodes, trustedAddresses } = world.settings();
    const others = nodes.filter((node) => node.id !== primary);
    if (!others.some((node) => isKnown(node.id))) return null;
    const seeing = others.find((node) => hasSaid(node.id, (report) => report.probes[primary]?.verdict === 'primary'));
    if (seeing !== undefined)
      return new Violation('I23', `${rule} began term ${term} although ${seeing.id} has written to ${primary} for ${SAID_FOR_MS} ms`);
    // What its own agent says needs nobody else.
    const isSilent = world.clock.now() - (said.get(primary)?.at(-1)?.at ?? 0) > 2 * HEARD_MS;
    const isTrusted = ({ trustedReachable }: NodeReport): boolean => trustedAddresses.length === 0 || trustedReachable === true;
    const isDown = (report: NodeReport): boolean => ['down', 'blocked'].includes(report.probes[primary]?.verdict ?? '') && isTrusted(report);
    if (!isSilent || others.some((node) => hasEverSaid(node.id, isDown))) return null;
    const who = trustedAddresses.length === 0 ? 'nobody' : 'nobody who reaches a trusted address';
    return new Violation(trustedAddresses.length === 0 ? 'I23' : 'I28', `${rule} began term ${term}, and ${who} saw ${primary} down`);
  }

  function checkPolicy({ lastFailoverWallMs }: ClusterState, { rule, term, startedWallMs }: Attempt): Violation | null {
    if (!AUTOMATIC.has(rule)) return null;
    const { failover, antiFlappingMs } = world.settings();
    if (failover === 'manual') return new Violation('I28', `${rule} began term ${term}, and failover is manual`);
    const sinceMs = lastFailoverWallMs === null ? Number.POSITIVE_INFINITY : startedWallMs - lastFailoverWallMs;
    // A clock that was set back says nothing.
    return sinceMs < 0 || sinceMs >= antiFlappingMs ? null : new Violation('I28', `${rule} began term ${term} ${sinceMs} ms after the last failover`);
  }

  function checkFrozen(before: ClusterState, state: ClusterState): Violation | null {
    const what = automaticChange(before, state);
    return what === null || hasCommand() ? null : new Violation('I24', `${what} although the cluster is frozen`);
  }

  function hasCommand(): boolean {
    return world.store
      .keyspace()
      .list(world.keys.tasks, 10_000)
      .some((kv) => {
        const decoded = decodeJson(task, kv.value);
        return decoded.ok && (decoded.value.status === 'pending' || decoded.value.status === 'running');
      });
  }

  /** Only what an attempt decides by itself: a person may name the node, or give rows up. */
  function checkChoice(state: ClusterState, { candidate, target, acceptLoss, term, positions }: Attempt): Violation | null {
    const { primary, quorum, timeline, primaryLsn } = state;
    if (candidate === null || candidate === primary || candidate === target) return null;
    const spec = world.settings();
    const place = (id: NodeId | null): string | null => spec.nodes.find((node) => node.id === id)?.location ?? null;
    const [home, there] = [place(primary), place(candidate)];
    if (spec.crossLocation === 'manual' && home !== null && there !== null && home !== there)
      return new Violation('I27', `${candidate} in ${there} is to open term ${term} after ${primary ?? 'nobody'} in ${home}, and nobody named it`);
    const position = positions[candidate];
    if (acceptLoss || quorum.k > 0 || position === undefined || primaryLsn === null || position.timeline !== timeline) return null;
    const missing = primaryLsn - position.lsn;
    return missing <= BigInt(spec.maxLagOnFailoverBytes)
      ? null
      : new Violation('I26', `${candidate} is to open term ${term} and lacks ${missing} bytes; ${spec.maxLagOnFailoverBytes} may be lost`);
  }

  return {
    takeReport,
    forget: () => said.clear(),
    takeState: (before, state) => {
      const { attempt } = state;
      // What a restored store says was decided in another one.
      if (before === null || state.incarnation !== world.store.incarnation() || before.incarnation !== state.incarnation) return null;
      if (before.frozen !== null && state.frozen !== null) {
        const broken = checkFrozen(before, state);
        if (broken !== null) return broken;
      }
      if (attempt === null) return null;
      if (before.attempt === null && attempt.taskId === null) {
        const broken = checkViews(state, attempt) ?? checkPolicy(before, attempt);
        if (broken !== null) return broken;
      }
      const isOrdered = attempt.phase === 'promote' && (before.attempt?.phase !== 'promote' || before.attempt.term !== attempt.term);
      return isOrdered && attempt.path !== 'planned' ? checkChoice(state, attempt) : null;
    },
  };
}

/** In words, what changed that no rule may change in a frozen cluster; null: nothing. What was begun before goes on. */
function automaticChange(before: ClusterState, state: ClusterState): string | null {
  const { attempt } = state;
  if (before.attempt !== null || before.switchover !== null) return null;
  if (attempt !== null) return attempt.taskId === null && AUTOMATIC.has(attempt.rule) ? `${attempt.rule} began term ${attempt.term}` : null;
  for (const [node, goal] of Object.entries(state.goals))
    if (goal.kind === 'standby' && goal.via !== 'stream' && before.goals[node as NodeId]?.id !== goal.id)
      return `${node} is to be taken back by a ${goal.via}`;
  if (state.primaryTerm !== before.primaryTerm) return null;
  if (state.quorum.wantedRevision !== before.quorum.wantedRevision) return 'another synchronous set is asked for';
  return state.vips.read !== null && state.vips.read.node !== before.vips.read?.node ? 'the read address is moved' : null;
}
