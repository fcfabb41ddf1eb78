/**
 * I21 *Invariant:* in a cluster that has been whole for some seconds the primary keeps a slot for every other data node of the settings, no member keeps one for a
 *    node that is none, and slots of others are as they were as long as their directory is.
 */
import { slotName } from '../../src/core/slot-name.ts';
import type { DataDirectory } from '../model/postgres/directory.ts';
import type { World } from '../world/world.ts';
import { Violation } from './violation.ts';

export interface SlotChecks {
  /** Called while a cluster has been whole for longer than members take to look after their slots. */
  look(): void;
}

export function createSlotChecks(world: World): SlotChecks {
  const foreign = new Map<DataDirectory, ReadonlySet<string>>();

  function lookAtForeign(node: string, directory: DataDirectory): void {
    const present = new Set([...directory.slots.keys()].filter((name) => !name.startsWith('pgherd_')));
    for (const name of foreign.get(directory) ?? [])
      if (!present.has(name)) throw new Violation('I21', `the slot ${name} of somebody else is gone from ${node}`);
    foreign.set(directory, present);
  }

  return {
    look: () => {
      const members = world.members();
      const primary = world.state()?.primary ?? null;
      for (const node of world.dataNodes) {
        const server = node.database?.server ?? null;
        const directory = server?.disk.directory ?? null;
        if (server === null || directory === null) continue;
        lookAtForeign(node.name, directory);
        if (!members.includes(node.name) || server.core.run === null) continue;
        const wanted = members.filter((other) => other !== node.name).map((other) => slotName(other));
        for (const [name, slot] of directory.slots)
          if (name.startsWith('pgherd_') && !wanted.includes(name) && !slot.active)
            throw new Violation('I21', `${node.name} keeps the slot ${name}, which is of no member`);
        if (node.name !== primary) continue;
        for (const name of wanted) {
          const slot = directory.slots.get(name);
          if (slot === undefined || slot.lost)
            throw new Violation('I21', `${node.name} is the primary and has ${slot === undefined ? 'no' : 'lost the'} slot ${name}`);
        }
      }
    },
  };
}
