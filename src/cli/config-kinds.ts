/**
 * The files that `config check` knows. Roles decode their own configuration; these are the same shapes, held equal by a test,
 * because the command line may not load the roles' code.
 */
import { type Decoder, bool, list, literal, nullable, number, object, oneOf, text, withDefault } from '../core/decode.ts';
import { clusterId, clusterSpec, nodeId } from '../core/spec.ts';

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

const listen = (defaultPort: number): Decoder<{ readonly host: string; readonly port: number }> =>
  withDefault(object({ host: withDefault(text, '127.0.0.1'), port: withDefault(port, defaultPort) }, 'strict'), { host: '127.0.0.1', port: defaultPort });

const embedded = object({ engine: withDefault(literal('embedded'), 'embedded'), listen: listen(2379) }, 'strict');
const etcd = object({ engine: literal('etcd'), endpoints: list(text), ca: withDefault(nullable(text), null), cert: withDefault(nullable(text), null), key: withDefault(nullable(text), null) }, 'strict');
const store: Decoder<unknown> = (input, path) => {
  const isEtcd = typeof input === 'object' && input !== null && 'engine' in input && input.engine === 'etcd';
  return isEtcd ? etcd(input, path) : embedded(input, path);
};

export const serverFile = object(
  {
    listen: listen(8433),
    dataDirectory: withDefault(text, '/var/lib/pgherd/server'),
    store: withDefault(store, { engine: 'embedded' }),
    names: withDefault(list(text), []),
    controller: withDefault(bool, true),
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
