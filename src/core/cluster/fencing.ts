/**
 * The fencing command: a program of the operator (power switch, hypervisor, IPMI) that turns a host off, asked for before a lost primary is replaced.
 *
 * States of one order: asked → running at the elected controller → answered. It is asked for when every other gate of a failover is open, so that no host is
 * turned off for nothing; `automatic` uses it to be faster than the lease, `required` promotes nothing without it.
 */
import { type NodeId, type Now, makeWallMs } from '../ids.ts';
import type { ClusterState } from '../state.ts';
import type { ClusterView } from '../view.ts';
import { isDue } from './observe.ts';

/** A command that said nothing by then was lost with its controller. Longer than the longest time limit of a command, or two would run at once. */
export const FENCE_LOST_MS = 130_000;
/**
 * An answer is believed this long: a host that was reset comes back. Shorter than any machine boots; too short only asks again.
 */
export const FENCE_VALID_MS = 5000;
/** Between two tries: power controllers that are busy need some seconds. */
export const FENCE_RETRY_MS = 15_000;
/** Then only a person, or the end of the lease, helps. */
export const FENCE_TRIES = 5;

/** What the controller that ran the command knows of it. */
export interface FenceResult {
  /** Of the order that it answers. */
  readonly id: string;
  readonly ok: boolean;
  /** The command's own last words, or why it could not be run. */
  readonly text: string;
  /** By the controller's monotonic clock. */
  readonly ageMs: number;
}

export type FenceVerdict =
  /** Nothing is asked of a command, and nothing stands in the way. */
  | { readonly kind: 'not-needed' }
  | { readonly kind: 'ask'; readonly state: ClusterState; readonly why: string }
  | { readonly kind: 'running' }
  /** A failure is written down, for everybody who asks why. */
  | { readonly kind: 'noted'; readonly state: ClusterState; readonly why: string }
  /** The host is off: nothing of it can accept a write, whatever its lease says. */
  | { readonly kind: 'fenced' }
  | { readonly kind: 'failed'; readonly why: string };

/**
 * What fencing says to the replacement of `primary`, which is silent and passed every other gate.
 *
 * *Invariant:* a standing lease is put aside only for an answer to an order of this very loss, that is fresh, and that the command itself gave as a success.
 * *Because:* the order names term and node and is forgotten when the primary is open again; exit code 0 alone counts, never a time-out, a signal or a
 * command that could not be run; and an older answer may be about a host that was reset and is back. *Broken if:* an order outlives the loss it was given for.
 */
export function judgeFence(view: ClusterView, now: Now, primary: NodeId): FenceVerdict {
  const { state, spec, fenceResult } = view;
  const required = spec.fencing === 'required';
  // With published facts the detached voters make the old primary harmless; a lease that is gone proves that it cannot write.
  const isHelpful = view.writeLease !== null && state.quorum.k === 0;
  if (spec.fencing === 'off' || (!required && !isHelpful)) return { kind: 'not-needed' };
  const order = state.fence;
  const isOurs = order !== null && order.node === primary && order.term === state.primaryTerm;
  if (!isOurs) return ask(view, now, primary, 1);
  const answer = fenceResult?.id === order.id ? fenceResult : null;
  if (answer?.ok === true) return answer.ageMs <= FENCE_VALID_MS ? { kind: 'fenced' } : ask(view, now, primary, 1);
  const { failed } = order;
  if (answer !== null && failed === null) {
    const fence = { ...order, failed: { text: answer.text, atWallMs: now.wall } };
    return { kind: 'noted', state: { ...state, fence }, why: `the fencing command for ${primary} failed: ${answer.text}` };
  }
  const mayAskAgain = order.tries < FENCE_TRIES;
  if (failed === null) {
    if (!isDue(now, makeWallMs(order.askedWallMs + FENCE_LOST_MS), FENCE_LOST_MS)) return { kind: 'running' };
    return mayAskAgain
      ? ask(view, now, primary, order.tries + 1)
      : { kind: 'failed', why: `no answer of the fencing command for ${primary} is known` };
  }
  if (mayAskAgain && isDue(now, makeWallMs(failed.atWallMs + FENCE_RETRY_MS), FENCE_RETRY_MS)) return ask(view, now, primary, order.tries + 1);
  const again = mayAskAgain ? 'it is tried again' : `it was tried ${order.tries} times`;
  return { kind: 'failed', why: `the fencing command for ${primary} failed (${failed.text}); ${again}` };
}

function ask(view: ClusterView, now: Now, node: NodeId, tries: number): FenceVerdict {
  const { primaryTerm } = view.state;
  const fence = { id: `${primaryTerm}-${node}-${now.wall}`, node, term: primaryTerm, tries, askedWallMs: now.wall, failed: null };
  return {
    kind: 'ask',
    state: { ...view.state, fence },
    why: `the fencing command is run for ${node}${tries > 1 ? `, try ${tries} of ${FENCE_TRIES}` : ''}`,
  };
}
