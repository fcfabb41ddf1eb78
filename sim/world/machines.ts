/** The machines of a world: power, suspension, clocks. A machine that is switched on again has a new scope, a new boot id and a monotonic clock from zero. */
import type { Scope, VirtualClock } from '../clock.ts';
import type { Random } from '../random.ts';
import type { Trace } from '../trace.ts';
import { type HostClock, createHostClock } from './host-clock.ts';

export interface Machine {
  readonly name: string;
  readonly clock: HostClock;
  scope(): Scope;
  bootId(): string;
  powerOff(): void;
  powerOn(): void;
  suspend(kind: 'suspended' | 'frozen'): void;
  resume(): void;
  onPower(callback: (on: boolean) => void): void;
  onSuspend(callback: () => void): void;
  onResume(callback: () => void): void;
}

export interface Machines {
  of(name: string): Machine;
  all(): readonly Machine[];
  /** Processes that died of a broken invariant of their own. */
  readonly crashes: Error[];
}

export function createMachines(scheduler: VirtualClock, random: Random, trace: Trace, names: readonly string[]): Machines {
  const machines = new Map<string, Machine>(names.map((name) => [name, createMachine(scheduler, random.stream(name), trace, name)]));
  return {
    of: (name) => {
      const found = machines.get(name);
      if (found === undefined) throw new Error(`no machine ${name}`);
      return found;
    },
    all: () => [...machines.values()],
    crashes: [],
  };
}

function createMachine(scheduler: VirtualClock, random: Random, trace: Trace, name: string): Machine {
  // Crystals differ by some tens of parts in a million; NTP holds wall clocks together, more or less.
  const clock = createHostClock(scheduler, { rate: 1 + random.between(-100, 100) / 1_000_000, wallOffsetMs: Math.round(random.between(-200, 200)) });
  const power: ((on: boolean) => void)[] = [];
  const suspends: (() => void)[] = [];
  const resumes: (() => void)[] = [];
  let boots = 1;
  let scope = scheduler.scope(name);
  let suspended = false;
  return {
    name,
    clock,
    scope: () => scope,
    bootId: () => `${name}-boot-${boots}`,
    powerOff: () => {
      if (!scope.alive()) return;
      trace.add(name, 'power off');
      scope.kill();
      for (const callback of power) callback(false);
    },
    powerOn: () => {
      if (scope.alive()) return;
      trace.add(name, 'power on');
      boots++;
      if (suspended) clock.resume();
      suspended = false;
      clock.reboot();
      scope = scheduler.scope(name);
      for (const callback of power) callback(true);
    },
    suspend: (kind) => {
      if (!scope.alive() || suspended) return;
      trace.add(name, kind);
      suspended = true;
      clock.suspend(kind);
      scope.pause();
      for (const callback of suspends) callback();
    },
    resume: () => {
      if (!suspended || !scope.alive()) return;
      suspended = false;
      clock.resume();
      trace.add(name, 'goes on');
      for (const callback of resumes) callback();
      scope.resume();
    },
    onPower: (callback) => void power.push(callback),
    onSuspend: (callback) => void suspends.push(callback),
    onResume: (callback) => void resumes.push(callback),
  };
}
