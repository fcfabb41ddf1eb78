/** The guard as the lease keeper sees it: what the keeper knows (term, lease, deadline) joined with what the agent knows of its PostgreSQL. */
import type { Clock } from '../../base/clock.ts';
import type { GuardedLease, LeaseGuard } from '../lease/lease-keeper.ts';
import type { LeaseSettings } from '../lease/lease-rules.ts';
import type { GuardClient } from './guard-client.ts';
import type { ProcessId } from './kill-tree.ts';
import type { Place } from '../vip/kernel.ts';
import type { Armed, FenceRecord, WatchdogConfig } from './protocol.ts';
import { longestWatchdogSeconds } from './watchdog.ts';

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
  /** Null: without the watchdog device. Less than its `timeoutSeconds` is asked for where the lease is shorter. */
  readonly watchdog: WatchdogConfig | null;
  /** Read at every arm: people change them. */
  readonly settings: () => LeaseSettings;
  readonly clock: Pick<Clock, 'now'>;
}): LeaseGuard {
  const { client, clock } = options;
  let triedAt = -Infinity;
  let askedFor: number | null = null;

  /**
   * Invariant: where the device is required, no renewal counts without it. Because: whoever asks for it relies on the reset of a host on which nothing else
   * can fence. Broken if: an older guard, which knows nothing of it, is believed: so its own word on the device is asked for.
   */
  const withWatchdog = async (): Promise<boolean> => {
    if (options.watchdog === null) return true;
    const watchdog = { ...options.watchdog, timeoutSeconds: Math.min(options.watchdog.timeoutSeconds, longestWatchdogSeconds(options.settings())) };
    const now = clock.now().mono;
    const again = client.watchdog().state !== 'armed' && (watchdog.mode === 'required' || now - triedAt >= OPEN_AGAIN_MS);
    if (again || askedFor !== watchdog.timeoutSeconds) {
      triedAt = now;
      askedFor = watchdog.timeoutSeconds;
      await client.openWatchdog(watchdog);
    }
    return watchdog.mode === 'automatic' || client.watchdog().state === 'armed';
  };
  const armed = (lease: GuardedLease): Armed => {
    const { ttlMs, renewMs, marginMs } = options.settings();
    return { ...lease, ...options.postgres(), lease: { ttlMs, renewMs, marginMs } };
  };
  return {
    prepare: async () => {
      const status = await client.ensure();
      if (!status.ok) return false;
      if (status.value.fenced !== null) options.onFenced(status.value.fenced);
      if (status.value.phase === 'fencing') return false;
      return status.value.phase === 'fenced' ? client.acknowledge() : true;
    },
    arm: async (lease) => (await client.arm(armed(lease))) && withWatchdog(),
    shorten: (lease) => client.shorten(armed(lease)),
    disarm: () => client.disarm(),
  };
}

/** Where there is no guard (`guard: false`): fencing rests on the agent and the firewall; `show` says that it is weaker. */
export const NO_GUARD: LeaseGuard = { prepare: async () => true, arm: async () => true, shorten: async () => true, disarm: async () => true };
