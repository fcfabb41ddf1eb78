/**
 * Shapes of the HTTP API: types, decoders and the OpenAPI description come from these schemas.
 * Conventions: camelCase; LSNs in PostgreSQL's text form; times ISO 8601 with milliseconds; sizes in bytes; durations in
 * milliseconds with a name that ends in `Ms`. Absent is null. Answers may gain fields (loose objects); those named here stay.
 */
import { z } from 'zod';

const name = z.string().regex(/^[a-z0-9]([a-z0-9_-]{0,61}[a-z0-9])?$/, 'expected 1–63 of a–z, 0–9, "-" and "_", first and last a letter or digit');
const lsn = z.string().regex(/^[0-9A-F]{1,8}\/[0-9A-F]{1,8}$/, 'expected an LSN like 0/3000060');
const time = z.iso.datetime({ precision: 3 });
const count = z.int().min(0);
const reasonText = z.string().max(500).default('');

export const nodeName = name;
export const clusterName = name;
export const roleName = z.enum(['viewer', 'operator', 'admin']);
export type RoleName = z.infer<typeof roleName>;

export const problem = z.looseObject({ code: z.string(), text: z.string(), remedy: z.string() });

export const errorBody = z.object({
  error: z.looseObject({
    code: z.string(),
    what: z.string(),
    cause: z.string(),
    now: z.string(),
    remedy: z.string(),
    problems: z.array(problem).optional(),
  }),
});
export type ErrorBody = z.infer<typeof errorBody>;

// ── What people look at ────────────────────────────────────────────────────────────────────────────────────────────

export const clusterStateWord = z.enum(['healthy', 'degraded', 'no-primary', 'switching', 'frozen', 'stopped', 'unknown']);
export const nodeStateWord = z.enum([
  'running',
  'starting',
  'stopping',
  'stopped',
  'crashed',
  'cloning',
  'rewinding',
  'recovering',
  'diverged',
  'maintenance',
  'failed',
  'unreachable',
]);
export const nodeRole = z.enum(['primary', 'standby']);

export const clusterSummary = z.looseObject({
  cluster: name,
  state: clusterStateWord,
  term: count,
  primary: name.nullable(),
  nodes: count,
  nodesLive: count,
  problems: count,
  frozen: z.boolean(),
});
export type ClusterSummary = z.infer<typeof clusterSummary>;

const showNode = z.looseObject({
  id: name,
  host: z.string(),
  port: count,
  /** Null for a witness, and for a node that never had a role. */
  role: nodeRole.nullable(),
  state: nodeStateWord,
  wantedRole: nodeRole.nullable(),
  internalHost: z.string().nullable(),
  streaming: z.boolean(),
  timeline: count.nullable(),
  lsn: lsn.nullable(),
  replayLagBytes: z.int().nullable(),
  upstream: name.nullable(),
  wantedUpstream: name.nullable().optional(),
  delayMs: count.optional(),
  priority: count,
  location: z.string().nullable(),
  agent: z.looseObject({ version: z.string().nullable(), seenMs: z.number().nullable() }),
  problems: z.array(problem),
});
const vipShow = z.looseObject({ address: z.string(), node: name.nullable() }).nullable();

export const showAnswer = z.looseObject({
  cluster: name,
  state: clusterStateWord,
  term: count,
  timeline: count.nullable(),
  primary: name.nullable(),
  frozen: z.boolean(),
  freeze: z.looseObject({ by: z.string(), reason: z.string(), since: time, until: time.nullable() }).nullable().optional(),
  sync: z.looseObject({
    mode: z.enum(['async', 'sync', 'quorum']),
    strict: z.boolean(),
    k: count,
    voters: z.array(name),
    members: z.array(name),
    wanted: count.optional(),
    lowered: z.object({ since: time, reason: z.string() }).nullable().optional(),
  }),
  nodes: z.array(showNode),
  vips: z.looseObject({ write: vipShow, read: vipShow }),
  proxies: z.array(z.looseObject({ id: z.string(), host: z.string().nullable(), term: count, seenMs: z.number().nullable() })),
  problems: z.array(problem),
});
export type ShowAnswer = z.infer<typeof showAnswer>;

