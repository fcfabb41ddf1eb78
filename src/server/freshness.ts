/** When what was seen is too old to be shown as present. */
import type { ClusterView, SeenReport } from '../core/view.ts';

/** A live agent reports at least every interval; six missed ones, or 5 s, are no hiccup. Too early frightens people, too late hides an outage. */
export function isStale(view: ClusterView, seen: SeenReport): boolean {
  return seen.ageMs > Math.max(5000, view.spec.reportIntervalMs * 6);
}

/** The server's own watch: the store confirms about every second. */
export const WATCH_STALE_MS = 5000;
