/**
 * The files that pgherd manages in a data directory. People's own lines are kept: postgresql.conf gets one include line,
 * pg_hba.conf and pg_ident.conf get a block between markers. Regenerated after each clone and rewind (Q42).
 */
import { isIP } from 'node:net';
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { refuseParameter } from '../../core/managed-parameters.ts';
import type { NodeId } from '../../core/ids.ts';
import { type ClusterSpec, findNode } from '../../core/spec.ts';
import { type Failure, type Result, err, ok } from '../../core/result.ts';
import { quoteGuc } from './auto-conf.ts';
import { failure, messageOf } from './failure.ts';
import { ensureDirectory, isThere, readIfThere, writeAtomic } from './files.ts';
import { HEARTBEAT_DATABASE, type Instance, ROLES, internalHostOf } from './instance.ts';

/** What the managed files depend on besides the instance. */
export interface ManagedSettings {
  readonly parameters: Readonly<Record<string, string>>;
  /** Names of parameters that were asked for and that PostgreSQL refuses: the file only names them, since one wrong line keeps a server from starting. */
  readonly leftOut?: readonly string[];
  /** Complete pg_hba lines for clients. */
  readonly hba: readonly string[];
  /** Lines that were asked for and that PostgreSQL refuses: they stand there as comments, since one wrong line keeps a server from starting. */
  readonly hbaLeftOut?: readonly string[];
  /** Every member, this one too. */
  readonly members: readonly { readonly host: string; readonly internalHost: string | null }[];
  /** Bytes free on the WAL disk; null when unknown. */
  readonly freeBytes?: number | null;
  /** What a standby needs at least (MINIMUMS), from its pg_control; absent or empty for a primary, which may lower them. */
  readonly atLeast?: Readonly<Record<string, number>>;
  /** How much later than it was committed a standby replays what it has received; absent: at once. */
  readonly delayMs?: number;
}

/**
 * What holds where nobody sets them; a standby must not have these lower than its primary (Z37). Source: PostgreSQL manual 27.4.3 (the list), 20.3,
 * 20.4, 20.6 and 20.12 (the defaults).
 */
const MINIMUM_DEFAULTS: Readonly<Record<string, number>> = {
  max_connections: 100,
  max_worker_processes: 8,
  max_wal_senders: 10,
  max_prepared_transactions: 0,
  max_locks_per_transaction: 64,
};
export const MINIMUMS: readonly string[] = Object.keys(MINIMUM_DEFAULTS);

export function managedSettingsOf(spec: ClusterSpec, node: NodeId): ManagedSettings {
  const delayMs = findNode(spec, node)?.delayMs ?? 0;
  return { parameters: spec.postgres.parameters, hba: spec.postgres.hba, members: spec.nodes, delayMs };
}

export interface ManagedOutcome {
  /** Paths that were rewritten; empty: everything was in order. */
  readonly changed: readonly string[];
}

const BEGIN = '# BEGIN pgherd: this block is rewritten, lines outside of it are kept';
const END = '# END pgherd';
const INCLUDE = "include_if_exists = 'pgherd.conf'";

export function passfilePath(instance: Pick<Instance, 'socketDirectory'>): string {
  return join(instance.socketDirectory, 'replication.pgpass');
}

/**
 * Brings pgherd.conf, the include line, the pg_hba and pg_ident blocks, the passfile and the server's certificate in order.
 * Idempotent: nothing is written, and `changed` is empty, when all is as it should be. Does not reload.
 * Errors: `postgres.managed-files`, `postgres.bad-parameter` (a line break or a name that is none; Q43).
 */
