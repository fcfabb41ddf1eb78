/** A standby that runs with less than its primary: its replay stops, or stopped, and it could not be promoted (Z37). */
import type { NodeId } from '../../ids.ts';
import type { ClusterState } from '../../state.ts';
import type { ClusterView, Outcome, Rule } from '../../view.ts';
import { withGoal } from '../goals.ts';
import { isOpen, live } from '../observe.ts';
import { rollingStandbys } from '../restart-order.ts';
import { isAttached } from '../upstream.ts';

/** The settings that this standby has lower than the open primary, as `name value < value`; empty when there is none, or one cannot be heard. */
function lowerSettings(view: ClusterView, node: NodeId): readonly string[] {
  const { primary, primaryTerm } = view.state;
  const above = primary === null ? null : live(view, primary);
  const own = live(view, node);
  if (above === null || own === null || !isOpen(above, primaryTerm) || own.postgres.state !== 'running') return [];
  return Object.entries(above.postgres.minimums).flatMap(([name, value]) => {
    const mine = own.postgres.minimums[name];
    return mine === undefined || mine >= value ? [] : [`${name} ${mine} < ${value}`];
  });
}

/**
 * One at a time. The request is named by the values, so that a standby whose own configuration keeps it low is restarted once for them, and not for ever.
 */
function restartLower(view: ClusterView): Outcome | null {
  const { state } = view;
  if (state.phase !== 'running' || state.attempt !== null || state.switchover !== null || state.frozen !== null || state.primary === null)
    return null;
  if (view.tasks.some((task) => task.status === 'running')) return null;
  const standbys = rollingStandbys(view);
  for (const node of standbys) {
    const lower = lowerSettings(view, node);
    const goal = state.goals[node];
    if (lower.length === 0 || goal?.kind !== 'standby' || goal.via !== 'stream') continue;
    const request = `settings-${state.primaryTerm}-${lower.join('-').replaceAll(/[^a-z0-9_]+/g, '-')}`;
    if (goal.restart === request) continue;
    const others = standbys.filter((other) => other !== node);
    if (others.length > 0 && !others.some((other) => isAttached(view, other))) continue;
    const why = `${node} is restarted: a standby may not have less than its primary (${lower.join(', ')})`;
    const next: ClusterState = withGoal(
      state,
      node,
      state.primaryTerm,
      { kind: 'standby', upstream: goal.upstream, via: 'stream', restart: request },
      'anew',
    );
    return { why, state: next, events: [{ level: 'warn', node, text: why, detail: {} }] };
  }
  return null;
}

export const standbySettingsRules: readonly Rule[] = [
  {
    id: 'standby.settings-lower',
    when: 'the primary came up with a setting that a standby has lower',
    why: 'Its replay stops at that WAL, and it could not be promoted; a restart brings the value that is configured for all (Z37).',
    decide: restartLower,
  },
];
