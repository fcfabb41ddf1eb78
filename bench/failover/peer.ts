/** What all peers have in common: their nodes are plain PostgreSQL servers below the run's folder, and their programs run as its user. */
import { randomBytes } from 'node:crypto';
import { chownSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { type RoleProcess, type VerbResult, postmasterOf, runOnce, startRole } from '../../src/demo/children.ts';
import { ask } from '../../src/demo/ask.ts';
import { asDatabaseUser, databaseEnvironment, databaseUser } from './servers.ts';
import { type Cluster, NETWORK, type NodePlace, type Place } from './types.ts';

export interface PeerHosts extends Pick<Cluster, 'login' | 'targets' | 'logs' | 'sql' | 'postmaster'> {
  find(node: string): NodePlace;
  /** A long-lived program on a host, as PostgreSQL's user; its output goes to `<name>.log` in the run's folder. */
  startDaemon(host: Host, name: string, argv: readonly string[]): RoleProcess;
  /** A short program, in the same way; never rejects. */
  run(host: Host, argv: readonly string[], limitMs: number): Promise<VerbResult>;
  /** The same; throws with what it said when its exit code is not 0. */
  mustRun(host: Host, argv: readonly string[], limitMs: number): Promise<VerbResult>;
  /** The end of a daemon's log, for a message. */
  tail(name: string): string;
}

export interface Host extends Pick<NodePlace, 'inside' | 'directory'> {
  /** More variables for its programs. */
  readonly env?: Readonly<Record<string, string>>;
}

export function dataDirectory(node: Pick<NodePlace, 'directory'>): string {
  return join(node.directory, 'data');
}

export function socketDirectory(node: Pick<NodePlace, 'directory'>): string {
  return join(node.directory, 'run');
}

/** 144 random bits. */
export function newSecret(): string {
  return randomBytes(18).toString('base64url');
}

/** Readable by PostgreSQL's user alone: it may hold a password. */
export function writeOwned(path: string, text: string): void {
  const { uid, gid } = databaseUser();
  writeFileSync(path, text, { mode: 0o600 });
  chownSync(path, uid, gid);
}

export function openHosts(place: Place): PeerHosts {
  const find = (name: string): NodePlace => {
    const found = place.nodes.find(({ node }) => node === name);
    if (found === undefined) throw new Error(`there is no node "${name}": ${place.nodes.map(({ node }) => node).join(', ')}`);
    return found;
  };
  const logOf = (name: string): string => join(place.directory, `${name}.log`);
  const hosts: PeerHosts = {
    login: { database: 'app', user: 'app', password: newSecret() },
    targets: place.nodes.map(({ node, address, port }) => ({ node, host: address, port })),
    logs: place.directory,
    find,
    sql: (name, text, database = 'postgres') =>
      ask({ directory: socketDirectory(find(name)), port: find(name).port, user: 'postgres', database, text }),
    postmaster: (name) => postmasterOf(dataDirectory(find(name))),
    startDaemon: ({ inside, directory, env }, name, argv) =>
      startRole({
        inside,
        argv: [...asDatabaseUser(), ...argv],
        cwd: directory,
        logFile: logOf(name),
        env: { ...databaseEnvironment(directory), ...env },
      }),
    run: ({ inside, directory, env }, argv, limitMs) =>
      runOnce({ inside, argv: [...asDatabaseUser(), ...argv], cwd: directory, env: { ...databaseEnvironment(directory), ...env }, limitMs }),
    mustRun: async (host, argv, limitMs) => {
      const done = await hosts.run(host, argv, limitMs);
      if (done.code !== 0) throw new Error(`${argv.slice(0, 4).join(' ')}: ${wordsOf(done)}`);
      return done;
    },
    tail: (name) => {
      try {
        return readFileSync(logOf(name), 'utf8').trim().split('\n').slice(-8).join('\n');
      } catch (error) {
        return `${logOf(name)} cannot be read: ${error instanceof Error ? error.message : String(error)}`;
      }
    },
  };
  return hosts;
}

/** Exit code and the end of what a program said. */
export function wordsOf({ code, stdout, stderr }: VerbResult): string {
  return `exit code ${code}: ${(stderr.trim() === '' ? stdout : stderr).trim().slice(-1000)}`;
}

/** Lines of pg_hba.conf: the superuser from the node itself by its socket folder, which only it and root may enter; all others by password. */
export function accessLines(options: { readonly superuser: string; readonly replicator: string }): readonly string[] {
  return [
    'local all all trust',
    'local replication all trust',
    `host replication ${options.replicator} ${NETWORK} scram-sha-256`,
    `host all ${options.superuser} ${NETWORK} scram-sha-256`,
    `host all ${options.replicator} ${NETWORK} scram-sha-256`,
    `host app app ${NETWORK} scram-sha-256`,
  ];
}
