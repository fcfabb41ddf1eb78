/** Comparing the targets of a route. Pure. */
import type { Reader, RouteTarget } from './decide.ts';

export function sameWeights(a: readonly Reader[], b: readonly Reader[]): boolean {
  return a.length === b.length && a.every((reader, index) => sameTarget(reader, b[index] ?? reader) && reader.weight === b[index]?.weight);
}

export function sameTarget(a: RouteTarget, b: RouteTarget): boolean {
  return a.node === b.node && a.host === b.host && a.port === b.port;
}

/** The reader with the fewest sessions for its weight; the first of several. Null: there is none. */
export function leastLoaded(readers: readonly Reader[], load: (reader: Reader) => number): Reader | null {
  let best: Reader | null = null;
  let bestLoad = Infinity;
  for (const reader of readers) {
    const relative = load(reader) / reader.weight;
    if (relative >= bestLoad) continue;
    best = reader;
    bestLoad = relative;
  }
  return best;
}
