/** PostgreSQL's side of every measured system: its user, its programs, questions to a node, and the tables of the measuring clients. */
import { chownSync, mkdirSync, readFileSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import { waitUntil } from '../../src/demo/children.ts';
import type { Login } from '../../src/demo/history.ts';
import { RECORDER_SCHEMA, TIMELINE_SQL, quote } from '../../src/demo/recorder.ts';
import { cheapVerifier } from '../../src/demo/scram-verifier.ts';
import { type Cluster, NODES } from './types.ts';

export interface OsUser {
  readonly uid: number;
  readonly gid: number;
  readonly home: string;
}

/** Throws when PostgreSQL's package has made no user. */
export function databaseUser(): OsUser {
  const line = readFileSync('/etc/passwd', 'utf8')
    .split('\n')
    .find((entry) => entry.startsWith('postgres:'));
  const [, , uid, gid, , home] = (line ?? '').split(':');
  if (uid === undefined || gid === undefined || home === undefined) throw new Error('there is no user "postgres": apt-get install postgresql');
  return { uid: Number(uid), gid: Number(gid), home };
}

/** Newest installed major version; throws when there is none. */
export function postgresMajor(): number {
  const majors = readdirSync('/usr/lib/postgresql')
    .map(Number)
    .filter((major) => Number.isInteger(major))
    .sort((a, b) => b - a);
  if (majors[0] === undefined) throw new Error('PostgreSQL is not installed: apt-get install postgresql');
  return majors[0];
}

export function binDirectory(): string {
  return `/usr/lib/postgresql/${postgresMajor()}/bin`;
}

/** Put before an argv: the program runs as PostgreSQL's user, with the same pid. Source: setpriv(1). */
export function asDatabaseUser(): readonly string[] {
  const { uid, gid } = databaseUser();
  return ['setpriv', '--reuid', String(uid), '--regid', String(gid), '--init-groups', '--'];
}

/** A home of its own: libpq looks for certificates there, and cannot look into root's. The last one is where pg_autoctl keeps its pid files. */
export function databaseEnvironment(directory: string): Readonly<Record<string, string>> {
  return {
    HOME: directory,
    LC_ALL: 'C.UTF-8',
    PATH: `${binDirectory()}:/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin`,
    PGPASSFILE: join(directory, 'pgpass'),
    XDG_RUNTIME_DIR: directory,
  };
}

/** Only PostgreSQL's user may enter. */
export function makeOwned(directory: string): void {
  const { uid, gid } = databaseUser();
  mkdirSync(directory, { recursive: true, mode: 0o700 });
  chownSync(directory, uid, gid);
}

/** Nodes that are out of recovery, the one with the highest timeline first: it opened last. */
export async function writableNodes(cluster: Pick<Cluster, 'postmaster' | 'sql'>): Promise<readonly string[]> {
  const asked = await Promise.all(
    NODES.map(async (node) => {
      if (cluster.postmaster(node) === null) return null;
      try {
        const rows = await cluster.sql(
          node,
          `select case when pg_is_in_recovery() then null else ${TIMELINE_SQL.replace(' as timeline', '')} end as timeline`,
        );
        const timeline = rows[0]?.['timeline'];
        return typeof timeline === 'string' ? { node, timeline: Number.parseInt(timeline, 16) } : null;
      } catch {
        // Starting, stopping or hung: not writable as far as anybody can see.
        return null;
      }
    }),
  );
  return asked
    .filter((one) => one !== null)
    .sort((a, b) => b.timeline - a.timeline)
    .map(({ node }) => node);
}

/** Nodes that stream from the primary now, and how many of them PostgreSQL calls synchronous; nothing when it cannot be asked. */
export async function streamingFrom(
  cluster: Pick<Cluster, 'postmaster' | 'sql' | 'targets'>,
  primary: string,
): Promise<{ readonly nodes: readonly string[]; readonly synchronous: number }> {
  try {
    const rows = await cluster.sql(primary, `select host(client_addr) as address, sync_state from pg_stat_replication where state = 'streaming'`);
    const served = cluster.targets.filter((target) => rows.some((row) => row['address'] === target.host)).map(({ node }) => node);
    const receiving = await Promise.all(served.map((node) => isReceiving(cluster, node)));
    return {
      nodes: served.filter((_, index) => receiving[index] === true),
      synchronous: rows.filter((row) => row['sync_state'] === 'sync' || row['sync_state'] === 'quorum').length,
    };
  } catch {
    // The primary changed between the two looks.
    return { nodes: [], synchronous: 0 };
  }
}

/** By the standby's own word: to the primary a base backup looks the same, as it streams, too. */
async function isReceiving(cluster: Pick<Cluster, 'postmaster' | 'sql'>, node: string): Promise<boolean> {
  if (cluster.postmaster(node) === null) return false;
  try {
    return (await cluster.sql(node, `select 1 from pg_stat_wal_receiver where status = 'streaming'`)).length > 0;
  } catch {
    // Not yet open for connections.
    return false;
  }
}

/** The primary of a whole cluster: the only writable node, the others stream from it, and `synchronous` of them count. Throws after `limitMs`. */
export async function waitWhole(cluster: Cluster, options: { readonly synchronous: number; readonly limitMs: number }): Promise<string> {
  let primary: string | null = null;
  let last = 'nothing answered';
  const whole = await waitUntil(
    async () => {
      const writable = await writableNodes(cluster);
      primary = writable.length === 1 ? (writable[0] ?? null) : null;
      if (primary === null) {
        last = `writable: ${writable.join(', ') || 'none'}`;
        return false;
      }
      const { nodes, synchronous } = await streamingFrom(cluster, primary);
      last = `${primary} is the primary of ${nodes.join(', ') || 'no standby'}, ${synchronous} of them synchronous`;
      return nodes.length === NODES.length - 1 && synchronous >= options.synchronous;
    },
    options.limitMs,
    200,
  );
  if (!whole || primary === null) throw new Error(`the cluster was not whole within ${options.limitMs} ms: ${last}`);
  return primary;
}

/** The login and the tables of the measuring clients, on the primary; nothing where they are there. */
export async function prepareMeasuring(cluster: Cluster, primary: string): Promise<void> {
  const { user, password, database }: Login = cluster.login;
  if ((await cluster.sql(primary, `select 1 from pg_database where datname = ${quote(database)}`)).length > 0) return;
  await cluster.sql(
    primary,
    `set log_min_error_statement = panic; set log_statement = none; create role ${user} login password ${quote(cheapVerifier(password))}`,
  );
  await cluster.sql(primary, `create database ${database} owner ${user}`);
  await cluster.sql(primary, [`set role ${user}`, ...RECORDER_SCHEMA].join('; '), database);
}
