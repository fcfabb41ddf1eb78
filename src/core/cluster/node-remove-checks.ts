/** Preconditions of `node remove`, and what still holds a node that is leaving. */
import type { NodeId } from '../ids.ts';
import { type ClusterSpec, checkSpec, findNode } from '../spec.ts';
import { type TaskRequest, votesNeeded } from '../state.ts';
import type { ClusterView } from '../view.ts';
import { isContained } from './lineage.ts';
import { describeDurability } from './node-add-checks.ts';
import { dataNodes, fresh, isOpen, isStreaming, lineageOf, live } from './observe.ts';
import { electorateOf } from './quorum.ts';
import { nodeOfVoter } from './sync-set.ts';
import { floorOf } from './sync-wish.ts';
import type { Problem } from './tasks.ts';

export type RemoveRequest = Extract<TaskRequest, { kind: 'nodeRemove' }>;

/** The spec without the node; who was to stream from it streams from the primary. */
export function specWithout(spec: ClusterSpec, node: NodeId): ClusterSpec {
  const nodes = spec.nodes.filter((one) => one.id !== node).map((one) => (one.upstream === node ? { ...one, upstream: null } : one));
  return { ...spec, nodes };
}

/** Every precondition that does not hold, each named; empty when the node may be removed. */
export function checkRemove(view: ClusterView, request: RemoveRequest): readonly Problem[] {
  const { state, spec } = view;
  const { node } = request;
  const problems: Problem[] = [];
  const add = (code: string, text: string, remedy: string): void => void problems.push({ code: `node-remove.${code}`, text, remedy });
  const found = findNode(spec, node);
  if (found === null) {
    add('unknown', `${node} is not a node of this cluster.`, `The nodes are ${spec.nodes.map((one) => one.id).join(', ')}.`);
    return problems;
  }
  if (found.membership === 'joining')
    add('joining', `${node} is being added.`, 'Cancel that task instead: "pgherd task list", "pgherd task cancel ID".');
  if (state.phase !== 'running' || state.primary === null) add('not-running', `The cluster is ${state.phase}.`, 'Start the cluster first.');
  if (state.attempt !== null) add('attempt', `Term ${state.attempt.term} is being opened.`, 'Wait until it is; see "pgherd show".');
  if (state.switchover !== null) add('switchover', `The switchover to ${state.switchover.to} is running.`, 'Wait for it.');
  if (node === state.primary) add('is-primary', `${node} is the primary.`, 'Move the role first: "pgherd switchover".');
  else if (state.primary !== null && state.attempt === null && !isOpen(live(view, state.primary), state.primaryTerm))
    add('primary-not-open', `${state.primary} is not open for writes: who votes cannot be changed now.`, 'See "pgherd explain".');
  if (problems.length > 0) return problems;
  return [...checkQuorum(view, node), ...checkDurability(view, node), ...(request.dropData ? checkDrop(view, node) : [])];
}

/**
 * A removal must not be what makes a failover, or a life without the store, impossible. One that only takes out a node that is gone already makes
 * neither worse, and is the way out.
 */
function checkQuorum(view: ClusterView, node: NodeId): readonly Problem[] {
  const after = electorateOf({ ...view, spec: specWithout(view.spec, node) });
  const heard = (members: readonly NodeId[]): number => members.filter((one) => fresh(view, one) !== null).length;
  const needed = (members: readonly NodeId[]): number => votesNeeded(members.length).promises;
  const before = electorateOf(view);
  if (heard(after) >= needed(after) || heard(before) < needed(before)) return [];
  const silent = after.filter((one) => fresh(view, one) === null);
  return [
    {
      code: 'node-remove.quorum',
      text: `Without ${node} ${after.length} members vote, of which ${needed(after)} must be heard; only ${heard(after)} can be (silent: ${silent.join(', ')}).`,
      remedy: `Bring ${silent.join(', ')} back, or remove ${silent.length === 1 ? 'that node' : 'those nodes'} first.`,
    },
  ];
}

