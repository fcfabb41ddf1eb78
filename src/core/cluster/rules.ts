/** The table: every rule, in the order in which they are asked. docs/rules.md is generated from it. */
import type { Rule } from '../view.ts';
import { alsoDuringAttempt, attemptRules } from './rules/attempt.ts';
import { bootstrapRules } from './rules/bootstrap.ts';
import { commandRules } from './rules/commands.ts';
import { diskRules } from './rules/disks.ts';
import { housekeepingRules, steadyRules } from './rules/housekeeping.ts';
import { operationRules } from './rules/operations.ts';
import { primaryLostRules } from './rules/primary-lost.ts';
import { restoredRules } from './rules/restored.ts';
import { rollingRules } from './rules/rolling.ts';
import { standbySettingsRules } from './rules/standby-settings.ts';
import { scaleInRules } from './rules/scale-in.ts';
import { scaleOutRules } from './rules/scale-out.ts';
import { standbyRules } from './rules/standbys.ts';
import { switchoverRules } from './rules/switchover.ts';
import { syncRules } from './rules/sync.ts';
import { upstreamRules } from './rules/upstreams.ts';
import { vipRules } from './rules/vips.ts';

/**
 * Upkeep first, because the others count on it, and virtual addresses, which no later rule may hold back; commands before the automatic rules, so that a person's word is not overtaken;
 * a planned change before an attempt, an attempt before the look for a lost primary; standbys last.
 */
export const rules: readonly Rule[] = [
  ...restoredRules,
  ...housekeepingRules,
  ...diskRules,
  ...vipRules,
  ...commandRules,
  ...bootstrapRules,
  ...operationRules,
  ...rollingRules,
  ...scaleOutRules,
  ...scaleInRules,
  ...switchoverRules,
  ...attemptRules,
  ...primaryLostRules.map(alsoDuringAttempt),
  ...upstreamRules,
  ...syncRules,
  ...standbyRules,
  ...standbySettingsRules,
  ...steadyRules,
];

/** Names that stand where a rule's id does although no rule spoke. They are listed beside the rules. */
export const marks: readonly { readonly id: string; readonly when: string }[] = [
  { id: 'cluster.new', when: 'nothing was decided yet: the cluster was registered, and no `init` ran' },
  { id: 'controller.unreadable', when: 'a key of the store cannot be read; the event names it, and the cluster goes on with what can be' },
  { id: 'server.unreadable', when: 'an event in the store cannot be read; its line is kept' },
];

/** The rules by concern, for the documentation. */
export const ruleGroups: readonly { readonly title: string; readonly rules: readonly Rule[] }[] = [
  { title: 'A restored store', rules: restoredRules },
  { title: 'Upkeep', rules: [...housekeepingRules, ...diskRules] },
  { title: 'Virtual addresses', rules: vipRules },
  { title: 'Commands', rules: commandRules },
  { title: 'Creation and adoption', rules: bootstrapRules },
  { title: 'Operations', rules: [...operationRules, ...rollingRules] },
  { title: 'Nodes come', rules: scaleOutRules },
  { title: 'Nodes go', rules: scaleInRules },
  { title: 'Switchover', rules: switchoverRules },
  { title: 'The attempt for a new term', rules: attemptRules },
  { title: 'The primary does not serve', rules: primaryLostRules },
  { title: 'Cascading standbys', rules: upstreamRules },
  { title: 'Synchronous replication', rules: syncRules },
  { title: 'Standbys', rules: [...standbyRules, ...standbySettingsRules] },
  { title: 'Nothing to do', rules: steadyRules },
];
