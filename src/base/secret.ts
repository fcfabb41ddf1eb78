/** Passwords that are derived from the cluster's one secret, so that nothing secret lies in the store (docs/decisions/0003). */
import { createHmac } from 'node:crypto';

/** Who logs in with it: standbys and rewinds, the members' probes, proxies. */
export type SecretPurpose = 'replication' | 'probe' | 'proxy';

/** HMAC-SHA256(secret, "pgherd/<purpose>") in base64url: 43 characters without quotes or colons. */
export function deriveSecret(clusterSecret: string, purpose: SecretPurpose): string {
  return createHmac('sha256', clusterSecret).update(`pgherd/${purpose}`).digest('base64url');
}
