/** Leases of the modelled store: deadlines by the leader's clock, one pending timer a lease. */

export interface LeaseTable {
  /** Returns the TTL granted: whole seconds, at least the minimum. */
  add(id: string, ttlMs: number): number;
  /** Full TTL from now; null when it does not exist. */
  renew(id: string): number | null;
  ttlOf(id: string): number | null;
  /** What is left of it; null when it does not exist. */
  leftOf(id: string): number | null;
  remove(id: string): void;
  /** A new leader, or a restarted server: every lease has its full TTL again. */
  renewAll(): void;
  /** After a restore: exactly these, each with the TTL it had (3 s when it is not known any more). */
  replace(ids: readonly string[]): void;
}

interface Lease {
  readonly ttlMs: number;
  deadline: number;
  armed: boolean;
}

export interface LeaseOptions {
  readonly now: () => number;
  /** Calls `run` then, unless the leader changed since. */
  readonly schedule: (at: number, run: () => void) => void;
  /** How late an expiry is noticed. */
  readonly lateMs: () => number;
  readonly minimumTtlMs: number;
  /** Removes lease and keys; false when that is not possible now (no majority). */
  readonly expire: (id: string) => boolean;
}

/** A timer that comes this late says that the server stood still; renewals may wait unread. As in src/store/embedded/leases.ts. */
const PAUSE_MS = 500;
const UNKNOWN_TTL_MS = 3000;

export function createLeaseTable(options: LeaseOptions): LeaseTable {
  const leases = new Map<string, Lease>();

  function arm(id: string, lease: Lease): void {
    if (lease.armed) return;
    lease.armed = true;
    const due = lease.deadline + options.lateMs();
    options.schedule(due, () => {
      lease.armed = false;
      if (leases.get(id) !== lease) return;
      const now = options.now();
      if (now - due > PAUSE_MS) {
        renewAll();
        return;
      }
      if (now < lease.deadline) {
        arm(id, lease);
        return;
      }
      // Not possible now: the next leader gives it a full TTL.
      if (options.expire(id)) leases.delete(id);
    });
  }

  function renewAll(): void {
    const now = options.now();
    for (const [id, lease] of leases) {
      lease.deadline = now + lease.ttlMs;
      // Timers of a former leader are void.
      lease.armed = false;
      arm(id, lease);
    }
  }

  return {
    add: (id, wantedMs) => {
      const ttlMs = Math.max(options.minimumTtlMs, Math.ceil(wantedMs / 1000) * 1000);
      const lease: Lease = { ttlMs, deadline: options.now() + ttlMs, armed: false };
      leases.set(id, lease);
      arm(id, lease);
      return ttlMs;
    },
    renew: (id) => {
      const lease = leases.get(id);
      if (lease === undefined) return null;
      lease.deadline = options.now() + lease.ttlMs;
      return lease.ttlMs;
    },
    ttlOf: (id) => leases.get(id)?.ttlMs ?? null,
    leftOf: (id) => {
      const lease = leases.get(id);
      return lease === undefined ? null : lease.deadline - options.now();
    },
    remove: (id) => void leases.delete(id),
    renewAll,
    replace: (ids) => {
      const known = new Map(leases);
      leases.clear();
      for (const id of ids) leases.set(id, { ttlMs: known.get(id)?.ttlMs ?? UNKNOWN_TTL_MS, deadline: options.now(), armed: false });
      renewAll();
    },
  };
}
