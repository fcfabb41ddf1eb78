/**
 * Which virtual addresses this node is to have now. Pure.
 *
 * Invariant: the write address is wanted only under a valid write lease. Because: the lease says who may accept writes, so that the address needs no word
 *   of its own to follow it; it carries no safety (§4.11), and whoever sends a write to the wrong node is refused there.
 * Broken if: it is taken on the strength of the state alone, which an isolated former primary does not hear of.
 */
import type { NodeId, Term } from '../ids.ts';
import type { ClusterState } from '../state.ts';
import type { VipRole } from '../vips.ts';

export interface VipFacts {
  readonly leaseTerm: Term | null;
  /** Clients are let in for writes. */
  readonly open: boolean;
  /** PostgreSQL answers queries here. */
  readonly running: boolean;
  /** The store confirmed a moment ago that nothing newer exists. */
  readonly storeFresh: boolean;
  /** It streams from the primary, or its own look at the primary found it, a moment ago. */
  readonly hearsPrimary: boolean;
}

/** `prepare`: not yet, but soon, so that it is time to ask whether somebody else has it. */
export type VipWish = 'hold' | 'prepare' | 'none';

/** Null state: nothing is known, and what is there stays as it is (the caller changes nothing then). */
export function wantedVips(facts: VipFacts, node: NodeId, state: ClusterState | null): Readonly<Record<VipRole, VipWish>> | null {
  if (state === null) return null;
  return { write: wantsWrite(facts, node, state), read: wantsRead(facts, node, state) };
}

function wantsWrite(facts: VipFacts, node: NodeId, state: ClusterState): VipWish {
  const { leaseTerm } = facts;
  if (leaseTerm === null) return 'none';
  if (facts.open) return 'hold';
  const goal = state.goals[node] ?? null;
  // A primary that is restarted in place keeps it: taking it again would cost more than the restart.
  if (goal?.kind === 'primary' && state.primary === node && state.primaryTerm === leaseTerm) return 'hold';
  return goal !== null && (goal.kind === 'promote' || goal.kind === 'create' || goal.kind === 'adopt') && goal.term === leaseTerm
    ? 'prepare'
    : 'none';
}

/**
 * A node that hears neither the store nor the primary is alone: another one has the address by now, or will.
 * While only the store is lost, reads go on where they are (§4.7).
 */
function wantsRead(facts: VipFacts, node: NodeId, state: ClusterState): VipWish {
  if (state.vips.read?.node !== node || !facts.running) return 'none';
  return facts.storeFresh || facts.hearsPrimary || facts.leaseTerm !== null ? 'hold' : 'none';
}
