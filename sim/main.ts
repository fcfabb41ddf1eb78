/** `npm run sim`: see `--help`, and docs/simulation.md. */
import { execFileSync } from 'node:child_process';
import { createHash, randomBytes } from 'node:crypto';
import { availableParallelism } from 'node:os';
import { parseArgs } from 'node:util';
import { monoMs } from '../src/base/clock.ts';
import { observeRules } from './coverage.ts';
import { describeFault, faultsOf } from './plan.ts';
import { runPool } from './pool.ts';
import { parseChoice, profiles } from './profiles.ts';
import { LIFE_MS, type RunResult, runSeed } from './run.ts';
import { readSeeds } from './seeds.ts';
import { shrink } from './shrink.ts';
import type { Job, JobResult } from './worker.ts';

const HELP = `npm run sim -- [OPTIONS]      days of trouble for a simulated cluster

  --seeds N        run N seeds (default 100)
  --from SEED      the first one; the others follow it. Default: random; "sources": drawn from src/ and sim/ as committed, so that each state of the code has its own
  --minutes M      run seeds until M minutes have passed
  --at-least N     with --minutes: so many in any case
  --seed SEED      replay one, with its story
  --only IDS       with --seed: only these entries of its plan (3,7,…)
  --verbose        with --seed: also what was only looked at
  --kept           replay the seeds of sim/seeds.txt
  --profile NAME   ${profiles.map((profile) => profile.name).join(' | ')}; default: drawn from each seed
                   +restore: the store is restored from an old backup in the middle of it
                   +setback: older files are put in the place of the store's
                   +proxy: clients come through a proxy too
                   +reads: a session reads through the proxy's split port
                   +hunt: stories of trouble that follow the primary of the moment; +hunt.NAME: this one
                   +operations: people change nodes, settings and addresses
                   +altered: somebody changes by ALTER SYSTEM whom commits wait for and whom standbys follow
                   +founding: the first data are on a host whose agent comes late
  --jobs K         worker processes (default: processors)
  --no-shrink      leave a failing seed as it is
  --mutants        run the deliberate defects, each with at most 2,000 seeds from 1; fails if one survives
  --mutant NAME    only this defect; with --from, --seeds and --minutes a part of its seeds
  --json           machine-readable; the last line is the summary
`;

interface Summary {
  seeds: number;
  failures: { seed: string; profile: string; invariant: string; step: number; message: string }[];
  /** An hour for each seed that went through; what was carried out for one that failed. */
  clusterHours: number;
  /** Of them event by event; the rest is a whole cluster's idle time. */
  steppedHours: number;
  wallSeconds: number;
  rulesNeverFired: readonly string[];
  events: number;
  promotions: number;
  acknowledged: number;
  lost: number;
  longestOverlapMs: number;
  /** The seed in which that was; "": no two were. */
  longestOverlapIn: string;
  /** Runs that ended early in a state that the product says it cannot hold. */
  excused: number;
}

// A reader that has seen enough (`| head`) is no error.
process.stdout.on('error', (error: NodeJS.ErrnoException) => process.exit(error.code === 'EPIPE' ? 0 : 1));

const out = (text: string): void => void process.stdout.write(`${text}\n`);

function parse(): ReturnType<typeof parseOptions> {
  try {
    return parseOptions();
  } catch (cause) {
    process.stderr.write(`sim: ${cause instanceof Error ? cause.message : String(cause)}\n\n${HELP}`);
    process.exit(2);
  }
}

function parseOptions() {
  const { values } = parseArgs({
    options: {
      seeds: { type: 'string' },
      from: { type: 'string' },
      minutes: { type: 'string' },
      'at-least': { type: 'string' },
      seed: { type: 'string' },
      only: { type: 'string' },
      verbose: { type: 'boolean', default: false },
      kept: { type: 'boolean', default: false },
      profile: { type: 'string' },
      jobs: { type: 'string' },
      'no-shrink': { type: 'boolean', default: false },
      mutants: { type: 'boolean', default: false },
      mutant: { type: 'string' },
      json: { type: 'boolean', default: false },
      help: { type: 'boolean', default: false },
    },
  });
  if (values.profile !== undefined && parseChoice(values.profile) === null) throw new Error(`no profile "${values.profile}"`);
  for (const name of ['seeds', 'minutes', 'at-least', 'jobs'] as const) {
    const value = values[name];
    if (value !== undefined && !(Number(value) > 0)) throw new Error(`--${name} wants a number above 0, not "${value}"`);
  }
  for (const name of ['seed', 'from'] as const) {
    const value = values[name];
    if (value !== undefined && !/^\d+$/.test(value) && !(name === 'from' && value === 'sources'))
      throw new Error(`--${name} wants a whole number, not "${value}"`);
  }
  return values;
}

