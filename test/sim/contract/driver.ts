/** What the facts about PostgreSQL are written against: servers that a test creates, breaks and looks at. Real ones and modelled ones have the same handles. */
import type { PostgresReport } from '../../../src/core/report.ts';
import type { Lsn } from '../../../src/core/lsn.ts';

/** A real server that does not stream by then has been refused; a slow host takes longer for one that will. */
export const NOT_STREAMING_MS = 4000;

export interface Driver {
  /** Names are short and unique within a test. */
  node(name: string): Promise<Node>;
  /** Polls; fails after the limit (10 s of the driver's own time). */
  until(what: string, condition: () => Promise<boolean> | boolean): Promise<void>;
  sleep(ms: number): Promise<void>;
  close(): Promise<void>;
}

/** `ok`, or the code of the product's failure. */
export type Outcome = string;

export interface RunningCommit {
  readonly id: number;
  /** `unprotected`: committed, with the warning that the wait was cancelled. `lost`: the session ended. */
  state(): 'running' | 'acknowledged' | 'unprotected' | 'lost';
}

export interface Node {
  readonly name: string;
  /** initdb, started as a primary, with roles and a table. */
  create(): Promise<void>;
  /** The product's clone; the server is not started. */
  clone(from: Node): Promise<Outcome>;
  /** Begins a clone and breaks it off in the middle. */
  cloneInterrupted(from: Node): Promise<Outcome>;
  start(role: 'primary' | 'standby'): Promise<Outcome>;
  stop(mode: 'fast' | 'immediate' | 'kill'): Promise<Outcome>;
  /** pg_promote by hand; returns when the server is out of recovery. */
  promote(): Promise<void>;
  /** The product's promotion, to a timeline above that number. */
  promoteAbove(usedTimeline: number, mayPromote: boolean): Promise<Outcome>;
  /** `limitMs` (NOT_STREAMING_MS): for one that will not stream; else as long as the product waits. */
  follow(upstream: Node, limitMs?: number): Promise<Outcome>;
  rewind(upstream: Node): Promise<Outcome>;
  detach(): Promise<{ readonly timeline: number; readonly lsn: Lsn; readonly final: boolean } | Outcome>;
  checkpoint(): Promise<void>;
  report(): Promise<PostgresReport>;
  /** Timeline of the last checkpoint, as pg_control has it. */
  controlTimeline(): Promise<number>;

  /** A committed row that waits for no standby. */
  write(): Promise<number>;
  /** Fills so much WAL. */
  fillWal(bytes: number): Promise<void>;
  /** Begins a commit that waits for standbys as configured. */
  commit(): Promise<RunningCommit>;
  /** Sessions that wait for standbys. */
  syncWaiters(): Promise<number>;
  cancelSyncWaits(): Promise<void>;
  sees(id: number): Promise<boolean>;

  /** ALTER SYSTEM and a reload. */
  set(name: string, value: string): Promise<void>;
  /** sync_priority of each walsender, by application name. */
  priorities(): Promise<Readonly<Record<string, number>>>;
  slots(): Promise<Readonly<Record<string, string | null>>>;
  makeSlot(name: string): Promise<void>;
  hasWalreceiver(): Promise<boolean>;
  pauseReplay(): Promise<void>;
  resumeReplay(): Promise<void>;
  /** The startup process hears nothing; the rest of the server works. */
  blockStartup(): Promise<void>;
  unblockStartup(): Promise<void>;
  /** SIGSTOP and SIGCONT for all processes. */
  freeze(): void;
  thaw(): void;
}
