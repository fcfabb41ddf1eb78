/** The port of a host's PostgreSQL as the kernel's firewall sees it: the real modes, with time-outs that need nobody to end. */
import type { Firewall, FirewallMode } from '../../src/agent/firewall/firewall.ts';
import { ok } from '../../src/core/result.ts';
import type { Scheduler } from '../clock.ts';
import type { HostClock } from './host-clock.ts';

export interface Port {
  /** May a client (or a member that replicates or probes) of another host connect now? Existing connections are cut with it. */
  lets(who: 'client' | 'member'): boolean;
  /** The guard closes it in the agent's place. */
  close(): void;
  /** A reboot takes the kernel's tables away. */
  reset(): void;
  firewall(processClock: Scheduler): Firewall;
  describe(): string;
}

const NFT_MS = 3;

/** `kind` off: everything is let in, as where the agent does not run as root. */
export function createPort(kind: 'fail-closed' | 'off', clock: HostClock): Port {
  let mode: FirewallMode = { kind: 'unrestricted' };

  const lets = (who: 'client' | 'member'): boolean => {
    if (kind === 'off') return true;
    switch (mode.kind) {
      case 'unrestricted':
        return true;
      case 'closed':
        return false;
      case 'members':
        return who === 'member' && clock.monoMs() < mode.until;
      case 'timed':
        return clock.monoMs() < mode.until;
    }
  };

  return {
    lets,
    close: () => {
      if (kind !== 'off') mode = { kind: 'closed' };
    },
    reset: () => {
      mode = { kind: 'unrestricted' };
    },
    firewall: (processClock) => ({
      kind,
      table: kind === 'off' ? null : 'inet pgherd',
      apply: async (asked) => {
        if (kind === 'off') return ok(null);
        await processClock.sleep(NFT_MS);
        mode = asked;
        return ok(null);
      },
      turnAway: async () => undefined,
      remove: async () => ok(null),
      close: () => undefined,
    }),
    describe: () => (kind === 'off' ? 'no firewall' : mode.kind),
  };
}
