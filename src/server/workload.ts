/** What a planned change of the primary would meet there, as notes of its dry run. None of them refuses it: a person decides. */
import { type Decoded, integer, list, nullable, number, object, text } from '../core/decode.ts';
import { askAgent } from './agent-call.ts';
import type { ServerContext } from './context.ts';
import type { ServerView } from './view.ts';

const answer = object({
  longTransactions: integer,
  longestMs: number({ min: 0 }),
  preparedTransactions: integer,
  logicalSlots: list(text),
  archivingFails: nullable(text),
});
type Workload = Decoded<typeof answer>;

/** Empty when nothing is in the way; one line says so when the primary's agent cannot tell. */
export async function switchoverNotes(context: ServerContext, { view, members }: ServerView): Promise<readonly string[]> {
  const { primary } = view.state;
  if (primary === null) return [];
  const found = await askAgent(context, members[primary], { path: '/v1/workload', answer });
  return found === null ? [`note: the agent of ${primary} does not say which transactions and slots there are now`] : describeWorkload(found);
}

export function describeWorkload({ longTransactions, longestMs, preparedTransactions, logicalSlots, archivingFails }: Workload): readonly string[] {
  const notes: string[] = [];
  if (longTransactions > 0)
    notes.push(
      `note: ${longTransactions === 1 ? 'a transaction runs' : `${longTransactions} transactions run`} for more than 2 s (the longest for ${Math.round(longestMs / 1000)} s): through a proxy the switchover gives up on it and changes nothing; without a proxy its session ends`,
    );
  if (preparedTransactions > 0)
    notes.push(
      `note: ${preparedTransactions} prepared ${preparedTransactions === 1 ? 'transaction goes' : 'transactions go'} over to the next primary as they are`,
    );
  if (logicalSlots.length > 0)
    notes.push(`note: the next primary does not have the logical slots ${logicalSlots.join(', ')}: what reads from them must begin anew there`);
  if (archivingFails !== null)
    notes.push(`note: archiving fails (last: ${archivingFails}): WAL that is not archived when the primary stops is archived by its next start only`);
  return notes;
}
