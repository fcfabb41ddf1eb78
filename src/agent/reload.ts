/** SIGHUP, and a renewed certificate: what a running agent takes over without a restart, and without a word to PostgreSQL's sessions. */
import type { Logger } from '../base/log.ts';
import { type TlsFilePaths, loadTls } from '../base/tls.ts';
import type { AgentConfig } from '../core/agent-config.ts';
import { describeFailure } from '../core/result.ts';
import type { Instance } from './postgres/instance.ts';
import { prepareStateDirectory } from './postgres/managed-files.ts';
import { findPostmaster } from './postgres/postmaster.ts';

/** What takes effect at once; every other setting is read at the start only, since leases, locks and processes hang on it. */
const RELOADED: ReadonlySet<string> = new Set(['log'] satisfies (keyof AgentConfig)[]);

/** Settings of `changed` that need a restart of the agent, in the file's order; empty when there are none. */
export function settingsForRestart(present: AgentConfig, changed: AgentConfig): readonly string[] {
  const names = Object.keys(present) as (keyof AgentConfig)[];
  return names.filter((name) => !RELOADED.has(name) && JSON.stringify(present[name]) !== JSON.stringify(changed[name]));
}

export interface TlsUsers {
  readonly files: TlsFilePaths | null;
  readonly http: { reloadTls(): void };
  readonly client: { reloadTls(): void } | null;
  /** Null for a witness. */
  readonly instance: Instance | null;
}

/**
 * Whoever shows the agent's certificate reads it again: the HTTP side, the calls to other members, PostgreSQL. Open connections stay. The store's
 * client does so by itself when it is refused. Throws, with everything as it was, when the files are not usable.
 */
export async function reloadTls({ files, http, client, instance }: TlsUsers): Promise<void> {
  if (files === null) return;
  const loaded = loadTls(files);
  if (!loaded.ok) throw new Error(describeFailure(loaded.error));
  http.reloadTls();
  client?.reloadTls();
  if (instance !== null) await reloadPostgresTls(instance);
}

/**
 * PostgreSQL has copies of the files, outside of its data directory, so that this may run beside every action of the loop. SIGHUP lets it read them
 * again: sessions and replication go on. *Source:* PostgreSQL manual, "Secure TCP/IP Connections with SSL" (files are read at start and at every reload).
 */
async function reloadPostgresTls(instance: Instance): Promise<void> {
  const changed: string[] = [];
  await prepareStateDirectory(instance, changed);
  const postmaster = changed.length === 0 ? null : findPostmaster(instance.dataDirectory);
  if (postmaster !== null) process.kill(postmaster.pid, 'SIGHUP');
}

/** Log level and certificates now; the rest is named. Throws when the certificates are not usable; the log level is changed all the same. */
export async function reloadAgent(options: {
  readonly present: AgentConfig;
  readonly changed: AgentConfig;
  readonly log: Logger;
  readonly reloadTls: () => Promise<void>;
}): Promise<void> {
  const { present, changed, log } = options;
  // What a person must know of this reload is said whatever the old and the new level are.
  log.setLevel('info');
  const waiting = settingsForRestart(present, changed);
  if (waiting.length > 0)
    log.warn(
      { settings: waiting },
      `these settings take effect at the next start of the agent: ${waiting.join(', ')} (restart it within the lease; PostgreSQL goes on)`,
    );
  log.setLevel(changed.log.level);
  await options.reloadTls();
}
