/** What the demo and the lab know of a running herd: its places, its processes, and its answers to verbs. */
import { randomBytes } from 'node:crypto';
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { ask } from './ask.ts';
import { type RoleProcess, type VerbResult, postmasterOf, processesBelow, runOnce, startRole } from './children.ts';
import type { Login, Target } from './history.ts';

export interface NodePlan {
  readonly node: string;
  readonly address: string;
  readonly port: number;
  readonly agentPort: number;
  /** Default: the spec's. */
  readonly priority?: number;
  /** Default: data. */
  readonly kind?: 'data' | 'witness';
  /** Default: none. */
  readonly location?: string;
  /** Put before an argv: runs it on the node's host. Empty on this machine itself. */
  readonly inside: readonly string[];
}

export interface ProxyPlan {
  readonly id: string;
  readonly address: string;
  readonly writePort: number;
  readonly readPort: number;
  readonly splitPort: number;
  /** The part `pooling` of proxy.yaml; default: none. */
  readonly pooling?: Readonly<Record<string, unknown>>;
  readonly inside: readonly string[];
}

export interface HerdPlan {
  /** Absolute and short: PostgreSQL's socket lies below it (its path may have 107 bytes). */
  readonly directory: string;
  /** Below each node's directory, where its data directory lies; default: that directory itself. */
  readonly dataFolder?: string;
  /** How pgherd is started, e.g. [node, dist/pgherd.mjs]. */
  readonly program: readonly string[];
  readonly cluster: string;
  readonly server: { readonly address: string; readonly apiPort: number; readonly storePort: number; readonly inside: readonly string[] };
  /** The part `store` of server.yaml; default: the server's own store on `storePort`. */
  readonly store?: Readonly<Record<string, unknown>>;
  /** The part `fencing` of server.yaml; default: no command. */
  readonly fencing?: Readonly<Record<string, unknown>>;
  readonly nodes: readonly NodePlan[];
  /** Hosts that are no nodes at the start; `node add` can make them some. Default: none. */
  readonly spares?: readonly NodePlan[];
  /** Default: none. */
  readonly proxies?: readonly ProxyPlan[];
  readonly firewall: 'auto' | 'off';
  /** Where clients come from, for pg_hba. */
  readonly clientNetwork: string;
  /** Further fields of the spec. */
  readonly spec?: Readonly<Record<string, unknown>>;
  readonly logLevel?: 'debug' | 'info';
}

/** The part of `show --json` that is read here. */
export interface ShowNode {
  readonly id: string;
  readonly role: string | null;
  readonly state: string;
  readonly streaming: boolean;
  readonly wantedRole: string | null;
  readonly timeline: number | null;
  readonly lsn: string | null;
  readonly replayLagBytes: number | null;
  readonly problems: readonly { readonly code: string; readonly text: string; readonly remedy: string }[];
}
export interface Show {
  readonly state: string;
  readonly term: number;
  readonly timeline: number | null;
  readonly primary: string | null;
  readonly nodes: readonly ShowNode[];
  readonly problems: readonly { readonly code: string; readonly text: string; readonly remedy: string }[];
}

export interface Herd {
  readonly plan: HerdPlan;
  readonly login: Login;
  readonly targets: readonly Target[];
  readonly places: Places;
  /** Starts a role again that is not running. */
  startServer(): RoleProcess;
  startAgent(node: string): RoleProcess;
  startProxy(id: string): RoleProcess;
  server(): RoleProcess | null;
  agent(node: string): RoleProcess | null;
  proxy(id: string): RoleProcess | null;
  /** Runs a verb on the server's host with an admin's token. */
  verb(args: readonly string[], limitMs?: number): Promise<VerbResult>;
  /** The same on another host, without a token. */
  verbOn(place: Pick<NodePlan, 'inside'>, args: readonly string[], limitMs?: number): Promise<VerbResult>;
  /** Null when the server did not answer with a cluster. */
  show(): Promise<Show | null>;
  postmaster(node: string): number | null;
  guard(node: string): number | null;
  /** All processes of the node's host: agent, guard, PostgreSQL. */
  processes(node: string): readonly number[];
  /** SQL as superuser over the node's private socket, bounded; rejects when it does not answer. */
  sql(node: string, text: string, database?: string): Promise<readonly Record<string, unknown>[]>;
}

export interface Places {
  readonly server: string;
  readonly serverConfig: string;
  readonly logs: string;
  readonly adminToken: string;
  readonly ca: string;
  readonly cli: string;
  node(node: string): string;
  data(node: string): string;
  state(node: string): string;
  agentConfig(node: string): string;
  proxyConfig(id: string): string;
}

