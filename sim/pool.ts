/** Several worker processes that take seeds from one list. */
import { type ChildProcess, fork } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import type { Job, JobResult } from './worker.ts';

export interface PoolOptions {
  readonly jobs: number;
  /** The next seed; null: no more. Asked whenever a worker is free. */
  readonly next: () => Job | null;
  readonly onResult: (result: JobResult) => void;
  /** A defect that the workers load instead of the real source (mutants/). */
  readonly mutant?: string;
}

/** Resolves when every seed that was given out has been answered. Rejects when a worker dies. */
export function runPool(options: PoolOptions): Promise<void> {
  return Promise.all(Array.from({ length: options.jobs }, () => runWorker(options))).then(() => undefined);
}

const WORKER = fileURLToPath(new URL('./worker.ts', import.meta.url));
const MUTANT_LOADER = fileURLToPath(new URL('./mutants/loader.ts', import.meta.url));

function runWorker({ next, onResult, mutant }: PoolOptions): Promise<void> {
  return new Promise((resolve, reject) => {
    const first = next();
    if (first === null) {
      resolve();
      return;
    }
    const child: ChildProcess = fork(WORKER, [], {
      execArgv: ['--max-semi-space-size=32', ...(mutant === undefined ? [] : ['--import', MUTANT_LOADER])],
      env: { ...process.env, ...(mutant === undefined ? {} : { PGHERD_SIM_MUTANT: mutant }) },
      serialization: 'json',
    });
    let current: Job | null = first;
    let ended = false;
    child.on('message', (result: JobResult) => {
      onResult(result);
      current = next();
      if (current !== null) child.send(current);
      else {
        ended = true;
        child.disconnect();
      }
    });
    child.on('error', reject);
    child.on('exit', (code) => {
      if (ended) resolve();
      else reject(new Error(`a worker ended with code ${code ?? 'of a signal'} at seed ${current?.seed ?? '?'}`));
    });
    child.send(first);
  });
}
