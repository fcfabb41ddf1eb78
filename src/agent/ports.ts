/**
 * The doors of the agent's loop to the world. The real ones are bound in agent.ts; the simulator binds models.
 */
import type { NodeId, Now, Revision, Term, Timeline } from '../core/ids.ts';
import type { Lsn } from '../core/lsn.ts';
import type { WantedSet } from '../core/node/wanted-set.ts';
import type { PostgresReport, ProbeResult, SyncReport, Vote } from '../core/report.ts';
import type { Failure, Result } from '../core/result.ts';
import type { ClusterSpec } from '../core/spec.ts';

export interface Progress {
  readonly doneBytes: number;
  readonly totalBytes: number | null;
}

/** Where a member's PostgreSQL is reached by other members. */
export interface Upstream {
  readonly node: NodeId;
  readonly host: string;
  readonly port: number;
}

/** Where a copy comes from, and whom it is to follow then. */
export interface ClonePlan {
  readonly upstream: Upstream;
  /** Copied; often the upstream itself. */
  readonly source: Upstream;
  /** KiB a second; null: unlimited. */
  readonly rateKb: number | null;
}

export interface PromoteOrder {
  /** What must be replayed before; null: what there is. */
  readonly requiredLsn: Lsn | null;
  /** The new timeline gets a number above it; null: whatever PostgreSQL takes. */
  readonly usedTimeline: Timeline | null;
  /** Asked right before each request. */
  readonly mayPromote: () => boolean;
  /** Awaited before the first request; never rejects. */
  readonly ready: Promise<void>;
  /** Called at most once, as soon as the server is seen to be writable; what follows then goes on beside. */
  readonly onWritable: () => void;
  readonly signal: AbortSignal;
}

export interface PostgresPort {
  observe(): Promise<PostgresReport>;
  /** Why the running server did not answer the last look; null: it did, or none runs. What is known of it is older then. */
  trouble(): string | null;
  /**
   * The upstream that the directory is configured with; null: none, one that is no member, or one that somebody else has set: under another name than this
   * directory's it would stream and count for nobody, and without its slot lose the WAL that it needs (architecture 4.12). `incarnation`: the directory's, as the
   * last look found it.
   */
  configuredUpstream(incarnation: string | null): Promise<NodeId | null>;
  initdb(spec: ClusterSpec, signal: AbortSignal): Promise<Result<string, Failure>>;
  /** Managed files in order; returns whether something changed. Reloads a running server only then. */
  applySettings(spec: ClusterSpec): Promise<Result<{ readonly changed: boolean }, Failure>>;
  /** The managed files were written for another role, or what this standby needs at least has changed since. */
  settingsOutdated(): boolean;
  startPrimary(spec: ClusterSpec, mayStart: () => boolean, signal: AbortSignal): Promise<Result<string, Failure>>;
  startStandby(spec: ClusterSpec, upstream: Upstream | null, signal: AbortSignal): Promise<Result<string, Failure>>;
  /**
   * Bounded ladder; resolves when no process of the data directory is left. `onShutDown` is called at most once, before that: the shutdown
   * checkpoint of a primary is on disk (`hasShutDown`), and what is left only sends it to standbys.
   */
  stop(spec: ClusterSpec, signal: AbortSignal, onShutDown?: () => void): Promise<Result<string, Failure>>;
  /** Immediate, then complete kill. */
  kill(): Promise<Result<string, Failure>>;
  /** A promotion may be ordered soon: a connection is opened for it. Returns at once, keeps it for a few seconds. */
  preparePromotion(): void;
  waitReplay(required: Lsn, signal: AbortSignal): Promise<Result<string, Failure>>;
  promote(order: PromoteOrder): Promise<Result<string, Failure>>;
  /** Detaches (walreceiver gone) and reads the final position. A stopped server: from its files. Null position: no data. */
  detach(signal: AbortSignal): Promise<Result<Pick<Vote, 'position' | 'final'>, Failure>>;
  follow(upstream: Upstream, signal: AbortSignal): Promise<Result<string, Failure>>;
  rewind(spec: ClusterSpec, upstream: Upstream, signal: AbortSignal, onProgress: (progress: Progress) => void): Promise<Result<string, Failure>>;
  clone(spec: ClusterSpec, plan: ClonePlan, signal: AbortSignal, onProgress: (progress: Progress) => void): Promise<Result<string, Failure>>;
  /** Deletes the data directory of a stopped node that leaves. Copies that were set aside stay. */
  dropData(): Promise<Result<string, Failure>>;
  /** The opening of `term` by this node, marked in the WAL of a running primary (§4.1). */
  markOpening(term: Term, signal: AbortSignal): Promise<Result<string, Failure>>;
  checkpoint(signal: AbortSignal): Promise<Result<string, Failure>>;
  /** Roles, heartbeat table, slots of members; on a primary, idempotent. */
  ensureRolesAndSlots(spec: ClusterSpec, signal: AbortSignal): Promise<Result<string, Failure>>;
  /** Slots only; a primary makes and drops, a standby makes; both advance those that nobody uses. `positions`: how far each member is known to be. */
  ensureSlots(spec: ClusterSpec, positions: Readonly<Record<string, Lsn>>): Promise<Result<string, Failure>>;
  listSlots(): Promise<
    readonly { readonly name: string; readonly active: boolean; readonly retainedBytes: number | null; readonly walStatus: string | null }[]
  >;
  /** Calls back at once when the postmaster is gone. */
  onGone(callback: () => void): void;
  /** What doctor should know: settings overridden, weak settings. */
  problems(): readonly { readonly code: string; readonly text: string; readonly remedy: string }[];
}

