/**
 * repmgr, and managers that are built on it: one repmgr.conf for each node, and the saved output of `repmgr cluster show`, which knows every node.
 * Source: repmgr 5 documentation, "Configuration file settings", "repmgr cluster show".
 */
import type { Result } from '../result.ts';
import {
  type ImportError,
  type Imported,
  type ImportedNode,
  type ImportedSettings,
  type Note,
  type SourceText,
  fittingDurability,
  importError,
  nameFrom,
  withOwnIds,
} from './imported.ts';
import { type Entry, parseConnection, parseKeyValues } from './key-values.ts';

type Conf = ReadonlyMap<string, Entry>;

interface Partial {
  readonly nodeId: string;
  readonly node: ImportedNode;
}

/** Nodes of several files are one by their id; what repmgr.conf says counts more than the table, which alone knows roles. */
export function importRepmgr(sources: readonly SourceText[], name: string | null): Result<Imported, ImportError> {
  const byId = new Map<string, ImportedNode>();
  const confs: Conf[] = [];
  for (const source of sources) {
    const read = isShowTable(source.text) ? readTable(source) : readConf(source, confs);
    if (!read.ok) return read;
    for (const { nodeId, node } of read.value) byId.set(nodeId, mergeNodes(byId.get(nodeId) ?? null, node));
  }
  const [first] = sources;
  if (byId.size === 0) return importError(first ?? { file: '' }, 0, 'no node was found in it');
  const nodes = withOwnIds([...byId.entries()].sort(([a], [b]) => Number(a) - Number(b)).map(([, node]) => node));
  const notes: Note[] = [];
  if (nodes.length === 1)
    notes.push({
      setting: 'node_id',
      text: 'only one node is known: give the repmgr.conf of every node, or the saved output of "repmgr cluster show", too',
    });
  if (!nodes.some((node) => node.primary))
    notes.push({ setting: 'role', text: 'these files do not say who the primary is; the adoption looks for itself' });
  const settings = fittingDurability(settingsOf(confs[0] ?? new Map(), notes), nodes, notes);
  return {
    ok: true,
    value: {
      manager: 'repmgr',
      name: nameFrom(name ?? confs[0]?.get('cluster')?.value ?? '', 'repmgr'),
      settings,
      nodes,
      notes: [...notes, ...notesOf(confs)],
    },
  };
}

function mergeNodes(known: ImportedNode | null, node: ImportedNode): ImportedNode {
  if (known === null) return node;
  const [conf, table] = node.dataDirectory === null ? [known, node] : [node, known];
  return {
    ...conf,
    primary: known.primary || node.primary,
    kind: table.kind === 'witness' ? 'witness' : conf.kind,
    location: conf.location ?? table.location,
  };
}

const isShowTable = (text: string): boolean => /^\s*ID\s*\|\s*Name\s*\|\s*Role\s*\|/m.test(text);

function readConf(source: SourceText, confs: Conf[]): Result<readonly Partial[], ImportError> {
  const parsed = parseKeyValues(source);
  if (!parsed.ok) return parsed;
  const conf = parsed.value;
  for (const needed of ['node_id', 'node_name', 'conninfo'])
    if (!conf.has(needed)) return importError(source, 0, `no repmgr.conf: ${needed} is missing`);
  const nodeId = conf.get('node_id');
  if (nodeId === undefined || !/^[1-9]\d*$/.test(nodeId.value))
    return importError(source, nodeId?.line ?? 0, `node_id: expected a number from 1 on, found "${nodeId?.value}"`);
  const conninfo = conf.get('conninfo');
  const place = placeOf(source, conninfo?.value ?? '', conninfo?.line ?? 0);
  if (!place.ok) return place;
  const priority = conf.get('priority');
  const rank = priority === undefined ? 100 : Number(priority.value);
  if (!Number.isInteger(rank) || rank < 0)
    return importError(source, priority?.line ?? 0, `priority: expected a whole number from 0 on, found "${priority?.value}"`);
  confs.push(conf);
  const node: ImportedNode = {
    id: nameFrom(conf.get('node_name')?.value ?? '', `n${nodeId.value}`),
    ...place.value,
    priority: Math.min(rank, 1000),
    location: conf.get('location')?.value ?? null,
    kind: 'data',
    dataDirectory: conf.get('data_directory')?.value ?? null,
    osUser: null,
    primary: false,
  };
  return { ok: true, value: [{ nodeId: nodeId.value, node }] };
}

function placeOf(source: SourceText, conninfo: string, line: number): Result<{ readonly host: string; readonly port: number }, ImportError> {
  const words = parseConnection(conninfo);
  const host = words?.get('hostaddr') ?? words?.get('host');
  if (words === null || host === undefined || host === '' || host.startsWith('/'))
    return importError(source, line, 'conninfo: expected "host=NAME …", as the other nodes reach this one');
  const port = Number(words.get('port') ?? 5432);
  if (!Number.isInteger(port) || port < 1 || port > 65_535) return importError(source, line, `conninfo: "${words.get('port')}" is no port`);
  return { ok: true, value: { host, port } };
}

