/**
 * I3 *Invariant:* no agent acts on a goal of a lower term than it has seen (architecture 4.10). Looked at where the agent reaches for PostgreSQL; a fence is no
 *    order, and may always be.
 */
import type { Goal } from '../../src/core/state.ts';
import type { ModelPort } from '../model/postgres/port.ts';
import { Violation } from '../checks/violation.ts';

const ORDERS = ['initdb', 'startPrimary', 'startStandby', 'stop', 'promote', 'follow', 'rewind', 'clone', 'detach', 'dropData'] as const;

export function watchOrders(
  port: ModelPort,
  options: {
    readonly node: string;
    /** Of the step that was made last. */
    readonly goal: () => Goal | null;
    readonly highestTerm: () => number;
    readonly broken: (violation: Violation) => void;
  },
): ModelPort {
  const watched: Record<string, unknown> = { ...port };
  for (const name of ORDERS) {
    const order = port[name] as (...args: unknown[]) => unknown;
    watched[name] = (...args: unknown[]): unknown => {
      const goal = options.goal();
      // An action that was given up already carries an aborted signal, and was begun for another goal.
      const isOver = args.some((arg) => arg instanceof AbortSignal && arg.aborted);
      if (goal !== null && goal.term < options.highestTerm() && !isOver)
        options.broken(
          new Violation(
            'I3',
            `${options.node} acts (${name}) on the goal ${goal.kind} of term ${goal.term}, and has seen term ${options.highestTerm()}`,
          ),
        );
      return order(...args);
    };
  }
  return watched as unknown as ModelPort;
}
