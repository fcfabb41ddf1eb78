/** What the agent tells load balancers, proxies and other agents of itself. */
import type { MonoMs, NodeId, Term } from '../../core/ids.ts';

export interface AgentStatus {
  readonly cluster: string;
  readonly node: NodeId;
  readonly version: string;
  /** Store incarnation that this agent knows; null before it saw one. */
  readonly incarnation: string | null;
  /** Of the running server; null: none answers. */
  readonly role: 'primary' | 'standby' | null;
  /** Newest term this agent knows. */
  readonly term: Term;
  /** Term and own deadline of the write lease; null when none is held. */
  readonly lease: { readonly term: Term; readonly deadline: MonoMs } | null;
  /** Clients are let in for writes. */
  readonly open: boolean;
  /** A standby that streams from the primary of the newest term, or from the standby that it is to follow; false for one that is diverged, cloning or detached. */
  readonly streaming: boolean;
  /** Bytes behind the primary as far as this node knows; null when unknown. */
  readonly lagBytes: number | null;
  readonly synchronous: boolean;
  readonly maintenance: boolean;
  /** It replays later on purpose: no reads are to come here. */
  readonly delayed: boolean;
  /** The agent's loop has made a step lately and knows the store or its last state. */
  readonly ready: boolean;
}
