/** A host's access to the store, as its configuration gives it, made into a client. */
import type { Clock } from '../base/clock.ts';
import type { StoreAccess } from '../core/store-access.ts';
import { type OpenStoreOptions, openStore } from './etcd-client.ts';
import type { TlsFiles } from './pem.ts';
import type { Store } from './store.ts';

/** What the host shows to other members too; null without TLS. */
export function identityOf({ ca, cert, key }: Pick<StoreAccess, 'ca' | 'cert' | 'key'>): TlsFiles | null {
  return ca === null || cert === null || key === null ? null : { ca, cert, key };
}

export interface AccessOptions {
  readonly clock?: Clock;
  /** This host's own addresses. */
  readonly near?: readonly string[];
  readonly openChannel?: NonNullable<OpenStoreOptions['openChannel']>;
}

/** Throws for PEM files that cannot be read, like `openStore`. */
export function openAccess(access: StoreAccess, options: AccessOptions = {}): Store {
  return openStore(accessOptions(access, options));
}

export function accessOptions(access: StoreAccess, { clock, near = [], openChannel }: AccessOptions = {}): OpenStoreOptions {
  const { endpoints, authority, username, passwordFile } = access;
  const identity = identityOf(access);
  return {
    endpoints: nearFirst(endpoints, near),
    tls: identity === null ? null : { ...identity, ca: authority ?? identity.ca },
    ...(clock === undefined ? {} : { clock }),
    ...(openChannel === undefined ? {} : { openChannel }),
    ...(username === null ? {} : { username }),
    ...(passwordFile === null ? {} : { password: { file: passwordFile } }),
  };
}

/**
 * A member of the store on this very host comes first: it shares our fate, and when it alone dies its refusal is heard at once. With a member elsewhere
 * the loss of that other host would be ours too, for as long as it takes to notice.
 */
function nearFirst(endpoints: readonly string[], near: readonly string[]): readonly string[] {
  const isNear = (url: string): boolean => near.includes(new URL(url).hostname.replace(/^\[|\]$/g, ''));
  return [...endpoints.filter(isNear), ...endpoints.filter((url) => !isNear(url))];
}
