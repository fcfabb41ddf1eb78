/** Answers for people: `show`, `lsn`, `lag`. Pure readings of a view, in the shapes of the command line's contract. */
import type { NodeId, Now } from '../ids.ts';
import { type Lsn, bytesBetween, formatLsn } from '../lsn.ts';
import type { NodeProblem, NodeReport } from '../report.ts';
import { type NodeSpec, durabilityOf } from '../spec.ts';
import type { Goal } from '../state.ts';
import type { ClusterView } from '../view.ts';
import type { VipRole } from '../vips.ts';
import { isContained } from './lineage.ts';
import { dataNodes, endOfWal, isForeignSystem, isMaintenance, isOpen, lastKnown, lineageOf, live, primaryEnd } from './observe.ts';
import { clusterProblems, groupProblems, nodeProblems } from './problems.ts';
import { nodeOfVoter } from './sync-set.ts';
import { formatIso } from './text.ts';
import { isAttached, wishedUpstream } from './upstream.ts';

export type ClusterWord = 'healthy' | 'degraded' | 'no-primary' | 'switching' | 'frozen' | 'stopped' | 'unknown';
export type NodeWord =
  | 'running'
  | 'starting'
  | 'stopping'
  | 'stopped'
  | 'crashed'
  | 'cloning'
  | 'rewinding'
  | 'recovering'
  | 'diverged'
  | 'maintenance'
  | 'failed'
  | 'unreachable';
export type RoleWord = 'primary' | 'standby';

export interface ShownNode {
  readonly id: NodeId;
  readonly host: string;
  readonly internalHost: string | null;
  readonly port: number;
  /** Null for a witness and for a node without data. */
  readonly role: RoleWord | null;
  readonly state: NodeWord;
  readonly wantedRole: RoleWord | null;
  readonly streaming: boolean;
  readonly timeline: number | null;
  readonly lsn: string | null;
  readonly replayLagBytes: number | null;
  /** Whom it streams from. */
  readonly upstream: NodeId | null;
  /** The standby that its settings name as upstream; null: the primary. */
  readonly wantedUpstream: NodeId | null;
  /** It replays so much later on purpose; 0: at once. */
  readonly delayMs: number;
  readonly priority: number;
  readonly location: string | null;
  readonly agent: { readonly version: string | null; readonly seenMs: number | null };
  readonly problems: readonly NodeProblem[];
  /** What its agent does now; null when nothing. */
  readonly activity: { readonly step: string; readonly doneBytes: number | null; readonly totalBytes: number | null } | null;
  readonly kind: 'data' | 'witness';
  /** `joining`, `leaving`: `node add` or `node remove` is at work. */
  readonly membership: NodeSpec['membership'];
  readonly tags: Readonly<Record<string, string>>;
}

export interface Show {
  readonly cluster: string;
  readonly state: ClusterWord;
  readonly phase: string;
  readonly term: number;
  readonly timeline: number | null;
  readonly primary: NodeId | null;
  readonly frozen: boolean;
  /** By whom, why, since when and until when (ISO 8601) automatic actions are frozen; null: they are not. */
  readonly freeze: { readonly by: string; readonly reason: string; readonly since: string; readonly until: string | null } | null;
  readonly sync: {
    readonly mode: 'async' | 'sync' | 'quorum';
    readonly strict: boolean;
    readonly k: number;
    readonly voters: readonly NodeId[];
    readonly members: readonly NodeId[];
    /** How many standbys a commit waits for now. */
    readonly wanted: number;
    /** Since when less is promised than the settings ask, and why; null: as asked. */
    readonly lowered: { readonly since: string; readonly reason: string } | null;
  };
  readonly nodes: readonly ShownNode[];
  readonly vips: {
    readonly write: { readonly address: string; readonly node: NodeId | null } | null;
    readonly read: { readonly address: string; readonly node: NodeId | null } | null;
  };
  readonly problems: readonly NodeProblem[];
  readonly decided: { readonly rule: string; readonly why: string; readonly at: string };
}

