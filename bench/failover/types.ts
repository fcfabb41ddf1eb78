/** What every measured system is to the faults: pgherd and its peers look the same from here on. */
import type { LabNetwork } from '../../lab/network.ts';
import type { ResultLine } from '../../lab/scenario.ts';
import type { Login, Target } from '../../src/demo/history.ts';

export const FAULTS = ['host-kill', 'postgres-crash', 'partition-primary', 'switchover'] as const;
export type Fault = (typeof FAULTS)[number];

export const PEERS = ['patroni', 'repmgr', 'pg_auto_failover'] as const;
export type Peer = (typeof PEERS)[number];

export const NODES = ['n1', 'n2', 'n3'] as const;
/** Host of what is no node: pgherd's server, pg_auto_failover's monitor. */
export const SERVER = 's';
export const CLIENT = 'c';
/** Where all hosts of a run are. Source: lab/network.ts. */
export const NETWORK = '10.99.0.0/24';

/** One node's host and what it may use. */
export interface NodePlace {
  readonly node: string;
  readonly address: string;
  readonly port: number;
  /** Put before an argv, this runs it on the host. */
  readonly inside: readonly string[];
  /** Its own, made before, owned by PostgreSQL's user. */
  readonly directory: string;
}

/** Where a system is started: hosts that are empty, and folders that are removed afterwards. */
export interface Place {
  readonly directory: string;
  readonly network: LabNetwork;
  readonly nodes: readonly NodePlace[];
  readonly say: (line: string) => void;
  /** Aborted: nothing more is to be started. */
  readonly signal: AbortSignal;
}

export interface SwitchoverResult {
  /** Null when the command said that it succeeded; else its words. */
  readonly why: string | null;
  readonly durationMs: number;
}

/** A system that runs. Its methods say what the servers say themselves, never what the system believes. */
export interface Cluster {
  readonly login: Login;
  readonly targets: readonly Target[];
  /** Folder of the logs, `<name>.log`. */
  readonly logs: string;
  /** As superuser over the node's own socket, bounded; rejects when it does not answer. */
  sql(node: string, text: string, database?: string): Promise<readonly Record<string, unknown>[]>;
  /** Null when it is not running. */
  postmaster(node: string): number | null;
  /** Makes `to` the primary by the system's own command, and waits until the command ends. */
  switchover(to: string): Promise<SwitchoverResult>;
  /** Starts what runs on the host of a node after a boot. */
  boot(node: string): void;
}

export interface System {
  /** `pgherd` or the peer's name, and the variant: `patroni-default`. Unique. */
  readonly id: string;
  readonly product: Peer | 'pgherd';
  readonly variant: string;
  /** How a commit is protected before it is acknowledged, in words. */
  readonly durability: string;
  /** Standbys that PostgreSQL must call synchronous before the fault. */
  readonly syncStandbys: number;
  /** Every setting that is not the default, and the defaults that decide about time. */
  readonly settings: string;
  /** Whether a lost node comes back without a person; what does not is not waited for. */
  readonly rejoin: 'itself' | 'by-hand';
  /** What a reader has to know of this system's figures. */
  readonly remark: string | null;
  /** The version as the program says it. Throws when it is not installed. */
  version(): string;
  /** Resolves when the system calls itself set up; throws with the reason in words. */
  start(place: Place): Promise<Cluster>;
}

/** One run. `null`: could not be measured; without an outage the run never came to its fault. */
export interface RunLine extends Omit<ResultLine, 'scenario'> {
  readonly system: string;
  readonly fault: Fault;
  readonly run: number;
  /** False when no other node (or, after a crash, none at all) served, or the run itself failed. */
  readonly ok: boolean;
  /** How much of the processors others had from the fault to the end, by the hypervisor's account; a high figure is a bad measurement, whoever was measured. */
  readonly stolenPercent: number | null;
}
