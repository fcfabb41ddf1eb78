/** CLup: init.json (one cluster, or several by name) and, where there is one, clup.conf. Source: the CLup 1.x manual, "init.json" and "clup.conf". */
import { type Decoded, type Decoder, integer, list, nullable, number, object, text, withDefault } from '../decode.ts';
import type { Result } from '../result.ts';
import {
  type ImportError,
  type Imported,
  type ImportedNode,
  type Note,
  type SourceText,
  type SourceValue,
  decodeFailed,
  importError,
  nameFrom,
  withOwnIds,
} from './imported.ts';
import { parseKeyValues } from './key-values.ts';

/** A list in one sample of the manual, text with commas in the other. */
const addresses: Decoder<string> = (input, path) => (Array.isArray(input) ? { ok: true, value: input.map(String).join(', ') } : text(input, path));

const database = object({
  id: integer,
  state: withDefault(integer, 1),
  os_user: withDefault(nullable(text), null),
  pgdata: withDefault(nullable(text), null),
  is_primary: integer,
  repl_app_name: withDefault(nullable(text), null),
  host: text,
  switch_host: withDefault(nullable(text), null),
  port: withDefault(number({ integer: true, min: 1, max: 65_535 }), 5432),
});
type Database = Decoded<typeof database>;

const cluster = object({
  cluster_name: withDefault(nullable(text), null),
  write_vip: withDefault(nullable(text), null),
  read_vip: withDefault(nullable(text), null),
  cstlb_list: withDefault(nullable(addresses), null),
  db_list: list(database),
});

export interface ClupSource {
  readonly init: SourceValue;
  readonly conf: SourceText | null;
  /** Which cluster of a file that has several, and the name of one that has none; null: the only one. */
  readonly name: string | null;
}

export function importClup(source: ClupSource): Result<Imported, ImportError> {
  const chosen = chooseCluster(source);
  if (!chosen.ok) return chosen;
  const { name, path, value } = chosen.value;
  const decoded = cluster(value, path);
  if (!decoded.ok) return decodeFailed(source.init, decoded.error);
  const { db_list: databases, write_vip, read_vip, cstlb_list } = decoded.value;
  const below = path === '' ? 'db_list' : `${path}.db_list`;
  const wrong = checkDatabases(databases);
  if (wrong !== null) return importError(source.init, source.init.locate(wrong.index === null ? below : `${below}[${wrong.index}]`), wrong.message);
  const conf = source.conf === null ? null : notesOfConf(source.conf);
  if (conf !== null && !conf.ok) return conf;
  const vip = (address: string | null): { readonly address: string } | null =>
    address === null || address === '' ? null : { address: bare(address) };
  const vips = { write: vip(write_vip), read: vip(read_vip) };
  const notes: Note[] = databases.flatMap(notesOf);
  if (cstlb_list !== null && cstlb_list !== '')
    notes.push({ setting: 'cstlb_list', text: `its place is taken by "pgherd proxy": read port 5434 instead of cstlb on ${cstlb_list}` });
  return {
    ok: true,
    value: {
      manager: 'clup',
      name: nameFrom(name ?? decoded.value.cluster_name ?? '', 'clup'),
      settings: {
        // CLup's replication is as PostgreSQL is configured; nothing is made stricter by an import.
        durability: { mode: 'async' },
        ...(vips.write === null && vips.read === null ? {} : { vips }),
      },
      nodes: withOwnIds(databases.map(nodeOf)),
      notes: [...notes, ...(conf?.value ?? [])],
    },
  };
}

interface Chosen {
  readonly name: string | null;
  readonly path: string;
  readonly value: unknown;
}

function isRecord(value: unknown): value is Readonly<Record<string, unknown>> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

