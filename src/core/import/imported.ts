/** What an import of another manager's configuration comes to: a cluster.yaml as an object, what could not be taken over, and where nodes keep their data. */
import type { DecodeError } from '../decode.ts';
import { isName } from '../ids.ts';
import { refuseParameter } from '../managed-parameters.ts';

export type Manager = 'clup' | 'repmgr' | 'patroni';

export interface ImportedNode {
  readonly id: string;
  readonly host: string;
  readonly port: number;
  readonly priority: number;
  readonly location: string | null;
  readonly kind: 'data' | 'witness';
  /** Null: the file does not say it. */
  readonly dataDirectory: string | null;
  /** OS user of the database; null: the file does not say it. */
  readonly osUser: string | null;
  /** By that file; the adoption looks for itself. */
  readonly primary: boolean;
}

/** A setting that has no counterpart, or one that a person must look at. `setting` is its name there. */
export interface Note {
  readonly setting: string;
  readonly text: string;
}

export interface ImportedAddress {
  readonly address: string;
  readonly interface?: string;
}

/** Fields of a cluster.yaml other than name and nodes; only those that are not the default. */
export interface ImportedSettings {
  readonly failover?: 'manual';
  readonly recovery?: 'standby' | 'manual';
  readonly maxLagOnFailoverBytes?: number;
  readonly durability?: { readonly mode: 'async' | 'sync' | 'quorum'; readonly k?: number; readonly strict?: boolean };
  readonly trustedAddresses?: readonly string[];
  readonly postgres?: { readonly parameters?: Readonly<Record<string, string>>; readonly hba?: readonly string[] };
  readonly vips?: { readonly write: ImportedAddress | null; readonly read: ImportedAddress | null };
}

export interface Imported {
  readonly manager: Manager;
  readonly name: string;
  readonly settings: ImportedSettings;
  readonly nodes: readonly ImportedNode[];
  readonly notes: readonly Note[];
}

/** A text that was read, with the name by which errors call it. */
export interface SourceText {
  readonly file: string;
  readonly text: string;
}

/** Line and column count from 1; 0: the whole file. */
export interface ImportError {
  readonly file: string;
  readonly line: number;
  readonly message: string;
}

/** A value of a file that is YAML or JSON, read by the caller; `locate` finds the line of a path in it. */
export interface SourceValue {
  readonly file: string;
  readonly value: unknown;
  readonly locate: (path: string) => number;
}

export function importError(source: Pick<SourceText, 'file'>, line: number, message: string): { readonly ok: false; readonly error: ImportError } {
  return { ok: false, error: { file: source.file, line, message } };
}

export function decodeFailed(source: SourceValue, error: DecodeError): { readonly ok: false; readonly error: ImportError } {
  return importError(source, source.locate(error.path), error.path === '' ? error.message : `${error.path}: ${error.message}`);
}

/** A name of ours that is as near to `text` as the alphabet allows; `fallback` when nothing of it is left. */
export function nameFrom(text: string, fallback: string): string {
  const name = text
    .toLowerCase()
    .replaceAll(/[^a-z0-9_-]+/g, '-')
    .replaceAll(/^[-_]+|[-_]+$/g, '')
    .slice(0, 54)
    .replace(/[-_]+$/, '');
  return isName(name) ? name : fallback;
}

/** The same nodes, each with an id of its own: a second one of the same id gets a number. */
export function withOwnIds(nodes: readonly ImportedNode[]): readonly ImportedNode[] {
  const taken = new Set<string>();
  return nodes.map((node) => {
    let id = node.id;
    for (let n = 2; taken.has(id); n++) id = `${node.id}-${n}`;
    taken.add(id);
    return id === node.id ? node : { ...node, id };
  });
}

/** Without what the nodes that are known cannot hold: k copies need k standbys. The note says what to write once all nodes are there. */
export function fittingDurability(settings: ImportedSettings, nodes: readonly ImportedNode[], notes: Note[]): ImportedSettings {
  const { durability, ...rest } = settings;
  const standbys = nodes.filter((node) => node.kind === 'data').length - 1;
  if (durability === undefined || durability.mode === 'async' || (durability.k ?? 1) <= standbys) return settings;
  notes.push({
    setting: 'durability',
    text: `{mode: ${durability.mode}, k: ${durability.k ?? 1}} is left out, since only ${standbys} standbys are known: add it with the other nodes`,
  });
  return rest;
}

/** PostgreSQL parameters that may be set for a cluster, as text; each that may not becomes a note. */
export function takeParameters(parameters: Readonly<Record<string, unknown>>): {
  readonly taken: Readonly<Record<string, string>>;
  readonly notes: readonly Note[];
} {
  const taken: Record<string, string> = {};
  const notes: Note[] = [];
  for (const [name, value] of Object.entries(parameters)) {
    const text = typeof value === 'boolean' ? (value ? 'on' : 'off') : typeof value === 'string' || typeof value === 'number' ? String(value) : null;
    const refused = text === null ? 'its value is neither text nor a number' : refuseParameter(name, text);
    if (refused === null && text !== null) taken[name] = text;
    else notes.push({ setting: name, text: `not taken over: ${refused}` });
  }
  return { taken, notes };
}
