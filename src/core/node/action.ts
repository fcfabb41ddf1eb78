/** What an agent can do to its node. Every kind has an executor (src/agent/execute.ts); a test compares the two tables. */
import type { NodeId, Term } from '../ids.ts';
import type { Lsn } from '../lsn.ts';

export type NodeAction =
  /** Nothing to do; `done` says that the goal is reached. */
  | { readonly kind: 'none'; readonly why: string; readonly done: boolean }
  | { readonly kind: 'initdb'; readonly why: string }
  /** As primary only under a valid lease of `term`: the executor looks again right beside the start. */
  | { readonly kind: 'start-primary'; readonly why: string; readonly term: Term }
  /** `upstream` null: read-only without an upstream. */
  | { readonly kind: 'start-standby'; readonly why: string; readonly upstream: NodeId | null }
  | { readonly kind: 'stop'; readonly why: string }
  /** Unplanned: block clients, immediate stop, complete kill. */
  | { readonly kind: 'fence'; readonly why: string }
  | { readonly kind: 'acquire-lease'; readonly why: string; readonly term: Term }
  /** Only after no process of the data directory can accept writes; the executor looks again. */
  | { readonly kind: 'release-lease'; readonly why: string }
  | { readonly kind: 'wait-replay'; readonly why: string; readonly requiredLsn: Lsn }
  | { readonly kind: 'promote'; readonly why: string; readonly term: Term; readonly requiredLsn: Lsn | null }
  /** Let clients in: roles, slots and managed files are in order and the lease was renewed once after the promotion. */
  | { readonly kind: 'open'; readonly why: string; readonly term: Term }
  /** Durable vote for `term`, then walreceiver gone and position read. */
  | { readonly kind: 'vote'; readonly why: string; readonly term: Term }
  | { readonly kind: 'follow'; readonly why: string; readonly upstream: NodeId }
  | { readonly kind: 'rewind'; readonly why: string; readonly upstream: NodeId }
  /** Copies `source`, and makes ready to stream from `upstream`. */
  | { readonly kind: 'clone'; readonly why: string; readonly upstream: NodeId; readonly source: NodeId; readonly rateKb: number | null }
  /** Deletes the data directory of a node that leaves; the executor looks again that nothing runs there. */
  | { readonly kind: 'drop-data'; readonly why: string }
  | { readonly kind: 'checkpoint'; readonly why: string }
  /** Managed files, roles and slots of a server that runs already; no restart. */
  | { readonly kind: 'adopt'; readonly why: string }
  /** Durable refusal of `term`, after which this node never promotes for it. */
  | { readonly kind: 'refuse'; readonly why: string; readonly term: Term };

export type NodeActionKind = NodeAction['kind'];
