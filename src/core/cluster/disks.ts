/** What nodes say of the disks of their data directories. */
import { DISK_PROBLEMS, type DiskProblem, type NodeProblem, type NodeReport } from '../report.ts';
import type { ClusterView } from '../view.ts';

export function isDiskProblem(code: string): code is DiskProblem {
  return DISK_PROBLEMS.some((one) => one === code);
}

/** The first one; null: the disk is well as far as its agent knows. */
export function diskProblemOf(report: NodeReport): NodeProblem | null {
  return report.problems.find((one) => isDiskProblem(one.code)) ?? null;
}

/** In words, why an open primary takes no writes and is to be replaced; null: it takes them, or may again by itself. */
export function writeTrouble(view: ClusterView, report: NodeReport): string | null {
  const { writes } = report;
  if (writes === null || writes.state === 'ok' || writes.forMs < view.spec.writeStallMs) return null;
  const what = writes.state === 'refused' ? 'refuses writes' : 'answers no write';
  return `answers, but its disk ${what} since ${(writes.forMs / 1000).toFixed(1)} s (${writes.detail})`;
}
