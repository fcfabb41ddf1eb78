/** What an agent says of its node, under its own lease. Everything here was observed by the agent itself. */
import {
  type Decoded,
  type Decoder,
  bool,
  integer,
  list,
  lsn,
  nullable,
  object,
  oneOf,
  record,
  refine,
  text,
  union,
  literal,
  withDefault,
} from './decode.ts';
import { type NodeId, type Revision, type Term, type Timeline, type WallMs, makeRevision, makeTerm, makeTimeline, makeWallMs } from './ids.ts';
import { nodeId } from './spec.ts';

export const term: Decoder<Term> = refine(integer, (n) => (n >= 0 ? makeTerm(n) : null), 'a term ≥ 0');
export const timeline: Decoder<Timeline> = refine(integer, (n) => (n >= 1 ? makeTimeline(n) : null), 'a timeline ≥ 1');
export const revision: Decoder<Revision> = refine(integer, (n) => (n >= 0 ? makeRevision(n) : null), 'a revision ≥ 0');
export const wallMs: Decoder<WallMs> = refine(integer, (n) => makeWallMs(n), 'milliseconds since 1970');

/** One line of a timeline history file: `timeline` ended at `forkLsn`, where the next one begins. Source: PostgreSQL, access/timeline.c. */
export const fork = object({ timeline, forkLsn: lsn });
export type Fork = Decoded<typeof fork>;

/** Where a data directory's WAL ends. `final` only when no process can append to it any more and local WAL is exhausted. */
export const position = object({ timeline, lsn });
export type Position = Decoded<typeof position>;

/** One row of pg_stat_replication of a member; foreign walsenders are not listed. */
export const walsender = object({
  node: nodeId,
  state: text,
  sentLsn: nullable(lsn),
  writeLsn: nullable(lsn),
  flushLsn: nullable(lsn),
  replayLsn: nullable(lsn),
  replayLagMs: nullable(integer),
  syncState: text,
  /** `NODE.INCARNATION`, its application_name; null when it has no incarnation. */
  voter: withDefault(nullable(text), null),
});
export type Walsender = Decoded<typeof walsender>;

/** Code of the agent's word that it, or its guard, fenced this primary because its write lease ran out; until it holds one again, or another is the primary. */
export const LEASE_LOST = 'fence.lease-lost';

/** Code of the agent's problem with a data directory that is not empty and never was PostgreSQL's: nobody runs initdb there, and nobody moves it away. */
export const FOREIGN_FILES = 'directory.foreign-files';

export const postgresState = oneOf(
  'absent', // no data directory, or an empty one
  'incomplete', // a clone or a rewind was interrupted: the directory must not be started
  'stopped',
  'crashed', // processes are gone (verified) without a shutdown checkpoint of this start
  'starting', // postmaster lives, not yet answering
  'running',
  'stopping',
  'hung', // postmaster lives, but bounded probes fail
  'cloning',
  'rewinding',
);
export type PostgresState = Decoded<typeof postgresState>;

export const postgresReport = object({
  state: postgresState,
  /** Of the running server (pg_is_in_recovery); for a stopped one, what the directory was last: from pg_control. Null when absent. */
  role: nullable(oneOf('primary', 'standby')),
  systemIdentifier: nullable(text),
  /** server_version_num, e.g. 150018 */
  version: nullable(integer),
  timeline: nullable(timeline),
  /** Oldest first; forks of all ancestors of `timeline`. */
  history: list(fork),
  /** Primary: pg_current_wal_flush_lsn. */
  flushLsn: nullable(lsn),
  /** Standby: pg_last_wal_receive_lsn. */
  receivedLsn: nullable(lsn),
  replayedLsn: nullable(lsn),
  /** Stopped, crashed or detached: the end of local WAL, read from the files. */
  walEnd: nullable(lsn),
  /** Stopped: pg_control says "shut down" / "shut down in recovery". */
  cleanShutdown: bool,
  /** Clean shutdown of a primary: end of its shutdown checkpoint record, what a successor must have replayed. */
  shutdownLsn: nullable(lsn),
  /** Standby: a walreceiver is connected and streaming, from this member. */
  streamingFrom: nullable(nodeId),
  /** It replays later on purpose, and waits for that before it asks for more WAL: PostgreSQL streams only when local WAL is exhausted. */
  waitsForDelay: withDefault(bool, false),
  walsenders: list(walsender),
  /** Parameters that wait for a restart, with pg_settings' names. */
  pendingRestart: list(text),
  postmasterPid: nullable(integer),
  startedAt: nullable(wallMs),
  /** Values of settings that a standby may not have lower than the primary. */
  minimums: record(integer),
  /** Of those, the ones that wait for a restart, with the value that it will bring. */
  minimumsAfterRestart: withDefault(record(integer), {}),
  /** How many walsenders and slots the server can have, and has now; null when it does not run, or does not say. */
  replication: withDefault(nullable(object({ maxWalSenders: integer, walSenders: integer, maxSlots: integer, slots: integer })), null),
  /** Starting: milliseconds without any sign of progress, by the agent's own clock. Null in every other state. */
  stalledMs: withDefault(nullable(integer), null),
  /** Names this data directory among all that the node ever had: new with each initdb, clone and rewind. Null: none was given yet. */
  incarnation: withDefault(nullable(text), null),
});
export type PostgresReport = Decoded<typeof postgresReport>;

