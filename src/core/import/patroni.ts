/**
 * Patroni: patroni.yml of each node, and, where they were saved, `patronictl show-config` and `patronictl list -f json`. What the cluster's own
 * configuration (show-config) says counts more than the bootstrap section of a file, which Patroni reads once only.
 * Source: Patroni documentation, "YAML Configuration Settings", "Dynamic Configuration Settings".
 */
import { type Decoded, type Decoder, bool, integer, list, nullable, number, object, record, text, withDefault } from '../decode.ts';
import type { Result } from '../result.ts';
import {
  type ImportError,
  type Imported,
  type ImportedNode,
  type ImportedSettings,
  type Note,
  type SourceValue,
  decodeFailed,
  fittingDurability,
  importError,
  nameFrom,
  takeParameters,
  withOwnIds,
} from './imported.ts';

const anything: Decoder<unknown> = (input) => ({ ok: true, value: input });
const optional = <T>(inner: Decoder<T>): Decoder<T | null> => withDefault(nullable(inner), null);
/** `true`, `false`, and the words that Patroni takes for them; `quorum` of synchronous_mode. */
const flag: Decoder<string> = (input, path) =>
  typeof input === 'boolean' || typeof input === 'string'
    ? { ok: true, value: String(input).toLowerCase() }
    : { ok: false, error: { path, message: `expected true or false, found ${typeof input}` } };

const dynamic = object({
  ttl: optional(number({ min: 1 })),
  maximum_lag_on_failover: optional(number({ integer: true, min: 0 })),
  synchronous_mode: optional(flag),
  synchronous_mode_strict: optional(bool),
  synchronous_node_count: optional(integer),
  standby_cluster: optional(anything),
  slots: optional(anything),
  failsafe_mode: optional(bool),
  postgresql: optional(object({ parameters: optional(record(anything)), pg_hba: optional(list(text)), use_slots: optional(bool) })),
});
type Dynamic = Decoded<typeof dynamic>;

const tags = object({
  nofailover: optional(bool),
  failover_priority: optional(integer),
  nosync: optional(bool),
  replicatefrom: optional(text),
  noloadbalance: optional(bool),
});

const local = object({
  scope: text,
  name: text,
  postgresql: object({
    connect_address: text,
    data_dir: optional(text),
    parameters: optional(record(anything)),
    pg_hba: optional(list(text)),
  }),
  bootstrap: optional(object({ dcs: optional(dynamic) })),
  tags: optional(tags),
  watchdog: optional(anything),
});
type Local = Decoded<typeof local>;

/** One row of `patronictl list -f json`. */
const listed = list(object({ Cluster: optional(text), Member: text, Host: text, Role: text, Tags: optional(tags) }));

interface Read {
  locals: { readonly source: SourceValue; readonly conf: Local }[];
  shown: Dynamic | null;
  nodes: Map<string, ImportedNode>;
  cluster: string | null;
}

export function importPatroni(sources: readonly SourceValue[], name: string | null): Result<Imported, ImportError> {
  const read: Read = { locals: [], shown: null, nodes: new Map(), cluster: null };
  for (const source of sources) {
    const done = readOne(source, read);
    if (!done.ok) return done;
  }
  const [first] = sources;
  if (read.nodes.size === 0)
    return importError(first ?? { file: '' }, 0, 'no node was found: give a patroni.yml, or the saved output of "patronictl list -f json", too');
  const bootstrap = read.locals.find(({ conf }) => conf.bootstrap?.dcs != null)?.conf.bootstrap?.dcs ?? null;
  const shared = read.shown ?? bootstrap;
  if (shared?.standby_cluster != null)
    return importError(first ?? { file: '' }, 0, 'standby_cluster: a cluster that follows another one cannot be taken over; promote it first');
  const notes: Note[] = [];
  if (read.shown === null)
    notes.push({ setting: 'bootstrap.dcs', text: 'Patroni reads it once, at the creation: save "patronictl show-config" and give that file, too' });
  if (read.nodes.size === 1)
    notes.push({
      setting: 'name',
      text: 'only one node is known: give the patroni.yml of every node, or the saved output of "patronictl list -f json", too',
    });
  const nodes = withOwnIds([...read.nodes.values()]);
  const settings = fittingDurability(settingsOf(read, shared, notes), nodes, notes);
  const scope = name ?? read.locals[0]?.conf.scope ?? read.cluster ?? '';
  return {
    ok: true,
    value: {
      manager: 'patroni',
      name: nameFrom(scope, 'patroni'),
      settings,
      nodes,
      notes: [...notes, ...notesOf(read, shared)],
    },
  };
}

function readOne(source: SourceValue, read: Read): Result<null, ImportError> {
  const { value } = source;
  if (Array.isArray(value)) return readList(source, read);
  const isLocal = typeof value === 'object' && value !== null && ('scope' in value || 'name' in value || 'restapi' in value);
  if (!isLocal) {
    const known =
      typeof value === 'object' && value !== null && ['ttl', 'loop_wait', 'postgresql', 'maximum_lag_on_failover'].some((key) => key in value);
    if (!known) return importError(source, 1, 'neither a patroni.yml, nor the output of "patronictl show-config" or "patronictl list -f json"');
    const shown = dynamic(value, '');
    if (!shown.ok) return decodeFailed(source, shown.error);
    read.shown = shown.value;
    return { ok: true, value: null };
  }
  const conf = local(value, '');
  if (!conf.ok) return decodeFailed(source, conf.error);
  const other = read.locals.find((one) => one.conf.scope !== conf.value.scope);
  if (other !== undefined)
    return importError(
      source,
      source.locate('scope'),
      `scope "${conf.value.scope}" is another cluster than "${other.conf.scope}" of ${other.source.file}`,
    );
  const place = addressOf(conf.value.postgresql.connect_address);
  if (place === null)
    return importError(
      source,
      source.locate('postgresql.connect_address'),
      `postgresql.connect_address: expected HOST:PORT, found "${conf.value.postgresql.connect_address}"`,
    );
  read.locals.push({ source, conf: conf.value });
  const known = read.nodes.get(conf.value.name);
  read.nodes.set(conf.value.name, {
    id: nameFrom(conf.value.name, `n${read.nodes.size + 1}`),
    ...place,
    priority: priorityOf(conf.value.tags),
    location: null,
    kind: 'data',
    dataDirectory: conf.value.postgresql.data_dir,
    osUser: null,
    primary: known?.primary ?? false,
  });
  return { ok: true, value: null };
}

