/** Cluster secrets: 32 random bytes a cluster, in the server's data directory (0600), never in the store. Database passwords are derived from them. */
import { randomBytes } from 'node:crypto';
import { join } from 'node:path';
import { makeDirectory, readTextIfThere, writeFileAtomic } from '../base/files.ts';
import type { ClusterId } from '../core/ids.ts';

export interface Secrets {
  /** Makes the secret at the first call for a cluster; the same ever after, also after the cluster was removed (its data still has the passwords). */
  ensure(cluster: ClusterId): Promise<string>;
}

export async function openSecrets(dataDirectory: string): Promise<Secrets> {
  const directory = join(dataDirectory, 'secrets');
  await makeDirectory(directory);
  const pending = new Map<ClusterId, Promise<string>>();
  const make = async (cluster: ClusterId): Promise<string> => {
    // The name is safe as a file name: isName allows only a–z, 0–9, "-" and "_" (H8).
    const file = join(directory, `${cluster}.secret`);
    const present = readTextIfThere(file)?.trim() ?? '';
    if (present !== '') return present;
    const secret = randomBytes(32).toString('base64url');
    await writeFileAtomic(file, `${secret}\n`);
    return secret;
  };
  return {
    // Two first calls at once must not make two secrets.
    ensure: (cluster) => {
      const running = pending.get(cluster);
      if (running !== undefined) return running;
      const made = make(cluster).finally(() => pending.delete(cluster));
      pending.set(cluster, made);
      return made;
    },
  };
}
