/** Brings a whole herd up (server, agents, cluster, the measuring clients' tables) and takes all of it down again. */
import { appendFileSync, chmodSync, chownSync, existsSync, mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { stringify } from 'yaml';
import type { Failure } from '../core/result.ts';
import { type RoleProcess, killBelow, runOnce, sendSignal, waitUntil } from './children.ts';
import { type Herd, type NodePlan, type ProxyPlan, allHosts, serverUrl } from './herd.ts';
import { SPLIT_SCHEMA } from './read-write-split.ts';
import { RECORDER_SCHEMA, quote } from './recorder.ts';
import { cheapVerifier } from './scram-verifier.ts';

/** A first start makes keys and a store; ten times what it takes on a small machine. */
const SERVER_START_MS = 20_000;
/** initdb and base backups of an empty cluster; a loaded machine needs several times the usual 10 s. */
const CREATE_MS = 180_000;
/** Between SIGTERM and SIGKILL of a role. */
const STOP_MS = 5000;
/** A start takes half a second. */
const PROXY_START_MS = 10_000;

export type Say = (line: string) => void;

/**
 * Starts everything in order; null when the cluster is healthy and the clients' tables are made. On failure, and when
 * `signal` aborts, it returns early; the caller calls `stopHerd` in every case.
 */
export async function startHerd(herd: Herd, { say, signal }: { readonly say: Say; readonly signal: AbortSignal }): Promise<Failure | null> {
  const steps: readonly (() => Promise<Failure | null>)[] = [
    () => firstStartOfServer(herd, say),
    () => joinAll(herd, say, signal),
    () => createCluster(herd, say, signal),
    () => prepareMeasuring(herd),
    () => joinProxies(herd, say),
  ];
  for (const step of steps) {
    const failure = await step();
    if (signal.aborted) return interruptedStart();
    if (failure !== null) return failure;
  }
  return null;
}

function interruptedStart(): Failure {
  return problem('demo.interrupted', { what: 'the start was interrupted', cause: '', remedy: '' });
}

/** Ends everything below the herd's directory and, unless `keep`, removes it. Returns the pids that could not be ended. */
export async function stopHerd(herd: Herd, { keep }: { readonly keep: boolean }): Promise<readonly number[]> {
  const { directory } = herd.plan;
  const nodes = allHosts(herd.plan);
  const proxies = (herd.plan.proxies ?? []).map(({ id }) => herd.proxy(id));
  const roles = [herd.server(), ...nodes.map(({ node }) => herd.agent(node)), ...proxies].filter((role): role is RoleProcess => role !== null);
  for (const role of roles) {
    sendSignal(role.pid, 'SIGCONT');
    sendSignal(role.pid, 'SIGTERM');
  }
  // PostgreSQL outlives its agent by design, so it is stopped by itself; standbys and primary at the same time.
  for (const { node } of nodes) {
    const postmaster = herd.postmaster(node);
    if (postmaster !== null) sendSignal(postmaster, 'SIGQUIT');
  }
  await waitUntil(() => roles.every((role) => role.exit() !== null) && nodes.every(({ node }) => herd.postmaster(node) === null), STOP_MS, 20);
  const left = await killBelow(directory);
  if (!keep && left.length === 0) rmSync(directory, { recursive: true, force: true });
  return left;
}

export function problem(code: string, parts: { readonly what: string; readonly cause: string; readonly remedy: string }): Failure {
  return { code, ...parts, now: 'everything that was started is stopped again', retryable: false };
}

async function firstStartOfServer(herd: Herd, say: Say): Promise<Failure | null> {
  const { plan, places } = herd;
  const { address, apiPort, storePort } = plan.server;
  writeFileSync(
    places.serverConfig,
    stringify({
      listen: { host: address, port: apiPort },
      dataDirectory: places.server,
      store: plan.store ?? { engine: 'embedded', listen: { host: address, port: storePort } },
      names: [],
      controller: true,
      fencing: plan.fencing ?? null,
      firstTokenFile: places.adminToken,
      log: { level: plan.logLevel ?? 'info' },
    }),
  );
  say(`server on ${serverUrl(plan)}, ${plan.store === undefined ? `store on port ${storePort}` : 'store: etcd'}`);
  const role = herd.startServer();
  const answers = await waitUntil(
    async () => role.exit() !== null || (isReady(herd) && (await herd.verb(['clusters', '--json'], 5000)).code === 0),
    SERVER_START_MS,
  );
  if (answers && role.exit() === null) return null;
  const probe = role.exit() === null ? (await herd.verb(['clusters', '--json'], 5000)).stderr : '';
  return problem('demo.server-start', {
    what: role.exit() === null ? `the server did not answer within ${SERVER_START_MS} ms` : 'the server ended at its start',
    cause: [lastLines(role.logFile), probe].filter((text) => text !== '').join('\n'),
    remedy: `read ${role.logFile}; start it again with --keep to look at it`,
  });
}

/** The first start writes the admin's token into the file that its configuration names, and its authority's certificate. */
function isReady({ places }: Herd): boolean {
  if (!existsSync(places.adminToken) || !existsSync(`${places.server}/ca/ca.crt`)) return false;
  if (!existsSync(places.ca)) writeFileSync(places.ca, readFileSync(`${places.server}/ca/ca.crt`));
  return true;
}

async function joinAll(herd: Herd, say: Say, signal: AbortSignal): Promise<Failure | null> {
  for (const node of herd.plan.nodes) {
    if (signal.aborted) return interruptedStart();
    const failure = await joinNode(herd, node);
    if (failure !== null) return failure;
    say(`${node.node} joined: ${node.address}, PostgreSQL on port ${node.port}`);
  }
  return null;
}

/** A token, `agent join` on that host, and its agent: what a person does before `node add`. Null when its agent was started. */
export async function joinNode(herd: Herd, node: NodePlan): Promise<Failure | null> {
  const { plan, places } = herd;
  prepareDirectory(places.node(node.node));
  const tokenFile = `${places.node(node.node)}/join.token`;
  const refused = await fetchToken(herd, tokenFile);
  if (refused !== null) return refused;
  const target = ['--cluster', plan.cluster, '--node', node.node, '--host', node.address, '--port', String(node.port)];
  const agent = ['--kind', node.kind ?? 'data', '--listen', node.address, '--agent-port', String(node.agentPort), '--firewall', plan.firewall];
  const files = ['--data-directory', places.data(node.node), '--state-directory', places.state(node.node), '--config', places.agentConfig(node.node)];
  const joined = await herd.verbOn(
    node,
    ['agent', 'join', '--server', serverUrl(plan), '--token-file', tokenFile, ...target, ...agent, ...files],
    20_000,
  );
  rmSync(tokenFile, { force: true });
  if (joined.code !== 0) return verbFailed('demo.join', `${node.node} could not join`, joined);
  herd.startAgent(node.node);
  return null;
}

async function fetchToken({ plan, verb }: Herd, file: string): Promise<Failure | null> {
  const token = await verb(['token', 'join', '-c', plan.cluster, '--join-url', serverUrl(plan)], 15_000);
  if (token.code !== 0) return verbFailed('demo.join-token', 'no join token was given', token);
  writeFileSync(file, token.stdout, { mode: 0o600 });
  return null;
}

async function joinProxies(herd: Herd, say: Say): Promise<Failure | null> {
  const { plan, places } = herd;
  for (const proxy of plan.proxies ?? []) {
    const { id, address, writePort, readPort, splitPort } = proxy;
    mkdirSync(places.node(id), { recursive: true });
    const tokenFile = `${places.node(id)}/join.token`;
    const refused = await fetchToken(herd, tokenFile);
    if (refused !== null) return refused;
    const ports = ['--write-port', String(writePort), '--read-port', String(readPort), '--split-port', String(splitPort)];
    const files = ['--state-directory', places.state(id), '--config', places.proxyConfig(id), '--token-file', tokenFile];
    // Clear text to the nodes: everything of the demo and the lab is on one machine.
    const args = ['proxy', 'join', '--server', serverUrl(plan), '--id', id, '--listen', address, ...ports, ...files, '--server-tls', 'off'];
    const joined = await herd.verbOn(proxy, args, 20_000);
    rmSync(tokenFile, { force: true });
    if (joined.code !== 0) return verbFailed('demo.join', `${id} could not join`, joined);
    if (proxy.pooling !== undefined) appendFileSync(places.proxyConfig(id), `pooling: ${JSON.stringify(proxy.pooling)}\n`);
    const role = herd.startProxy(id);
    if (!(await waitUntil(async () => role.exit() !== null || (await isListening(proxy)), PROXY_START_MS)) || role.exit() !== null)
      return problem('demo.proxy-start', {
        what: `the proxy ${id} did not open its ports`,
        cause: lastLines(role.logFile),
        remedy: `read ${role.logFile}; start it again with --keep to look at it`,
      });
    say(`${id} is a proxy: ${address}, writes on port ${writePort}, reads on ${readPort}, both on ${splitPort}`);
  }
  return null;
}

/** On another host the question is asked there. */
async function isListening({ address, writePort, inside }: ProxyPlan): Promise<boolean> {
  const asked = await runOnce({
    inside,
    argv: [
      process.execPath,
      '-e',
      `require('net').connect(${writePort}, '${address}').on('connect', () => process.exit(0)).on('error', () => process.exit(1))`,
    ],
    cwd: '/',
    limitMs: 2000,
  });
  return asked.code === 0;
}

/** PostgreSQL's OS user has to pass through; its own directories below are made by the agent. */
function prepareDirectory(path: string): void {
  mkdirSync(path, { recursive: true });
  chmodSync(path, 0o755);
  const user = process.getuid?.() === 0 ? databaseUser() : null;
  if (user !== null) chownSync(path, user.uid, user.gid);
}

function databaseUser(): { readonly uid: number; readonly gid: number } | null {
  const line = readFileSync('/etc/passwd', 'utf8')
    .split('\n')
    .find((entry) => entry.startsWith('postgres:'));
  const [, , uid, gid] = (line ?? '').split(':');
  return uid === undefined || gid === undefined ? null : { uid: Number(uid), gid: Number(gid) };
}

async function createCluster(herd: Herd, say: Say, signal: AbortSignal): Promise<Failure | null> {
  const { plan } = herd;
  const file = `${plan.directory}/cluster.yaml`;
  writeFileSync(file, clusterSpec(herd));
  say('creating the cluster: initdb on one node, base backups on the others');
  const ended = watchRoles(herd);
  const init = await Promise.race([herd.verb(['init', '-f', file, '--timeout', `${CREATE_MS / 1000}s`], CREATE_MS + 5000), ended.first]);
  ended.stop();
  if ('role' in init) {
    return problem('demo.role-ended', {
      what: `the ${init.role === 'server' ? 'server' : `agent of ${init.role}`} ended while the cluster was being created`,
      cause: lastLines(init.logFile),
      remedy: `read ${init.logFile}; start it again with --keep to look at it`,
    });
  }
  if (init.code !== 0) return verbFailed('demo.create', 'the cluster could not be created', init);
  const healthy = await waitHealthy(herd, CREATE_MS, signal);
  return healthy ? null : verbFailed('demo.create', 'the cluster was created but did not become healthy', await herd.verb(['show']));
}

/** The first role that ends by itself. `stop` makes it stay pending for ever. */
function watchRoles(herd: Herd): { readonly first: Promise<{ readonly role: string; readonly logFile: string }>; readonly stop: () => void } {
  let watching = true;
  const roles = [['server', herd.server()] as const, ...herd.plan.nodes.map(({ node }) => [node, herd.agent(node)] as const)];
  const first = new Promise<{ readonly role: string; readonly logFile: string }>((resolve) => {
    for (const [role, running] of roles) {
      if (running === null) resolve({ role, logFile: `${herd.places.logs}/${role}.log` });
      else void running.gone.then(() => watching && resolve({ role, logFile: running.logFile }));
    }
  });
  return {
    first,
    stop: () => {
      watching = false;
    },
  };
}

/** The spec as a person would write it, with a login for the measuring clients. */
export function clusterSpec({ plan, login }: Herd): string {
  return stringify({
    name: plan.cluster,
    postgres: { parameters: {}, hba: [`host ${login.database} ${login.user} ${plan.clientNetwork} scram-sha-256`] },
    nodes: plan.nodes.map(({ node, address, port, priority, kind, location }) => ({
      id: node,
      host: address,
      port,
      ...(priority === undefined ? {} : { priority }),
      ...(kind === undefined ? {} : { kind }),
      ...(location === undefined ? {} : { location }),
    })),
    ...plan.spec,
  });
}

/** One primary, and every other node streams from it; false when that is not so within `limitMs`. */
export async function waitHealthy(herd: Herd, limitMs: number, signal?: AbortSignal): Promise<boolean> {
  let healthy = false;
  await waitUntil(
    async () => {
      healthy = (await herd.show())?.state === 'healthy';
      return healthy || signal?.aborted === true;
    },
    limitMs,
    200,
  );
  return healthy;
}

async function prepareMeasuring(herd: Herd): Promise<Failure | null> {
  const { user, password, database } = herd.login;
  const primary = (await herd.show())?.primary ?? '';
  try {
    const verifier = quote(cheapVerifier(password));
    await herd.sql(primary, `set log_min_error_statement = panic; set log_statement = none; create role ${user} login password ${verifier}`);
    await herd.sql(primary, `create database ${database} owner ${user}`);
    await herd.sql(primary, [`set role ${user}`, ...RECORDER_SCHEMA, ...SPLIT_SCHEMA].join('; '), database);
    return null;
  } catch (cause) {
    return problem('demo.prepare', {
      what: `the tables of the measuring clients could not be made on ${primary}`,
      cause: cause instanceof Error ? cause.message : String(cause),
      remedy: `read the log of PostgreSQL below ${herd.places.node(primary)}`,
    });
  }
}

function verbFailed(code: string, what: string, result: { readonly code: number; readonly stdout: string; readonly stderr: string }): Failure {
  const cause = `exit code ${result.code}: ${result.stderr.trim() === '' ? result.stdout.trim() : result.stderr.trim()}`.slice(-2000);
  return problem(code, { what, cause, remedy: 'the logs lie in the folder logs/ of the working directory; --keep keeps it' });
}

function lastLines(file: string): string {
  try {
    return readFileSync(file, 'utf8')
      .trim()
      .split('\n')
      .slice(-8)
      .map((line) => line.replaceAll(/pgh_[A-Za-z0-9_-]+/g, 'pgh_…'))
      .join('\n');
  } catch (error) {
    return `${file} cannot be read: ${error instanceof Error ? error.message : String(error)}`;
  }
}
