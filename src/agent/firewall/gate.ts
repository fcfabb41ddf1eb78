/**
 * The port's gate as the agent's loop works it; the firewall follows the lease by itself.
 *
 * Modes: standby (no restriction) · members (a primary that is not open) · open (clients, as long as the lease is refreshed) · fenced (nobody).
 * `refresh` is called with each confirmed renewal, `block` when time was lost; neither changes the mode.
 */
import type { MonoMs } from '../../core/ids.ts';
import { assertNever, type Failure } from '../../core/result.ts';
import type { Firewall, FirewallMode } from './firewall.ts';

export interface Gate {
  readonly kind: 'fail-closed' | 'off';
  /** Primary that is not open: only members get in, and only while the lease is held; without one nobody. */
  close(): Promise<void>;
  openTimed(): Promise<void>;
  openStandby(): Promise<void>;
  /**
   * New connections to a primary that is about to stop are refused for some seconds, or until the next change: PostgreSQL would refuse each of them with a
   * process of its own, while everybody waits for it.
   */
  turnAway(): Promise<void>;
  /** Unplanned fence: nobody over TCP, members neither. */
  fence(): Promise<void>;
  /** The deadline moved. */
  refresh(): Promise<void>;
  /** Nobody until the next refresh. */
  block(): Promise<void>;
}

/** A stop takes less, as a rule. It ends by itself: whatever becomes of the agent and of the stop, nobody is turned away for longer. */
const AWAY_MS = 3000;

export function createGate(options: {
  readonly firewall: Firewall;
  /** Own deadline of the write lease; null when none is held. */
  readonly deadline: () => MonoMs | null;
  /** Addresses from which members replicate. */
  readonly members: () => readonly string[];
  readonly onFailure: (failure: Failure) => void;
}): Gate {
  let mode: 'unknown' | 'standby' | 'members' | 'open' | 'fenced' = 'unknown';

  const wanted = (): FirewallMode | null => {
    const until = options.deadline();
    switch (mode) {
      case 'unknown':
        return null;
      case 'standby':
        return { kind: 'unrestricted' };
      case 'fenced':
        return { kind: 'closed' };
      case 'members':
        return until === null ? { kind: 'closed' } : { kind: 'members', addresses: options.members(), until };
      case 'open':
        return until === null ? { kind: 'closed' } : { kind: 'timed', until };
      default:
        return assertNever(mode, 'gate');
    }
  };
  const apply = async (asked: FirewallMode | null): Promise<void> => {
    if (asked === null) return;
    const done = await options.firewall.apply(asked);
    if (!done.ok) options.onFailure(done.error);
  };
  const turn = (next: typeof mode): Promise<void> => {
    mode = next;
    return apply(wanted());
  };
  return {
    kind: options.firewall.kind,
    close: () => turn('members'),
    openTimed: () => turn('open'),
    openStandby: () => turn('standby'),
    turnAway: () => (mode === 'open' ? options.firewall.turnAway(AWAY_MS) : Promise.resolve()),
    fence: () => turn('fenced'),
    // A standby's and a fenced node's gate have no time-out.
    refresh: () => (mode === 'open' || mode === 'members' ? apply(wanted()) : Promise.resolve()),
    block: () => (mode === 'open' || mode === 'members' ? apply({ kind: 'closed' }) : Promise.resolve()),
  };
}