export function placesBelow(directory: string, dataFolder = ''): Places {
  const node = (name: string): string => join(directory, name);
  return {
    server: join(directory, 'server'),
    serverConfig: join(directory, 'server.yaml'),
    logs: join(directory, 'logs'),
    adminToken: join(directory, 'admin.token'),
    ca: join(directory, 'ca.crt'),
    cli: join(directory, 'cli'),
    node,
    data: (name) => join(node(name), dataFolder, 'data'),
    state: (name) => join(node(name), 'agent'),
    agentConfig: (name) => join(node(name), 'agent.yaml'),
    proxyConfig: (id) => join(node(id), 'proxy.yaml'),
  };
}

/** Nodes and spares. */
export function allHosts(plan: HerdPlan): readonly NodePlan[] {
  return [...plan.nodes, ...(plan.spares ?? [])];
}

export function findPlan(plan: HerdPlan, node: string): NodePlan {
  const all = allHosts(plan);
  const found = all.find((entry) => entry.node === node);
  if (found === undefined) throw new Error(`there is no node "${node}": ${all.map((entry) => entry.node).join(', ')}`);
  return found;
}

export function findProxy(plan: HerdPlan, id: string): ProxyPlan {
  const found = plan.proxies?.find((entry) => entry.id === id);
  if (found === undefined) throw new Error(`there is no proxy "${id}"`);
  return found;
}

/** Nothing is started yet. */
export function openHerd(plan: HerdPlan): Herd {
  const places = placesBelow(plan.directory, plan.dataFolder);
  for (const folder of [places.logs, join(places.cli, 'pgherd')]) mkdirSync(folder, { recursive: true });
  const running = new Map<string, RoleProcess>();
  const alive = (name: string): RoleProcess | null => {
    const role = running.get(name);
    return role === undefined || role.exit() !== null ? null : role;
  };
  const start = (name: string, inside: readonly string[], args: readonly string[]): RoleProcess => {
    const role = startRole({ inside, argv: [...plan.program, ...args], cwd: plan.directory, logFile: join(places.logs, `${name}.log`) });
    running.set(name, role);
    return role;
  };
  const herd: Herd = {
    plan,
    places,
    login: { database: 'app', user: 'app', password: randomBytes(18).toString('base64url') },
    targets: plan.nodes.map(({ node, address, port }) => ({ node, host: address, port })),
    startServer: () => start('server', plan.server.inside, ['server', '--config', places.serverConfig]),
    startAgent: (node) => start(node, findPlan(plan, node).inside, ['agent', '--config', places.agentConfig(node)]),
    startProxy: (id) => start(id, findProxy(plan, id).inside, ['proxy', '--config', places.proxyConfig(id)]),
    server: () => alive('server'),
    agent: (node) => alive(node),
    proxy: (id) => alive(id),
    verb: (args, limitMs = 60_000) =>
      runOnce({
        inside: plan.server.inside,
        argv: [...plan.program, ...args],
        cwd: plan.directory,
        env: { XDG_CONFIG_HOME: places.cli, NO_COLOR: '1' },
        limitMs,
      }),
    verbOn: (place, args, limitMs = 60_000) => runOnce({ inside: place.inside, argv: [...plan.program, ...args], cwd: plan.directory, limitMs }),
    show: async () => parseShow(await herd.verb(['show', '--json'], 5000)),
    postmaster: (node) => postmasterOf(places.data(findPlan(plan, node).node)),
    guard: (node) => herd.processes(node).find((pid) => isGuard(pid)) ?? null,
    processes: (node) => processesBelow(places.node(findPlan(plan, node).node)),
    sql: (node, text, database = 'postgres') =>
      ask({ directory: join(places.state(node), 'run'), port: findPlan(plan, node).port, user: 'pgherd', database, text }),
  };
  writeFileSync(join(places.cli, 'pgherd', 'config.yaml'), cliConfig(plan, places));
  return herd;
}

export function serverUrl(plan: HerdPlan): string {
  return `https://${plan.server.address}:${plan.server.apiPort}`;
}

function cliConfig(plan: HerdPlan, places: Places): string {
  return `server: ${serverUrl(plan)}\ntokenFile: ${places.adminToken}\ncaFile: ${places.ca}\ncluster: ${plan.cluster}\n`;
}

function parseShow(result: VerbResult): Show | null {
  if (result.code !== 0) return null;
  try {
    return JSON.parse(result.stdout) as Show;
  } catch {
    // A verb that was cut off while it wrote: as good as no answer.
    return null;
  }
}

function isGuard(pid: number): boolean {
  try {
    return /guard(\.mjs|-main\.ts)?(\0|$)/.test(readFileSync(`/proc/${pid}/cmdline`, 'utf8'));
  } catch {
    // Gone meanwhile.
    return false;
  }
}
