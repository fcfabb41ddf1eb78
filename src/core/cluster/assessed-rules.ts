/** Rules of which exactly one speaks for a snapshot, since all read one assessment of it. */
import type { Now } from '../ids.ts';
import type { ClusterView, Outcome, Rule } from '../view.ts';

export interface Assessment {
  /** Id of the rule that speaks. */
  readonly rule: string;
  readonly outcome: Outcome;
}

/** Makes the rules of one assessment; null: none of them speaks. */
export function assessedRules(assess: (view: ClusterView, now: Now) => Assessment | null): (id: string, when: string, why: string) => Rule {
  return (id, when, why) => ({
    id,
    when,
    why,
    decide: (view, now) => {
      const assessment = assess(view, now);
      return assessment !== null && assessment.rule === id ? assessment.outcome : null;
    },
  });
}
