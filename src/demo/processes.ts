/** Brings a whole herd up (server, agents, cluster, the measuring clients' tables) and takes all of it down again. */
import { chmodSync, chownSync, existsSync, mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { stringify } from 'yaml';
import { type Failure, type Result, err, ok } from '../core/result.ts';
import { type RoleProcess, killBelow, sendSignal, waitUntil } from './children.ts';
import { type Herd, type HerdPlan, type NodePlan, openHerd, serverUrl } from './herd.ts';
import { RECORDER_SCHEMA, quote } from './recorder.ts';

/** A first start makes keys and a store; ten times what it takes on a small machine. */
const SERVER_START_MS = 20_000;
/** initdb and base backups of an empty cluster; a loaded machine needs several times the usual 10 s. */
const CREATE_MS = 180_000;
/** Between SIGTERM and SIGKILL of a role. */
const STOP_MS = 5000;

export type Say = (line: string) => void;

/** The herd's processes are started as it goes; on failure the caller still has to call `stopHerd`. */
export async function startHerd(plan: HerdPlan, say: Say): Promise<Result<Herd, Failure> & { readonly herd: Herd }> {
  const herd = openHerd(plan);
  const steps: readonly (() => Promise<Failure | null>)[] = [
    () => firstStartOfServer(herd, say),
    () => joinAll(herd, say),
    () => createCluster(herd, say),
    () => prepareMeasuring(herd),
  ];
  for (const step of steps) {
    const failure = await step();
    if (failure !== null) return { ...err(failure), herd };
  }
  return { ...ok(herd), herd };
}

/** Ends everything below the herd's directory and, unless `keep`, removes it. Returns the pids that could not be ended. */
export async function stopHerd(herd: Herd, { keep }: { readonly keep: boolean }): Promise<readonly number[]> {
  const { directory, nodes } = herd.plan;
  const roles = [herd.server(), ...nodes.map(({ node }) => herd.agent(node))].filter((role): role is RoleProcess => role !== null);
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
      store: { engine: 'embedded', listen: { host: address, port: storePort } },
      names: [],
      controller: true,
      log: { level: plan.logLevel ?? 'info' },
    }),
  );
  say(`server on ${serverUrl(plan)}, store on port ${storePort}`);
  const role = herd.startServer();
  const answers = await waitUntil(
    async () => role.exit() !== null || (takeAdminToken(herd, role) && (await herd.verb(['clusters', '--json'], 5000)).code === 0),
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

/** The first start prints the admin's token once, and writes its authority's certificate; both are kept for the verbs. */
function takeAdminToken(herd: Herd, role: RoleProcess): boolean {
  const { places } = herd;
  if (!existsSync(places.adminToken)) {
    const token = /\bpgh_[A-Za-z0-9_-]{16,}/.exec(readFileSync(role.logFile, 'utf8'))?.[0];
    if (token === undefined) return false;
    writeFileSync(places.adminToken, token, { mode: 0o600 });
  }
  if (!existsSync(places.ca)) {
    const made = [`${places.server}/ca.crt`, `${places.server}/pki/ca.crt`, `${places.server}/ca/ca.crt`].find((path) => existsSync(path));
    if (made === undefined) return false;
    writeFileSync(places.ca, readFileSync(made));
  }
  return true;
}

async function joinAll(herd: Herd, say: Say): Promise<Failure | null> {
  for (const node of herd.plan.nodes) {
    const failure = await joinNode(herd, node);
    if (failure !== null) return failure;
    say(`${node.node} joined: ${node.address}, PostgreSQL on port ${node.port}`);
  }
  return null;
}

async function joinNode(herd: Herd, node: NodePlan): Promise<Failure | null> {
  const { plan, places } = herd;
  prepareDirectory(places.node(node.node));
  const token = await herd.verb(['token', 'join', '-c', plan.cluster, '--json'], 15_000);
  const text = token.code === 0 ? joinTokenOf(token.stdout) : null;
  if (text === null) return verbFailed('demo.join-token', 'no join token was given', token);
  const tokenFile = `${places.node(node.node)}/join.token`;
  writeFileSync(tokenFile, text, { mode: 0o600 });
  const join = await herd.verbOn(node.node, [
    'agent', 'join', '--server', serverUrl(plan), '--token-file', tokenFile, '--cluster', plan.cluster, '--node', node.node,
    '--host', node.address, '--port', String(node.port), '--data-directory', places.data(node.node), '--state-directory', places.state(node.node),
    '--config', places.agentConfig(node.node),
  ], 20_000);
  rmSync(tokenFile, { force: true });
  if (join.code !== 0) return verbFailed('demo.join', `${node.node} could not join`, join);
  completeAgentConfig(herd, node);
  herd.startAgent(node.node);
  return null;
}
