/** Everything that would break a failover, as far as the server can see it; each finding with what to do. */
import { wallMs } from '../base/clock.ts';
import { RENEW_DAYS } from '../base/pki.ts';
import { ok } from '../core/result.ts';
import type { NodeReport } from '../core/report.ts';
import type { ClusterView } from '../core/view.ts';
import { describeWeakOwners } from '../core/cluster/weak-commits.ts';
import type { z } from 'zod';
import type { doctorCheck } from '../api/schema.ts';
import { type Handler, type ServerContext, viewOf } from './context.ts';
import { WATCH_STALE_MS, isStale } from './freshness.ts';
import { describe } from './reads.ts';
import { checkStore } from './store-checks.ts';
import { listClusters } from './view.ts';

type Check = z.infer<typeof doctorCheck>;
/** Half of the smallest lease margin: clocks are for people only, but logs that disagree by more mislead at 3 am. */
const MAX_CLOCK_SKEW_MS = 2000;
/** A third of the default limit for slots: time to act is left. */
const MUCH_RETAINED_BYTES = 16 * 1024 ** 3;

/** Problems that weaken a cluster, or that people chose; the rest of what `show` names would break a failover. */
const WARNINGS: ReadonlySet<string> = new Set([
  'fence.no-firewall',
  'fence.late-watchdog',
  'cluster.creating',
  'cluster.frozen',
  'cluster.stopped',
  'cluster.failover-manual',
  'cluster.protection-lowered',
  'cluster.weak-commit',
  'node.empty',
  'node.maintenance',
  'node.stopped',
  'node.pending-restart',
  'vip.no-interface',
  'vip.not-permitted',
]);

export const doctor: Handler<'doctor'> = async (context) => {
  const status = await context.store.status();
  const checks: Check[] = [...checkServer(context), ...checkStore(status.ok ? status.value : null)];
  for (const cluster of listClusters(context.cache)) {
    const found = await viewOf(context, cluster);
    if (!found.ok) {
      checks.push({
        code: 'spec.unreadable',
        cluster,
        node: null,
        level: 'error',
        text: `the specification of ${cluster} cannot be read`,
        remedy: 'See `pgherd meta get`, and correct it with `pgherd meta edit`.',
      });
      continue;
    }
    for (const problem of describe(context, found.value).problems)
      checks.push({ ...problem, cluster, node: null, level: WARNINGS.has(problem.code) ? 'warn' : 'error' });
    checks.push(...checkCluster(found.value.view, wallMs()));
  }
  return ok({ ok: checks.every((check) => check.level === 'ok'), checks });
};

function checkServer(context: ServerContext): readonly Check[] {
  const base = { cluster: null, node: null } as const;
  const age = context.cache.ageMs();
  const fresh = age !== null && age <= WATCH_STALE_MS;
  const checks: Check[] = [
    fresh
      ? { ...base, code: 'store.answers', level: 'ok', text: 'the store answers', remedy: '' }
      : { ...base, code: 'store.stale', level: 'error', text: 'the store does not answer', remedy: 'See `pgherd store status`.' },
  ];
  for (const row of context.authority.list()) {
    if (row.daysLeft >= RENEW_DAYS) continue;
    const remedy =
      row.kind === 'server'
        ? 'pgherd cert renew'
        : row.kind === 'agent'
          ? 'Its agent renews it by itself while it reaches this server: see its log (`pgherd log`); or join again.'
          : 'Plan a new authority: every host must join again.';
    checks.push({
      ...base,
      code: 'certificate.expires',
      level: row.daysLeft < 14 ? 'error' : 'warn',
      text: `the certificate of ${row.subject} ends in ${row.daysLeft} days`,
      remedy,
    });
  }
  return checks;
}

/** Pure. Only findings that `show` does not name already; nothing for a cluster in order. */
export function checkCluster(view: ClusterView, atWallMs: number): readonly Check[] {
  const cluster = view.spec.name;
  const checks: Check[] = [];
  const data = view.spec.nodes.filter((node) => node.kind === 'data');
  if (data.length === 1)
    checks.push(finding(cluster, null, 'cluster.single', 'warn', 'one data node only: nothing can be promoted', 'Add a second one.'));
  if (data.length > 1 && view.spec.nodes.length === 2) {
    checks.push(
      finding(
        cluster,
        null,
        'cluster.no-third',
        'warn',
        'two members: when one is lost, no second viewpoint is left',
        'Add a third node, or a witness.',
      ),
    );
  }
  const owners = describeWeakOwners(view);
  if (owners !== null)
    checks.push(
      finding(
        cluster,
        null,
        'durability.opted-out',
        'warn',
        `synchronous_commit is below "on" for ${owners}: what these commit may be lost by a failover`,
        'Where it must not be: ALTER ROLE … or ALTER DATABASE … RESET synchronous_commit; it counts for new sessions.',
      ),
    );
  const versions = new Map<number, string[]>();
  for (const node of view.spec.nodes) {
    const seen = view.reports[node.id];
    // An agent whose report is gone is among the problems of the cluster.
    if (seen === undefined) continue;
    if (isStale(view, seen)) {
      checks.push(
        finding(
          cluster,
          node.id,
          'agent.silent',
          'error',
          `the agent of ${node.id} does not report`,
          `On ${node.host}: systemctl status pgherd-agent`,
        ),
      );
      continue;
    }
    checks.push(...checkNode(cluster, seen.report, atWallMs - seen.ageMs));
    const major = seen.report.postgres.version === null ? null : Math.floor(seen.report.postgres.version / 10_000);
    if (major !== null) versions.set(major, [...(versions.get(major) ?? []), node.id]);
  }
  if (versions.size > 1) {
    const text = [...versions].map(([major, nodes]) => `${major}: ${nodes.join(', ')}`).join('; ');
    checks.push(
      finding(
        cluster,
        null,
        'postgres.versions',
        'error',
        `different major versions of PostgreSQL (${text})`,
        'Streaming replication needs one major version on all nodes.',
      ),
    );
  }
  return checks;
}

function checkNode(cluster: string, report: NodeReport, atWallMs: number): readonly Check[] {
  const { node } = report;
  const checks: Check[] = [];
  const skew = Math.abs(atWallMs - report.atWallMs);
  if (skew > MAX_CLOCK_SKEW_MS)
    checks.push(
      finding(
        cluster,
        node,
        'clock.skew',
        'warn',
        `the clock of ${node} differs by ${Math.round(skew / 1000)} s`,
        'Run chrony or systemd-timesyncd on every host.',
      ),
    );
  for (const slot of report.slots) {
    if (slot.walStatus !== 'lost' && !slot.active && (slot.retainedBytes ?? 0) > MUCH_RETAINED_BYTES) {
      checks.push(
        finding(
          cluster,
          node,
          'slot.retains',
          'warn',
          `the unused slot ${slot.name} on ${node} holds back ${Math.round((slot.retainedBytes ?? 0) / 1024 ** 3)} GiB of WAL`,
          'Take its standby back, or remove the slot.',
        ),
      );
    }
  }
  return checks;
}

function finding(cluster: string, node: string | null, code: string, level: 'warn' | 'error', text: string, remedy: string): Check {
  return { code, cluster, node, level, text, remedy };
}
