/** The clock that goes on while the machine is suspended. */
import { openSync, readSync } from 'node:fs';

const text = Buffer.alloc(64);
/** Kept open: it is read with every look at the clocks, and each read from the start gives the present value. */
let file: number | null = null;

/**
 * CLOCK_BOOTTIME in milliseconds, to the hundredth of a second.
 * *Source:* proc(5), /proc/uptime ("including time spent in suspend").
 */
export function bootMs(): number {
  file ??= openSync('/proc/uptime', 'r');
  const length = readSync(file, text, 0, text.length, 0);
  return Number(text.toString('latin1', 0, length).split(' ', 1)[0]) * 1000;
}