/** `weight` 0: drained. */
export const trafficAnswer = z.looseObject({
  paused: z.boolean(),
  by: z.string().nullable(),
  since: time.nullable(),
  /** A switchover holds new transactions now. */
  hold: z.boolean(),
  epoch: count,
  backends: z.array(
    z.looseObject({
      node: name,
      host: z.string().nullable(),
      port: count.nullable(),
      weight: z.number(),
      writes: z.boolean(),
      reads: z.boolean(),
      lagBytes: z.number().nullable(),
    }),
  ),
  proxies: z.array(z.looseObject({ id: z.string(), host: z.string(), epoch: count, term: count, paused: z.boolean() })),
});
export type TrafficAnswer = z.infer<typeof trafficAnswer>;

export const trafficBody = z.strictObject({
  /** Only the nodes that are named change. */
  weights: z.record(name, z.number().min(0).max(100)).optional(),
  paused: z.boolean().optional(),
});

export const lsnRow = z.looseObject({ node: name, role: nodeRole.nullable(), timeline: count.nullable(), lsn: lsn.nullable() });
export type LsnRow = z.infer<typeof lsnRow>;

export const lagRow = z.looseObject({
  node: name,
  role: nodeRole.nullable(),
  currentLsn: lsn.nullable(),
  sentLagBytes: z.int().nullable(),
  writeLagBytes: z.int().nullable(),
  flushLagBytes: z.int().nullable(),
  replayLagBytes: z.int().nullable(),
  replayLagMs: z.number().nullable(),
  /** pg_stat_replication.sync_state; null for the primary and for a standby that does not stream. */
  sync: z.string().nullable(),
  state: z.string().nullable(),
  slot: z.string().nullable(),
});
export type LagRow = z.infer<typeof lagRow>;

export const historyRow = z.looseObject({
  term: count,
  timeline: count.nullable(),
  primary: name,
  forkLsn: lsn.nullable(),
  rule: z.string(),
  reason: z.string(),
  startedAt: time,
  outageMs: z.number().nullable(),
  lostBytes: z.number().nullable(),
});
export type HistoryRow = z.infer<typeof historyRow>;

export const explainAnswer = z.looseObject({
  rule: z.string(),
  why: z.string(),
  last: z.looseObject({ rule: z.string(), why: z.string(), at: time }).optional(),
  term: z
    .looseObject({
      term: count,
      primary: name,
      startedAt: time,
      rule: z.string(),
      reason: z.string(),
      outageMs: z.number().nullable(),
      lostBytes: z.number().nullable(),
    })
    .nullable()
    .optional(),
  candidates: z.array(z.looseObject({ node: name, eligible: z.boolean(), reasons: z.array(z.string()) })),
  ifPrimaryDies: z.looseObject({
    action: z.string(),
    promoted: name.nullable(),
    mayLoseBytes: z.number().nullable(),
    mayLoseLater: z.boolean().optional(),
    estimatedOutageMs: z.number().nullable(),
  }),
});
export type ExplainAnswer = z.infer<typeof explainAnswer>;

export const eventRow = z.looseObject({
  /** Sorts by time of decision; the value for `after`. */
  id: z.string(),
  at: time,
  level: z.enum(['info', 'warn', 'error']),
  rule: z.string(),
  node: name.nullable(),
  term: count,
  text: z.string(),
  detail: z.record(z.string(), z.string()),
});
export type EventRow = z.infer<typeof eventRow>;

// ── What people want ───────────────────────────────────────────────────────────────────────────────────────────────

