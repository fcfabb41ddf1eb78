/** The defaults of every configuration file, told by the decoders that the roles themselves use. */
import type { Decoder } from '../core/decode.ts';
import { DEFAULTS, nodeSpec } from '../core/spec.ts';
import { type ConfigKind, FILE_DECODERS } from './config-kinds.ts';

/** Names like `listen.port`; a list, an empty object or null as it stands. */
type Settings = Readonly<Record<string, unknown>>;

/** The least that each file must say; these settings have no default. */
const STORE = { endpoints: ['https://host:2379'], ca: null, cert: null, key: null };
const REQUIRED: Readonly<Record<ConfigKind, Settings>> = {
  cluster: { name: 'c', nodes: [] },
  server: { dataDirectory: '/' },
  agent: { cluster: 'c', node: 'n', host: 'h', dataDirectory: '/', stateDirectory: '/', store: STORE },
  proxy: { cluster: 'c', id: 'p', secretFile: '/', store: STORE },
};

/** In the order of the files' own schemas. `fixed`: not set anywhere. Throws when a file requires more than is said above: a bug that its test finds. */
export function everyDefault(): Readonly<Record<ConfigKind | 'fixed', Settings>> {
  const { controllerTtlMs, durability } = DEFAULTS;
  const cluster = defaultsOf('cluster', FILE_DECODERS.cluster, REQUIRED.cluster);
  const nodes = Object.entries(defaultsOf('nodes', nodeSpec, { id: 'n', host: 'h' })).map(([name, value]) => [`nodes.${name}`, value] as const);
  return {
    // What an absent durability means depends on the number of nodes.
    cluster: { ...cluster, durability, ...Object.fromEntries(nodes) },
    server: defaultsOf('server', FILE_DECODERS.server, REQUIRED.server),
    agent: defaultsOf('agent', FILE_DECODERS.agent, REQUIRED.agent),
    proxy: defaultsOf('proxy', FILE_DECODERS.proxy, REQUIRED.proxy),
    fixed: { controllerTtlMs },
  };
}

function defaultsOf(what: string, decoder: Decoder<unknown>, required: Settings): Settings {
  const decoded = decoder(required, what);
  if (!decoded.ok) throw new Error(`${decoded.error.path}: ${decoded.error.message}`);
  const given = new Set(leaves(required).map(([name]) => name));
  return Object.fromEntries(leaves(decoded.value).filter(([name]) => !given.has(name)));
}

function leaves(value: unknown, name = ''): readonly (readonly [string, unknown])[] {
  if (typeof value !== 'object' || value === null || Array.isArray(value)) return [[name, value]];
  const inner = Object.entries(value);
  return inner.length === 0 ? [[name, value]] : inner.flatMap(([key, one]) => leaves(one, name === '' ? key : `${name}.${key}`));
}
