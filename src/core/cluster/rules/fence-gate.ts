/** What the fencing command and the lease, which it is to be faster than, say before a lost primary is replaced. */
import type { NodeId, Now } from '../../ids.ts';
import type { ClusterView } from '../../view.ts';
import type { Assessment } from '../assessed-rules.ts';
import { judgeFence } from '../fencing.ts';
import { blocked } from './blocked.ts';

/** In asynchronous mode the standing lease is the only proof that its holder may still write. */
export function leaseBlocks(view: ClusterView, primary: NodeId, note: string): Assessment {
  return blocked(
    view,
    'lease',
    `${primary} is silent, but the write lease of term ${view.state.primaryTerm} still stands in the store; nothing is promoted before it expires${note}`,
  );
}

/** Null: fencing has nothing to say. */
export function fenceGate(view: ClusterView, now: Now, primary: NodeId): Assessment | null | 'fenced' {
  const verdict = judgeFence(view, now, primary);
  // The lease is what the command is to be faster than: once it is gone, only who asked for more waits on.
  const leaseHolds = view.writeLease !== null && view.state.quorum.k === 0;
  switch (verdict.kind) {
    case 'not-needed':
      return null;
    case 'fenced':
      return 'fenced';
    case 'ask':
      return {
        rule: 'fence.ask',
        outcome: { why: verdict.why, state: verdict.state, events: [{ level: 'warn', node: primary, text: verdict.why, detail: {} }], again: 50 },
      };
    case 'noted':
      return {
        rule: 'fence.failed',
        outcome: { why: verdict.why, state: verdict.state, events: [{ level: 'error', node: primary, text: verdict.why, detail: {} }], again: 50 },
      };
    case 'running':
      if (view.spec.fencing === 'required')
        return blocked(view, 'fence', `the fencing command for ${primary} is running; nothing is promoted before it says that the host is off`);
      return leaseHolds ? leaseBlocks(view, primary, ', or the fencing command says that its host is off') : null;
    case 'failed':
      if (view.spec.fencing === 'required')
        return blocked(
          view,
          'fence',
          `${verdict.why}, and fencing is required; see that ${primary} is off, then "pgherd failover" promotes without it`,
        );
      return leaseHolds ? leaseBlocks(view, primary, `; ${verdict.why}`) : null;
  }
}
