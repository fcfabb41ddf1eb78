/** Keeps a log short while the same comes again and again. */

/** Whether the n-th time of the same gets a line: the first, whenever their number has doubled, and every 128th (of what comes twice a second: one a minute). */
export const isTold = (times: number): boolean => times > 0 && (Number.isInteger(Math.log2(times)) || times % 128 === 0);
