/** server.yaml: what a server reads at its start. */
import {
  type Decoded,
  type Decoder,
  bool,
  join,
  list,
  literal,
  nullable,
  number,
  object,
  oneOf,
  storeEndpoints,
  text,
  withDefault,
} from './decode.ts';
import { fencingConfig } from './fencing-config.ts';
import { DEFAULTS } from './spec.ts';

const port = number({ integer: true, min: 0, max: 65535 });

const embedded = object(
  {
    engine: literal('embedded'),
    listen: withDefault(object({ host: withDefault(text, '127.0.0.1'), port: withDefault(port, 2379) }, 'strict'), { host: '127.0.0.1', port: 2379 }),
    /** Other places where this server may be started again from its backup, like `https://10.0.0.2:2379`: hosts that join are told of them too. */
    spares: withDefault(list(text), []),
  },
  'strict',
);
const etcd = object(
  {
    engine: literal('etcd'),
    endpoints: storeEndpoints,
    /** Who signed the certificates of etcd's members; null: pgherd's own authority. Agents and proxies are given it when they join. */
    ca: withDefault(nullable(text), null),
    /** What this server shows to etcd; null: its own certificate. */
    cert: withDefault(nullable(text), null),
    key: withDefault(nullable(text), null),
    /** A user of etcd; hosts are given it, with its password, when they join. */
    username: withDefault(nullable(text), null),
    passwordFile: withDefault(nullable(text), null),
  },
  'strict',
);

/** A union on `engine`, which may be left out for the embedded one. */
const store: Decoder<Decoded<typeof embedded> | Decoded<typeof etcd>> = (input, path) => {
  const engine = typeof input === 'object' && input !== null && 'engine' in input ? input.engine : 'embedded';
  if (engine === 'etcd') return etcd(input, path);
  if (engine !== 'embedded')
    return { ok: false, error: { path: join(path, 'engine'), message: `expected embedded or etcd, found ${JSON.stringify(engine)}` } };
  return embedded({ ...(input as object), engine }, path);
};

export const serverConfig = object(
  {
    /** Loopback by default: whoever opens the API to a network does so knowingly (H4, H5). Port 0: a free one. */
    listen: withDefault(object({ host: withDefault(text, '127.0.0.1'), port: withDefault(port, 8433) }, 'strict'), { host: '127.0.0.1', port: 8433 }),
    dataDirectory: text,
    store: withDefault(store, { engine: 'embedded', listen: { host: '127.0.0.1', port: 2379 }, spares: [] }),
    /** More host names and addresses for the server's certificate; the first one is what agents are told to use. */
    names: withDefault(list(text), []),
    controller: withDefault(bool, true),
    /** The command that turns hosts off; null: there is none. Used by clusters with `fencing: automatic | required`. */
    fencing: withDefault(nullable(fencingConfig), null),
    /** At the first start the admin's token goes into this file (0600) and is not printed. */
    firstTokenFile: withDefault(nullable(text), null),
    statusLineMs: withDefault(number({ integer: true, min: 1000, max: 86_400_000 }), DEFAULTS.statusLineMs),
    log: withDefault(object({ level: withDefault(oneOf('debug', 'info', 'warn', 'error'), 'info') }, 'strict'), { level: 'info' as const }),
  },
  'strict',
);
export type ServerConfig = Decoded<typeof serverConfig>;
