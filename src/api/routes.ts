/**
 * Every route of the API below /api/v1, as data: the server registers exactly these, the client calls exactly these,
 * the OpenAPI description is generated from these.
 */
import { z } from 'zod';
import * as s from './schema.ts';

/** Who may call: `public` needs no token; an operator may all that a viewer may, an admin everything. `token`: the body carries its own proof. */
export type Access = 'public' | 'token' | s.RoleName;
/** `sse`: with `Accept: text/event-stream` the answer is a stream of these. `bytes`: an octet stream. */
export type AnswerForm = 'json' | 'json+sse' | 'bytes';

export interface RouteContract {
  readonly method: 'GET' | 'POST' | 'PUT' | 'DELETE';
  readonly path: string;
  readonly access: Access;
  readonly summary: string;
  readonly form: AnswerForm;
  /** The body is an octet stream. */
  readonly upload?: boolean;
  readonly params: z.ZodType;
  readonly query: z.ZodType;
  readonly body: z.ZodType;
  readonly answer: z.ZodType;
}

const none = z.strictObject({});
const noBody = z.undefined().or(z.null());
const inCluster = z.strictObject({ cluster: s.clusterName });
const dryRunQuery = z.strictObject({ dryRun: z.stringbool().default(false) });
const json = { form: 'json', params: none, query: none, body: noBody } as const;

