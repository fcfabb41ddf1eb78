/** A garbage collection at a moment of our choice: before the one that must not be disturbed. */
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import { monoMs } from './clock.ts';

/** A heap that was collected just now has nothing to give. */
const AGAIN_MS = 5000;

let collect: (() => void) | null = null;
let collectedAt = -Infinity;

/**
 * Collects at once, for some ten milliseconds; nothing when that was done within the last 5 s. V8 collects when its heap has grown by so and so much, which
 * takes the processors for a tenth of a second; when that falls between the order to stop and the opening of the next term, clients wait for it.
 * Source: v8.setFlagsFromString, vm.runInNewContext: the manual of Node.js; `gc` is a global of contexts made after `--expose-gc`.
 */
export function collectGarbage(): void {
  const now = monoMs();
  if (now - collectedAt < AGAIN_MS) return;
  collectedAt = now;
  if (collect === null) {
    setFlagsFromString('--expose-gc');
    const found: unknown = runInNewContext('gc');
    collect = typeof found === 'function' ? () => void found() : () => undefined;
  }
  collect();
}