/** Columns by their head, since newer versions have more of them. */
function readTable(source: SourceText): Result<readonly Partial[], ImportError> {
  const lines = source.text.split(/\r?\n/);
  const at = lines.findIndex((line) => isShowTable(line));
  const heads = (lines[at] ?? '').split('|').map((head) => head.trim().toLowerCase());
  const found: Partial[] = [];
  for (const [index, line] of lines.entries()) {
    if (index <= at || !line.includes('|')) continue;
    const cells = line.split('|').map((cell) => cell.trim());
    const cell = (head: string): string => cells[heads.indexOf(head)] ?? '';
    const nodeId = cell('id');
    if (!/^[1-9]\d*$/.test(nodeId)) return importError(source, index + 1, `expected the number of a node in the column ID, found "${nodeId}"`);
    // The connection string is the last column, and may hold anything but a bar.
    const place = placeOf(source, cell('connection string'), index + 1);
    if (!place.ok) return place;
    const priority = Number(cell('priority'));
    const node: ImportedNode = {
      id: nameFrom(cell('name'), `n${nodeId}`),
      ...place.value,
      priority: Number.isInteger(priority) && cell('priority') !== '' ? Math.min(Math.max(priority, 0), 1000) : 100,
      location: cell('location') === '' ? null : cell('location'),
      kind: cell('role') === 'witness' ? 'witness' : 'data',
      dataDirectory: null,
      osUser: null,
      primary: cell('role') === 'primary' && !cell('status').startsWith('-'),
    };
    found.push({ nodeId, node });
  }
  return { ok: true, value: found };
}

function settingsOf(conf: Conf, notes: Note[]): ImportedSettings {
  const value = (name: string): string | undefined => conf.get(name)?.value.toLowerCase();
  const recovery = value('recovery');
  const trusted = (conf.get('trusted_servers')?.value ?? '')
    .split(',')
    .map((address) => address.trim())
    .filter((address) => address !== '');
  const vip = conf.get('virtual_ip')?.value.replace(/\/\d+$/, '');
  const device = conf.get('net_device')?.value;
  const synchronous = value('synchronous');
  if (value('failover') === undefined)
    notes.push({ setting: 'failover', text: 'repmgr fails over only when it says "automatic"; it says nothing, so failover stays with a person' });
  return {
    ...(value('failover') === 'automatic' ? {} : { failover: 'manual' as const }),
    ...(recovery === 'manual' || recovery === 'standby' ? { recovery } : {}),
    durability: durabilityFrom(synchronous),
    ...(trusted.length === 0 ? {} : { trustedAddresses: trusted }),
    ...(vip === undefined || vip === ''
      ? {}
      : { vips: { write: { address: vip, ...(device === undefined || device === '' ? {} : { interface: device }) }, read: null } }),
  };
}

/** repmgr itself knows nothing of synchronous replication; managers that are built on it write the word. */
function durabilityFrom(word: string | undefined): NonNullable<ImportedSettings['durability']> {
  if (word === 'quorum') return { mode: 'quorum', k: 1 };
  return word === 'sync' || word === 'all' ? { mode: 'sync', k: 1 } : { mode: 'async' };
}

const TEXTS: Readonly<Record<string, string>> = {
  promote_command: 'agents promote by themselves, with fencing; what the command did besides has no place yet',
  follow_command: 'standbys follow by reload, without a restart',
  reconnect_attempts: 'a lost primary is judged from several viewpoints within seconds (probeIntervalMs, probeAttempts)',
  reconnect_interval: 'see reconnect_attempts',
  use_replication_slots: 'every standby has a slot, with a limit on the WAL that it may hold',
  event_notification_command: 'events are in "pgherd events" and the HTTP API',
  service_start_command: 'the agent starts PostgreSQL itself; the unit of the distribution must not (see the plan)',
  barman_host: 'not taken over',
  witness_sync_interval: 'a witness votes and probes; nothing is copied to it',
  replication_user: 'pgherd makes a replication role of its own, whose password only it knows',
  upstream_node_id: 'standbys stream from the primary; cascading is not taken over',
  virtual_ip: 'taken over as the write address; where an interface has another name on some host, its agent.yaml says so (vipInterface)',
};

function notesOf(confs: readonly Conf[]): readonly Note[] {
  const names = new Set(confs.flatMap((conf) => [...conf.keys()]));
  return Object.entries(TEXTS).flatMap(([setting, text]) => (names.has(setting) ? [{ setting, text }] : []));
}
