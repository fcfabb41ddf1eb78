/**
 * I29 *Invariant:* a synchronous set that somebody changed by ALTER SYSTEM on the primary is gone again after at most HOLDS_AGAIN_MS in which its agent worked
 *    and the server answered (architecture 4.12). *Because:* the agent compares the file that wins with what the cluster waits for. Until it is gone, and until
 *    every process has loaded what replaced it, that server acknowledges for whom the person named, and nothing is promised of those rows.
 *
 * Another server to stream from, set by hand, is looked at by L1: a whole cluster streams as it is told.
 */
import { NAMES } from '../model/postgres/sync-doors.ts';
import { type World, nodeOf } from '../world/world.ts';
import type { SimNode } from '../world/node.ts';
import { Violation } from './violation.ts';

export interface SettingChecks {
  /** Somebody's ALTER SYSTEM of the synchronous set on that node's server. */
  altered(node: string, names: string): void;
  /** What that server acknowledges waits for a set that is not the cluster's, or may. */
  isForeign(node: string): boolean;
  look(): void;
}

/** The file is compared every two seconds, and set again with the next steps of the agent's loop. */
const HOLDS_AGAIN_MS = 6000;
/** A process that is late to load settings takes half of it. */
const LOADED_MS = 3000;

interface Change {
  readonly names: string;
  /** Since when nothing kept the agent from setting it back; null: something does, or it is set back. */
  since: number | null;
  /** Null: the person's value is still there. */
  goneAt: number | null;
}

export function createSettingChecks(world: World): SettingChecks {
  const changes = new Map<string, Change>();

  function mustHold(node: SimNode): boolean {
    const state = world.state();
    const machine = world.machines.of(node.name).scope();
    const agent = node.agentScope();
    const works = machine.alive() && !machine.paused() && node.agent() !== null && agent?.alive() === true && !agent.paused();
    if (!works || state === null || state.primary !== node.name || state.overrides[node.name] !== undefined) return false;
    return state.quorum.wanted.k > 0 && !node.disk.full && node.disk.slowMs === 0 && node.database?.isWritable() === true;
  }

  function look(): void {
    const now = world.clock.now();
    for (const [name, change] of changes) {
      const node = nodeOf(world, name);
      const present = node.database?.server.disk.directory?.settings.get(NAMES) ?? '';
      if (present !== change.names) {
        change.goneAt ??= now;
        if (now - change.goneAt > LOADED_MS) changes.delete(name);
        continue;
      }
      change.goneAt = null;
      change.since = mustHold(node) ? (change.since ?? now) : null;
      if (change.since !== null && now - change.since > HOLDS_AGAIN_MS)
        throw new Violation(
          'I29',
          `synchronous_standby_names of ${name} has been "${change.names}" by hand for ${Math.round(now - change.since)} ms`,
        );
    }
  }

  return {
    altered: (node, names) => void changes.set(node, { names, since: null, goneAt: null }),
    isForeign: (node) => changes.size > 0 && changes.has(node),
    look,
  };
}
