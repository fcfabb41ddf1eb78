/** What a promotion gives up, as far as it is known. Pure. */
import { bytesBetween } from '../lsn.ts';
import type { NodeReport } from '../report.ts';
import type { Attempt, TermRecord } from '../state.ts';
import type { ClusterView } from '../view.ts';
import { relationOf } from './lineage.ts';
import { endOfWal, isForeignSystem, isGone, isOpen, live } from './observe.ts';

/**
 * The old primary's own agent read the end of its WAL after PostgreSQL was gone, and it is the end that `primaryEnd` takes.
 *
 * *Invariant:* "nothing is lost" is said only of an end that a candidate was measured against (I5). *Because:* `primaryEnd` takes the end that an agent
 * read only when it lies on the cluster's timeline; of a server that somebody promoted by hand, or whose files show an older timeline than
 * its WAL, it knows less: where it left, or what the state remembers, which is older than the last row that was acknowledged.
 * *Broken if:* any end that was read counts, on whichever timeline.
 */
export const isEndExact = (view: ClusterView, report: NodeReport | null): boolean =>
  report !== null &&
  isGone(report) &&
  relationOf(report.postgres, view.state).kind === 'same' &&
  (report.postgres.walEnd ?? report.postgres.shutdownLsn) !== null;

/** The rule under which a person's failover opens; with it goes what the person took upon himself. */
export const BY_HAND = 'failover.by-hand';

/** On the quorum path: what the old primary has beside was never acknowledged. */
export const NOTHING_ACKNOWLEDGED = { bytes: 0, text: '; every commit that was acknowledged at synchronous durability is on it' } as const;

/**
 * What is known of the loss. Only the end of WAL that the old primary's own agent read after PostgreSQL was gone is exact; a last report is up to
 * one interval older than the last row that was acknowledged, so that 0 bytes behind it are no proof that nothing is lost (I5). A candidate
 * that was given up without its refusal may have opened and acknowledged rows: then nothing is exact, whatever the old primary's end says.
 */
export function judgeLoss(view: ClusterView, attempt: Attempt, missing: number | null): { readonly bytes: number | null; readonly text: string } {
  const report = view.state.primary === null ? null : live(view, view.state.primary);
  const maybe = attempt.mayHaveOpened.map((one) => `${one.node} in term ${one.term}`).join(', ');
  if (maybe !== '') {
    const least = missing === null || missing === 0 ? '' : `; at least ${missing} bytes are lost`;
    return { bytes: null, text: `${least}; what was acknowledged by ${maybe}, if it opened before it was lost, is not known` };
  }
  if (attempt.afterRestore)
    return { bytes: null, text: '; the store was restored before, and what was acknowledged in terms that it forgot, if any, is not known' };
  if (isEndExact(view, report) && missing !== null)
    return { bytes: missing, text: missing === 0 ? '; nothing is lost' : `; ${missing} bytes of the old primary are lost` };
  if (missing === null || missing === 0)
    return { bytes: null, text: '; what the old primary acknowledged after its last report, if anything, is not known' };
  return { bytes: missing, text: `; at least ${missing} bytes of the old primary are lost` };
}

/**
 * The record of the present term with the loss that was not known when it opened; null while the old primary has not shown the end of its WAL, or when
 * that end would not be the whole of the loss.
 *
 * *Invariant:* an amount is noted only if nobody else can have acknowledged rows that are lost. *Because:* the terms are adjacent, so that no candidate
 * was ordered to open between them, no person said in the command that a restored store or a missing node is not waited for, and the directory still
 * ends on the timeline that the old term had, which the present one came out of: nothing was appended or taken away since. *Broken if:* it is computed
 * from a directory that was rewound, cloned or promoted meanwhile, or against the end of another timeline with the old one's number.
 */
export function lateLoss(view: ClusterView): { readonly record: TermRecord; readonly from: NodeReport } | null {
  const { primary, primaryTerm, attempt, terms } = view.state;
  const [before, present] = terms.slice(-2);
  if (before === undefined || present === undefined || attempt !== null || primary === null || !isOpen(live(view, primary), primaryTerm)) return null;
  if (present.term !== primaryTerm || before.term !== present.term - 1 || present.lostBytes !== null || present.forkLsn === null) return null;
  const from = before.primary === primary || present.rule === BY_HAND ? null : live(view, before.primary);
  if (from === null || !isGone(from) || from.postgres.timeline !== before.timeline || isForeignSystem(view, from)) return null;
  const end = (from.postgres.walEnd ?? from.postgres.shutdownLsn) === null ? null : endOfWal(from);
  const kept = relationOf(from.postgres, view.state);
  if (end === null || kept.kind !== 'ancestor') return null;
  return { record: { ...present, lostBytes: Math.max(0, bytesBetween({ from: kept.forkLsn, to: end.lsn })) }, from };
}
