import { deriveSecret } from '../base/secret.ts';
/** From agent.yaml to the parts that everything else needs; every failure here ends the start with a clear error. */
import { readFileSync, realpathSync } from 'node:fs';
import { mkdir } from 'node:fs/promises';
import { dirname, join, resolve } from 'node:path';
import { finishRenewal } from './certificate/renew.ts';
import { takeLock } from './guard/lock.ts';
import { readBootId } from './guard/guard-client.ts';
import { type Failure, type Result, err, ok } from '../core/result.ts';
import type { AgentConfig } from '../core/agent-config.ts';
import { type Instance, checkInstallation, findBinDirectory, findPublicSocketDirectory, socketDirectoryOf } from './postgres/instance.ts';
import { findUser } from './postgres/os-user.ts';
import { readClusterSecret } from './secrets.ts';

export interface AgentSetup {
  readonly instance: Instance;
  /** server_version_num; null for a witness. */
  readonly postgresVersion: number | null;
  readonly bootId: string;
}

/** Errors: `agent.locked` (state or data directory), `agent.no-user`, `agent.no-secret`, `agent.certificate`, and those of checkInstallation. */
export async function setUpAgent(config: AgentConfig): Promise<Result<AgentSetup, Failure>> {
  const stateDirectory = resolve(config.stateDirectory);
  await mkdir(stateDirectory, { recursive: true, mode: 0o711 });
  const bootId = readBootId();
  if (!takeLock(join(stateDirectory, 'agent.lock'), bootId)) return err(locked(stateDirectory, 'stateDirectory'));
  await finishRenewal(stateDirectory);
  const certificates = checkCertificates(config);
  if (!certificates.ok) return certificates;
  const secret = readClusterSecret(join(stateDirectory, 'cluster.secret'));
  if (!secret.ok) return secret;
  const os = process.getuid?.() === 0 ? findUser(config.osUser) : null;
  if (os === null && process.getuid?.() === 0 && config.kind === 'data') return err(noUser(config.osUser));
  const instance: Instance = {
    cluster: config.cluster,
    node: config.node,
    dataDirectory: canonical(config.dataDirectory),
    stateDirectory,
    binDirectory: config.binDirectory ?? findBinDirectory(dataMajor(config.dataDirectory)) ?? '/usr/lib/postgresql',
    port: config.port,
    host: config.host,
    internalHost: config.internalHost,
    os,
    socketDirectory: socketDirectoryOf(stateDirectory),
    publicSocketDirectory: findPublicSocketDirectory(os),
    secrets: {
      replication: deriveSecret(secret.value, 'replication'),
      probe: deriveSecret(secret.value, 'probe'),
      proxy: deriveSecret(secret.value, 'proxy'),
    },
    tls: config.store.cert === null || config.store.key === null ? null : { cert: config.store.cert, key: config.store.key, ca: config.store.ca },
  };
  if (config.kind === 'witness') return ok({ instance, postgresVersion: null, bootId });
  const free = await lockDataDirectory(instance.dataDirectory, bootId);
  if (!free.ok) return free;
  const installed = await checkInstallation(instance);
  return installed.ok ? ok({ instance, postgresVersion: installed.value.version, bootId }) : installed;
}

/** Major version of an existing data directory, from PG_VERSION; null when there is none, or it cannot be read. */
function dataMajor(dataDirectory: string): number | null {
  try {
    const major = Number.parseInt(readFileSync(join(dataDirectory, 'PG_VERSION'), 'latin1'), 10);
    return Number.isInteger(major) ? major : null;
  } catch (cause) {
    // No data yet, or no right to look: the start of PostgreSQL says what is wrong.
    if (cause instanceof Error && 'code' in cause) return null;
    throw cause;
  }
}

/** Said by name at the start; a call that fails later would only say that the store does not answer. */
function checkCertificates({ store }: AgentConfig): Result<null, Failure> {
  for (const [name, file] of Object.entries({ ca: store.ca, cert: store.cert, key: store.key })) {
    if (file === null) continue;
    try {
      readFileSync(file);
    } catch (cause) {
      return err({
        code: 'agent.certificate',
        what: `cannot read ${file} (store.${name} in agent.yaml)`,
        cause: cause instanceof Error ? cause.message : String(cause),
        now: 'the agent does not start',
        remedy: 'correct the path, or join this host again: "pgherd token join" on the server’s side, then "pgherd agent join" here',
        retryable: false,
      });
    }
  }
  return ok(null);
}

/** Symbolic links resolved where the directory exists: processes are found by their working directory. */
function canonical(path: string): string {
  try {
    return realpathSync(path);
  } catch (cause) {
    if ((cause as NodeJS.ErrnoException).code === 'ENOENT') return resolve(path);
    throw cause;
  }
}

/**
 * Two agents with different state directories and one data directory would each start, stop and rewind it.
 * The lock lies beside the directory, which itself is replaced by a clone.
 */
async function lockDataDirectory(dataDirectory: string, bootId: string): Promise<Result<null, Failure>> {
  try {
    await mkdir(dirname(dataDirectory), { recursive: true });
    return takeLock(`${dataDirectory}.agent-lock`, bootId) ? ok(null) : err(locked(dataDirectory, 'dataDirectory'));
  } catch (cause) {
    // An agent without root may have no right to write beside its data directory; the lock of the state directory holds alone then.
    if (['EACCES', 'EPERM', 'EROFS'].includes((cause as NodeJS.ErrnoException).code ?? '')) return ok(null);
    throw cause;
  }
}

function locked(directory: string, setting: 'stateDirectory' | 'dataDirectory'): Failure {
  return {
    code: 'agent.locked',
    what: `another agent works in ${directory}`,
    cause: 'its lock is held by a living process',
    now: 'this agent does not start',
    remedy: `stop the other agent, or give this one a ${setting} of its own`,
    retryable: false,
  };
}

function noUser(name: string): Failure {
  return {
    code: 'agent.no-user',
    what: `there is no OS user "${name}" to run PostgreSQL as`,
    cause: 'it is not in /etc/passwd',
    now: 'the agent does not start',
    remedy: 'install the PostgreSQL server package, which makes the user postgres, or set osUser in agent.yaml',
    retryable: false,
  };
}
