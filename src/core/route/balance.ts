/** How many sessions each reader has too many, by its weight. Pure. */
import type { Reader } from './decide.ts';

/** A difference of one session is none: moving it would only turn it around. */
const TOLERANCE = 1;

/**
 * Reader's node → sessions that should leave it, so that every reader has its share; nodes that have none too many are left out. `load`: sessions by node; those at
 * nodes that are no readers count in nobody's favour.
 */
export function surplusOf(readers: readonly Reader[], load: ReadonlyMap<string, number>): ReadonlyMap<string, number> {
  const weights = readers.reduce((sum, reader) => sum + reader.weight, 0);
  const sessions = readers.reduce((sum, reader) => sum + (load.get(reader.node) ?? 0), 0);
  const surplus = new Map<string, number>();
  for (const { node, weight } of readers) {
    const share = weights === 0 ? 0 : Math.ceil((sessions * weight) / weights);
    const over = (load.get(node) ?? 0) - share;
    if (over > TOLERANCE || (over > 0 && share === 0)) surplus.set(node, over);
  }
  return surplus;
}