function readList(source: SourceValue, read: Read): Result<null, ImportError> {
  const rows = listed(source.value, '');
  if (!rows.ok) return decodeFailed(source, rows.error);
  for (const [index, row] of rows.value.entries()) {
    const place = addressOf(row.Host);
    if (place === null)
      return importError(source, source.locate(`[${index}].Host`), `[${index}].Host: expected HOST or HOST:PORT, found "${row.Host}"`);
    read.cluster ??= row.Cluster;
    const known = read.nodes.get(row.Member);
    const primary = /^(leader|primary)$/i.test(row.Role);
    read.nodes.set(
      row.Member,
      known === undefined
        ? {
            id: nameFrom(row.Member, `n${index + 1}`),
            ...place,
            priority: priorityOf(row.Tags),
            location: null,
            kind: 'data',
            dataDirectory: null,
            osUser: null,
            primary,
          }
        : { ...known, primary },
    );
  }
  return { ok: true, value: null };
}

/** `10.0.0.1:5432`, `[::1]:5432`, or a host alone. */
function addressOf(address: string): { readonly host: string; readonly port: number } | null {
  const match = /^(?:\[([0-9a-fA-F:.]+)\]|([^\s:[\]]+))(?::(\d{1,5}))?$/.exec(address.trim());
  const host = match?.[1] ?? match?.[2];
  const port = Number(match?.[3] ?? 5432);
  return host === undefined || port < 1 || port > 65_535 ? null : { host, port };
}

function priorityOf(of: Decoded<typeof tags> | null): number {
  if (of?.nofailover === true || of?.failover_priority === 0) return 0;
  return Math.min(1000, Math.max(1, of?.failover_priority == null ? 100 : of.failover_priority * 100));
}

function settingsOf(read: Read, shared: Dynamic | null, notes: Note[]): ImportedSettings {
  const parameters = takeParameters({ ...read.locals[0]?.conf.postgresql.parameters, ...shared?.postgresql?.parameters });
  notes.push(...parameters.notes);
  const lines = shared?.postgresql?.pg_hba ?? read.locals[0]?.conf.postgresql.pg_hba ?? [];
  const hba = lines.filter((line) => !/^\S+\s+replication\s/.test(line.trim()) && line.trim() !== '' && !line.trim().startsWith('#'));
  if (hba.length < lines.length)
    notes.push({ setting: 'pg_hba', text: 'lines for replication are left out: pgherd writes its own, for its own role' });
  const max = shared?.maximum_lag_on_failover ?? null;
  return {
    ...(max === null ? {} : { maxLagOnFailoverBytes: max }),
    durability: durabilityFrom(shared),
    ...(Object.keys(parameters.taken).length === 0 && hba.length === 0
      ? {}
      : {
          postgres: { ...(Object.keys(parameters.taken).length === 0 ? {} : { parameters: parameters.taken }), ...(hba.length === 0 ? {} : { hba }) },
        }),
  };
}

function durabilityFrom(shared: Dynamic | null): NonNullable<ImportedSettings['durability']> {
  const mode = shared?.synchronous_mode ?? 'off';
  const k = Math.min(8, Math.max(1, shared?.synchronous_node_count ?? 1));
  const strict = shared?.synchronous_mode_strict === true ? { strict: true } : {};
  if (mode === 'quorum') return { mode: 'quorum', k, ...strict };
  return mode === 'true' || mode === 'on' ? { mode: 'sync', k, ...strict } : { mode: 'async' };
}

function notesOf(read: Read, shared: Dynamic | null): readonly Note[] {
  const notes: Note[] = [];
  const add = (setting: string, text: string): void => void notes.push({ setting, text });
  if (shared?.ttl != null) add('ttl', `pgherd's write lease lasts 3 s (leaseTtlMs) instead of ${shared.ttl} s: a lost host costs less time`);
  if (shared?.slots != null) add('slots', 'permanent slots are kept as they are on the present primary; they are not moved to the next one');
  if (shared?.failsafe_mode === true)
    add('failsafe_mode', 'when the store is lost a primary goes on while enough members promise to vote for no other');
  for (const { conf } of read.locals) {
    if (conf.tags?.nosync === true) add(`${conf.name}: tags.nosync`, 'no counterpart: a standby that may be promoted may be synchronous');
    if (conf.tags?.replicatefrom != null) add(`${conf.name}: tags.replicatefrom`, 'standbys stream from the primary; cascading is not taken over');
    if (conf.tags?.noloadbalance === true) add(`${conf.name}: tags.noloadbalance`, 'set the weight of the node to 0 in proxy.yaml');
    if (conf.watchdog != null) add(`${conf.name}: watchdog`, 'the guard and the firewall fence; the kernel watchdog is not used yet');
  }
  return notes;
}