export async function writeManagedFiles(instance: Instance, settings: ManagedSettings): Promise<Result<ManagedOutcome, Failure>> {
  const bad = findBadInput(settings);
  if (bad !== null)
    return err(
      failure(
        'postgres.bad-parameter',
        'the PostgreSQL settings of the cluster are refused',
        bad,
        'the files stay as they were',
        'correct the cluster settings',
        false,
      ),
    );
  const { dataDirectory } = instance;
  const changed: string[] = [];
  const put = async (path: string, content: string): Promise<void> => {
    if ((await readIfThere(path)) === content) return;
    await writeAtomic(path, content, { owner: instance.os });
    changed.push(path);
  };
  try {
    const tls = await prepareStateDirectory(instance, changed);
    const main = join(dataDirectory, 'postgresql.conf');
    const people = (await readIfThere(main)) ?? '';
    await put(join(dataDirectory, 'pgherd.conf'), renderConf(instance, settings, { people, tls }));
    if (!people.split('\n').some((line) => line.trim() === INCLUDE)) {
      await put(main, `${people.endsWith('\n') || people === '' ? people : `${people}\n`}\n# Added by pgherd; keep it the last line.\n${INCLUDE}\n`);
    }
    const hba = join(dataDirectory, 'pg_hba.conf');
    await put(hba, withBlock((await readIfThere(hba)) ?? '', renderHba(instance, settings, tls !== null)));
    const ident = join(dataDirectory, 'pg_ident.conf');
    await put(ident, withBlock((await readIfThere(ident)) ?? '', renderIdent(instance)));
    return ok({ changed });
  } catch (cause) {
    return err(
      failure(
        'postgres.managed-files',
        `cannot write the managed files of ${dataDirectory}`,
        messageOf(cause),
        'the files written so far are complete',
        'check the disk and the permissions',
        true,
      ),
    );
  }
}

/**
 * stateDirectory (passable), its private socket directory with passfile and certificates, and its log directory: all that PostgreSQL's
 * programs need to reach another member. Paths that were rewritten are added to `changed`. Throws errors of system calls.
 */
export async function prepareStateDirectory(instance: Instance, changed: string[] = []): Promise<TlsPaths | null> {
  await ensureDirectory(instance.stateDirectory, { owner: null, mode: 0o711 });
  await ensureDirectory(instance.socketDirectory, { owner: instance.os, mode: 0o700 });
  await ensureDirectory(join(instance.stateDirectory, 'log'), { owner: instance.os, mode: 0o750 });
  const passfile = `*:*:*:${ROLES.replication}:${escapePassfile(instance.secrets.replication)}\n`;
  if ((await readIfThere(passfilePath(instance))) !== passfile) {
    await writeAtomic(passfilePath(instance), passfile, { owner: instance.os });
    changed.push(passfilePath(instance));
  }
  return instance.tls === null ? null : copyTls(instance, changed);
}

function findBadInput(settings: ManagedSettings): string | null {
  for (const [name, value] of Object.entries(settings.parameters)) {
    if (!/^[a-z_][a-z0-9_]*(\.[a-z_][a-z0-9_]*)?$/i.test(name)) return `"${name}" is no parameter name`;
    if (/[\n\r\0]/.test(value)) return `the value of ${name} has a line break`;
    const refused = refuseParameter(name, value);
    if (refused !== null) return refused;
  }
  for (const line of settings.hba) if (/[\n\r\0]/.test(line)) return 'an hba line has a line break';
  return null;
}

function escapePassfile(secret: string): string {
  return secret.replaceAll('\\', '\\\\').replaceAll(':', '\\:');
}

export interface TlsPaths {
  readonly cert: string;
  readonly key: string;
  readonly ca: string | null;
}

/** PostgreSQL reads the key as its own OS user and refuses one that others can read, so it gets copies. */
async function copyTls(instance: Instance, changed: string[]): Promise<TlsPaths | null> {
  const { tls } = instance;
  if (tls === null || !(await isThere(tls.cert)) || !(await isThere(tls.key))) return null;
  const copy = async (from: string, name: string): Promise<string> => {
    const to = join(instance.socketDirectory, name);
    const content = await readFile(from, 'utf8');
    if ((await readIfThere(to)) !== content) {
      await writeAtomic(to, content, { owner: instance.os });
      changed.push(to);
    }
    return to;
  };
  return {
    cert: await copy(tls.cert, 'server.crt'),
    key: await copy(tls.key, 'server.key'),
    ca: tls.ca === null ? null : await copy(tls.ca, 'ca.crt'),
  };
}

/** Puts the block at the top (the first matching line of pg_hba.conf decides); replaces an older block. */
export function withBlock(text: string, lines: readonly string[]): string {
  const block = `${BEGIN}\n${lines.join('\n')}\n${END}\n`;
  const begin = text.indexOf('# BEGIN pgherd');
  const end = text.indexOf(END, begin);
  const rest = begin < 0 || end < 0 ? text : text.slice(0, begin) + text.slice(end + END.length).replace(/^\n/, '');
  return block + rest;
}

