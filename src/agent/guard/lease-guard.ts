/** The guard as the lease keeper sees it: what the keeper knows (term, lease, deadline) joined with what the agent knows of its PostgreSQL. */
import type { LeaseGuard } from '../lease/lease-keeper.ts';
import type { GuardClient } from './guard-client.ts';
import type { ProcessId } from './kill-tree.ts';
import type { Place } from '../vip/kernel.ts';
import type { FenceRecord } from './protocol.ts';

export interface GuardedPostgres {
  /** Symbolic links resolved. */
  readonly dataDirectory: string;
  readonly postmaster: ProcessId | null;
  /** `firewall.table`. */
  readonly table: string | null;
  /** Virtual addresses that may be on this host. */
  readonly addresses: readonly Place[];
}

export function createLeaseGuard(options: {
  readonly client: GuardClient;
  /** Read at every arm: a restarted server has another postmaster. */
  readonly postgres: () => GuardedPostgres;
  /** The guard fenced while nobody looked: for the log and an event. */
  readonly onFenced: (record: FenceRecord) => void;
}): LeaseGuard {
  const { client } = options;
  return {
    prepare: async () => {
      const status = await client.ensure();
      if (!status.ok) return false;
      if (status.value.fenced !== null) options.onFenced(status.value.fenced);
      if (status.value.phase === 'fencing') return false;
      return status.value.phase === 'fenced' ? client.acknowledge() : true;
    },
    arm: ({ term, leaseId, deadline, at }) => client.arm({ term, leaseId, deadline, at, ...options.postgres() }),
    shorten: ({ term, leaseId, deadline, at }) => client.shorten({ term, leaseId, deadline, at, ...options.postgres() }),
    disarm: () => client.disarm(),
  };
}

/** Where there is no guard (`guard: false`): fencing rests on the agent and the firewall; `show` says that it is weaker. */
export const NO_GUARD: LeaseGuard = { prepare: async () => true, arm: async () => true, shorten: async () => true, disarm: async () => true };
