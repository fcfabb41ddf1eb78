/**
 * I16 *Invariant:* a proxy sends a write only to the node that opened the term which its route names; never while it knows of a newer term; and not to a node
 *    that was replaced, once its knowledge must have ended (its limit, and the old primary's own right, by which its agent may vouch for it).
 * I15 *Invariant:* a switchover that is given up before its demotion point leaves the old primary its order to be the primary of the same term.
 */
import { decodeShared } from '../../src/core/decode.ts';
import { nodeReport } from '../../src/core/report.ts';
import { type ClusterState, clusterState } from '../../src/core/state.ts';
import { STALE_MS, TICK_MS } from '../../src/proxy/route-follower.ts';
import type { WatchBatch } from '../../src/store/store.ts';
import type { World } from '../world/world.ts';
import { Violation } from './violation.ts';

/** A question to the agent that was answered right before its right ended, and the way to the node. */
const SLACK_MS = 1000;

export interface ProxyChecks {
  /** Throws what was broken in this step. */
  raise(): void;
}

export function createProxyChecks(world: World): ProxyChecks {
  const { proxy, store, keys, clock } = world;
  if (proxy === null) return { raise: () => undefined };
  const limitMs = STALE_MS + TICK_MS + world.spec.leaseTtlMs + SLACK_MS;
  /** Term → who opened it, and when that was first seen. */
  const opened = new Map<number, { readonly node: string; readonly at: number }>();
  let newest = 0;
  let broken: Violation | null = null;
  /** While the store is a restored one: since when the proxy itself has had a report of a newer term. */
  let contradictedSince: number | null = null;

  function note(term: number, node: string): void {
    if (opened.has(term)) return;
    opened.set(term, { node, at: clock.now() });
    newest = Math.max(newest, term);
  }

  store.onCommit((batch: WatchBatch) => {
    for (const event of batch.events) {
      if (event.kind !== 'put') continue;
      const { key, value } = event.kv;
      if (key === keys.state) {
        const state = decodeShared(clusterState, value);
        if (state.ok && state.value.primary !== null) note(state.value.primaryTerm, state.value.primary);
        if (state.ok) takeSwitchover(state.value);
      } else if (key.startsWith(keys.nodes) && key.endsWith('/report') && value.includes('"open":true')) {
        const report = decodeShared(nodeReport, value);
        if (report.ok && report.value.open && report.value.leaseTerm !== null) note(report.value.leaseTerm, report.value.node);
      }
    }
  });

  let before: ClusterState | null = null;
  /** Until the old primary was told to hand over, every step back is "go on". */
  function takeSwitchover(state: ClusterState): void {
    const was = before;
    before = state;
    if (was === null || was.switchover === null || was.attempt !== null || was.primary === null) return;
    if (!BEFORE_DEMOTION.has(was.switchover.phase) || state.switchover !== null || state.attempt !== null || state.phase !== 'running') return;
    const goal = state.goals[was.primary];
    if (state.primary === was.primary && state.primaryTerm === was.primaryTerm && (goal?.kind !== 'primary' || goal.term !== was.primaryTerm))
      broken ??= new Violation(
        'I15',
        `the switchover was given up in phase ${was.switchover.phase}, and ${was.primary} is not told to go on: ${goal?.kind ?? 'nothing'}`,
      );
  }

  proxy.onSend(({ node }, { term }) => {
    const at = opened.get(term);
    if (at?.node !== node)
      broken ??= new Violation('I16', `the proxy sends a write to ${node} in term ${term}, which ${at?.node ?? 'nobody'} opened`);
    const confirmed = proxy.facts()?.confirmed ?? null;
    if (confirmed !== null && confirmed.term > term)
      broken ??= new Violation('I16', `the proxy sends a write to ${node} in term ${term} although it knows of term ${confirmed.term}`);
    const last = opened.get(newest);
    if (last === undefined || newest <= term || last.node === node) return;
    // A restored store may have forgotten the newer term; then the word of a member who knows it is what counts.
    const restored = store.incarnation() !== world.state()?.incarnation;
    const told = [...(proxy.facts()?.reports.values() ?? [])].some((report) => report.highestTerm > term);
    contradictedSince = restored && told ? (contradictedSince ?? clock.now()) : null;
    if (restored && !told) return;
    const ms = Math.round(clock.now() - (contradictedSince ?? last.at));
    if (ms > limitMs)
      broken ??= new Violation('I16', `the proxy sends a write to ${node} in term ${term} ${ms} ms after ${last.node} opened term ${newest}`);
  });

  return {
    raise: () => {
      if (broken !== null) throw broken;
    },
  };
}

const BEFORE_DEMOTION: ReadonlySet<string> = new Set(['checkpoint', 'hold']);
