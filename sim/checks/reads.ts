/**
 * I17 *Invariant:* a session of a proxy's split port reads whatever it wrote before, and never less than it saw before, at whichever node a read is run. Excepted are
 *    rows whose loss was said, and servers for which the product promises nothing (writers.ts).
 */
import type { Clients, SessionRead } from '../clients.ts';
import { Violation } from './violation.ts';
import type { WriterChecks } from './writers.ts';

export interface ReadChecks {
  /** At the end, when it is known what was lost. */
  finish(isGivenUp: (row: number) => boolean): void;
}

export function createReadChecks(clients: Clients, writers: WriterChecks): ReadChecks {
  const missed: { readonly read: SessionRead; readonly row: number }[] = [];
  clients.onSessionRead((read) => {
    if (writers.isExcepted(read.node)) return;
    for (const [index, row] of read.rows.entries()) if (read.found[index] === false) missed.push({ read, row });
  });
  return {
    finish: (isGivenUp) => {
      const first = missed.find(({ row }) => !isGivenUp(row));
      if (first === undefined) return;
      const { node, role, at } = first.read;
      throw new Violation(
        'I17',
        `at ${Math.round(at)} ms ${node} (${role}) answered a session without row ${first.row}, which it had written or seen`,
      );
    },
  };
}
