/** A worker process: runs the seeds it is given, one after the other, and answers a line for each over IPC. */
import { observeRules } from './coverage.ts';
import { runSeed } from './run.ts';

export interface Job {
  readonly seed: string;
  readonly profile: string | null;
}

export interface JobResult {
  readonly seed: string;
  readonly profile: string;
  readonly failure: { readonly invariant: string; readonly message: string; readonly step: number; readonly atMs: number } | null;
  readonly excused: string | null;
  readonly virtualMs: number;
  readonly steps: number;
  readonly promotions: number;
  readonly acknowledged: number;
  readonly lost: number;
  readonly longestOverlapMs: number;
  readonly rules: Readonly<Record<string, number>>;
}

const coverage = observeRules();

export async function runJob(job: Job): Promise<JobResult> {
  coverage.reset();
  const result = await runSeed({ seed: BigInt(job.seed), profile: job.profile });
  return {
    seed: job.seed,
    profile: result.profile,
    failure: result.failure,
    excused: result.excused,
    virtualMs: result.virtualMs,
    steps: result.steps,
    promotions: result.promotions,
    acknowledged: result.acknowledged,
    lost: result.lost,
    longestOverlapMs: result.longestOverlapMs,
    rules: Object.fromEntries(coverage.fired()),
  };
}

if (process.send !== undefined) {
  const answer = process.send.bind(process);
  process.on('message', (job: Job) => {
    runJob(job).then(
      (result) => answer(result),
      (cause: unknown) => {
        process.stderr.write(`seed ${job.seed}: ${cause instanceof Error ? (cause.stack ?? cause.message) : String(cause)}\n`);
        process.exit(1);
      },
    );
  });
}
