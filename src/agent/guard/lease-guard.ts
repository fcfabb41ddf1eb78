/** The guard as the lease keeper sees it: what the keeper knows (term, lease, deadline) joined with what the agent knows of its PostgreSQL. */
import type { Clock } from '../../base/clock.ts';
import type { LeaseGuard } from '../lease/lease-keeper.ts';
import type { GuardClient } from './guard-client.ts';
import type { ProcessId } from './kill-tree.ts';
import type { Place } from '../vip/kernel.ts';
import type { FenceRecord, WatchdogConfig } from './protocol.ts';

export interface GuardedPostgres {
  /** Symbolic links resolved. */
  readonly dataDirectory: string;
  readonly postmaster: ProcessId | null;
  /** `firewall.table`. */
  readonly table: string | null;
  /** Virtual addresses that may be on this host. */
  readonly addresses: readonly Place[];
}

/** A device that could not be opened is tried again this often, where it is not required. */
const OPEN_AGAIN_MS = 30_000;

export function createLeaseGuard(options: {
  readonly client: GuardClient;
  /** Read at every arm: a restarted server has another postmaster. */
  readonly postgres: () => GuardedPostgres;
  /** The guard fenced while nobody looked: for the log and an event. */
  readonly onFenced: (record: FenceRecord) => void;
  /** Null: without the watchdog device. */
  readonly watchdog: WatchdogConfig | null;
  readonly clock: Pick<Clock, 'now'>;
}): LeaseGuard {
  const { client, watchdog, clock } = options;
  let triedAt = -Infinity;

  /**
   * Invariant: where the device is required, no renewal counts without it. Because: whoever asks for it relies on the reset of a host on which nothing else
   * can fence. Broken if: an older guard, which knows nothing of it, is believed: so its own word on the device is asked for.
   */
  const withWatchdog = async (): Promise<boolean> => {
    if (watchdog === null) return true;
    const now = clock.now().mono;
    if (client.watchdog().state !== 'armed' && (watchdog.mode === 'required' || now - triedAt >= OPEN_AGAIN_MS)) {
      triedAt = now;
      await client.openWatchdog(watchdog);
    }
    return watchdog.mode === 'automatic' || client.watchdog().state === 'armed';
  };
  return {
    prepare: async () => {
      const status = await client.ensure();
      if (!status.ok) return false;
      if (status.value.fenced !== null) options.onFenced(status.value.fenced);
      if (status.value.phase === 'fencing') return false;
      return status.value.phase === 'fenced' ? client.acknowledge() : true;
    },
    arm: async ({ term, leaseId, deadline, at }) => (await client.arm({ term, leaseId, deadline, at, ...options.postgres() })) && withWatchdog(),
    shorten: ({ term, leaseId, deadline, at }) => client.shorten({ term, leaseId, deadline, at, ...options.postgres() }),
    disarm: () => client.disarm(),
  };
}

/** Where there is no guard (`guard: false`): fencing rests on the agent and the firewall; `show` says that it is weaker. */
export const NO_GUARD: LeaseGuard = { prepare: async () => true, arm: async () => true, shorten: async () => true, disarm: async () => true };