/** The spec as JSON; its fields are checked by core/spec.ts, which names the path of each error. */
export const specBody = z.record(z.string(), z.unknown());
export const diffLine = z.object({ path: z.string(), from: z.unknown(), to: z.unknown() });
export type DiffLine = z.infer<typeof diffLine>;
/** `revision` is what `If-Match` of the next PUT must carry. */
export const specAnswer = z.looseObject({ spec: specBody, revision: count });
export const specPutAnswer = z.looseObject({ revision: count, dryRun: z.boolean(), diff: z.array(diffLine) });
export const metaAnswer = z.looseObject({
  spec: z.unknown(),
  specRevision: count.nullable(),
  state: z.unknown(),
  stateRevision: count.nullable(),
  members: z.record(z.string(), z.unknown()),
  reports: z.record(z.string(), z.unknown()),
  writeLease: z.unknown(),
});

export const settingsAnswer = z.looseObject({
  revision: count,
  parameters: z.record(z.string(), z.string()),
  /** Node → parameters that wait for a restart there; only nodes that have some. */
  pendingRestart: z.record(z.string(), z.array(z.string())),
});
const parameterName = z.string().regex(/^[A-Za-z_][A-Za-z0-9_.]{0,62}$/, 'expected the name of a PostgreSQL parameter');
export const settingsBody = z.strictObject({
  set: z.record(parameterName, z.string().max(10_000)).default({}),
  unset: z.array(parameterName).max(200).default([]),
  reason: reasonText,
});
export const settingsPostAnswer = z.looseObject({
  revision: count,
  dryRun: z.boolean(),
  diff: z.array(diffLine),
  parameters: z.record(z.string(), z.string()),
});

// ── Tasks ──────────────────────────────────────────────────────────────────────────────────────────────────────────

/** KiB a second, in the bounds of pg_basebackup. */
const rateKb = z.int().min(32).max(1_048_576);

/** A host name or an IP address. */
const address = z.string().regex(/^[A-Za-z0-9_.:-]{1,253}$/, 'is no host name or address');

const onNode = <K extends string>(kind: K): z.ZodObject<{ kind: z.ZodLiteral<K>; node: typeof name }, z.core.$strict> =>
  z.strictObject({ kind: z.literal(kind), node: name });

/** The same union as core/state.ts `taskRequest`, with defaults for what people leave out. */
export const taskRequestBody = z.discriminatedUnion('kind', [
  z.strictObject({ kind: z.literal('create') }),
  z.strictObject({ kind: z.literal('switchover'), to: name.nullable().default(null) }),
  z.strictObject({
    kind: z.literal('failover'),
    to: name.nullable().default(null),
    acceptLoss: z.boolean().default(false),
    acceptTwoPrimaries: z.boolean().default(false),
  }),
  onNode('nodeStop'),
  onNode('nodeStart'),
  onNode('nodeRestart'),
  z.strictObject({
    kind: z.literal('nodeRejoin'),
    node: name,
    via: z.enum(['stream', 'rewind', 'clone']).nullable().default(null),
    source: name.nullable().default(null),
    rateKb: rateKb.nullable().default(null),
  }),
  z.strictObject({ kind: z.literal('nodeMaintenance'), node: name, on: z.boolean() }),
  /** `upstream` null: the primary, whoever that is. */
  z.strictObject({ kind: z.literal('nodeFollow'), node: name, upstream: name.nullable() }),
  /** Null: what the node's agent registered, or the best source. */
  z.strictObject({
    kind: z.literal('nodeAdd'),
    node: name,
    host: address.nullable().default(null),
    internalHost: address.nullable().default(null),
    port: z.int().min(1).max(65_535).nullable().default(null),
    role: z.enum(['data', 'witness']).default('data'),
    priority: z.int().min(0).max(1000).default(100),
    location: z.string().min(1).max(63).nullable().default(null),
    tags: z
      .record(z.string().regex(/^[A-Za-z0-9_.-]{1,63}$/), z.string().max(200))
      .refine((tags) => Object.keys(tags).length <= 32, 'at most 32 tags')
      .default({}),
    source: name.nullable().default(null),
    rateKb: rateKb.nullable().default(null),
  }),
  z.strictObject({ kind: z.literal('nodeRemove'), node: name, dropData: z.boolean().default(false) }),
  z.strictObject({ kind: z.literal('clusterStop') }),
  z.strictObject({ kind: z.literal('clusterStart') }),
  z.strictObject({ kind: z.literal('clusterRestart'), rolling: z.boolean().default(true) }),
  z.strictObject({ kind: z.literal('freeze'), forMs: z.int().min(1000).max(2_592_000_000).nullable().default(null) }),
  z.strictObject({ kind: z.literal('unfreeze') }),
]);
export const taskBody = z.strictObject({
  request: taskRequestBody,
  reason: reasonText,
  dryRun: z.boolean().default(false),
  /** Makes a repeated request (lost answer) harmless: the first task is answered again. */
  requestId: z
    .string()
    .regex(/^[A-Za-z0-9_-]{8,64}$/)
    .nullable()
    .default(null),
});
export type TaskBody = z.input<typeof taskBody>;

