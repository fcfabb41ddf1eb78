/** How a host's role reaches the store: the part `store` of agent.yaml and proxy.yaml. */
import { type Decoded, nullable, object, storeEndpoints, text, withDefault } from './decode.ts';

export const storeAccess = object(
  {
    endpoints: storeEndpoints,
    /** What this host shows to the store and to other members, signed by pgherd's authority; all null: no TLS. */
    ca: nullable(text),
    cert: nullable(text),
    key: nullable(text),
    /** Who signed the certificates of the store's members; null: pgherd's authority, `ca`. An etcd of one's own has another one. */
    authority: withDefault(nullable(text), null),
    /** A user of etcd, with its password in a file of its own; null where etcd has no users. */
    username: withDefault(nullable(text), null),
    passwordFile: withDefault(nullable(text), null),
  },
  'strict',
);
export type StoreAccess = Decoded<typeof storeAccess>;
