/** Which rules of the table speak in a run. The rules themselves run unchanged; each is counted on its way out. */
import { rules } from '../src/core/cluster/rules.ts';
import type { Rule } from '../src/core/view.ts';

export interface Coverage {
  /** Rule id → how often it spoke since the last `reset`. */
  fired(): ReadonlyMap<string, number>;
  reset(): void;
  readonly all: readonly string[];
}

/** One call in so many is made twice (I20). A prime, so that each rule gets its turn. */
const AGAIN_EVERY = 9973;
const text = (value: unknown): string => JSON.stringify(value, (_key, inner: unknown) => (typeof inner === 'bigint' ? `${inner}n` : inner)) ?? '';

/** Once a process: the table is one object. */
export function observeRules(): Coverage {
  const counts = new Map<string, number>();
  let calls = 0;
  for (const rule of rules as readonly { -readonly [K in keyof Rule]: Rule[K] }[]) {
    const { decide, id } = rule;
    rule.decide = (view, now) => {
      const outcome = decide(view, now);
      if (++calls % AGAIN_EVERY === 0 && text(outcome) !== text(decide(view, now)))
        throw new Error(`invariant: ${id} decided twice differently (I20)`);
      if (outcome !== null) counts.set(id, (counts.get(id) ?? 0) + 1);
      return outcome;
    };
  }
  return { fired: () => counts, reset: () => counts.clear(), all: [...new Set(rules.map((rule) => rule.id))] };
}