/** One viewpoint: how this agent sees another member's PostgreSQL. */
export const probeResult = object({
  /** `primary`: accepts a bounded write; `standby`: answers, in recovery; `blocked`: refuses clients; `down`: ≥ probeAttempts failures in a row; `unknown`: fewer. */
  verdict: oneOf('primary', 'standby', 'blocked', 'down', 'unknown'),
  failures: integer,
  /** Milliseconds since the last success when the report was made; null when there was none. */
  lastOkAgoMs: nullable(integer),
  error: nullable(text),
  /** The other agent's HTTP endpoint answered. */
  agentAlive: bool,
});
export type ProbeResult = Decoded<typeof probeResult>;

/**
 * A durable vote: fsynced before it is reported. A node that voted for `term` makes no promise to and acknowledges
 * nothing for a lower term.
 */
export const vote = object({
  term,
  /** Position read after the walreceiver was gone; null while detaching. */
  position: nullable(position),
  final: bool,
});
export type Vote = Decoded<typeof vote>;

/** What the node is doing, or failed to do, about its goal. Refers to the goal by `goalId`. */
export const activity = union({
  idle: object({ kind: literal('idle') }),
  busy: object({
    kind: literal('busy'),
    goalId: text,
    step: text,
    sinceWallMs: wallMs,
    doneBytes: nullable(integer),
    totalBytes: nullable(integer),
  }),
  failed: object({
    kind: literal('failed'),
    goalId: text,
    step: text,
    code: text,
    message: text,
    attempts: integer,
    atWallMs: wallMs,
    /** The agent tries again by itself. False: it waits for another goal. */
    retrying: bool,
  }),
  done: object({ kind: literal('done'), goalId: text, detail: text }),
});
export type Activity = Decoded<typeof activity>;

export const nodeProblem = object({ code: text, text, remedy: text });
export type NodeProblem = Decoded<typeof nodeProblem>;

/** Codes of the agent's own findings about the disk of its data directory. A node that has one is no good successor. */
export const DISK_PROBLEMS = ['disk.full', 'disk.read-only', 'disk.stuck', 'disk.error'] as const;
export type DiskProblem = (typeof DISK_PROBLEMS)[number];

/** A primary's word on its synchronous set. */
export const syncReport = object({
  /** `wantedRevision` of the set that every process of PostgreSQL acts on; 0: none yet. */
  revision: integer,
  /** WAL flush position of the moment in which that was found. */
  inForceLsn: nullable(lsn),
  /** Members of the wanted set, and how long each has acknowledged nothing although there was something; 0: it is current. */
  silence: list(object({ voter: text, ms: integer })),
});
export type SyncReport = Decoded<typeof syncReport>;

/** Whether the open primary takes a write now, by a bounded look of its own agent (§4.6): what reads alone do not tell. */
export const writeHealth = object({
  /** `refused`: the disk answers with an error. `stuck`: it does not answer. */
  state: oneOf('ok', 'refused', 'stuck'),
  /** Milliseconds since the first write that failed was sent; 0 while it is well. */
  forMs: integer,
  detail: text,
});
export type WriteHealth = Decoded<typeof writeHealth>;

/** A `synchronous_commit` below `on`. Both names null: everybody's, by a line of `file`, which is none of pgherd's own. */
export const weakCommit = object({ database: nullable(text), role: nullable(text), value: text, file: nullable(text) });
export type WeakCommit = Decoded<typeof weakCommit>;

/** One virtual address as this node has it. Listed only where it is held, wanted, or cannot be removed. */
export const vipReport = object({
  vip: oneOf('write', 'read'),
  address: text,
  /** `held`: it is on an interface here. `conflict`: another host answers for it, so it was not taken. `failed`: `detail` says what could not be done. */
  state: oneOf('held', 'conflict', 'failed'),
  /** The hardware address of another host that answers for it; null: none was seen. */
  otherMac: nullable(text),
  detail: text,
});
export type VipReport = Decoded<typeof vipReport>;