export const taskView = z.looseObject({
  id: z.string(),
  cluster: name,
  kind: z.string(),
  request: z.record(z.string(), z.unknown()),
  reason: z.string(),
  by: z.string(),
  createdAt: time,
  status: z.enum(['pending', 'running', 'done', 'failed', 'refused', 'cancelled']),
  cancelRequested: z.boolean(),
  steps: z.array(z.looseObject({ name: z.string(), state: z.enum(['running', 'done', 'failed', 'undone']), at: time, detail: z.string() })),
  problems: z.array(problem),
  finishedAt: time.nullable(),
  result: z.string().nullable(),
  /** What its node moves now; null when nothing moves. `etaMs` is null while it cannot be told. */
  progress: z.looseObject({ node: name, step: z.string(), doneBytes: count, totalBytes: count.nullable(), etaMs: z.number().nullable() }).nullable(),
});
export type TaskView = z.infer<typeof taskView>;

/** `task` is null for a dry run. `plan`: what would be, or is, done, one step a line. `problems`: what would refuse it. */
export const taskAnswer = z.looseObject({ dryRun: z.boolean(), task: taskView.nullable(), plan: z.array(z.string()), problems: z.array(problem) });
export type TaskAnswer = z.infer<typeof taskAnswer>;
export const createAnswer = z.looseObject({
  cluster: name,
  dryRun: z.boolean(),
  kind: z.enum(['create', 'adopt', 'unknown']),
  task: taskView.nullable(),
  plan: z.array(z.string()),
  problems: z.array(problem),
});
export type CreateAnswer = z.infer<typeof createAnswer>;

export const removeAnswer = z.looseObject({ cluster: name, removed: z.boolean(), kept: z.string() });
/** `at` is null for a line without a time; `text` may hold line breaks (PostgreSQL's DETAIL, HINT, STATEMENT belong to their line). */
export const logEntry = z.looseObject({
  at: time.nullable(),
  source: z.enum(['agent', 'postgres', 'guard', 'server']),
  level: z.enum(['debug', 'info', 'warn', 'error']).nullable(),
  text: z.string(),
  detail: z.record(z.string(), z.unknown()),
});
export type LogEntry = z.infer<typeof logEntry>;
/** Oldest first. `node` is null for the server's own log. `problems`: sources that could not be read. */
export const logAnswer = z.looseObject({ node: name.nullable(), entries: z.array(logEntry), problems: z.array(problem) });
export type LogAnswer = z.infer<typeof logAnswer>;

// ── The server itself ──────────────────────────────────────────────────────────────────────────────────────────────

export const storeStatusAnswer = z.looseObject({
  engine: z.string(),
  version: z.string(),
  incarnation: z.string(),
  revision: count,
  dbSizeBytes: count,
  endpoint: z.string(),
  members: count,
  /** How long ago the server's own watch last confirmed that it missed nothing; null: never. */
  watchAgeMs: z.number().nullable(),
  clusters: count,
});
export const restoreAnswer = z.looseObject({ keys: count, text: z.string() });

