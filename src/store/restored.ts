/** A process goes over to a store that was restored from a backup of the one that it knows. */
import type { Clock } from '../base/clock.ts';
import type { Logger } from '../base/log.ts';
import { type Result, ok } from '../core/result.ts';
import { readForeign } from './foreign.ts';
import type { MovableStore } from './movable.ts';
import { RESTORE_KEY, readMark } from './restore-mark.ts';
import type { Store, StoreError } from './store.ts';

/** Between two looks at which store it is: short against the time that a person needs to restore one. */
const INCARNATION_MS = 2000;

export interface RestoredOptions {
  readonly movable: MovableStore;
  /** A new client for the same place, which knows no store yet. */
  readonly open: () => Store;
  readonly clock: Clock;
  readonly log: Logger;
  readonly signal: AbortSignal;
  /** The store in use is another one now. */
  readonly onMoved: () => void;
}

/**
 * A server that is re-deployed from a backup answers as another store, and this client would refuse it until its host is restarted. Returns when `signal` aborts.
 *
 * *Invariant:* a host goes only to a store that was restored, completely, from the one that it knows or one before that, and never back. *Because:* the mark of the restore names that one, and is
 * written last; it names those before too, for a host that was away during more than one restore. That the others are dead is the word of whoever restored it; what it may have forgotten is learned from the agents (architecture 4.10). A backup is
 * restored twice when the first try failed: then the second one is of the store before the present one, whose own mark names it.
 * *Broken if:* every store that answers at the known address were taken for the successor: an empty one would take the cluster's orders away; or if a host went back:
 * two restored stores that answer in turn would be used in turn.
 */
export async function followRestores({ movable, open, clock, log, signal, onMoved }: RestoredOptions): Promise<void> {
  const used = new Set<string>();
  /** Those of which the present one, or one that was used, is a restored backup. */
  const former = new Set<string>();
  let known: string | null = null;
  /** The client that said which store it is: one never goes over to another store. */
  let asked: Store | null = null;
  let told = '';
  while (!signal.aborted) {
    const present = movable.present();
    if (present !== asked) {
      const status = await present.status();
      if (status.ok) {
        known = status.value.incarnation;
        used.add(known);
        asked = present;
      }
    }
    const mark = await markOf(present);
    if (mark.ok && present === asked) for (const one of mark.value?.stores ?? []) former.add(one);
    const foreign = mark.ok ? null : readForeign(mark.error);
    if (foreign !== null) {
      // The store may have been lost after it answered its first call, and before it said which one it is.
      known = foreign.known;
      used.add(known);
      const found = await restoredFrom(open(), { used, former });
      if (found.store !== null) {
        movable.replace(found.store);
        if (found.incarnation !== null) used.add(found.incarnation);
        log.warn(
          { restoredFrom: known, incarnation: found.incarnation },
          'the store was restored from a backup of the one that this host knew; it is used from now on',
        );
        onMoved();
      } else if (found.why !== told) {
        told = found.why;
        log.error({ known, incarnation: found.incarnation }, `another store answers, and it is not used: ${found.why}`);
      }
    }
    await clock.sleep(INCARNATION_MS, signal);
  }
}

/** Closes the client that it was given unless it answers it. */
async function restoredFrom(
  store: Store,
  { used, former }: { readonly used: ReadonlySet<string>; readonly former: ReadonlySet<string> },
): Promise<{ readonly store: Store | null; readonly incarnation: string | null; readonly why: string }> {
  const [status, mark] = [await store.status(), await markOf(store)];
  const incarnation = status.ok ? status.value.incarnation : null;
  const found = mark.ok ? mark.value : null;
  const isHeir = found !== null && found.phase === 'done' && found.stores.some((one) => used.has(one) || former.has(one));
  if (isHeir && incarnation !== null && !used.has(incarnation)) return { store, incarnation, why: '' };
  store.close();
  const why =
    found !== null
      ? `it holds a backup of ${found.from}${found.phase === 'done' ? '' : ', which is not complete'}`
      : 'it is not restored from a backup of the one that this host knows; restore it ("pgherd store restore"), or bring the old one back';
  return { store: null, incarnation, why };
}

/** Null: this store was never restored, or its mark cannot be understood. */
async function markOf(store: Store): Promise<Result<ReturnType<typeof readMark>, StoreError>> {
  const mark = await store.get(RESTORE_KEY);
  return mark.ok ? ok(readMark(mark.value?.value ?? null)) : mark;
}
