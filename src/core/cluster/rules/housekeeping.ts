/** Small upkeep of the state. All go on with the rules below; none changes who is primary. */
import type { NodeId } from '../../ids.ts';
import type { ClusterState, Goal } from '../../state.ts';
import type { Rule } from '../../view.ts';
import { bytesBetween } from '../../lsn.ts';
import { findNode } from '../../spec.ts';
import { trimHistory } from '../../timeline.ts';
import { knownPositions, positionsAfter } from '../positions.ts';
import { relationOf } from '../lineage.ts';
import { lateLoss } from '../loss.ts';
import { isPromotionUnfinished, without, withGoal } from '../goals.ts';
import { withTwinsMarked } from '../attempts.ts';
import { endOfWal, isMaintenance, isOpen, live } from '../observe.ts';
import { publishElectorate } from '../quorum.ts';

/**
 * The primary's position is written when it moved this far. Each write of `state` wakes every agent, so not each report is written;
 * what a failover may lose unseen, when the controller that saw the last report dies with the primary, is bounded by it.
 */
const POSITION_STEP_BYTES = 524_288;

/** A slot keeps whole segments: less than one changes nothing. */
const STANDBY_STEP_BYTES = 16_777_216;

function hasStandbyMoved(before: ClusterState['positions'], after: ClusterState['positions']): boolean {
  if (Object.keys(before).some((node) => after[node] === undefined)) return true;
  return Object.entries(after).some(([node, lsn]) => {
    const known = before[node];
    return known !== undefined && bytesBetween({ from: known, to: lsn }) >= STANDBY_STEP_BYTES;
  });
}

