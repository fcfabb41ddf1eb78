/** From agent.yaml to the parts that everything else needs; every failure here ends the start with a clear error. */
import { realpathSync } from 'node:fs';
import { mkdir } from 'node:fs/promises';
import { join, resolve } from 'node:path';
import { takeLock } from './guard/lock.ts';
import { readBootId } from './guard/guard-client.ts';
import { type Failure, type Result, err, ok } from '../core/result.ts';
import type { AgentConfig } from './config.ts';
import { type Instance, checkInstallation, findBinDirectory, findPublicSocketDirectory, socketDirectoryOf } from './postgres/instance.ts';
import { findUser } from './postgres/os-user.ts';
import { deriveSecret, readClusterSecret } from './secrets.ts';

export interface AgentSetup {
  readonly instance: Instance;
  /** server_version_num; null for a witness. */
  readonly postgresVersion: number | null;
  readonly bootId: string;
}

/** Errors: `agent.locked`, `agent.no-user`, `agent.no-secret`, and those of checkInstallation. */
export async function setUpAgent(config: AgentConfig): Promise<Result<AgentSetup, Failure>> {
  const stateDirectory = resolve(config.stateDirectory);
  await mkdir(stateDirectory, { recursive: true, mode: 0o711 });
  const bootId = readBootId();
  if (!takeLock(join(stateDirectory, 'agent.lock'), bootId)) return err(locked(stateDirectory));
  const secret = readClusterSecret(join(stateDirectory, 'cluster.secret'));
  if (!secret.ok) return secret;
  const os = process.getuid?.() === 0 ? findUser(config.osUser) : null;
  if (os === null && process.getuid?.() === 0 && config.kind === 'data') return err(noUser(config.osUser));
  const instance: Instance = {
    cluster: config.cluster,
    node: config.node,
    dataDirectory: canonical(config.dataDirectory),
    stateDirectory,
    binDirectory: config.binDirectory ?? findBinDirectory() ?? '/usr/lib/postgresql',
    port: config.port,
    host: config.host,
    internalHost: config.internalHost,
    os,
    socketDirectory: socketDirectoryOf(stateDirectory),
    publicSocketDirectory: findPublicSocketDirectory(os),
    secrets: { replication: deriveSecret(secret.value, 'replication'), probe: deriveSecret(secret.value, 'probe') },
    tls: config.store.cert === null || config.store.key === null ? null : { cert: config.store.cert, key: config.store.key, ca: config.store.ca },
  };
  if (config.kind === 'witness') return ok({ instance, postgresVersion: null, bootId });
  const installed = await checkInstallation(instance);
  return installed.ok ? ok({ instance, postgresVersion: installed.value.version, bootId }) : installed;
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

function locked(stateDirectory: string): Failure {
  return {
    code: 'agent.locked',
    what: `another agent works in ${stateDirectory}`,
    cause: 'its lock is held by a living process',
    now: 'this agent does not start',
    remedy: 'stop the other agent, or give this one a stateDirectory of its own',
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