/** `10.0.0.1` → `10.0.0.1/32`; a host name stays one. */
function hbaAddress(host: string): string {
  const family = isIP(host);
  return family === 4 ? `${host}/32` : family === 6 ? `${host}/128` : host;
}

export function renderHba(_instance: Instance, settings: ManagedSettings, tls: boolean): readonly string[] {
  const addresses = new Set<string>(['samehost']);
  for (const member of settings.members) {
    addresses.add(hbaAddress(member.host));
    if (member.internalHost !== null) addresses.add(hbaAddress(member.internalHost));
  }
  const type = tls ? 'hostssl' : 'host';
  const lines = [
    `local all,replication ${ROLES.agent} peer map=pgherd`,
    `host all,replication ${ROLES.agent} all reject`,
    // People who are the database's OS user find the usual superuser, also when the agent runs as another user than `postgres`.
    'local all postgres peer map=pgherd',
  ];
  for (const address of addresses) {
    lines.push(`${type} replication ${ROLES.replication} ${address} scram-sha-256`);
    lines.push(`${type} postgres ${ROLES.replication} ${address} scram-sha-256`);
    lines.push(`${type} ${HEARTBEAT_DATABASE} ${ROLES.probe} ${address} scram-sha-256`);
  }
  // Proxies may stand anywhere; their password is random, and the role can only ask for login secrets.
  lines.push(
    `${type} ${HEARTBEAT_DATABASE} ${ROLES.proxy} all scram-sha-256`,
    `host all,replication ${ROLES.replication},${ROLES.probe},${ROLES.proxy} all reject`,
    `local all,replication ${ROLES.replication},${ROLES.probe},${ROLES.proxy} reject`,
  );
  const leftOut = (settings.hbaLeftOut ?? []).map((line) => `# left out, PostgreSQL refuses it: ${line.replace(/\s+/g, ' ')}`);
  return [...lines, ...settings.hba, ...leftOut];
}

function renderIdent(instance: Instance): readonly string[] {
  const own = instance.os?.name ?? process.env['USER'] ?? 'postgres';
  const users = [...new Set(['root', own, ...(instance.os === null ? [ownUserName()] : [])])];
  return [...users.map((user) => `pgherd ${user} ${ROLES.agent}`), ...users.map((user) => `pgherd ${user} postgres`)];
}

function ownUserName(): string {
  return process.env['LOGNAME'] ?? process.env['USER'] ?? 'postgres';
}

export function renderConf(instance: Instance, settings: ManagedSettings, { people, tls }: { people: string; tls: TlsPaths | null }): string {
  const own = activeSettings(people);
  const room = replicationRoom(settings.members.length);
  const atLeast = (name: string, minimum: number): string => String(Math.max(minimum, Number(own.get(name) ?? 0) || 0));
  const forced: Record<string, string> = {
    port: String(instance.port),
    unix_socket_directories: [instance.socketDirectory, ...(instance.publicSocketDirectory === null ? [] : [instance.publicSocketDirectory])].join(
      ', ',
    ),
    wal_level: own.get('wal_level') === 'logical' ? 'logical' : 'replica',
    hot_standby: 'on',
    wal_log_hints: 'on',
    max_wal_senders: atLeast('max_wal_senders', room),
    max_replication_slots: atLeast('max_replication_slots', room),
    // A crashed primary must not come back by itself: it could be writable in an old term (architecture §4.3).
    restart_after_crash: 'off',
    recovery_target_timeline: 'latest',
    recovery_min_apply_delay: `${settings.delayMs ?? 0}ms`,
    cluster_name: instance.node,
    password_encryption: 'scram-sha-256',
  };
  if (tls !== null) {
    Object.assign(forced, { ssl: 'on', ssl_cert_file: tls.cert, ssl_key_file: tls.key });
  }
  const usual: Record<string, string> = {
    listen_addresses: listenAddresses(instance),
    wal_keep_size: '64MB',
    max_slot_wal_keep_size: `${slotKeepMegabytes(settings.freeBytes ?? null)}MB`,
    // A standby looks again for its upstream this often; 5 s (the default) would add to every failover.
    wal_retrieve_retry_interval: '500ms',
    wal_receiver_timeout: '5s',
    wal_sender_timeout: '5s',
    wal_receiver_status_interval: '1s',
    tcp_keepalives_idle: '5',
    tcp_keepalives_interval: '2',
    tcp_keepalives_count: '3',
    tcp_user_timeout: '10s',
    logging_collector: 'on',
    log_destination: 'stderr',
    log_directory: join(instance.stateDirectory, 'log'),
    log_filename: 'postgresql-%a.log',
    log_rotation_age: '1d',
    log_truncate_on_rotation: 'on',
    log_line_prefix: '%m [%p] %q%u@%d %a ',
    log_checkpoints: 'on',
  };
  const parameters = new Map(Object.entries(settings.parameters).map(([name, value]) => [name.toLowerCase(), value]));
  const lines = [
    '# Written by pgherd; changes here are lost. Use `pgherd settings` for the cluster, or the lines above the include in postgresql.conf.',
  ];
  for (const [name, value] of Object.entries(usual)) if (!own.has(name) && !parameters.has(name)) lines.push(`${name} = ${quoteGuc(value)}`);
  for (const [name, value] of Object.entries(forced)) {
    const wish = parameters.get(name);
    const isMinimum = name === 'max_wal_senders' || name === 'max_replication_slots';
    lines.push(`${name} = ${quoteGuc(wish === undefined ? value : isMinimum ? String(Math.max(Number(wish) || 0, Number(value))) : wish)}`);
  }
  for (const [name, value] of parameters) if (!(name in forced)) lines.push(`${name} = ${quoteGuc(value)}`);
  for (const name of settings.leftOut ?? []) lines.push(`# ${name} is left out: PostgreSQL refuses it.`);
  lines.push(...renderMinimums(settings.atLeast ?? {}, activeSettings(`${people}\n${lines.join('\n')}`)));
  return `${lines.join('\n')}\n`;
}

