/**
 * Code that is ready before it is needed. A failover runs functions that have not run for weeks, or never: without this their first call parses and
 * compiles them, function after function, while writes stand still.
 */
import { setFlagsFromString } from 'node:v8';

/**
 * `--no-lazy`: a module is compiled as a whole when it is loaded, not function by function at the first calls. `--always-sparkplug`: to machine code at
 * once; the interpreter is several times slower, and what runs once a month never becomes warm. `--no-flush-bytecode`: what has not run for a while is kept.
 * Paid with memory (docs/measurements.md) and with some tenths of a second at the start.
 * *Source:* `node --v8-options`; V8 documents flags nowhere else, and one that it does not know it ignores with a line on standard error.
 */
export const READY_CODE_FLAGS: readonly string[] = ['--no-lazy', '--always-sparkplug', '--no-flush-bytecode'];

/** For what is loaded from now on. Call it in a process that is to live for long, before it loads its own code. Takes effect once; there is no way back. */
export function keepCodeReady(): void {
  for (const flag of READY_CODE_FLAGS) setFlagsFromString(flag);
}
