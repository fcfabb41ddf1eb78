/** Preconditions of `node follow --upstream`: each one that does not hold is named before anything is touched. */
import type { NodeId } from '../ids.ts';
import { slotName } from '../slot-name.ts';
import { type ClusterSpec, checkSpec, durabilityOf, findNode } from '../spec.ts';
import type { TaskRequest } from '../state.ts';
import type { ClusterView } from '../view.ts';
import { refuseSource } from './copy-source.ts';
import { dataNodes, isAvailable, isMaintenance, isOpen, isStreaming, live } from './observe.ts';
import { floorOf } from './sync-wish.ts';
import type { Problem } from './tasks.ts';
import { isDirect, isNamed } from './upstream.ts';

export type FollowRequest = Extract<TaskRequest, { kind: 'nodeFollow' }>;

/** The spec in which `node` is to stream from `upstream`; null: from the primary. */
export function withUpstream(spec: ClusterSpec, node: NodeId, upstream: NodeId | null): ClusterSpec {
  return { ...spec, nodes: spec.nodes.map((one) => (one.id === node ? { ...one, upstream } : one)) };
}

/** Every precondition that does not hold, each named; empty when the node may follow the other one. */
export function checkFollow(view: ClusterView, request: FollowRequest): readonly Problem[] {
  const { state, spec } = view;
  const { node, upstream } = request;
  const problems: Problem[] = [];
  const add = (code: string, text: string, remedy: string): void => void problems.push({ code: `node-follow.${code}`, text, remedy });
  const found = findNode(spec, node);
  const names = `The nodes are ${spec.nodes.map((one) => one.id).join(', ')}.`;
  if (found === null) {
    add('unknown', `${node} is not a node of this cluster.`, names);
    return problems;
  }
  if (state.phase !== 'running' || state.primary === null) add('not-running', `The cluster is ${state.phase}.`, 'Start the cluster first.');
  if (state.attempt !== null) add('attempt', `Term ${state.attempt.term} is being opened.`, 'Wait until it is; see "pgherd show".');
  if (state.switchover !== null) add('switchover', `The switchover to ${state.switchover.to} is running.`, 'Wait for it.');
  if (found.kind === 'witness') add('witness', `${node} is a witness: it streams from nobody.`, 'Name a standby.');
  if (node === state.primary) add('is-primary', `${node} is the primary: it streams from nobody.`, 'Name a standby.');
  if (found.membership !== 'full') add('membership', `${node} is being ${found.membership === 'joining' ? 'added' : 'removed'}.`, 'Wait for that.');
  if (live(view, node) === null) add('silent', `The agent of ${node} does not report.`, 'Start it; see "pgherd show".');
  if (isMaintenance(view, node)) add('maintenance', `${node} is in maintenance.`, `End it with "pgherd node maintenance ${node} off".`);
  else if (state.overrides[node] !== undefined) add('stopped', `${node} was stopped on request.`, `"pgherd node start ${node}"`);
  const goal = state.goals[node];
  if (goal?.kind === 'fenced') add('fenced', `${node} is not taken in: it ${goal.reason}.`, `"pgherd node rejoin ${node}" takes it back.`);
  if (upstream === null || problems.length > 0) return problems;
  if (findNode(spec, upstream) === null) add('unknown', `${upstream} is not a node of this cluster.`, names);
  else if (upstream === node) add('self', `${node} cannot stream from itself.`, 'Name another standby, or "primary".');
  else if (upstream === state.primary)
    add(
      'upstream-is-primary',
      `${upstream} is the primary now; after a change of the primary ${node} would stay behind ${upstream}.`,
      `"pgherd node follow ${node} --upstream primary" follows the primary, whoever that is.`,
    );
  if (problems.length > 0) return problems;
  for (const problem of checkSpec(withUpstream(spec, node, upstream)))
    add('spec', `${problem.path}: ${problem.message}.`, 'See who streams from whom with "pgherd show".');
  const refused = refuseSource(view, upstream);
  if (refused !== null) add('upstream', `${upstream} ${refused}.`, 'Bring it in order first ("pgherd show"), or name another standby.');
  if (state.primary !== null && !isOpen(live(view, state.primary), state.primaryTerm))
    add('primary-not-open', `${state.primary} is not open for writes.`, 'See "pgherd explain".');
  return [...problems, ...checkDurability(view, node)];
}

/** A commit waits for direct standbys only: one that goes behind another does not count any more. */
function checkDurability(view: ClusterView, node: NodeId): readonly Problem[] {
  const { mode, k } = durabilityOf(view.spec);
  if (mode === 'async') return [];
  const counts = (one: NodeId): boolean => isAvailable(view, one) && isDirect(view, one) && isStreaming(live(view, one), view.state.primary);
  const left = dataNodes(view.spec).filter((one) => one.id !== node && one.delayMs === 0 && counts(one.id)).length;
  if (left >= k || !counts(node)) return [];
  const effect = left < floorOf(view.spec) ? 'writes would wait' : 'commits would be protected by fewer copies';
  return [
    {
      code: 'node-follow.durability',
      text: `Without ${node} ${left} standbys stream from the primary itself, and a commit waits for ${k}: ${effect}.`,
      remedy: 'Add a standby first, or lower `durability` ("pgherd meta edit").',
    },
  ];
}

/** The whole way in words, for the dry run. Only for a request without problems. */
export function planFollow(view: ClusterView, { node, upstream }: FollowRequest): readonly string[] {
  const { primary } = view.state;
  const from = live(view, node)?.postgres.streamingFrom ?? primary;
  if (upstream === null) return [`follow: ${node} streams from the primary (${primary ?? ''}) by a reload; its slot there was kept for it`];
  const leaves = isNamed(view.state, node) ? [`leave the set: no commit waits for ${node} any more`] : [];
  return [
    ...leaves,
    `follow: ${node} streams from ${upstream} instead of ${from ?? 'the primary'} by a reload; the slot ${slotName(node)} is on ${upstream} already`,
    `while ${upstream} is not in order, ${node} streams from the primary`,
  ];
}