/** Of the same sources the same seeds, wherever and by whomever they are committed: what a run finds, the next run of that state finds again. */
function seedOfSources(): number {
  const trees = git('rev-parse', 'HEAD:src', 'HEAD:sim');
  // Outside of a checkout any seeds are as good; they are named if they find something.
  return trees === null ? anySeed() : createHash('sha256').update(trees).digest().readUIntBE(0, 6);
}

function anySeed(): number {
  return randomBytes(6).readUIntBE(0, 6);
}

function firstSeed(from: string | undefined): number {
  if (from === 'sources') return seedOfSources();
  return from === undefined ? anySeed() : Number(from);
}

/** Null outside of a checkout. */
function git(...args: string[]): string | null {
  try {
    return execFileSync('git', args, { encoding: 'utf8', stdio: ['ignore', 'pipe', 'ignore'] }).trim();
  } catch {
    return null;
  }
}

function commit(): string {
  return git('rev-parse', '--short', 'HEAD') ?? 'unknown';
}

function command(seed: string, profile: string | null, only: readonly number[] | null): string {
  return `npm run sim -- --seed ${seed}${profile === null ? '' : ` --profile ${profile}`}${only === null ? '' : ` --only ${only.join(',')}`}`;
}

function report(result: RunResult, asked: string | null, only: readonly number[] | null): void {
  out(`plan of seed ${result.seed} (profile ${result.profile}):`);
  for (const fault of faultsOf(result.plan)) out(`  ${fault.episode + 1}. ${(fault.at / 1000).toFixed(3).padStart(8)} ${describeFault(fault)}`);
  out('');
  for (const line of result.trace) out(line);
  const { failure } = result;
  out('');
  if (failure === null)
    out(`seed ${result.seed}: every invariant held; ${Math.round(result.virtualMs / 1000)} s, ${result.steps} events, hash ${result.hash}`);
  else {
    out(`seed ${result.seed} at commit ${commit()}: ${failure.message}`);
    out(
      `  at ${(failure.atMs / 1000).toFixed(3)} s, event ${failure.step}, hash ${result.hash}; again: ${command(String(result.seed), asked, only)}`,
    );
  }
}

async function replay(values: ReturnType<typeof parseOptions>): Promise<number> {
  const only =
    values.only === undefined
      ? null
      : values.only
          .split(',')
          .filter((id) => id !== '')
          .map(Number);
  const profile = values.profile ?? null;
  const result = await runSeed({
    seed: BigInt(values.seed ?? '0'),
    profile,
    verbose: values.verbose,
    ...(only === null ? {} : { only: new Set(only) }),
  });
  report(result, profile, only);
  return result.failure === null ? 0 : 1;
}

function createJobs(values: ReturnType<typeof parseOptions>): () => Job | null {
  const profile = values.profile ?? null;
  if (values.kept) {
    const kept = [...readSeeds()];
    return () => kept.shift() ?? null;
  }
  const from = firstSeed(values.from);
  const atLeast = Number(values['at-least'] ?? 0);
  const until = values.minutes === undefined ? Number.POSITIVE_INFINITY : monoMs() + Number(values.minutes) * 60_000;
  const count = values.seeds === undefined ? (values.minutes === undefined ? 100 : Number.POSITIVE_INFINITY) : Number(values.seeds);
  let given = 0;
  return () => (given >= count || (given >= atLeast && monoMs() >= until) ? null : { seed: String(from + given++), profile });
}

