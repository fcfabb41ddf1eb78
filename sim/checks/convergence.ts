/** L1, L3: what a healed cluster still waits for, in words; empty when it is whole. */
import type { Operator } from '../operator.ts';
import type { World } from '../world/world.ts';
import { decodeShared } from '../../src/core/decode.ts';
import { nodeReport } from '../../src/core/report.ts';
import { type ClusterSpec, durabilityOf } from '../../src/core/spec.ts';
import type { ClusterState } from '../../src/core/state.ts';
import { isPromotionUnfinished } from '../../src/core/cluster/goals.ts';
import type { WriterChecks } from './writers.ts';

export function missingForWhole(world: World, writers: WriterChecks, operator: Operator): readonly string[] {
  const state = world.state();
  if (state === null) return ['no state was written'];
  const missing: string[] = [];
  if (state.phase !== 'running') missing.push(`the cluster is ${state.phase}`);
  if (state.attempt !== null)
    missing.push(`term ${state.attempt.term} is being opened (${state.attempt.phase}); decided: ${state.decided.rule}: ${state.decided.why}`);
  if (state.switchover !== null) missing.push(`a switchover is in phase ${state.switchover.phase}`);
  if (state.frozen !== null) missing.push('automatic actions are frozen');
  for (const [node, override] of Object.entries(state.overrides)) missing.push(`${node} is ${override.kind}: ${override.reason}`);
  missing.push(...missingReturns(state, world.settings()));
  for (const task of operator.unfinished())
    missing.push(`task ${task.id} (${task.request.kind}) is ${task.status}: ${task.steps.at(-1)?.name ?? ''}`);
  const { mode, k } = durabilityOf(world.spec);
  const { quorum } = state;
  if (mode !== 'async' && (quorum.k < k || quorum.lowered !== null))
    missing.push(`${quorum.k} of ${k} standbys are waited for: ${quorum.lowered?.reason ?? 'the set is not in force'}`);
  // Of a node that was removed while its agent was silent, what runs there stays; a person may promote it, and no address or route leads there.
  const open = writers
    .writers()
    .filter(({ name }) => world.members().includes(name))
    .map((node) => node.name);
  if (open.length !== 1 || open[0] !== state.primary) missing.push(`primary ${state.primary ?? 'none'}, writable: ${open.join(', ') || 'none'}`);
  const addresses = world.settings().vips;
  const write = addresses.write === null || world.lan === null ? null : world.lan.holders(addresses.write.address);
  if (write !== null && (write.length !== 1 || write[0] !== state.primary))
    missing.push(`the write address is on ${write.join(', ') || 'no node'}, and ${state.primary ?? 'nobody'} is the primary`);
  const read = addresses.read === null || world.lan === null ? null : world.lan.holders(addresses.read.address);
  if (read !== null && read.length !== 1) missing.push(`the read address is on ${read.join(', ') || 'no node'}`);
  // H40.
  const readers = state.route.readers.filter((node) => node !== state.primary);
  if (read?.[0] === state.primary && readers.length > 0) missing.push(`the read address is on the primary, and ${readers.join(', ')} could have it`);
  for (const node of world.dataNodes) {
    if (node.name === state.primary || !world.members().includes(node.name)) continue;
    const raw = world.store.keyspace().get(world.keys.report(node.name))?.value ?? null;
    const report = raw === null ? null : decodeShared(nodeReport, raw);
    if (report === null || !report.ok) {
      missing.push(`${node.name} does not report`);
      continue;
    }
    const { postgres, activity } = report.value;
    const told = state.goals[node.name];
    const wish = wishOf(world, node.name);
    if (wish !== null && wish !== state.primary && told?.kind === 'standby' && told.upstream !== wish)
      missing.push(`${node.name} is told to stream from ${told.upstream}, and the settings name ${wish}`);
    if (told?.kind === 'standby' && postgres.streamingFrom !== null && postgres.streamingFrom !== told.upstream)
      missing.push(`${node.name} streams from ${postgres.streamingFrom} and is to stream from ${told.upstream}`);
    if (postgres.streamingFrom === null || postgres.state !== 'running') {
      const doing =
        activity.kind === 'failed'
          ? `${activity.step} failed: ${activity.message}`
          : activity.kind === 'busy'
            ? `busy: ${activity.step}`
            : activity.kind;
      const goal = state.goals[node.name];
      missing.push(
        `${node.name} does not stream: ${postgres.state} ${postgres.role ?? ''}, goal ${goal?.kind ?? 'none'}, ${doing}; ${state.recovery[node.name]?.lastError ?? ''}`,
      );
    }
  }
  return missing;
}

/** The upstream that the settings name, where a healed cluster can follow it; null: none. */
function wishOf(world: World, name: string): string | null {
  const { nodes } = world.settings();
  const wish = nodes.find((node) => node.id === name)?.upstream ?? null;
  const upstream = nodes.find((node) => node.id === wish);
  return upstream?.kind === 'data' && upstream.delayMs === 0 ? upstream.id : null;
}

/**
 * Who is being taken back. Of a node that is no member nothing may be left but the mark that it may hold a timeline of its own under a number of the
 * cluster's (architecture 4.1): it stands for the data that the node may come back with, which nobody looks at while it is away.
 */
export function missingReturns({ recovery }: Pick<ClusterState, 'recovery'>, spec: ClusterSpec): readonly string[] {
  return Object.entries(recovery)
    .filter(([node, progress]) => spec.nodes.some((one) => one.id === node) || !isPromotionUnfinished(progress))
    .map(([node, progress]) => `${node} is being taken back: ${progress.lastError ?? `looked at ${progress.checks} times`}`);
}
