/** proxy.yaml: which cluster this proxy serves, on which ports, and within which limits. */
import { type Decoded, list, number, nullable, object, oneOf, text, withDefault } from './decode.ts';
import { clusterId, nodeId } from './spec.ts';
import { storeAccess } from './store-access.ts';

const port = number({ integer: true, min: 1, max: 65535 });
const milliseconds = number({ integer: true, min: 1, max: 86_400_000 });

const listen = object(
  {
    host: withDefault(text, '127.0.0.1'),
    /** To the primary. Null: this port is not opened. */
    write: withDefault(nullable(port), 5433),
    /** To a standby, by weight, lag and health. */
    read: withDefault(nullable(port), 5434),
    /** To the primary, and for statements that only read to a standby that has all that the session wrote or saw. */
    split: withDefault(nullable(port), 5435),
    /** Opened only when `adminUsers` names somebody. */
    admin: withDefault(nullable(port), 5436),
  },
  'strict',
);

const LIMITS = {
  /** More wait in the kernel's queue and are refused there: memory is bounded. */
  maxClients: 2000,
  /** From the connect to the end of the login; a silent client gives its place back (Z75). */
  loginMs: 15_000,
  /** A statement without a primary waits this long, then fails with a clear error: longer than a failover takes, shorter than people's patience (I21). */
  waitMs: 10_000,
  /** Connecting and logging in to a node. */
  connectMs: 3000,
} as const;

const POOLING = { rules: [], idleMs: 600_000, lifetimeMs: 3_600_000 } as const;

/** Who shares server connections, and how many there are of each user and database on each node. */
const poolRule = object(
  {
    /** Null: every database, every user. */
    database: withDefault(nullable(text), null),
    user: withDefault(nullable(text), null),
    /**
     * `off`: each client has a connection of its own. `session`: for as long as it is there. `transaction`: until another client needs it, and it is between two
     * transactions and has nothing there that cannot be made again.
     */
    mode: oneOf('off', 'session', 'transaction'),
    size: withDefault(number({ integer: true, min: 1, max: 10_000 }), 20),
  },
  'strict',
);
export type PoolRule = Decoded<typeof poolRule>;

const READ = { primary: 'last-resort', maxLagBytes: 16 * 1024 * 1024 } as const;

export const proxyConfig = object(
  {
    cluster: clusterId,
    /** Name of this proxy; each one of a cluster has its own. */
    id: nodeId,
    listen: withDefault(listen, { host: '127.0.0.1', write: 5433, read: 5434, split: 5435, admin: 5436 }),
    store: storeAccess,
    /** Holds the password of the role `pgherd_proxy`, which can ask for login secrets and nothing else. */
    secretFile: text,
    /** `off`: clients speak clear text. `prefer`: TLS for those who ask. `require`: others are refused. Certificate and key: PEM files. */
    clientTls: withDefault(object({ mode: oneOf('off', 'prefer', 'require'), cert: text, key: text }, 'strict'), {
      mode: 'off' as const,
      cert: '',
      key: '',
    }),
    /** `verify`: TLS to the nodes, their certificates checked against the cluster's authority. `off`: clear text, a third faster; for trusted networks. */
    serverTls: withDefault(oneOf('verify', 'off'), 'verify'),
    /** Database users who may log in to the admin port: they see everybody's address, and can pause the traffic. */
    adminUsers: withDefault(list(text), []),
    read: withDefault(
      object(
        {
          /** When the primary gets reads of the read port. */
          primary: withDefault(oneOf('never', 'last-resort', 'always'), READ.primary),
          /** A standby that is further behind gets no reads. 16 MiB is one WAL segment. */
          maxLagBytes: withDefault(number({ integer: true, min: 0 }), READ.maxLagBytes),
        },
        'strict',
      ),
      READ,
    ),
    /** Of the write and the read port. */
    pooling: withDefault(
      object(
        {
          /** The first that fits a client counts. */
          rules: withDefault(list(poolRule), POOLING.rules),
          /** A connection that nobody used for so long is closed. */
          idleMs: withDefault(milliseconds, POOLING.idleMs),
          /** Nor is one kept for longer: memory that its process has gathered is given back. */
          lifetimeMs: withDefault(milliseconds, POOLING.lifetimeMs),
        },
        'strict',
      ),
      POOLING,
    ),
    limits: withDefault(
      object(
        {
          maxClients: withDefault(number({ integer: true, min: 1, max: 100_000 }), LIMITS.maxClients),
          loginMs: withDefault(milliseconds, LIMITS.loginMs),
          waitMs: withDefault(milliseconds, LIMITS.waitMs),
          connectMs: withDefault(milliseconds, LIMITS.connectMs),
        },
        'strict',
      ),
      LIMITS,
    ),
    log: withDefault(object({ level: withDefault(oneOf('debug', 'info', 'warn', 'error'), 'info') }, 'strict'), { level: 'info' as const }),
  },
  'strict',
);
export type ProxyConfig = Decoded<typeof proxyConfig>;
