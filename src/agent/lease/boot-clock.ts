/** The clock that goes on while the machine is suspended. */
import { readFileSync } from 'node:fs';

/**
 * CLOCK_BOOTTIME in milliseconds, to the hundredth of a second.
 * *Source:* proc(5), /proc/uptime ("including time spent in suspend").
 */
export function bootMs(): number {
  return Number(readFileSync('/proc/uptime', 'latin1').split(' ')[0]) * 1000;
}
