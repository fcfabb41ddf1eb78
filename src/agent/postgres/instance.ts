/** One PostgreSQL instance as its agent knows it, and the checks of the installation. */
import { accessSync, constants, existsSync, readdirSync, statSync } from 'node:fs';
import { join } from 'node:path';
import type { ClusterId, NodeId } from '../../core/ids.ts';
import { refusePostgres } from '../../core/postgres-versions.ts';
import { type Failure, type Result, err, ok } from '../../core/result.ts';
import { type ProcessOptions, PLAIN_ENV, runProcess } from '../../base/process.ts';
import { failure } from './failure.ts';

export interface Instance {
  readonly cluster: ClusterId;
  readonly node: NodeId;
  readonly dataDirectory: string;
  /** pgherd's own files of this node. Everything here but `socketDirectory`, `log` and what PostgreSQL must read belongs to the agent's user. */
  readonly stateDirectory: string;
  readonly binDirectory: string;
  readonly port: number;
  /** Client address. */
  readonly host: string;
  /** Replication, probes and agents; null: `host`. */
  readonly internalHost: string | null;
  /** The OS user that PostgreSQL runs as; null: the user of the agent itself. */
  readonly os: OsUser | null;
  /** Private sockets: only the database's OS user and root reach it. */
  readonly socketDirectory: string;
  /** A second directory, where people's programs look for the socket; null: none. */
  readonly publicSocketDirectory: string | null;
  /** Derived passwords of the network roles. Never logged. */
  readonly secrets: { readonly replication: string; readonly probe: string; readonly proxy: string };
  /** Certificate files for the client port; null: PostgreSQL's own configuration decides. */
  readonly tls: { readonly cert: string; readonly key: string; readonly ca: string | null } | null;
}

export interface OsUser {
  readonly uid: number;
  readonly gid: number;
  readonly name: string;
}

/** Names of the database roles. */
export const ROLES = { agent: 'pgherd', replication: 'pgherd_replicator', probe: 'pgherd_probe', proxy: 'pgherd_proxy' } as const;
/** The database of the heartbeat table. */
export const HEARTBEAT_DATABASE = 'pgherd';

/** A UNIX socket path is at most 107 bytes with its end; `.s.PGSQL.65535.lock` needs 20. Source: unix(7), PostgreSQL pqcomm.h. */
const SOCKET_PATH_LIMIT = 85;

export function socketDirectoryOf(stateDirectory: string): string {
  return join(stateDirectory, 'run');
}

export function internalHostOf(instance: Pick<Instance, 'host' | 'internalHost'>): string {
  return instance.internalHost ?? instance.host;
}

export function binary(instance: Pick<Instance, 'binDirectory'>, name: string): string {
  return join(instance.binDirectory, name);
}

/** uid and gid for children of this instance; empty when they run as ourselves. */
export function asOsUser(instance: Pick<Instance, 'os'>): Pick<ProcessOptions, 'uid' | 'gid'> {
  return instance.os === null ? {} : { uid: instance.os.uid, gid: instance.os.gid };
}

/**
 * `/usr/lib/postgresql/N/bin` with a `postgres` for the data directory's own major version; else the newest that is supported; else the newest; else the
 * first of the usual places; null when there is none. `dataMajor`: null when there is no data yet.
 * Source: Debian's and PGDG's packages (/usr/lib/postgresql/N/bin, /usr/pgsql-N/bin).
 */
export function findBinDirectory(dataMajor: number | null = null): string | null {
  const found: { readonly version: number; readonly path: string }[] = [];
  for (const { base, name, sub } of [
    { base: '/usr/lib/postgresql', name: /^(\d+)$/, sub: 'bin' },
    { base: '/usr', name: /^pgsql-(\d+)$/, sub: 'bin' },
  ]) {
    if (!existsSync(base)) continue;
    for (const entry of readdirSync(base)) {
      const match = name.exec(entry);
      const path = join(base, entry, sub);
      if (match?.[1] !== undefined && existsSync(join(path, 'postgres'))) found.push({ version: Number(match[1]), path });
    }
  }
  found.sort((a, b) => b.version - a.version);
  const fitting = found.find((one) => one.version === dataMajor) ?? found.find((one) => refusePostgres(one.version) === null) ?? found[0];
  return fitting?.path ?? ['/usr/local/pgsql/bin', '/usr/local/bin', '/usr/bin'].find((path) => existsSync(join(path, 'postgres'))) ?? null;
}

