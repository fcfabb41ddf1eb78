/**
 * Commits that are acknowledged although no standby has them: `synchronous_commit` below `on` (§4.4). A failover may lose each of them, in every mode.
 * Everybody's is a problem of the cluster. A role's or a database's may be somebody's choice: `doctor` names it, and nothing else does.
 */
import type { NodeProblem, WeakCommit } from '../report.ts';
import { durabilityOf } from '../spec.ts';
import type { ClusterView } from '../view.ts';
import { live } from './observe.ts';

/** *Source:* PostgreSQL manual, synchronous_commit: names are not case-sensitive, and booleans are `on` or `off`. */
const STRONG: ReadonlySet<string> = new Set(['on', 'true', 'yes', '1', 'remote_apply']);

export function isWeakCommit(value: string): boolean {
  return !STRONG.has(value.toLowerCase());
}

/** Null: everybody's commits wait for standbys, or "durability" does not ask for that. */
export function weakCommitProblem(view: ClusterView): NodeProblem | null {
  if (durabilityOf(view.spec).mode === 'async') return null;
  const server = reported(view).find((one) => one.database === null && one.role === null);
  if (server !== undefined) {
    return {
      code: 'cluster.weak-commit',
      text: `synchronous_commit is ${server.value} by ${server.file ?? 'a file'} on ${view.state.primary}: commits are acknowledged without the standbys that "durability" asks for.`,
      remedy: `Take it away there ("ALTER SYSTEM RESET synchronous_commit" when it is postgresql.auto.conf), then "SELECT pg_reload_conf()".`,
    };
  }
  const weak = view.spec.postgres.parameters['synchronous_commit'];
  if (weak === undefined || !isWeakCommit(weak)) return null;
  return {
    code: 'cluster.weak-commit',
    text: `synchronous_commit is ${weak.toLowerCase()}: commits are acknowledged without the standbys that "durability" asks for.`,
    remedy: 'Set it to "on" with "pgherd settings set synchronous_commit=on"; a session or a role may still choose less for itself.',
  };
}

/** `role app (off), database log (local), role app in log (remote_write)`; null when there are none, or "durability" promises nothing. */
export function describeWeakOwners(view: ClusterView): string | null {
  if (durabilityOf(view.spec).mode === 'async') return null;
  const owners = reported(view).flatMap(({ database, role, value }) => {
    if (database === null && role === null) return [];
    const who = role === null ? `database ${database}` : database === null ? `role ${role}` : `role ${role} in ${database}`;
    return [`${who} (${value})`];
  });
  return owners.length === 0 ? null : owners.join(', ');
}

function reported(view: ClusterView): readonly WeakCommit[] {
  return view.state.primary === null ? [] : (live(view, view.state.primary)?.weakCommits ?? []);
}