export const ROUTES = {
  version: { ...json, method: 'GET', path: '/version', access: 'public', summary: 'Version of the server', answer: s.versionAnswer },
  ca: {
    ...json,
    method: 'GET',
    path: '/ca',
    access: 'public',
    summary: 'Certificate of the authority; to be checked by its fingerprint',
    answer: s.caAnswer,
  },
  clusters: {
    ...json,
    method: 'GET',
    path: '/clusters',
    access: 'viewer',
    summary: 'All clusters with their state',
    answer: z.array(s.clusterSummary),
  },
  createCluster: {
    ...json,
    method: 'POST',
    path: '/clusters',
    access: 'operator',
    summary: 'Create a cluster, or adopt running servers',
    query: dryRunQuery,
    body: s.specBody,
    answer: s.createAnswer,
  },
  show: {
    ...json,
    method: 'GET',
    path: '/clusters/:cluster',
    access: 'viewer',
    summary: 'A cluster, its nodes and its problems',
    params: inCluster,
    answer: s.showAnswer,
  },
  lsn: {
    ...json,
    method: 'GET',
    path: '/clusters/:cluster/lsn',
    access: 'viewer',
    summary: 'Timeline and last LSN a node',
    params: inCluster,
    answer: z.array(s.lsnRow),
  },
  lag: {
    ...json,
    method: 'GET',
    path: '/clusters/:cluster/lag',
    access: 'viewer',
    summary: 'Replication lag a node',
    params: inCluster,
    answer: z.array(s.lagRow),
  },
  explain: {
    ...json,
    method: 'GET',
    path: '/clusters/:cluster/explain',
    access: 'viewer',
    summary: 'Last decision, candidates, and what a failure would do',
    params: inCluster,
    answer: s.explainAnswer,
  },
  history: {
    ...json,
    method: 'GET',
    path: '/clusters/:cluster/history',
    access: 'viewer',
    summary: 'Terms, oldest first',
    params: inCluster,
    answer: z.array(s.historyRow),
  },
  events: {
    ...json,
    form: 'json+sse',
    method: 'GET',
    path: '/clusters/:cluster/events',
    access: 'viewer',
    summary: 'Events, oldest first; the newest `limit` after `after`',
    params: inCluster,
    query: z.strictObject({ after: z.string().max(64).optional(), limit: z.coerce.number().int().min(1).max(1000).default(100) }),
    answer: z.array(s.eventRow),
  },
  getSpec: {
    ...json,
    method: 'GET',
    path: '/clusters/:cluster/spec',
    access: 'viewer',
    summary: 'The desired state and its revision',
    params: inCluster,
    answer: s.specAnswer,
  },
  putSpec: {
    ...json,
    method: 'PUT',
    path: '/clusters/:cluster/spec',
    access: 'admin',
    summary: 'Replace the desired state; needs If-Match with the revision read',
    params: inCluster,
    query: dryRunQuery,
    body: s.specBody,
    answer: s.specPutAnswer,
  },
  traffic: {
    ...json,
    method: 'GET',
    path: '/clusters/:cluster/traffic',
    access: 'viewer',
    summary: 'Which nodes serve what, and which proxies follow',
    params: inCluster,
    answer: s.trafficAnswer,
  },
  putTraffic: {
    ...json,
    method: 'PUT',
    path: '/clusters/:cluster/traffic',
    access: 'operator',
    summary: 'Weigh or drain nodes, pause or resume the proxies; what is not named stays',
    params: inCluster,
    body: s.trafficBody,
    answer: s.trafficAnswer,
  },
  meta: {
    ...json,
    method: 'GET',
    path: '/clusters/:cluster/meta',
    access: 'viewer',
    summary: 'Raw spec, state and reports',
    params: inCluster,
    answer: s.metaAnswer,
  },
  getSettings: {
    ...json,
    method: 'GET',
    path: '/clusters/:cluster/settings',
    access: 'viewer',
    summary: 'PostgreSQL parameters',
    params: inCluster,
    answer: s.settingsAnswer,
  },
  postSettings: {
    ...json,
    method: 'POST',
    path: '/clusters/:cluster/settings',
    access: 'operator',
    summary: 'Change PostgreSQL parameters',
    params: inCluster,
    query: dryRunQuery,
    body: s.settingsBody,
    answer: s.settingsPostAnswer,
  },
  createTask: {
    ...json,
    method: 'POST',
    path: '/clusters/:cluster/tasks',
    access: 'operator',
    summary: 'Ask for an operation',
    params: inCluster,
    body: s.taskBody,
    answer: s.taskAnswer,
  },
  clusterTasks: {
    ...json,
    method: 'GET',
    path: '/clusters/:cluster/tasks',
    access: 'viewer',
    summary: 'Tasks of a cluster, newest first',
    params: inCluster,
    answer: z.array(s.taskView),
  },
  tasks: { ...json, method: 'GET', path: '/tasks', access: 'viewer', summary: 'Tasks of all clusters, newest first', answer: z.array(s.taskView) },
  task: {
    ...json,
    form: 'json+sse',
    method: 'GET',
    path: '/tasks/:id',
    access: 'viewer',
    summary: 'One task',
    params: z.strictObject({ id: z.string().max(80) }),
    answer: s.taskView,
  },
  cancelTask: {
    ...json,
    method: 'POST',
    path: '/tasks/:id/cancel',
    access: 'operator',
    summary: 'Ask a task to stop',
    params: z.strictObject({ id: z.string().max(80) }),
    answer: s.taskView,
  },
  removeCluster: {
    ...json,
    method: 'DELETE',
    path: '/clusters/:cluster',
    access: 'admin',
    summary: 'Unregister a cluster; no data is touched',
    params: inCluster,
    query: z.strictObject({ confirm: z.string().max(63).default(''), evenIfLive: z.stringbool().default(false) }),
    answer: s.removeAnswer,
  },
  nodeLog: {
    ...json,
    method: 'GET',
    path: '/clusters/:cluster/nodes/:node/log',
    access: 'operator',
    summary: "Last lines of a node's logs: agent, PostgreSQL and guard by time",
    params: z.strictObject({ cluster: s.clusterName, node: s.nodeName }),
    query: z.strictObject({
      source: z.enum(['all', 'agent', 'postgres', 'guard']).default('all'),
      /** Of each source. */
      lines: z.coerce.number().int().min(1).max(2000).default(200),
    }),
    answer: s.logAnswer,
  },
  serverLog: {
    ...json,
    method: 'GET',
    path: '/clusters/:cluster/log',
    access: 'operator',
    summary: "Last lines of the server's own log, without those of other clusters",
    params: z.strictObject({ cluster: s.clusterName }),
    query: z.strictObject({ lines: z.coerce.number().int().min(1).max(2000).default(200) }),
    answer: s.logAnswer,
  },
  storeStatus: { ...json, method: 'GET', path: '/store/status', access: 'viewer', summary: 'The store', answer: s.storeStatusAnswer },
  storeBackup: { ...json, form: 'bytes', method: 'GET', path: '/store/backup', access: 'admin', summary: 'Backup of the store', answer: z.unknown() },
  storeRestore: {
    ...json,
    upload: true,
    method: 'POST',
    path: '/store/restore',
    access: 'admin',
    summary: 'Restore the store; refused unless it is empty or `replace` is given',
    query: z.strictObject({ replace: z.stringbool().default(false) }),
    body: z.unknown(),
    answer: s.restoreAnswer,
  },
  storeMigrate: {
    ...json,
    method: 'POST',
    path: '/store/migrate',
    access: 'admin',
    summary: 'Move the store to another engine while clusters work; with `dryRun` only what would stand against it',
    body: s.migrateBody,
    answer: s.migrateAnswer,
  },
  storeAccess: {
    ...json,
    method: 'GET',
    path: '/store/access',
    access: 'public',
    summary: 'Where the store is, for a host that shows its certificate',
    answer: s.storeGrant,
  },
  users: { ...json, method: 'GET', path: '/users', access: 'admin', summary: 'Users and their roles', answer: z.array(s.userRow) },
  addUser: {
    ...json,
    method: 'POST',
    path: '/users',
    access: 'admin',
    summary: 'Add a user; answers the token once',
    body: s.userBody,
    answer: s.userAnswer,
  },
  removeUser: {
    ...json,
    method: 'DELETE',
    path: '/users/:name',
    access: 'admin',
    summary: 'Remove a user; the token stops working at once',
    params: z.strictObject({ name: s.nodeName }),
    answer: s.userRow,
  },
  addJoinToken: {
    ...json,
    method: 'POST',
    path: '/join-tokens',
    access: 'admin',
    summary: 'One-time token with which a host joins',
    body: s.joinTokenBody,
    answer: s.joinTokenAnswer,
  },
  join: {
    ...json,
    method: 'POST',
    path: '/join',
    access: 'token',
    summary: 'Join: certificate and cluster secret for a join token',
    body: s.joinBody,
    answer: s.joinAnswer,
  },
  certs: { ...json, method: 'GET', path: '/certs', access: 'viewer', summary: 'Certificates and when they expire', answer: z.array(s.certRow) },
  renewCert: {
    ...json,
    method: 'POST',
    path: '/certs/renew',
    access: 'token',
    summary: 'Renew a certificate',
    body: s.renewBody,
    answer: s.renewAnswer,
  },
  doctor: { ...json, method: 'GET', path: '/doctor', access: 'viewer', summary: 'Everything that would break a failover', answer: s.doctorAnswer },
} as const satisfies Readonly<Record<string, RouteContract>>;

export type RouteName = keyof typeof ROUTES;
export type Params<R extends RouteName> = z.output<(typeof ROUTES)[R]['params']>;
export type Query<R extends RouteName> = z.output<(typeof ROUTES)[R]['query']>;
export type Body<R extends RouteName> = z.output<(typeof ROUTES)[R]['body']>;
export type Answer<R extends RouteName> = z.output<(typeof ROUTES)[R]['answer']>;
export type ParamsIn<R extends RouteName> = z.input<(typeof ROUTES)[R]['params']>;
export type BodyIn<R extends RouteName> = z.input<(typeof ROUTES)[R]['body']>;

export const API_PREFIX = '/api/v1';
