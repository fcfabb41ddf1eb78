/** What a restart of node after node has to keep in order: settings that no standby may have lower than its primary, and who must be in good order first. */
import type { NodeId, Now } from '../ids.ts';
import { bytesBetween } from '../lsn.ts';
import { durabilityOf, findNode, isNear } from '../spec.ts';
import type { ClusterView } from '../view.ts';
import { dataNodes, isMaintenance, isOpen, live } from './observe.ts';
import { isAttached, isDirect } from './upstream.ts';
import { chooseSuccessor } from './switchover-checks.ts';
import { voterName } from './sync-set.ts';
import type { Problem } from './tasks.ts';

/** One WAL segment: what a standby makes up within moments. */
const CAUGHT_UP_BYTES = 16_777_216;

export interface MinimumChange {
  readonly name: string;
  readonly from: number;
  readonly to: number;
}

/**
 * Settings of the primary that a restart will change, among those that a standby may not have lower than it (Z37). Empty when its agent is silent.
 * What the spec says counts more than what the agent reports, which may not have read the newest spec yet. Source: PostgreSQL manual 27.4.3.
 */
export function minimumChanges(view: ClusterView): readonly MinimumChange[] {
  const primary = view.state.primary === null ? null : live(view, view.state.primary);
  if (primary === null) return [];
  const { minimums, minimumsAfterRestart } = primary.postgres;
  const wished = new Map(Object.entries(view.spec.postgres.parameters).map(([name, value]) => [name.toLowerCase(), Number(value)]));
  return Object.entries(minimums).flatMap(([name, from]) => {
    const wish = wished.get(name);
    const known = wish === undefined || !Number.isInteger(wish) ? (minimumsAfterRestart[name] ?? from) : wish;
    // The agent never writes fewer walsenders than the cluster needs; below that the wish changes nothing.
    const to = name === 'max_wal_senders' && known < from ? (minimumsAfterRestart[name] ?? from) : known;
    return to === from ? [] : [{ name, from, to }];
  });
}

export function lowered(changes: readonly MinimumChange[]): readonly MinimumChange[] {
  return changes.filter((change) => change.to < change.from);
}

export function raised(changes: readonly MinimumChange[]): readonly MinimumChange[] {
  return changes.filter((change) => change.to > change.from);
}

export function describeChanges(changes: readonly MinimumChange[]): string {
  return changes.map(({ name, from, to }) => `${name} ${from} → ${to}`).join(', ');
}

/** Data nodes other than the primary that a restart of everything takes part in: nobody asked for them to be left alone. */
export function rollingStandbys(view: ClusterView): readonly NodeId[] {
  return dataNodes(view.spec)
    .map((node) => node.id)
    .filter((node) => node !== view.state.primary && !isMaintenance(view, node) && view.state.overrides[node] === undefined);
}

/** Why this node is not in good order, in words; null when it is: open, or streaming, caught up and counted on again. */
export function notInOrder(view: ClusterView, node: NodeId): string | null {
  const { state } = view;
  const report = live(view, node);
  if (report === null) return `the agent of ${node} does not report`;
  if (node === state.primary) return isOpen(report, state.primaryTerm) ? null : `${node} is not open for writes`;
  const goal = state.goals[node];
  if (goal?.kind === 'fenced') return `${node} is not taken in: it ${goal.reason}`;
  if (!isAttached(view, node)) return `${node} does not stream from ${state.primary ?? 'a primary'} (PostgreSQL is ${report.postgres.state})`;
  if (goal?.kind === 'standby' && goal.via !== 'stream') return `${node} is being taken back by ${goal.via}`;
  const primary = state.primary === null ? null : live(view, state.primary);
  const sender = primary?.postgres.walsenders.find((one) => one.node === node) ?? null;
  const flushLsn = primary?.postgres.flushLsn ?? null;
  if (sender !== null && sender.state !== 'streaming') return `${node} has not caught up (${sender.state})`;
  // A delayed standby has to have its WAL, and replays it in its own time.
  const delayed = (findNode(view.spec, node)?.delayMs ?? 0) > 0;
  const reached = delayed ? report.postgres.receivedLsn : report.postgres.replayedLsn;
  const lag = flushLsn === null || reached === null ? 0 : bytesBetween({ from: reached, to: flushLsn });
  if (lag > CAUGHT_UP_BYTES) return `${node} has ${delayed ? 'received' : 'replayed'} ${lag} bytes less than ${state.primary} wrote`;
  return isCountedOn(view, node, report.postgres.incarnation) ? null : `${node} is not a synchronous standby again`;
}

/** With quorum commit every standby that could be promoted is a member; to take the next one away before would hold writes. */
function isCountedOn(view: ClusterView, node: NodeId, incarnation: string | null): boolean {
  const { spec, state } = view;
  const member = findNode(spec, node);
  if (durabilityOf(spec).mode !== 'quorum' || state.quorum.k === 0 || member === null || incarnation === null) return true;
  if (member.delayMs > 0 || !isDirect(view, node)) return true;
  const home = state.primary === null ? null : (findNode(spec, state.primary)?.location ?? null);
  return member.priority === 0 || !isNear(spec, member, home) || state.quorum.voters.includes(voterName(node, incarnation));
}

/** Every precondition of a rolling restart that does not hold: one node is taken away at a time, so all others must be in good order. */
export function checkRolling(view: ClusterView, now: Now): readonly Problem[] {
  const standbys = rollingStandbys(view);
  const problems: Problem[] = standbys.flatMap((node) => {
    const text = notInOrder(view, node);
    return text === null
      ? []
      : [
          {
            code: 'cluster.node-not-in-order',
            text: `${text}.`,
            remedy: `Bring it back ("pgherd show", "pgherd node rejoin ${node}"), or leave it out ("pgherd node stop ${node}", "pgherd node maintenance ${node} on").`,
          },
        ];
  });
  if (problems.length > 0 || standbys.length === 0 || lowered(minimumChanges(view)).length > 0) return problems;
  const { to, problems: unfit } = chooseSuccessor(view, now);
  return to === null ? unfit : problems;
}
