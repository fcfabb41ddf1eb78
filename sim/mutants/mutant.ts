/** What a deliberate defect is: see mutants.ts. */
import type { Patch } from './apply.ts';

export interface Mutant {
  readonly name: string;
  /** The rule of docs/architecture.md, or the hazard, that it breaks. */
  readonly breaks: string;
  /** Where it can show: seeds are run in this profile, with its extras. Absent: in the one that each seed draws. */
  readonly profile?: string;
  readonly patches: readonly Patch[];
}