/** `{db_list: …}`, `{NAME: {db_list: …}, …}` or `[{cluster_name, db_list: …}, …]`. */
function chooseCluster({ init, name }: ClupSource): Result<Chosen, ImportError> {
  const { value } = init;
  if (isRecord(value) && 'db_list' in value) return { ok: true, value: { name, path: '', value } };
  const several: Chosen[] = Array.isArray(value)
    ? value.map((one, index) => ({
        name: isRecord(one) && typeof one['cluster_name'] === 'string' ? one['cluster_name'] : `${index + 1}`,
        path: `[${index}]`,
        value: one,
      }))
    : isRecord(value)
      ? Object.entries(value).flatMap(([key, one]) => (isRecord(one) && 'db_list' in one ? [{ name: key, path: key, value: one }] : []))
      : [];
  if (several.length === 0) return importError(init, 1, 'no init.json of CLup: there is no db_list');
  const [only] = several;
  if (name === null && several.length === 1 && only !== undefined) return { ok: true, value: only };
  const found = several.find((one) => one.name === name);
  const names = several.map((one) => one.name).join(', ');
  if (found === undefined) return importError(init, 1, `it holds the clusters ${names}: say with --name which one`);
  return { ok: true, value: found };
}

function checkDatabases(databases: readonly Database[]): { readonly index: number | null; readonly message: string } | null {
  if (databases.length === 0) return { index: null, message: 'db_list is empty' };
  const primaries = databases.flatMap((one, index) => (one.is_primary === 1 ? [index] : []));
  if (primaries.length !== 1) return { index: primaries[1] ?? null, message: `${primaries.length} nodes have is_primary 1; exactly one must` };
  const ids = new Set<number>();
  for (const [index, one] of databases.entries()) {
    if (ids.has(one.id)) return { index, message: `the id ${one.id} is used twice` };
    ids.add(one.id);
  }
  return null;
}

function nodeOf(one: Database): ImportedNode {
  return {
    id: nameFrom(one.repl_app_name ?? '', `n${one.id}`),
    host: one.host,
    port: one.port,
    priority: 100,
    location: null,
    kind: 'data',
    dataDirectory: one.pgdata,
    osUser: one.os_user,
    primary: one.is_primary === 1,
  };
}

function notesOf(one: Database): readonly Note[] {
  const notes: Note[] = [];
  if (one.state !== 1)
    notes.push({
      setting: `db_list id ${one.id}: state`,
      text: `CLup holds ${one.host} for faulty (${one.state}): repair it, or take it out of the file, before the adoption`,
    });
  if (one.switch_host !== null && one.switch_host !== '' && one.switch_host !== one.host)
    notes.push({
      setting: `db_list id ${one.id}: switch_host`,
      text: `${one.switch_host} stands in for ${one.host} in CLup; see which address is right`,
    });
  return notes;
}

/** 10.0.0.9/24 → 10.0.0.9: virtual addresses have no prefix route here. */
function bare(address: string): string {
  return address.replace(/\/\d+$/, '');
}

const CONF: Readonly<Record<string, string>> = {
  network: 'each node may have an internalHost in cluster.yaml, when replication has addresses of its own',
  probe_interval: 'probes are set by probeIntervalMs, and run far more often by default (0.5 s)',
  lock_ttl: 'there is no lock with a time limit: operations are tasks, and the write lease has a TTL of 3 s (leaseTtlMs)',
  probe_db_name: 'pgherd makes a heartbeat table of its own',
  db_repl_user: 'pgherd makes a replication role of its own, whose password only it knows',
  ha_db_user: 'pgherd makes roles of its own',
  probe_user: 'pgherd makes roles of its own',
  http_token: 'people and scripts get tokens by "pgherd user add" and "pgherd token"',
  cstlb_token: 'proxies join with a token of "pgherd token join"',
};

/** Values are never repeated: some of them are passwords. */
function notesOfConf(conf: SourceText): Result<readonly Note[], ImportError> {
  const parsed = parseKeyValues(conf);
  if (!parsed.ok) return parsed;
  return {
    ok: true,
    value: [...parsed.value.keys()].flatMap((setting) => (Object.hasOwn(CONF, setting) ? [{ setting, text: CONF[setting] ?? '' }] : [])),
  };
}