/** The `show --json` shape, but for the proxies, which only the server's store knows. Problems of nodes are repeated in `problems`, equal ones as one with all their nodes, so that one list names everything once. */
export function showCluster(view: ClusterView, _now: Now): Show {
  const { spec, state } = view;
  const nodes = spec.nodes.map((node) => showNode(view, node));
  const problems = [...clusterProblems(view), ...groupProblems(nodes)];
  return {
    cluster: spec.name,
    state: clusterWord(view, nodes),
    phase: state.phase,
    term: state.primaryTerm,
    timeline: state.timeline,
    primary: state.primary,
    frozen: state.frozen !== null,
    freeze: showFreeze(state.frozen),
    sync: {
      mode: durabilityMode(durabilityOf(spec).mode),
      strict: durabilityOf(spec).strict,
      k: state.quorum.k,
      voters: state.quorum.voters.flatMap((voter) => nodeOfVoter(voter) ?? []),
      wanted: state.quorum.wanted.k,
      lowered: state.quorum.lowered === null ? null : { since: formatIso(state.quorum.lowered.sinceWallMs), reason: state.quorum.lowered.reason },
      members: state.electorate.members,
    },
    nodes,
    vips: { write: showVip(view, 'write'), read: showVip(view, 'read') },
    problems,
    decided: { rule: state.decided.rule, why: state.decided.why, at: formatIso(state.decided.atWallMs) },
  };
}

function showFreeze(frozen: ClusterView['state']['frozen']): Show['freeze'] {
  if (frozen === null) return null;
  const { by, reason, sinceWallMs, untilWallMs } = frozen;
  return { by, reason, since: formatIso(sinceWallMs), until: untilWallMs === null ? null : formatIso(untilWallMs) };
}

function durabilityMode(mode: string): 'async' | 'sync' | 'quorum' {
  return mode === 'sync' || mode === 'quorum' ? mode : 'async';
}

function clusterWord(view: ClusterView, nodes: readonly ShownNode[]): ClusterWord {
  const { state } = view;
  if (state.phase === 'stopped' || state.phase === 'stopping') return 'stopped';
  if (state.phase !== 'running' || state.primary === null) return 'unknown';
  if (state.switchover !== null || state.attempt !== null) return 'switching';
  if (!isOpen(live(view, state.primary), state.primaryTerm)) return 'no-primary';
  if (state.frozen !== null) return 'frozen';
  const whole = nodes.every(
    (node) => node.membership !== 'full' || (node.kind === 'witness' ? node.state !== 'unreachable' : node.id === state.primary || node.streaming),
  );
  return whole ? 'healthy' : 'degraded';
}

function showNode(view: ClusterView, node: NodeSpec): ShownNode {
  const report = live(view, node.id);
  const position = report === null ? null : endOfWal(report);
  const end = primaryEnd(view);
  const replayed = report?.postgres.replayedLsn ?? null;
  const known = lastKnown(view, node.id);
  const standby = report?.postgres.role === 'standby';
  const seen = view.reports[node.id];
  const activity = report?.activity.kind === 'busy' ? report.activity : null;
  return {
    id: node.id,
    host: node.host,
    internalHost: node.internalHost,
    port: node.port,
    role: node.kind === 'witness' || report === null ? null : report.postgres.role,
    state: nodeWord(view, node, report),
    wantedRole: wantedRole(view.state.goals[node.id] ?? null),
    streaming: isAttached(view, node.id),
    timeline: report?.postgres.timeline ?? null,
    lsn: position === null ? null : formatLsn(position.lsn),
    replayLagBytes: standby && replayed !== null && end !== null ? Math.max(0, bytesBetween({ from: replayed, to: end })) : null,
    upstream: report?.postgres.streamingFrom ?? null,
    wantedUpstream: wishedUpstream(view, node.id),
    delayMs: node.delayMs,
    priority: node.priority,
    location: node.location,
    agent: {
      version: known?.agentVersion ?? view.members[node.id]?.agentVersion ?? null,
      seenMs: seen === undefined ? null : Math.round(seen.ageMs),
    },
    problems: nodeProblems(view, node),
    activity: activity === null ? null : { step: activity.step, doneBytes: activity.doneBytes, totalBytes: activity.totalBytes },
    kind: node.kind,
    membership: node.membership,
    tags: node.tags,
  };
}

function wantedRole(goal: Goal | null): RoleWord | null {
  switch (goal?.kind) {
    case 'create':
    case 'adopt':
    case 'primary':
    case 'promote':
      return 'primary';
    case 'standby':
    case 'handover':
    case 'vote':
      return 'standby';
    default:
      return null;
  }
}

