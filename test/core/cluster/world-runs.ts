/** How tests begin with a created cluster of the small closed loop, and how they interrupt what they run on it. */
import assert from 'node:assert/strict';
import { makeTask } from './picture.ts';
import { checkLoss } from './world-faults.ts';
import { type World, addTask, createWorld, isHealthy, runFor, runUntil } from './world.ts';

export function created(extra: object = {}, names?: readonly string[]): World {
  const world = createWorld(names, extra);
  world.audit = checkLoss;
  addTask(world, makeTask({ kind: 'create' }, { id: 'create' }));
  runUntil(world, 'created', (one) => one.tasks.get('create')?.status === 'done', 20_000);
  assert.ok(isHealthy(world));
  runFor(world, 1000);
  return world;
}

export /** Runs a scenario; the controller dies after its k-th decision of it and another one takes over 2.5 s later. */
function interrupted(k: number, scenario: (world: World) => void): number {
  const world = created({ antiFlappingMs: 0 });
  scenario(world);
  const from = world.decisions.length;
  let died = false;
  runUntil(
    world,
    `healthy, controller died after decision ${k}`,
    (one) => {
      if (!died && one.decisions.length - from >= k) {
        died = true;
        one.controllerUp = false;
        one.controllerSince = one.t + 2500;
      }
      if (died && !one.controllerUp && one.t >= one.controllerSince) one.controllerUp = true;
      const ended = [...one.tasks.values()].every((task) => task.status === 'done' || task.status === 'failed');
      return one.controllerUp && ended && one.decisions.length > from && isHealthy(one);
    },
    40_000,
  );
  return world.decisions.length - from;
}