/**
 * Invariant: a standby is never started, and never waits for a restart, with less than its primary had when it wrote the WAL that is replayed here.
 * Because: PostgreSQL refuses to start such a standby, or stops its replay; pg_control follows the primary's values as they are replayed, so that the
 * lower value is taken over once the primary runs with it. Broken if: a value is lowered on a standby before its primary.
 */
function renderMinimums(atLeast: Readonly<Record<string, number>>, present: ReadonlyMap<string, string>): readonly string[] {
  return MINIMUMS.flatMap((name) => {
    const needed = atLeast[name];
    const wanted = Number(present.get(name) ?? MINIMUM_DEFAULTS[name]);
    return needed === undefined || !(wanted < needed)
      ? []
      : [`# The primary had this; it is lowered there first.\n${name} = ${quoteGuc(String(needed))}`];
  });
}

/**
 * Walsenders and slots: two for each node and ten more, in steps of 32. It must not change with each node that comes or goes: a change waits for a
 * restart, and a primary that restarts with more walsenders than a standby has stops that standby's replay (Z37, H48).
 */
export function replicationRoom(nodes: number): number {
  return 32 * Math.ceil((10 + 2 * Math.max(nodes, 1)) / 32);
}

/** A node that is known by loopback addresses listens on them only; others on every address, since virtual addresses come and go. */
function listenAddresses(instance: Instance): string {
  const own = [...new Set([instance.host, internalHostOf(instance)])];
  return own.every((host) => host.startsWith('127.') || host === '::1' || host === 'localhost') ? own.join(', ') : '*';
}

/** Half of the free space, at most 64 GB, at least 1 GB: a lost standby must not fill the primary's disk (H24, I15). */
function slotKeepMegabytes(freeBytes: number | null): number {
  if (freeBytes === null) return 16_384;
  return Math.min(65_536, Math.max(1024, Math.floor(freeBytes / 2 / 1_048_576)));
}

/** Settings that are active in people's own file, lower case names; includes are not followed. */
export function activeSettings(text: string): ReadonlyMap<string, string> {
  const found = new Map<string, string>();
  for (const line of text.split('\n')) {
    const match = /^\s*([A-Za-z_][\w.]*)\s*(?:=|\s)\s*(?:'((?:[^']|'')*)'|([^\s#]+))/.exec(line);
    if (match?.[1] !== undefined && !/^include/i.test(match[1])) found.set(match[1].toLowerCase(), match[2] ?? match[3] ?? '');
  }
  return found;
}
