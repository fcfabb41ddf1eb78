/** What the world wants of one host's modelled PostgreSQL, beside the door of its agent (`PostgresPort`). */
import type { ClusterSpec } from '../../src/core/spec.ts';
import type { ModelPort } from '../model/postgres/port.ts';
import type { Server } from '../model/postgres/server.ts';
import type { Scope } from '../clock.ts';

export interface Database {
  readonly server: Server;
  /** The door for one run of the agent, which lives in `agent`. */
  bind(agent: Scope, options: { readonly spec: () => ClusterSpec | null; readonly closeFirewall: () => Promise<void> }): ModelPort;
  /** All processes of the directory are gone at the next moment; false when some could not be killed. */
  killAll(): Promise<boolean>;
  /** The same process as was armed. */
  isAlive(postmaster: { readonly pid: number; readonly startTime: number }): boolean;
  /** Runs out of recovery and is not stopped: what reaches it can commit. */
  isWritable(): boolean;
  /** A process out of recovery is there, stopped or not. */
  isAliveAsPrimary(): boolean;
  /** Runs and answers reads. */
  isReadable(): boolean;
  /** Unflushed WAL is lost, every process is gone; until `powerOn` nothing runs. */
  powerOff(): void;
  powerOn(machine: Scope): void;
  /** SIGKILL of the postmaster: backends end by themselves soon. */
  kill(): void;
  stop(): void;
  resume(): void;
  shutdown(mode: 'fast' | 'immediate'): void;
  pauseReplay(): void;
  resumeReplay(): void;
  promoteByHand(): void;
  /** ALTER SYSTEM by a person, and a reload. Nothing happens when the disk takes no writes. */
  alterSystem(name: string, value: string): void;
  setDisk(change: { readonly full?: boolean; readonly slowMs?: number }): void;
  /** One commit of a client; `done` is called at most once, when the server acknowledged (never when it died before). */
  commit(commit: ClientCommit, done: (outcome: 'acknowledged' | 'refused') => void): void;
  /** A bounded write by another member; `answer` is never called while the server hangs. */
  probe(answer: (verdict: 'primary' | 'standby' | 'blocked' | 'failed') => void): void;
  /** Whether a reader sees that client's commit there now. */
  has(commitId: number): boolean;
  /** Whether that client's commit is in its WAL, whether it runs or not. */
  holds(commitId: number): boolean;
  /** Whether that commit is in the part of its WAL that survives a loss of power. */
  hasDurably(commitId: number): boolean;
}

export interface ClientCommit {
  readonly id: number;
  readonly bytes: number;
}
