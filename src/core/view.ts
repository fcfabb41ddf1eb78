/** One immutable snapshot for one decision, and what a decision is. */
import type { FenceResult } from './cluster/fencing.ts';
import type { NodeId, Now, Revision, Term, WallMs } from './ids.ts';
import type { Member, NodeReport } from './report.ts';
import type { ClusterSpec } from './spec.ts';
import type { ClusterEvent, ClusterState, Task, TermRecord } from './state.ts';

export interface SeenReport {
  readonly report: NodeReport;
  /** By the observer's own monotonic clock: since this report last changed revision. */
  readonly ageMs: number;
  /** The report's lease still stands in the store. */
  readonly alive: boolean;
}

export interface ClusterView {
  readonly spec: ClusterSpec;
  readonly state: ClusterState;
  readonly stateRevision: Revision;
  /** Of every agent that ever joined, also of one that the spec does not name. */
  readonly reports: Readonly<Record<NodeId, SeenReport>>;
  /** What agents registered: addresses, data directory, installed version. */
  readonly members: Readonly<Record<NodeId, Member>>;
  /** The write lease as the store holds it now; null when it expired or was released. */
  readonly writeLease: { readonly term: Term; readonly holder: NodeId } | null;
  /** Observer's monotonic time since the write lease key was last seen to vanish; 0 while it exists. */
  readonly writeLeaseGoneMs: number;
  /** What the fencing command said that this controller ran last; null: none, or elsewhere. */
  readonly fenceResult: FenceResult | null;
  /** Unfinished tasks, oldest first. */
  readonly tasks: readonly Task[];
  /** Routes acknowledged by live proxies: proxy id → epoch. */
  readonly proxyAcks: Readonly<Record<string, number>>;
  /** How long this controller has watched without a gap. Absence of a report proves nothing before this exceeds the detection time. */
  readonly watchedMs: number;
  readonly incarnation: string;
}

/** What the controller writes in ONE guarded transaction. Null state: nothing to change. */
export interface Decision {
  readonly rule: string;
  readonly why: string;
  readonly state: ClusterState | null;
  /** Null: unchanged, as nearly always; only `node add` and `node remove` change what people want. */
  readonly spec: ClusterSpec | null;
  readonly events: readonly ClusterEvent[];
  readonly tasks: readonly Task[];
  /** The record of a term that was opened by this decision, or whose loss is known by now. */
  readonly opened: TermRecord | null;
  /** Ask to be called again after this long even if nothing changes (a wait that the rule counts); null: the usual tick. */
  readonly again: number | null;
  /** The write lease is deleted with it: its holder's host was turned off. */
  readonly dropLease: boolean;
}

export interface Rule {
  /** `situation.outcome` */
  readonly id: string;
  /** For people: when this rule applies. */
  readonly when: string;
  /** For people: why it is right. Hazards are named by id. */
  readonly why: string;
  /** Null: does not apply. A pure function of the view. */
  readonly decide: (view: ClusterView, now: Now) => Outcome | null;
}

/** What a rule wants; the table turns it into a Decision. */
export interface Outcome {
  readonly why: string;
  readonly state?: ClusterState;
  readonly spec?: ClusterSpec;
  readonly events?: readonly Omit<ClusterEvent, 'rule' | 'atWallMs' | 'term'>[];
  readonly tasks?: readonly Task[];
  readonly opened?: TermRecord;
  readonly again?: number;
  readonly dropLease?: boolean;
  /** Go on with the rules below after this one (on the changed state); default: stop here. */
  readonly then?: 'stop' | 'continue';
}

export type { WallMs };
