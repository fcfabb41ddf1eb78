/**
 * How quick this machine is at the moment. It shares its processors with others: the same calculation takes up to seven times as long from one
 * minute to the next, and whatever needs half a second of processor time follows. A figure without this one beside it says little.
 */
import { readFileSync } from 'node:fs';
import { monoMs, realClock } from '../src/base/clock.ts';

/** What the hypervisor gave to others is no property of what is measured: a run counts up to this share of the processors' time. */
export const STOLEN_LIMIT_PERCENT = 2;

export interface Calm {
  /** Reference calculation, the slower one of before and after. */
  readonly referenceMs: number;
  /** Share of the processors' time that the hypervisor gave to others meanwhile; 0 on a machine of one's own. */
  readonly stolenPercent: number;
}

/** Enough to be seen above the scheduler's grain: 25 ms on a free core of 2020. */
const STEPS = 20_000_000;
const SAMPLES = 7;
const SAMPLE_EVERY_MS = 150;
const LOOK_AGAIN_MS = 5000;

/** Milliseconds for a fixed calculation on one core: the median of seven, within a second. */
export async function referenceMs(): Promise<number> {
  const taken: number[] = [];
  for (let sample = 0; sample < SAMPLES; sample++) {
    const beganMs = monoMs();
    calculate();
    taken.push(monoMs() - beganMs);
    await realClock.sleep(SAMPLE_EVERY_MS);
  }
  return Math.round(taken.sort((a, b) => a - b)[Math.floor(SAMPLES / 2)] ?? 0);
}

/** Milliseconds of processor time for the same calculation, once: what the thread waits for its turn does not count. */
export function referenceCpuMs(): number {
  const before = process.threadCpuUsage();
  calculate();
  const { user, system } = process.threadCpuUsage(before);
  return (user + system) / 1000;
}

/** Marsaglia's xorshift: each step needs the one before, so that no compiler and no second core shortens it. */
function calculate(): number {
  let x = 2_463_534_242;
  for (let i = 0; i < STEPS; i++) {
    x ^= x << 13;
    x ^= x >>> 17;
    x ^= x << 5;
  }
  return x;
}

/** Resolves with the present reference once it is at most `limitMs`, or with what it was when `patienceMs` ended or nobody waits any more. */
export async function waitForCalm(limitMs: number, patienceMs: number, isGivenUp: () => boolean): Promise<number> {
  const deadline = monoMs() + patienceMs;
  for (;;) {
    const now = await referenceMs();
    if (now <= limitMs || monoMs() > deadline || isGivenUp()) return now;
    await realClock.sleep(LOOK_AGAIN_MS);
  }
}

/** Call it before what is measured; what it returns gives the share that was stolen since, in percent with one decimal; null when the kernel says nothing. */
export function watchStolen(): () => number | null {
  const before = processorTime();
  return () => {
    const after = processorTime();
    if (before === null || after === null) return null;
    return Math.round((1000 * (after.stolen - before.stolen)) / Math.max(1, after.all - before.all)) / 10;
  };
}

/** Ticks of all processors since the machine started; null when the kernel says nothing. Source: proc(5), /proc/stat: the eighth figure is steal. */
function processorTime(): { readonly all: number; readonly stolen: number } | null {
  const ticks = /^cpu +(.*)$/m
    .exec(readFileSync('/proc/stat', 'utf8'))?.[1]
    ?.split(' ')
    .map(Number)
    // The last two are contained in the first two.
    .slice(0, 8);
  return ticks === undefined ? null : { all: ticks.reduce((sum, one) => sum + one, 0), stolen: ticks[7] ?? 0 };
}