function checkDurability(view: ClusterView, node: NodeId): readonly Problem[] {
  const after = specWithout(view.spec, node);
  const problems: Problem[] = checkSpec(after).map((one) => ({
    code: 'node-remove.durability',
    text: `Without ${node} the settings do not hold together: ${one.path}: ${one.message}.`,
    remedy: 'Change `durability` first ("pgherd meta edit").',
  }));
  const floor = floorOf(after);
  const streaming = (spec: ClusterSpec): number =>
    dataNodes(spec).filter((one) => one.membership === 'full' && one.delayMs === 0 && isStreaming(live(view, one.id), view.state.primary)).length;
  if (problems.length === 0 && streaming(after) < floor && streaming(view.spec) >= floor)
    problems.push({
      code: 'node-remove.min-sync',
      text: `Without ${node} ${streaming(after)} standbys stream, and a commit needs at least ${floor}: writes would wait.`,
      remedy: 'Add or bring back a standby first, or lower `minSync` or `strict` ("pgherd meta edit").',
    });
  return problems;
}

/** Data is deleted only where somebody can look, and only what the primary has too (§4.9, H44). */
function checkDrop(view: ClusterView, node: NodeId): readonly Problem[] {
  const report = live(view, node);
  if (report === null)
    return [
      {
        code: 'node-remove.silent',
        text: `The agent of ${node} does not report, so its data cannot be removed.`,
        remedy: 'Leave --drop-data out, and remove the directory by hand; or start the agent.',
      },
    ];
  const verdict = lineageOf(view, report);
  if (verdict === null || isContained(verdict)) return [];
  return [
    {
      code: 'node-remove.diverged',
      text: `${node} holds WAL that ${view.state.primary} has not: with its data directory that would be lost.`,
      remedy: `Leave --drop-data out, or take it back first ("pgherd node rejoin ${node}"), which saves what only it has.`,
    },
  ];
}

function streamsFrom(view: ClusterView, follower: NodeId, upstream: NodeId): boolean {
  const goal = view.state.goals[follower];
  return goal?.kind === 'standby' && goal.upstream === upstream && live(view, follower) !== null;
}

/** What still counts on the node; empty when nothing does, so that it may be stopped. */
export function heldBy(view: ClusterView, node: NodeId): readonly string[] {
  const { route, quorum, electorate } = view.state;
  const held: string[] = [];
  const inSet = [quorum.voters, quorum.wanted.members, ...quorum.mayStand.map((set) => set.members)].some((voters) =>
    voters.some((voter) => nodeOfVoter(voter) === node),
  );
  if (inSet) held.push('commits may wait for it');
  if (electorate.members.includes(node) || electorate.former.includes(node)) held.push('its vote counts');
  if (route.readers.includes(node)) held.push('reads go to it');
  const behind = dataNodes(view.spec).filter((one) => streamsFrom(view, one.id, node));
  if (behind.length > 0) held.push(`${behind.map((one) => one.id).join(', ')} still follows it`);
  const late = Object.entries(view.proxyAcks).filter(([, epoch]) => epoch < route.epoch);
  if (late.length > 0) held.push(`${late.map(([proxy]) => proxy).join(', ')} did not say yet that no reads go there`);
  return held;
}

/** The whole way in words, for the dry run. Only for a request without problems. */
export function planRemove(view: ClusterView, request: RemoveRequest): readonly string[] {
  const { node } = request;
  const after = specWithout(view.spec, node);
  const votes = electorateOf({ ...view, spec: after });
  const silent = live(view, node) === null;
  return [
    `drain: no reads go to ${node}, no commit waits for it; ${describeDurability(view.spec, after)}`,
    `votes: ${votes.length} members vote, ${votesNeeded(votes.length).promotion} votes are needed for a promotion`,
    silent
      ? `stop: left out, since the agent of ${node} does not report; a PostgreSQL that may run there goes on`
      : `stop: PostgreSQL of ${node}${request.dropData ? '; then its data directory is deleted' : '; its data directory stays'}`,
    `unregister: ${node} leaves the settings of the cluster, and its slot is dropped on every member`,
  ];
}
