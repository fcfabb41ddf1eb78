/** When two targets of a route are one and the same. Pure. */
import type { Reader, RouteTarget } from './decide.ts';

export function sameWeights(a: readonly Reader[], b: readonly Reader[]): boolean {
  return a.length === b.length && a.every((reader, index) => sameTarget(reader, b[index] ?? reader) && reader.weight === b[index]?.weight);
}

export function sameTarget(a: RouteTarget, b: RouteTarget): boolean {
  return a.node === b.node && a.host === b.host && a.port === b.port;
}