export const housekeepingRules: readonly Rule[] = [
  {
    id: 'housekeeping.freeze-expired',
    when: 'the time of a `freeze --for` has passed',
    why: 'A forgotten freeze means that HA is off.',
    decide: (view, now) => {
      const { frozen } = view.state;
      if (frozen === null || frozen.untilWallMs === null || now.wall < frozen.untilWallMs) return null;
      return {
        why: 'the time of the freeze has passed',
        state: { ...view.state, frozen: null },
        events: [{ level: 'info', node: null, text: 'automatic actions go on: the time of the freeze has passed', detail: {} }],
        then: 'continue',
      };
    },
  },
  {
    id: 'housekeeping.electorate',
    when: 'the members that vote are not those of the spec, the primary is open, and no attempt is; or the primary counts with them by now',
    why: 'Votes and promises are counted of the same members. A member that is taken out while the primary is out of sight goes on counting, and until the primary has read a change the former members count too: otherwise a few could elect beside a primary that lives on the others (architecture 4.7).',
    decide: (view) => {
      if (view.state.attempt !== null) return null;
      const state = publishElectorate(view);
      return state === view.state
        ? null
        : {
            why: `${state.electorate.members.join(', ')} vote (revision ${state.electorate.revision})${state.electorate.former.length === 0 ? '' : `, until the primary has read it together with ${state.electorate.former.join(', ')}`}`,
            state,
            then: 'continue',
          };
    },
  },
  {
    id: 'housekeeping.removed-node',
    when: 'a node is in the state but no longer in the spec',
    why: 'Its goal, override and progress are forgotten; its data stays as it is, and so does the mark that it may hold a timeline of its own. The primary is kept until another one is.',
    decide: (view) => {
      const gone = new Set<NodeId>();
      // What may hold a timeline of its own is remembered: the node may come back with its data (Z53).
      const forgotten = Object.keys(view.state.recovery).filter((node) => !isPromotionUnfinished(view.state.recovery[node]));
      const known = [...Object.keys(view.state.goals), ...Object.keys(view.state.overrides), ...forgotten] as NodeId[];
      for (const node of known)
        if (findNode(view.spec, node) === null && node !== view.state.primary && node !== view.state.attempt?.candidate) gone.add(node);
      if (gone.size === 0) return null;
      let state: ClusterState = view.state;
      for (const node of gone)
        state = {
          ...state,
          goals: without(state.goals, node),
          overrides: without(state.overrides, node),
          cascades: without(state.cascades, node),
          recovery: forgotten.includes(node) ? without(state.recovery, node) : state.recovery,
        };
      return { why: `${[...gone].join(', ')} left the cluster`, state, then: 'continue' };
    },
  },
  {
    id: 'housekeeping.maintenance',
    when: 'a node other than the primary is in maintenance, and has another goal than none',
    why: 'It is never promoted, never touched (I14).',
    decide: (view) => {
      if (view.state.phase !== 'running') return null;
      let { state } = view;
      for (const node of view.spec.nodes) {
        if (node.id === state.primary || node.id === state.attempt?.candidate || !isMaintenance(view, node.id)) continue;
        // An order to leave is a person's word, and newer than the one to leave it alone.
        if (state.goals[node.id]?.kind === 'removed') continue;
        if (state.goals[node.id]?.kind !== 'none') state = withGoal(state, node.id, state.term, { kind: 'none' });
      }
      return state === view.state ? null : { why: 'maintenance: left alone', state, then: 'continue' };
    },
  },
  {
    id: 'housekeeping.primary-settled',
    when: 'a primary that was restarted in place is open',
    why: 'The next crash is a new one.',
    decide: (view) => {
      const { primary, primaryTerm, recovery, attempt } = view.state;
      if (
        primary === null ||
        attempt !== null ||
        recovery[primary] === undefined ||
        isRestartAsked(view.state.goals[primary]) ||
        !isOpen(live(view, primary), primaryTerm)
      )
        return null;
      return {
        why: `${primary} is open again`,
        state: { ...view.state, recovery: without(recovery, primary) },
        events: [{ level: 'info', node: primary, text: `${primary} is open again in term ${primaryTerm}`, detail: {} }],
        then: 'continue',
      };
    },
  },
  {
    id: 'housekeeping.fence',
    when: 'the primary is open, and an order for the fencing command is still noted',
    why: 'An answer to it says nothing of the next loss.',
    decide: (view) => {
      const { primary, primaryTerm, attempt, fence } = view.state;
      if (fence === null || primary === null || attempt !== null || !isOpen(live(view, primary), primaryTerm)) return null;
      return { why: `${primary} is open`, state: { ...view.state, fence: null }, then: 'continue' };
    },
  },
  {
    id: 'housekeeping.timeline',
    when: 'the open primary reports a timeline that came out of the one that the state holds, or the state holds none, or no system identifier',
    why: 'The lineage is that of the primary of the newest opened term (Z45). Somebody may have promoted it by hand, while it was no primary, before it opened again in its own term: standbys on its new timeline would be strangers.',
    decide: (view) => {
      const { primary, primaryTerm, systemIdentifier, timeline } = view.state;
      const report = primary === null ? null : live(view, primary);
      if (report === null || !isOpen(report, primaryTerm) || view.state.attempt !== null) return null;
      const pg = report.postgres;
      const relation = relationOf(pg, view.state);
      const descends = relation.kind === 'descendant';
      if ((systemIdentifier !== null || pg.systemIdentifier === null) && (timeline !== null || pg.timeline === null) && !descends) return null;
      const lineage = { systemIdentifier: systemIdentifier ?? pg.systemIdentifier, history: trimHistory(pg.history) };
      if (!descends)
        return {
          why: 'the lineage is taken from the primary',
          state: { ...view.state, ...lineage, timeline: timeline ?? pg.timeline },
          then: 'continue',
        };
      const text = `${report.node} is open in term ${primaryTerm} on timeline ${pg.timeline}, which somebody opened by hand: the lineage goes on from there`;
      return {
        why: text,
        state: {
          ...withTwinsMarked(view, report),
          ...lineage,
          timeline: pg.timeline,
          positions: positionsAfter(view.state.positions, relation),
          primaryLsn: endOfWal(report)?.lsn ?? null,
        },
        events: [{ level: 'warn', node: report.node, text, detail: {} }],
        then: 'continue',
      };
    },
  },
  {
    id: 'housekeeping.primary-position',
    when: 'the open primary moved on by half a MiB or more, or a standby by a WAL segment',
    why: 'When the primary dies together with the controller, the next one knows what may be lost (Q45); members keep the WAL from where a standby stands (H23, Z69).',
    decide: (view) => {
      const { primary, primaryTerm, primaryLsn } = view.state;
      const report = primary === null ? null : live(view, primary);
      const lsn = report?.postgres.flushLsn ?? null;
      if (!isOpen(report, primaryTerm) || lsn === null || view.state.attempt !== null) return null;
      const positions = knownPositions(view);
      const moved = primaryLsn === null || bytesBetween({ from: primaryLsn, to: lsn }) >= POSITION_STEP_BYTES;
      if (!moved && !hasStandbyMoved(view.state.positions, positions)) return null;
      return { why: 'the positions are remembered', state: { ...view.state, primaryLsn: lsn, positions }, then: 'continue' };
    },
  },
  {
    id: 'housekeeping.loss-known',
    when: 'what the present term gave up was not known when it opened, and the old primary shows the end of its WAL',
    why: 'Whoever reads the history tomorrow wants to know how much was lost, not that it was not known for three seconds.',
    decide: (view) => {
      const known = lateLoss(view);
      if (known === null) return null;
      const { record, from } = known;
      const terms = [...view.state.terms.slice(0, -1), record];
      const text =
        record.lostBytes === 0
          ? `${from.node} has nothing that term ${record.term} has not: nothing was lost`
          : `${from.node} has ${record.lostBytes} bytes of WAL that term ${record.term} has not`;
      const level = record.lostBytes === 0 ? 'info' : 'warn';
      return {
        why: text,
        state: { ...view.state, terms },
        opened: record,
        events: [{ level, node: from.node, text, detail: { lostBytes: String(record.lostBytes) } }],
        then: 'continue',
      };
    },
  },
];

/** The last rule: it always applies. */
export const steadyRules: readonly Rule[] = [
  {
    id: 'cluster.steady',
    when: 'nothing else applies',
    why: 'No news is a decision too: `explain` shows that nothing stands against a failover but its need.',
    decide: (view) => ({
      why:
        view.state.phase === 'running'
          ? `${view.state.primary ?? 'nobody'} is the primary of term ${view.state.primaryTerm}`
          : `the cluster is ${view.state.phase}`,
    }),
  },
];

/** A restart on request was not yet seen to be over: the server is open because it has not begun. */
function isRestartAsked(goal: Goal | undefined): boolean {
  return goal?.kind === 'primary' && goal.restart !== null;
}