/** The distribution's socket directory when the database's OS user may write there; null otherwise. */
export function findPublicSocketDirectory(os: OsUser | null): string | null {
  for (const path of ['/var/run/postgresql', '/run/postgresql']) {
    const stat = statSync(path, { throwIfNoEntry: false });
    if (stat === undefined || !stat.isDirectory()) continue;
    if (os === null) {
      if (isWritable(path)) return path;
    } else if (
      (stat.uid === os.uid && (stat.mode & 0o200) !== 0) ||
      (stat.gid === os.gid && (stat.mode & 0o020) !== 0) ||
      (stat.mode & 0o002) !== 0
    ) {
      return path;
    }
  }
  return null;
}

function isWritable(path: string): boolean {
  try {
    accessSync(path, constants.W_OK | constants.X_OK);
    return true;
  } catch {
    // access(2) has no other way to say no.
    return false;
  }
}

export interface Installation {
  /** Like server_version_num: 150018. */
  readonly version: number;
  /** Programs that only some operations need and that are missing. */
  readonly missing: readonly string[];
}

const REQUIRED = ['postgres', 'initdb'] as const;
const OPTIONAL = ['pg_basebackup', 'pg_rewind', 'pg_waldump'] as const;

/**
 * Version and completeness of the installation.
 * Errors: `postgres.not-installed`, `postgres.version` (supported: 13 to 18), `postgres.as-root`, `postgres.socket-path`.
 */
export async function checkInstallation(instance: Instance): Promise<Result<Installation, Failure>> {
  if (instance.os === null && process.getuid?.() === 0) {
    return err(
      failure(
        'postgres.as-root',
        'PostgreSQL cannot run as root',
        'the agent runs as root and no OS user is configured',
        'nothing was started',
        'set osUser in agent.yaml (usually postgres)',
        false,
      ),
    );
  }
  if (Buffer.byteLength(instance.socketDirectory) > SOCKET_PATH_LIMIT) {
    return err(
      failure(
        'postgres.socket-path',
        `${instance.socketDirectory} is too long for a socket`,
        `${Buffer.byteLength(instance.socketDirectory)} bytes, at most ${SOCKET_PATH_LIMIT} are possible`,
        'nothing was started',
        'choose a shorter stateDirectory in agent.yaml',
        false,
      ),
    );
  }
  const lacking = REQUIRED.filter((name) => !existsSync(binary(instance, name)));
  if (lacking.length > 0) {
    return err(
      failure(
        'postgres.not-installed',
        `PostgreSQL is not complete in ${instance.binDirectory}`,
        `missing: ${lacking.join(', ')}`,
        'nothing was started',
        'install the PostgreSQL server package or set binDirectory in agent.yaml',
        false,
      ),
    );
  }
  const answer = await runProcess([binary(instance, 'postgres'), '--version'], { ...asOsUser(instance), timeoutMs: 5000, env: PLAIN_ENV });
  const version = answer.ok ? parseVersion(answer.value.stdout) : null;
  if (version === null) {
    const cause = answer.ok ? `unexpected answer "${answer.value.stdout.trim()}"` : answer.error.message;
    return err(
      failure(
        'postgres.not-installed',
        `${binary(instance, 'postgres')} --version failed`,
        cause,
        'nothing was started',
        'check the PostgreSQL installation',
        true,
      ),
    );
  }
  const major = Math.floor(version / 10_000);
  const refused = refusePostgres(major);
  if (refused !== null)
    return err(failure('postgres.version', `PostgreSQL ${major} is not supported`, refused.cause, 'nothing was started', refused.remedy, false));
  return ok({ version, missing: OPTIONAL.filter((name) => !existsSync(binary(instance, name))) });
}

/** `postgres (PostgreSQL) 15.18 (Debian …)` → 150018; `18beta1` → 180000; null when there is no version in it. */
export function parseVersion(text: string): number | null {
  const match = /\(PostgreSQL\) (\d+)(?:\.(\d+))?/.exec(text);
  return match === null ? null : Number(match[1]) * 10_000 + Number(match[2] ?? 0);
}
