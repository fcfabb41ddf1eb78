/**
 * What a session of the split port wants of its reads.
 *
 *   session   (default) a read sees all that the session wrote, and never less than it saw before
 *   eventual  a read may be as old as the route allows (`read.maxLagBytes`), and older than the session's own writes
 *   strong    everything is read on the primary
 *
 * They are settings in PostgreSQL's sense, with names of our own: `SET pgherd.consistency`, `SET pgherd.wait_for_lsn`, `SHOW pgherd.lsn`. PostgreSQL keeps such
 * names for anybody, so that transactions, RESET, DISCARD and start options treat them like any other setting.
 * *Source:* PostgreSQL manual, "Customized Options".
 */
import { type Term, makeTerm } from '../core/ids.ts';
import { formatLsn, parseLsn } from '../core/lsn.ts';
import type { Startup } from '../wire/startup.ts';
import { type SessionMemory, WAIT_SETTING } from './memory.ts';
import type { Token } from './positions.ts';

export type Consistency = 'session' | 'eventual' | 'strong';

export interface Wishes {
  readonly consistency: Consistency;
  /** Reads must contain this too; null: no such wish. */
  readonly floor: Token | null;
  /** What was set and is not understood, in words; everything is read on the primary then. Null: all is well. */
  readonly problem: string | null;
}

export const CONSISTENCY_SETTING = 'pgherd.consistency';

/** Of what the session has set and, where it has not, of its start packet. */
export function readWishes(memory: SessionMemory, startup: Startup): Wishes {
  const consistency = memory.setting(CONSISTENCY_SETTING) ?? startOption(startup, CONSISTENCY_SETTING) ?? 'session';
  const wait = memory.setting(WAIT_SETTING) ?? startOption(startup, WAIT_SETTING) ?? '';
  const floor = wait === '' ? null : parseToken(wait);
  if (!isConsistency(consistency))
    return { consistency: 'strong', floor: null, problem: `${CONSISTENCY_SETTING} is "${consistency}", and not session, eventual or strong` };
  if (wait !== '' && floor === null)
    return { consistency: 'strong', floor: null, problem: `${WAIT_SETTING} is "${wait}", and not what SHOW pgherd.lsn says` };
  return { consistency, floor, problem: null };
}

function isConsistency(text: string): text is Consistency {
  return text === 'session' || text === 'eventual' || text === 'strong';
}

/** `-c name=value` and `--name=value` in `options`, or a parameter of its own. Source: PostgreSQL manual, StartupMessage; postgres(1). */
function startOption(startup: Startup, name: string): string | null {
  const own = startup.parameters.find(([key]) => key.toLowerCase() === name);
  if (own !== undefined) return own[1];
  const options = startup.parameters.find(([key]) => key === 'options')?.[1] ?? '';
  const pattern = new RegExp(`(?:-c\\s*|--)${name.replaceAll('.', '\\.')}=(\\S+)`, 'gi');
  return [...options.matchAll(pattern)].at(-1)?.[1] ?? null;
}

/** `TERM:LSN`: positions compare within one line of history, which the term names. */
export function formatToken({ term, lsn }: Token): string {
  return `${term}:${formatLsn(lsn)}`;
}

/** Null when it is none. */
export function parseToken(text: string): Token | null {
  const match = /^(\d{1,9}):([0-9A-Fa-f]{1,8}\/[0-9A-Fa-f]{1,8})$/.exec(text);
  const lsn = match === null ? null : parseLsn(match[2] ?? '');
  return match === null || lsn === null ? null : { term: makeTerm(Number(match[1])) satisfies Term, lsn };
}
