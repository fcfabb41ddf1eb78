/**
 * The files that `config check` knows. Roles decode their own configuration; these are the same shapes, held equal by a test,
 * because the command line may not load the roles' code.
 */
import { type Decoded, type Decoder, bool, list, literal, nullable, number, object, oneOf, text, withDefault } from '../core/decode.ts';
import { DEFAULTS, clusterId, clusterSpec, nodeId } from '../core/spec.ts';

const port = number({ integer: true, min: 1, max: 65535 });
const log = withDefault(object({ level: withDefault(oneOf('debug', 'info', 'warn', 'error'), 'info') }, 'strict'), { level: 'info' });

export const agentFile = object(
  {
    cluster: clusterId,
    node: nodeId,
    kind: withDefault(oneOf('data', 'witness'), 'data'),
    host: text,
    internalHost: withDefault(nullable(text), null),
    port: withDefault(port, 5432),
    dataDirectory: text,
    stateDirectory: text,
    binDirectory: withDefault(nullable(text), null),
    osUser: withDefault(text, 'postgres'),
    listen: withDefault(object({ host: withDefault(text, '127.0.0.1'), port: withDefault(port, 8432) }, 'strict'), { host: '127.0.0.1', port: 8432 }),
    store: object({ endpoints: list(text), ca: nullable(text), cert: nullable(text), key: nullable(text) }, 'strict'),
    firewall: withDefault(oneOf('auto', 'off'), 'auto'),
    guard: withDefault(bool, true),
    log,
  },
  'strict',
);

/** The server may take any free port (0). */
const serverPort = number({ integer: true, min: 0, max: 65535 });
const listen = (defaultPort: number): Decoder<{ readonly host: string; readonly port: number }> =>
  withDefault(object({ host: withDefault(text, '127.0.0.1'), port: withDefault(serverPort, defaultPort) }, 'strict'), {
    host: '127.0.0.1',
    port: defaultPort,
  });

const embedded = object({ engine: literal('embedded'), listen: listen(2379) }, 'strict');
const etcd = object({ engine: literal('etcd'), endpoints: list(text), ca: text, cert: text, key: text }, 'strict');
/** A union on `engine`, which may be left out for the embedded one. */
const store: Decoder<Decoded<typeof embedded> | Decoded<typeof etcd>> = (input, path) => {
  const engine = typeof input === 'object' && input !== null && 'engine' in input ? input.engine : 'embedded';
  if (engine === 'etcd') return etcd(input, path);
  if (engine !== 'embedded')
    return { ok: false, error: { path: `${path}.engine`, message: `expected embedded or etcd, found ${JSON.stringify(engine)}` } };
  return embedded({ ...(input as object), engine }, path);
};

export const serverFile = object(
  {
    listen: listen(8433),
    dataDirectory: text,
    store: withDefault(store, { engine: 'embedded', listen: { host: '127.0.0.1', port: 2379 } }),
    names: withDefault(list(text), []),
    controller: withDefault(bool, true),
    firstTokenFile: withDefault(nullable(text), null),
    statusLineMs: withDefault(number({ integer: true, min: 1000, max: 86_400_000 }), DEFAULTS.statusLineMs),
    log,
  },
  'strict',
);

export const FILE_DECODERS: Readonly<Record<ConfigKind, Decoder<unknown>>> = { agent: agentFile, cluster: clusterSpec, server: serverFile };

export type ConfigKind = 'agent' | 'cluster' | 'server';

/** By what only this kind of file has; null when it looks like none of them. */
export function guessKind(input: unknown): ConfigKind | null {
  if (typeof input !== 'object' || input === null || Array.isArray(input)) return null;
  const has = (key: string): boolean => Object.hasOwn(input, key);
  if (has('nodes') || has('name')) return 'cluster';
  if (has('node') || has('stateDirectory')) return 'agent';
  if (has('listen') || has('dataDirectory') || has('controller') || has('names')) return 'server';
  return null;
}