async function runMany(values: ReturnType<typeof parseOptions>): Promise<number> {
  const coverage = observeRules();
  const fired = new Set<string>();
  const startedAt = monoMs();
  const summary: Summary = {
    seeds: 0,
    failures: [],
    clusterHours: 0,
    steppedHours: 0,
    wallSeconds: 0,
    rulesNeverFired: [],
    events: 0,
    promotions: 0,
    acknowledged: 0,
    lost: 0,
    longestOverlapMs: 0,
    longestOverlapIn: '',
    excused: 0,
  };
  let virtualMs = 0;
  let lifeMs = 0;
  await runPool({
    jobs: Number(values.jobs ?? availableParallelism()),
    next: createJobs(values),
    onResult: (result: JobResult) => {
      summary.seeds++;
      summary.events += result.steps;
      summary.promotions += result.promotions;
      summary.acknowledged += result.acknowledged;
      summary.lost += result.lost;
      const overlapMs = Math.round(result.longestOverlapMs);
      if (overlapMs > summary.longestOverlapMs) {
        summary.longestOverlapMs = overlapMs;
        summary.longestOverlapIn = `${result.seed} ${result.profile}`;
      }
      virtualMs += result.virtualMs;
      if (result.excused !== null) summary.excused++;
      lifeMs += result.failure === null && result.excused === null ? Math.max(LIFE_MS, result.virtualMs) : result.virtualMs;
      for (const rule of Object.keys(result.rules)) fired.add(rule);
      if (result.failure === null) return;
      const { invariant, step, message } = result.failure;
      summary.failures.push({ seed: result.seed, profile: result.profile, invariant, step, message });
      if (!values.json) out(`seed ${result.seed} (${result.profile}) at commit ${commit()}: ${message}`);
    },
    ...(values.mutant === undefined ? {} : { mutant: values.mutant }),
  });
  summary.wallSeconds = Math.round((monoMs() - startedAt) / 100) / 10;
  summary.clusterHours = Math.round((lifeMs / 3_600_000) * 100) / 100;
  summary.steppedHours = Math.round((virtualMs / 3_600_000) * 100) / 100;
  summary.rulesNeverFired = coverage.all.filter((rule) => !fired.has(rule));
  const first = summary.failures[0];
  if (first !== undefined && !values['no-shrink'] && !values.json && values.mutant === undefined) await shrinkAndTell(first, values);
  if (values.json) out(JSON.stringify(summary));
  else tell(summary);
  return summary.failures.length === 0 ? 0 : 1;
}

async function shrinkAndTell(failure: Summary['failures'][number], values: ReturnType<typeof parseOptions>): Promise<void> {
  const asked = values.profile ?? null;
  const again = await runSeed({ seed: BigInt(failure.seed), profile: asked });
  const { result, kept, runs } = await shrink(again);
  out(`\nseed ${failure.seed} made smaller (${runs} runs): ${kept.length} of ${faultsOf(again.plan).length} entries of its plan are needed`);
  report(
    result,
    asked,
    kept.map((fault) => fault.id),
  );
}

function tell(summary: Summary): void {
  const perMinute = summary.wallSeconds === 0 ? 0 : (summary.clusterHours / summary.wallSeconds) * 60;
  out(
    `\n${summary.seeds} seeds, ${summary.failures.length} failed, ${summary.excused} ended early (excused); ${summary.clusterHours} cluster-hours (${summary.steppedHours} of them event by event, the rest idle) in ${summary.wallSeconds} s (${perMinute.toFixed(0)} cluster-hours a minute), ${summary.events} events`,
  );
  out(
    `${summary.promotions} terms opened, ${summary.acknowledged} rows acknowledged, ${summary.lost} lost as announced (asynchronous), two writable within an excepted window for at most ${summary.longestOverlapMs} ms${summary.longestOverlapIn === '' ? '' : ` (${summary.longestOverlapIn})`}`,
  );
  if (summary.rulesNeverFired.length > 0) out(`rules that never fired: ${summary.rulesNeverFired.join(', ')}`);
}

const values = parse();
if (values.help) out(HELP);
else if (values.mutants) process.exitCode = await (await import('./mutants/check.ts')).checkMutants(values);
else process.exitCode = values.seed === undefined ? await runMany(values) : await replay(values);
