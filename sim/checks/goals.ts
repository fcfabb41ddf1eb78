/**
 * I19 *Invariant:* every goal that stands has an order of the agent's for the state which that agent reports. *Because:* a goal in front of which an agent has
 *    nothing to do, and is not done, ends nowhere. Looked at while nothing is broken any more; a goal that has just been replaced by another gets its time.
 */
import { decodeShared } from '../../src/core/decode.ts';
import { decideNode } from '../../src/core/node/decide.ts';
import { nodeReport } from '../../src/core/report.ts';
import type { World } from '../world/world.ts';
import { Violation } from './violation.ts';

export interface GoalChecks {
  /** Called every now and then while nothing is broken. */
  look(): void;
  /** Something is broken again: what was seen before counts no more. */
  forget(): void;
}

/** Answers of decideNode in front of which nothing will ever happen by itself. */
const DEAD_END = /^refused: (there is no complete|the data directory is not empty)|^there is no complete data directory|^this goal failed for good/;
/** The longest pause between two tries of a recovery (60 s), and a person who looks after 70 s and does what is named. */
const LIMIT_MS = 150_000;

export function createGoalChecks(world: World): GoalChecks {
  const since = new Map<string, { readonly goal: string; readonly at: number }>();
  return {
    forget: () => since.clear(),
    look: () => {
      const state = world.state();
      for (const node of world.nodes.values()) {
        const goal = state?.goals[node.name] ?? null;
        const why = goal === null ? null : deadEnd(world, node.name);
        if (goal === null || why === null) {
          since.delete(node.name);
          continue;
        }
        const known = since.get(node.name);
        if (known === undefined || known.goal !== goal.id) since.set(node.name, { goal: goal.id, at: world.clock.now() });
        else if (world.clock.now() - known.at > LIMIT_MS)
          throw new Violation('I19', `${node.name} has had nothing to do for ${LIMIT_MS} ms in front of the goal ${goal.kind} (${goal.id}): ${why}`);
      }
    },
  };
}

/** In words, why the agent of this node does nothing; null: it does something, is done, or waits for something that comes. */
function deadEnd(world: World, name: string): string | null {
  const node = world.nodes.get(name);
  const agent = node?.agent() ?? null;
  const text = world.store.keyspace().get(world.keys.report(name as Parameters<typeof world.keys.report>[0]))?.value ?? null;
  const report = text === null ? null : decodeShared(nodeReport, text);
  if (node === undefined || agent === null || report === null || !report.ok) return null;
  const memory = agent.memory();
  const { activity, postgres, vote, refusedTerms } = report.value;
  const goal = world.state()?.goals[node.name] ?? null;
  const gaveUp = activity.kind === 'failed' && activity.goalId === goal?.id && !activity.retrying;
  const now = node.clock.now();
  const action = decideNode(
    {
      node: node.name,
      witness: node.kind === 'witness',
      postgres,
      leaseTerm: agent.heldTerm(),
      confirmed: true,
      open: agent.isOpen(),
      highestTerm: memory.highestTerm(),
      vote,
      refusedTerms,
      finished: memory.finished(),
      failure: gaveUp && goal !== null ? { goalId: goal.id, permanent: true, notBefore: now.mono } : null,
      notStreamingSince: null,
      upstream: null,
      ranUnderGoal: false,
      downSince: null,
      stoppingSince: null,
      leaseWantedSince: null,
      syncReady: true,
    },
    world.state(),
    now.mono,
  );
  return action.kind === 'none' && !action.done && DEAD_END.test(action.why) ? action.why : null;
}
