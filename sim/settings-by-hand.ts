/** Somebody's ALTER SYSTEM of what the cluster's safety rests on (architecture 4.12); drawn from a stream of its own, after everything else of a plan. */
import { NAMES } from './model/postgres/sync-doors.ts';
import { type FaultKind, type Plan, withMore } from './plan.ts';
import type { Shape } from './profiles.ts';
import type { Random } from './random.ts';

export function addSettingsByHand(random: Random, plan: Plan, shape: Shape): Plan {
  return withMore(plan, ({ lengthMs }) =>
    Array.from({ length: random.pick([1, 2, 4]) }, () => {
      const at = Math.round(random.between(500, lengthMs - 2000));
      return { at, forMs: 0, what: draw(random, shape) };
    }),
  );
}

/** A set where commits wait for nobody is the settings' own business, and is left as it is: there only the upstream is changed. */
function draw(random: Random, shape: Shape): FaultKind {
  const dataNodes = shape.nodes.filter((node) => node.kind === 'data').map((node) => node.name);
  const waits = (shape.spec['durability'] as { readonly mode?: string } | undefined)?.mode !== 'async';
  if (waits && random.chance(0.7)) {
    const node = random.chance(0.75) ? null : random.pick(dataNodes);
    return { kind: 'alter-system', node, name: NAMES, value: random.pick(['', '*', 'ANY 1 (*)', '"nobody"']) };
  }
  const [node = '', other = ''] = random.shuffle(dataNodes);
  const elsewhere = `host=${random.pick(['nowhere', other])} port=5432 user=pgherd_replicator application_name=by_hand`;
  return { kind: 'alter-system', node, name: 'primary_conninfo', value: random.pick(['', elsewhere, elsewhere]) };
}
