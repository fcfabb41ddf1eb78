/** Whether the machine was its own while something ran: a shared one takes its processors away for seconds, and whatever has a limit in time fails then. */
import { STOLEN_LIMIT_PERCENT, referenceCpuMs, watchStolen } from '../lab/machine-speed.ts';

const SAMPLE_EVERY_MS = 2000;
/** Milliseconds of processor time for the reference calculation: twice what a slow core takes that is not disturbed. */
const SLOW_REFERENCE_MS = 100;

interface Sample {
  readonly atMs: number;
  /** Since the sample before. */
  readonly stolenPercent: number;
  readonly referenceMs: number;
}

export interface MachineWatch {
  /** In words, with figures; null when the machine was its own in that time (performance.now). */
  disturbance(time: { readonly fromMs: number; readonly toMs: number }): string | null;
  stop(): void;
}

/** `always`: every machine counts as disturbed, for tests of who asks. */
export function watchMachine({ always }: { readonly always: boolean }): MachineWatch {
  const samples: Sample[] = [];
  let stolen = watchStolen();
  const timer = setInterval(() => {
    samples.push({ atMs: performance.now(), stolenPercent: stolen() ?? 0, referenceMs: referenceCpuMs() });
    stolen = watchStolen();
  }, SAMPLE_EVERY_MS);
  return {
    disturbance: ({ fromMs, toMs }) =>
      always ? 'it was said to be disturbed' : describeDisturbance(samples.filter(({ atMs }) => atMs >= fromMs && atMs <= toMs)),
    stop: () => clearInterval(timer),
  };
}

/** Null when the samples show nothing, or there are none. */
export function describeDisturbance(samples: readonly { readonly stolenPercent: number; readonly referenceMs: number }[]): string | null {
  if (samples.length === 0) return null;
  const stolen = samples.reduce((sum, one) => sum + one.stolenPercent, 0) / samples.length;
  const slowest = Math.max(...samples.map((one) => one.referenceMs));
  if (stolen <= STOLEN_LIMIT_PERCENT && slowest <= SLOW_REFERENCE_MS) return null;
  return `${stolen.toFixed(1)} % of the processors were stolen, and a calculation of 25 to 50 ms took up to ${Math.round(slowest)} ms of processor time`;
}
