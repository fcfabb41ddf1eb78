/** What the catalog of each database says about functions, read over a session's own connection: every user may read it. */
import { type Clock, realClock } from '../base/clock.ts';
import type { Logger } from '../base/log.ts';
import { type MonoMs, addMono } from '../core/ids.ts';
import { readDataRow } from '../wire/backend.ts';
import { decodeText } from '../wire/bytes.ts';
import type { Rules } from '../wire/classification.ts';
import { buildQuery } from '../wire/frontend.ts';
import { NO_RULES, type RulesRow, buildRules } from '../wire/rules.ts';
import { RULES_SQL } from '../wire/rules-sql.ts';
import type { Backend } from './login/backend.ts';
import { runOn } from './restore.ts';

/** Older rules are read anew with the next login. A function that is made meanwhile is unknown, and unknown ones count as the worst. */
const FRESH_MS = 60_000;
/** After a question that failed. */
const AGAIN_MS = 5000;
/** The question takes some 20 ms. */
const LIMIT_MS = 5000;
const MAX_DATABASES = 200;

interface Entry {
  rules: Rules;
  readAt: MonoMs | null;
  /** Settles when the question that is under way is answered. */
  reading: Promise<void> | null;
}

export interface RulesCache {
  of(database: string): () => Rules;
  /** Reads them over the connection, which must be idle, if they are missing or old. Null when the connection broke (it is closed then). */
  refresh(database: string, backend: Backend): Promise<Backend | null>;
  isFresh(database: string): boolean;
  /** They will be read with the next login. */
  forget(database: string): void;
}

export function openRules(options: { readonly log: Logger; readonly clock?: Clock }): RulesCache {
  const clock = options.clock ?? realClock;
  const all = new Map<string, Entry>();
  const entryOf = (database: string): Entry => {
    const known = all.get(database);
    if (known !== undefined) return known;
    const made: Entry = { rules: NO_RULES, readAt: null, reading: null };
    if (all.size < MAX_DATABASES) all.set(database, made);
    return made;
  };
  return {
    of: (database) => {
      const entry = entryOf(database);
      return () => entry.rules;
    },
    isFresh: (database) => {
      const { readAt } = entryOf(database);
      return readAt !== null && clock.now().mono - readAt < FRESH_MS;
    },
    forget: (database) => {
      entryOf(database).readAt = null;
    },
    refresh: async (database, backend) => {
      const entry = entryOf(database);
      // Who came while the first one asks waits for its answer: without rules, everything that a session calls counts as the worst.
      if (entry.reading !== null) await entry.reading;
      if (entry.readAt !== null && clock.now().mono - entry.readAt < FRESH_MS) return backend;
      const askedAt = clock.now().mono;
      const asking = Promise.withResolvers<void>();
      entry.reading = asking.promise;
      const answered = await runOn(backend, buildQuery(RULES_SQL), { cycles: 1, limitMs: LIMIT_MS });
      entry.reading = null;
      asking.resolve();
      if (answered === null) return null;
      if (answered.error !== null)
        options.log.warn({ database, sqlState: answered.error.sqlState }, `the catalog could not be read: ${answered.error.message}`);
      else {
        const { rules, distrust } = buildRules(answered.rows.map(toRow));
        entry.rules = rules;
        if (distrust.length > 0) options.log.info({ database, because: distrust.slice(0, 5) }, 'the catalog makes every query suspect');
      }
      // A time limit of the session that asked, for example: soon another one does.
      entry.readAt = answered.error === null ? askedAt : addMono(askedAt, AGAIN_MS - FRESH_MS);
      return backend;
    },
  };
}

function toRow(row: Uint8Array): RulesRow {
  const [kind = null, name = null, detail = null] = readDataRow(row, 0, row.length) ?? [];
  return [kind, name, detail].map((value) => (value === null ? '' : decodeText(value))) as unknown as RulesRow;
}