export const nodeReport = object({
  version: integer,
  node: nodeId,
  agentVersion: text,
  /** New at every start of the agent process. */
  agentRun: text,
  bootId: text,
  atWallMs: wallMs,
  /** Revision of `state` this agent acts on; 0 before the first one that the store itself gave. */
  stateRevision: revision,
  /** The store that counts `stateRevision`: revisions of two stores are not comparable (§4.10). Null: not known yet. */
  incarnation: withDefault(nullable(text), null),
  /** The newest revision of `state` that was ever read here in that store, persisted: what it forgot when its files were set back. 0: none. */
  newestRevision: withDefault(revision, makeRevision(0)),
  /** The newest term that this agent ever saw, persisted: what a restored store may have forgotten. */
  highestTerm: withDefault(term, makeTerm(0)),
  postgres: postgresReport,
  /** The write lease that this agent holds by its own deadline; null when none. */
  leaseTerm: nullable(term),
  /** This agent holds no lease, and no process of its data directory can accept writes (none is left, or it runs in recovery). */
  fenced: bool,
  /** Clients are let in for writes: in term `leaseTerm`. */
  open: bool,
  vote: nullable(vote),
  /** Terms whose promote order this node durably refuses (bounded to the newest few). */
  refusedTerms: list(term),
  /** The newest term in which clients may have been let in here, persisted before they were; 0: none. */
  openedTerm: withDefault(term, makeTerm(0)),
  activity,
  probes: record(probeResult),
  guard: oneOf('alive', 'missing', 'off'),
  firewall: oneOf('fail-closed', 'off'),
  watchdog: oneOf('armed', 'off'),
  /** Trusted addresses answered (true), did not (false), none configured (null). */
  trustedReachable: nullable(bool),
  slots: withDefault(list(object({ name: text, active: bool, retainedBytes: nullable(integer), walStatus: nullable(text) })), []),
  problems: list(nodeProblem),
  /** Of the machine and the disk of the data directory; null from an agent that does not say. */
  host: withDefault(
    nullable(
      object({
        cpus: integer,
        /** Load average of one minute, in hundredths. */
        load: integer,
        /** Free for PostgreSQL where the data directory is, or will be. */
        freeBytes: nullable(integer),
        /** What a copy of this node takes; null when it is not known yet, or there is no data. */
        dataBytes: nullable(integer),
      }),
    ),
    null,
  ),
  /** Null for a node that is no primary. */
  sync: withDefault(nullable(syncReport), null),
  vips: withDefault(list(vipReport), []),
  /** Null for a node that is not open for writes, and from an agent that does not say. */
  writes: withDefault(nullable(writeHealth), null),
  /** The agent has looked at the disk of its data directory: that it names no trouble of it means something. */
  diskKnown: withDefault(bool, false),
  /** Whose commits do not wait for standbys; empty for a node that is not open for writes. */
  weakCommits: withDefault(list(weakCommit), []),
});
export type NodeReport = Decoded<typeof nodeReport>;

/** Registration of a member, written by its agent at start. */
export const member = object({
  version: integer,
  node: nodeId,
  host: text,
  internalHost: nullable(text),
  port: integer,
  agentPort: integer,
  dataDirectory: text,
  agentVersion: text,
  postgresVersion: nullable(integer),
  registeredWallMs: wallMs,
  /** Hardware addresses of its interfaces, lower case: an answer from one of them for a virtual address is no foreign host's. */
  macs: withDefault(list(text), []),
});
export type Member = Decoded<typeof member>;

export type ReportsById = Readonly<Record<NodeId, NodeReport>>;

/**
 * The shutdown checkpoint is on disk and its end is known: stopped, or on the way there with nothing left to do but to send it to standbys.
 * *Invariant:* from then on no process of the data directory accepts a write. *Because:* PostgreSQL writes it only after every client's process and
 * every worker has ended, and a postmaster that was told to stop starts no new ones. *Source:* src/backend/postmaster/postmaster.c, PM_SHUTDOWN;
 * contract test in test/postgres. *Broken if:* the checkpoint of an earlier stop is taken for this one's; observe.ts and stop.ts see to that.
 */
export function hasShutDown(postgres: PostgresReport): boolean {
  return postgres.cleanShutdown && postgres.shutdownLsn !== null && (postgres.state === 'stopped' || postgres.state === 'stopping');
}