export interface LeasePort {
  /** Term of the lease that is valid by our own deadline; null: none. */
  heldTerm(): Term | null;
  /** One renewal now, sent after this call; who confirmed it, or null when nobody did. */
  renewNow(): Promise<'store' | 'promises' | null>;
  /** It may be asked for soon; returns at once, costs nothing when it is not. */
  prepare(): void;
  /** `over`: the lease of this or a lower term may still stand in another's name, and is replaced (the quorum path). */
  acquire(term: Term, stateRevision: Revision, over?: Term | null): Promise<Result<null, Failure>>;
  /** Only called when nothing can accept writes. */
  release(): Promise<Result<null, Failure>>;
  /** It is renewed no more, and runs out at its deadline: this node is being fenced, and perhaps something here cannot be ended. Nothing is released. */
  lapse(): void;
}

export interface FirewallPort {
  readonly kind: 'fail-closed' | 'off';
  /** Primary that is not open: only members may connect. */
  close(): Promise<void>;
  /** Primary that is open: as long as the lease is refreshed. */
  openTimed(): Promise<void>;
  /** Standby: no restriction. */
  openStandby(): Promise<void>;
  /** Clients' new connections to a primary that is about to stop are refused for some seconds, or until one of the above; sessions go on. */
  turnAway(): Promise<void>;
}

/** The synchronous set of a primary, or of the candidate that becomes one (architecture §4.4). */
export interface SyncPort {
  /** What was seen and what is asked; null: nothing, for a node that is neither. Never waits: the work goes on beside the loop and wakes it. */
  step(postgres: PostgresReport, wanted: WantedSet | null): void;
  /** The set is written before a promotion or a start as primary, and loaded if that takes no time; `ready` waits for the rest. */
  prepare(wanted: WantedSet): Promise<Result<null, Failure>>;
  /** A primary is being started: it stays closed until enough members hold what it recovers (Q27, I8). */
  startsAfterCrash(): void;
  startsAsStandby(): void;
  opened(): void;
  /** The set is in force, so that clients may be let in. */
  ready(): boolean;
  report(): SyncReport | null;
}

/** May this node vote now, in view of the promises that it gave to a primary without a store (§4.7)? */
export interface BallotPort {
  mayVote(term: Term): { readonly kind: 'granted' } | { readonly kind: 'wait' | 'refused'; readonly why: string };
}

/** Small facts that outlive the agent, written atomically and fsynced before they count. */
export interface MemoryPort {
  highestTerm(): Term;
  vote(): Vote | null;
  refusedTerms(): readonly Term[];
  /** The newest term in which clients may have been let in here; 0: none. */
  openedTerm(): Term;
  finished(): ReadonlySet<string>;
  /** PostgreSQL was started as the primary it was, and since then nobody was let in and it was not started as a standby: what it recovered may be on too few standbys yet (§4.4). */
  unopened(): boolean;
  sawTerm(term: Term): Promise<void>;
  setVote(vote: Vote): Promise<void>;
  refuse(term: Term): Promise<void>;
  /** Before clients are let in. */
  setOpened(term: Term): Promise<void>;
  finish(step: string): Promise<void>;
  setUnopened(unopened: boolean): Promise<void>;
}

export interface ViewpointPort {
  probes(): Readonly<Record<string, ProbeResult>>;
  trustedReachable(): boolean | null;
}

export interface ClockPort {
  now(): Now;
  sleep(ms: number): Promise<void>;
}

export type { WantedSet };
