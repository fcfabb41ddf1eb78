/**
 * What an agent must not forget: the newest term it saw, its vote, the terms it refused, the last one it opened, the long steps it finished, the start that let nobody in yet.
 *
 * Invariant: a vote or a refusal is on disk (file and directory fsynced) before anybody hears of it.
 * Because: the controller promotes on the strength of it; a node that forgets it could acknowledge for an old term.
 * Broken if: a setter resolves before the write, or the file is not replaced atomically (Q26).
 */
import { type TextStorage, readTextIfThere, writeFileAtomic } from '../base/files.ts';
import { type Decoded, bool, decodeJson, encodeJson, formatDecodeError, integer, list, nullable, object, text, withDefault } from '../core/decode.ts';
import { type Term, makeTerm } from '../core/ids.ts';
import { term, vote } from '../core/report.ts';
import { type Failure, type Result, err, ok } from '../core/result.ts';
import type { MemoryPort } from './ports.ts';

const MAX_FINISHED = 64;
const MAX_REFUSED = 16;

const record = object({
  version: integer,
  highestTerm: term,
  vote: nullable(vote),
  refusedTerms: list(term),
  openedTerm: withDefault(term, makeTerm(0)),
  /** `goalId/step`, oldest first. */
  finished: list(text),
  unopened: withDefault(bool, false),
});
type Record_ = Decoded<typeof record>;

const EMPTY: Record_ = { version: 1, highestTerm: makeTerm(0), vote: null, refusedTerms: [], openedTerm: makeTerm(0), finished: [], unopened: false };

/** A missing file is an agent's first start. A damaged one is refused: forgetting a vote could lose data. */
export async function openMemory(file: string, storage: TextStorage = fileStorage(file)): Promise<Result<MemoryPort, Failure>> {
  let current = EMPTY;
  try {
    const text = storage.read();
    const decoded = text === null ? null : decodeJson(record, text);
    if (decoded?.ok === false) return err(damaged(file, formatDecodeError(decoded.error)));
    current = decoded?.value ?? EMPTY;
  } catch (cause) {
    return err(damaged(file, String(cause)));
  }
  let finished: ReadonlySet<string> = new Set(current.finished);
  let writing: Promise<void> = Promise.resolve();
  // Writes queue one behind the other: two changes at once must not overwrite each other's file. What is so already is on disk when its turn comes.
  // After a failed write nobody knows which of both is on disk: the next one is made even if it changes nothing.
  let isSure = true;
  const change = (next: (old: Record_) => Record_): Promise<void> => {
    const write = writing.then(async () => {
      const updated = next(current);
      if (updated === current && isSure) return;
      isSure = false;
      await storage.write(`${encodeJson(updated)}\n`);
      isSure = true;
      current = updated;
      finished = new Set(updated.finished);
    });
    writing = write.catch(() => undefined);
    return write;
  };
  return ok({
    highestTerm: () => current.highestTerm,
    vote: () => current.vote,
    refusedTerms: () => current.refusedTerms,
    openedTerm: () => current.openedTerm,
    finished: () => finished,
    unopened: () => current.unopened,
    sawTerm: (seen: Term) => change((old) => (seen > old.highestTerm ? { ...old, highestTerm: seen } : old)),
    setVote: (given) => change((old) => ({ ...old, vote: given, highestTerm: makeTerm(Math.max(given.term, old.highestTerm)) })),
    setUnopened: (unopened: boolean) => change((old) => (old.unopened === unopened ? old : { ...old, unopened })),
    setOpened: (opened: Term) => change((old) => (old.openedTerm >= opened ? old : { ...old, openedTerm: opened })),
    refuse: (refused: Term) =>
      change((old) => ({ ...old, refusedTerms: [...old.refusedTerms.filter((t) => t !== refused), refused].slice(-MAX_REFUSED) })),
    finish: (step: string) => change((old) => ({ ...old, finished: [...old.finished.filter((s) => s !== step), step].slice(-MAX_FINISHED) })),
  });
}

const fileStorage = (file: string): TextStorage => ({
  read: () => readTextIfThere(file),
  write: (text) => writeFileAtomic(file, text, { mode: 0o600 }),
});

function damaged(file: string, cause: string): Failure {
  return {
    code: 'agent.memory-damaged',
    what: `cannot read ${file}, which holds this node's votes`,
    cause,
    now: 'the agent does not start: a forgotten vote could lose acknowledged rows',
    remedy: 'restore the file from a backup, or, when this node surely takes part in no failover, move it away and start the agent again',
    retryable: false,
  };
}