export const userRow = z.looseObject({ name, role: roleName, createdAt: time, by: z.string() });
export const userBody = z.strictObject({ name, role: roleName });
/** The token is shown here once; only a hash is kept. */
export const userAnswer = z.looseObject({ name, role: roleName, token: z.string() });

export const joinTokenBody = z.strictObject({
  cluster: name,
  ttlMs: z.int().min(60_000).max(86_400_000).default(3_600_000),
  /** URL under which the new host reaches this server; null: the server's own. */
  server: z
    .url({ protocol: /^https$/ })
    .nullable()
    .default(null),
});
export const joinTokenAnswer = z.looseObject({ token: z.string(), cluster: name, server: z.string(), fingerprint: z.string(), expiresAt: time });

export const hostName = z.string().regex(/^[A-Za-z0-9.:_-]{1,253}$/, 'expected a host name or an address');
export const joinBody = z.strictObject({
  token: z.string().max(200),
  /** A proxy gets a password of its own role instead of the cluster's secret. */
  kind: z.enum(['agent', 'proxy']).default('agent'),
  node: name,
  hosts: z.array(hostName).min(1).max(16),
  /** PKCS#10, PEM. */
  csr: z.string().max(16_384),
});
/** How a host reaches the store. `authority`: PEM, where it is not pgherd's own; user and password where etcd has users. */
export const storeGrant = z.looseObject({
  endpoints: z.array(z.string()),
  authority: z.string().nullable().default(null),
  username: z.string().nullable().default(null),
  password: z.string().nullable().default(null),
});
export const migrateBody = z.strictObject({
  to: z.enum(['etcd', 'embedded']),
  endpoints: z
    .array(z.string().regex(/^https?:\/\/(\[[0-9A-Fa-f:.]+\]|[^\s/:@]+):\d{1,5}$/))
    .max(9)
    .default([]),
  /** PEM of who signed the certificates of etcd's members; null: pgherd's own authority. */
  authority: z.string().max(65_536).nullable().default(null),
  username: z.string().max(200).nullable().default(null),
  password: z.string().max(1000).nullable().default(null),
  dryRun: z.boolean().default(false),
});
export const migrateAnswer = z.looseObject({
  moved: z.boolean(),
  from: z.string(),
  to: z.string(),
  hosts: z.array(z.string()),
  problems: z.array(z.string()),
});
export const joinAnswer = z.looseObject({
  cluster: name,
  node: name,
  ca: z.string(),
  certificate: z.string(),
  /** Of an agent: the cluster's secret. Of a proxy: the password of the role `pgherd_proxy`. */
  clusterSecret: z.string(),
  store: storeGrant,
  expiresAt: time,
});
export const caAnswer = z.looseObject({ ca: z.string(), fingerprint: z.string() });

export const certRow = z.looseObject({
  subject: z.string(),
  kind: z.enum(['ca', 'server', 'agent', 'proxy']),
  hosts: z.array(z.string()),
  serial: z.string(),
  fingerprint: z.string(),
  notBefore: time,
  notAfter: time,
  daysLeft: z.number(),
});
/** `server`: by an admin. `agent`: by the agent itself, shown by its present certificate. */
export const renewBody = z.discriminatedUnion('kind', [
  z.strictObject({ kind: z.literal('server') }),
  z.strictObject({ kind: z.literal('agent'), csr: z.string().max(16_384) }),
]);
export const renewAnswer = z.looseObject({ certificate: z.string(), ca: z.string(), expiresAt: time });

export const doctorCheck = z.looseObject({
  code: z.string(),
  cluster: name.nullable(),
  node: name.nullable(),
  level: z.enum(['ok', 'warn', 'error']),
  text: z.string(),
  remedy: z.string(),
});
export const doctorAnswer = z.looseObject({ ok: z.boolean(), checks: z.array(doctorCheck) });
export const versionAnswer = z.looseObject({ name: z.literal('pgherd'), version: z.string(), api: z.literal('v1'), node: z.string() });
