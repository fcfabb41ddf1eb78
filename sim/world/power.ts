/** The power switch of a room, which the fencing command of an operator uses: it turns a host off, and on again after a while. Now and then it does not answer. */
import type { Fencer } from '../../src/controller/fencing.ts';
import type { Scheduler, Scope } from '../clock.ts';
import type { Random } from '../random.ts';
import type { Machines } from './machines.ts';

/** Longer than an answer is believed (FENCE_VALID_MS). */
const BOOT_MS = 9000;
const FAILS = 0.25;

export function createPowerSwitch(clock: Scheduler, machines: Machines, random: Random): (scope: Scope) => Fencer {
  return (scope) => async (target) => {
    await scope.sleep(random.between(200, 1500));
    if (random.chance(FAILS)) return { ok: false, text: 'exit code 1: no answer of the power switch' };
    const machine = machines.of(target.node);
    machine.powerOff();
    clock.after(BOOT_MS, machine.powerOn);
    return { ok: true, text: 'off' };
  };
}
