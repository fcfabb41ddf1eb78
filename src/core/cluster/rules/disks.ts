/** The disks of the nodes: a trouble begins, changes and ends as an event. Goes on with the rules below. */
import type { NodeId } from '../../ids.ts';
import type { ClusterState } from '../../state.ts';
import type { Outcome, Rule } from '../../view.ts';
import { diskProblemOf } from '../disks.ts';
import { fresh } from '../observe.ts';

export const diskRules: readonly Rule[] = [
  {
    id: 'housekeeping.disk',
    when: 'a node reports that the disk of its data directory is full, read-only or stuck, or that it is well again; and no promotion is under way',
    why: 'A disk is found by its own name, before and after PostgreSQL ends because of it; what becomes of the primary is decided by the rules below.',
    decide: (view) => {
      const { state } = view;
      // A candidate takes its lease against the revision of the state that ordered it.
      if (state.phase !== 'running' || state.attempt !== null || state.switchover !== null) return null;
      const known: Record<NodeId, string> = {};
      const events: NonNullable<Outcome['events']>[number][] = [];
      for (const { id, kind } of view.spec.nodes) {
        const report = kind === 'witness' ? null : fresh(view, id);
        const before = state.diskProblems[id] ?? null;
        const problem = report === null ? null : diskProblemOf(report);
        // An agent that was started a moment ago has not looked yet.
        const code = report === null || (problem === null && !report.diskKnown) ? before : (problem?.code ?? null);
        if (code !== null) known[id] = code;
        if (code === before) continue;
        if (problem === null) events.push({ level: 'info', node: id, text: `${id}: its disk takes writes again (was ${before ?? ''})`, detail: {} });
        else events.push({ level: 'error', node: id, text: `${id}: ${problem.text} (${problem.code})`, detail: { code: problem.code } });
      }
      if (events.length === 0) return null;
      const next: ClusterState = { ...state, diskProblems: known };
      return { why: events.map((event) => event.text).join('; '), state: next, events, then: 'continue' };
    },
  },
];
