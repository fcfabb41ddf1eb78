/** What the doctor says of the store itself. */
import type { z } from 'zod';
import type { doctorCheck } from '../api/schema.ts';
import type { StoreStatus } from '../store/store.ts';

type Check = z.infer<typeof doctorCheck>;

/** First versions in which a member that led, stood still and wakes up revokes no leases. *Source:* etcd change 16822, its ports of February 2024 and the releases after them. */
const REVOKES_RIGHTLY: Readonly<Record<string, number>> = { '3.4': 31, '3.5': 13 };

/** False for versions that cannot be read. Newer lines than those have the change from their beginning. */
export function mayRevokeWrongly(version: string): boolean {
  const [, line = '', patch] = /^(\d+\.\d+)\.(\d+)/.exec(version) ?? [];
  const first = REVOKES_RIGHTLY[line];
  return first !== undefined && Number(patch) < first;
}

/** Pure. Null: the store did not answer, which another check says. */
export function checkStore(status: StoreStatus | null): readonly Check[] {
  if (status === null) return [];
  const base = { cluster: null, node: null } as const;
  if (status.engine === 'embedded')
    return [
      {
        ...base,
        code: 'store.embedded',
        level: 'ok',
        text: 'embedded store: while this server is away, running clusters go on, and nothing fails over',
        remedy: 'Keep backups (`pgherd store backup`); `pgherd store migrate etcd` survives the loss of this host.',
      },
    ];
  const checks: Check[] = [];
  if (status.members < 3)
    checks.push({
      ...base,
      code: 'store.few-members',
      level: 'warn',
      text: `etcd has ${status.members} member${status.members === 1 ? '' : 's'}: the loss of one is the loss of the store`,
      remedy: 'Three members on three hosts survive the loss of one.',
    });
  if (status.engine === 'etcd' && mayRevokeWrongly(status.version))
    checks.push({
      ...base,
      code: 'store.etcd-old',
      level: 'warn',
      text: `etcd ${status.version} may revoke leases that are kept alive, after its leader stood still; a cluster in asynchronous mode may then fail over for nothing`,
      remedy: 'Use etcd 3.4.31, 3.5.13 or newer.',
    });
  return checks;
}