function nodeWord(view: ClusterView, node: NodeSpec, report: NodeReport | null): NodeWord {
  if (isMaintenance(view, node.id)) return 'maintenance';
  if (report === null) return 'unreachable';
  if (node.kind === 'witness') return 'running';
  const pg = report.postgres.state;
  if (pg === 'cloning' || pg === 'rewinding' || pg === 'crashed' || pg === 'stopping') return pg;
  const verdict = view.state.phase === 'running' && node.id !== view.state.primary ? lineageOf(view, report) : null;
  if (isForeignSystem(view, report) || (verdict !== null && !isContained(verdict))) return 'diverged';
  if (report.activity.kind === 'failed' && !report.activity.retrying) return 'failed';
  if (pg === 'hung' || pg === 'incomplete' || pg === 'absent')
    return report.activity.kind === 'busy' ? 'recovering' : pg === 'absent' ? 'stopped' : 'failed';
  if (pg === 'stopped') return view.state.recovery[node.id] !== undefined && node.id !== view.state.primary ? 'recovering' : 'stopped';
  return pg;
}

/** The node that says that it has the address; null: none does. */
function showVip(view: ClusterView, which: VipRole): { readonly address: string; readonly node: NodeId | null } | null {
  const vip = view.spec.vips[which];
  if (vip === null) return null;
  const holders = view.spec.nodes.filter((node) => live(view, node.id)?.vips.some((one) => one.vip === which && one.state === 'held'));
  const wanted = which === 'write' ? view.state.primary : (view.state.vips.read?.node ?? null);
  return { address: vip.address, node: (holders.find((node) => node.id === wanted) ?? holders[0])?.id ?? null };
}

/** `lsn --json`: one row a data node, in the spec's order. */
export function showLsn(
  view: ClusterView,
): readonly { readonly node: NodeId; readonly role: RoleWord | null; readonly timeline: number | null; readonly lsn: string | null }[] {
  return dataNodes(view.spec).map((node) => {
    const report = live(view, node.id);
    const position = report === null ? null : endOfWal(report);
    return {
      node: node.id,
      role: report?.postgres.role ?? null,
      timeline: position?.timeline ?? null,
      lsn: position === null ? null : formatLsn(position.lsn),
    };
  });
}

export interface LagRow {
  readonly node: NodeId;
  readonly role: RoleWord | null;
  readonly currentLsn: string | null;
  readonly sentLagBytes: number | null;
  readonly writeLagBytes: number | null;
  readonly flushLagBytes: number | null;
  readonly replayLagBytes: number | null;
  readonly replayLagMs: number | null;
  readonly sync: string | null;
  readonly state: string | null;
  readonly slot: string | null;
}

/**
 * `lag --json`: pg_stat_replication of whom each standby streams from, as the last report had it, against the primary's position; so figures are as old as that report (at most one report interval
 * while it lives). A standby that does not stream has nulls.
 */
export function showLag(view: ClusterView): readonly LagRow[] {
  const primary = view.state.primary === null ? null : live(view, view.state.primary);
  const end = primary?.postgres.flushLsn ?? null;
  const behind = (lsn: Lsn | null | undefined): number | null =>
    end === null || lsn === null || lsn === undefined ? null : Math.max(0, bytesBetween({ from: lsn, to: end }));
  return dataNodes(view.spec).map((node) => {
    const report = live(view, node.id);
    const position = report === null ? null : endOfWal(report);
    const from = report?.postgres.streamingFrom ?? view.state.primary;
    const upstream = from === null ? null : live(view, from);
    const sender = upstream?.postgres.walsenders.find((one) => one.node === node.id);
    const slot = upstream?.slots.find((one) => one.name.includes(node.id.replaceAll('-', '_')) || one.name.includes(node.id));
    return {
      node: node.id,
      role: report?.postgres.role ?? null,
      currentLsn: position === null ? null : formatLsn(position.lsn),
      sentLagBytes: behind(sender?.sentLsn),
      writeLagBytes: behind(sender?.writeLsn),
      flushLagBytes: behind(sender?.flushLsn),
      replayLagBytes: behind(sender?.replayLsn),
      replayLagMs: sender?.replayLagMs ?? null,
      sync: sender?.syncState ?? null,
      state: sender?.state ?? null,
      slot: slot?.name ?? null,
    };
  });
}
