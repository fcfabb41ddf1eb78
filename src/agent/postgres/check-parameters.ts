/**
 * Asks PostgreSQL's own parser which parameters it takes, before they stand in a file that it must read. One wrong line in a configuration file keeps a
 * server from starting, and a running one from taking over any change at its next reload, also that of its upstream.
 * *Source:* PostgreSQL, src/backend/utils/misc/guc.c (guc-file.l before 16), ProcessConfigFileInternal: "contains errors; no changes were applied", and
 * FATAL at the start of a server.
 */
import { rm } from 'node:fs/promises';
import { join } from 'node:path';
import { type Result, err, ok } from '../../core/result.ts';
import { runProcess } from '../../base/process.ts';
import { quoteGuc } from './auto-conf.ts';
import { messageOf, processTrouble } from './failure.ts';
import { ensureDirectory, writeAtomic } from './files.ts';
import { type Instance, asOsUser, binary } from './instance.ts';

export interface RefusedParameter {
  readonly name: string;
  /** In PostgreSQL's words. */
  readonly why: string;
}

export interface ParameterCheck {
  /**
   * Those that PostgreSQL refuses: unknown names, values that are none, parameters that nobody may set; an empty list: it takes all. What only shows when
   * a server starts (too much memory, a missing library) is not found. Looks are made one after the other, and the last answers are kept.
   * Error: why PostgreSQL could not be asked; nothing is known then.
   */
  check(parameters: Readonly<Record<string, string>>): Promise<Result<readonly RefusedParameter[], string>>;
}

/** It reads one short file; a host that swaps still answers in this time. */
const LIMIT_MS = 5000;
/** More names than anybody sets; each refused one costs a process. */
const MAX_SINGLE = 100;
/** Those of the cluster, and the last questions of people. */
const MAX_KNOWN = 8;

export function createParameterCheck(instance: Instance): ParameterCheck {
  const known = new Map<string, readonly RefusedParameter[]>();
  let queue: Promise<unknown> = Promise.resolve();
  const check = async (parameters: Readonly<Record<string, string>>): Promise<Result<readonly RefusedParameter[], string>> => {
    const key = JSON.stringify(parameters);
    const before = known.get(key);
    if (before !== undefined) return ok(before);
    const found = await findRefused(instance, Object.entries(parameters));
    if (!found.ok) return found;
    const oldest = known.keys().next().value;
    if (known.size >= MAX_KNOWN && oldest !== undefined) known.delete(oldest);
    known.set(key, found.value);
    return found;
  };
  return {
    check: (parameters) => {
      const answer = queue.then(() => check(parameters));
      queue = answer;
      return answer;
    },
  };
}

type Entry = readonly [name: string, value: string];

/** All at once, since mostly all are right; then one by one, since PostgreSQL does not always name the line. */
async function findRefused(instance: Instance, entries: readonly Entry[]): Promise<Result<readonly RefusedParameter[], string>> {
  if (entries.length === 0) return ok([]);
  const whole = await ask(instance, entries);
  if (!whole.ok) return whole;
  if (whole.value === null) return ok([]);
  const refused: RefusedParameter[] = [];
  for (const entry of entries.slice(0, MAX_SINGLE)) {
    const one = await ask(instance, [entry]);
    if (!one.ok) return one;
    if (one.value !== null) refused.push({ name: entry[0], why: one.value });
  }
  return refused.length === 0 ? err(`it refuses the parameters together, and each alone not: ${whole.value}`) : ok(refused);
}

/** Why PostgreSQL refuses a file with these lines; null: it does not. They go through a private file, since an argv is seen by everybody on the host. */
async function ask(instance: Instance, entries: readonly Entry[]): Promise<Result<string | null, string>> {
  const directory = join(instance.socketDirectory, 'parameter-check');
  try {
    await ensureDirectory(instance.stateDirectory, { owner: null, mode: 0o711 });
    await ensureDirectory(instance.socketDirectory, { owner: instance.os, mode: 0o700 });
    await ensureDirectory(directory, { owner: instance.os, mode: 0o700 });
    const lines = entries.map(([name, value]) => `${name} = ${quoteGuc(value)}\n`);
    await writeAtomic(join(directory, 'postgresql.conf'), lines.join(''), { owner: instance.os });
    // It prints one value and ends; no data directory is read or made.
    const asked = await runProcess([binary(instance, 'postgres'), '-D', directory, '-C', 'data_directory'], {
      ...asOsUser(instance),
      timeoutMs: LIMIT_MS,
    });
    const trouble = processTrouble(asked);
    if (trouble === null) return ok(null);
    return asked.ok && asked.value.exitCode === 1 ? ok(reasonOf(asked.value.stderr)) : err(trouble);
  } catch (cause) {
    return err(messageOf(cause));
  } finally {
    // A temporary directory that stays behind hurts nobody; the answer counts.
    await rm(directory, { recursive: true, force: true }).catch(() => undefined);
  }
}

/** `invalid value for parameter "work_mem": "banana"` out of the lines of a log. */
function reasonOf(stderr: string): string {
  const lines = stderr.split('\n').flatMap((line) => /\b(?:LOG|FATAL|DETAIL|HINT):\s+(.*)$/.exec(line)?.[1] ?? []);
  const said = lines.filter((line) => !/^skipping missing configuration file|contains errors$/.test(line));
  const words = (said.length === 0 ? lines : said).map((line) => line.replace(/ in file ".*" line \d+$/, '').replace(/\.$/, ''));
  return words.length === 0 ? stderr.trim().slice(-300) : words.join('; ');
}
