/** What is wrong, in words with what to do. Never names a remedy that would not help. */
import { bytesBetween } from '../lsn.ts';
import type { NodeReport, NodeProblem } from '../report.ts';
import { assertNever } from '../result.ts';
import { type NodeSpec, durabilityOf } from '../spec.ts';
import type { Task } from '../state.ts';
import type { ClusterView } from '../view.ts';
import { describeLineage, isContained } from './lineage.ts';
import { activityFor, endOfWal, isForeignSystem, isMaintenance, isOpen, lineageOf, live, primaryEnd } from './observe.ts';
import { findTask } from './tasks.ts';
import { nodeOfVoter } from './sync-set.ts';
import { SILENT_MS } from './sync-wish.ts';
import { formatIso } from './text.ts';
import { isAttached, upstreamNow, wishedUpstream } from './upstream.ts';
import { weakCommitProblem } from './weak-commits.ts';

const problem = (code: string, text: string, remedy: string): NodeProblem => ({ code, text, remedy });

/** Problems of one node: its own words first, then what the cluster sees of it. Empty for a node in good order. */
export function nodeProblems(view: ClusterView, node: NodeSpec): readonly NodeProblem[] {
  const moving = membershipNote(node);
  const report = live(view, node.id);
  if (report === null) {
    const asleep = isMaintenance(view, node.id) ? 'It is in maintenance.' : `Start it: "systemctl start pgherd-agent" on ${node.host}.`;
    return [...moving, problem('node.unreachable', `The agent of ${node.id} does not report.`, asleep)];
  }
  const own = [...moving, ...report.problems.map((one) => problem(one.code, `${node.id}: ${one.text}`, one.remedy))];
  const pending = report.postgres.pendingRestart;
  if (pending.length > 0)
    own.push(
      problem(
        'node.pending-restart',
        `${node.id} needs a restart for ${pending.join(', ')}.`,
        `"pgherd node restart ${node.id}", or "pgherd cluster restart --rolling".`,
      ),
    );
  if (report.guard === 'missing')
    own.push(
      problem(
        'node.no-guard',
        `${node.id} runs without its guard: a frozen agent could not be fenced.`,
        `See the agent's log ("pgherd log ${node.id}").`,
      ),
    );
  for (const slot of report.slots) {
    if (slot.walStatus === 'lost')
      own.push(
        problem(
          'node.slot-lost',
          `The slot ${slot.name} on ${node.id} lost its WAL.`,
          'The node behind it is cloned again by itself; a slot of your own must be dropped and made anew.',
        ),
      );
  }
  return node.kind === 'witness' ? own : [...own, ...dataProblems(view, node, report)];
}

function membershipNote(node: NodeSpec): readonly NodeProblem[] {
  switch (node.membership) {
    case 'full':
      return [];
    case 'joining':
      return [problem('node.joining', `${node.id} is being added: no vote, no read and no commit counts on it.`, 'See "pgherd task list".')];
    case 'leaving':
      return [problem('node.leaving', `${node.id} is being removed: no vote, no read and no commit is to count on it.`, 'See "pgherd task list".')];
    default:
      return assertNever(node.membership, 'membershipNote');
  }
}

function dataProblems(view: ClusterView, node: NodeSpec, report: NodeReport): readonly NodeProblem[] {
  const { state } = view;
  const found: NodeProblem[] = [];
  const pg = report.postgres;
  const goal = state.goals[node.id] ?? null;
  const activity = activityFor(report, goal);
  if (activity?.kind === 'failed') {
    found.push(
      problem(
        activity.code,
        `${node.id}: ${activity.step} failed: ${activity.message}`,
        activity.retrying ? 'The agent tries again by itself.' : `See "pgherd log ${node.id}".`,
      ),
    );
  }
  if (
    pg.role === 'primary' &&
    pg.state === 'running' &&
    state.primary !== null &&
    node.id !== state.primary &&
    state.attempt?.candidate !== node.id
  ) {
    found.push(
      problem(
        'node.second-primary',
        `${node.id} runs as a primary, but ${state.primary} is the primary of term ${state.primaryTerm}.`,
        'It is fenced by its agent; if this stays, stop PostgreSQL there.',
      ),
    );
  }
  if (isForeignSystem(view, report))
    found.push(
      problem(
        'node.foreign',
        `${node.id} holds a data directory of another cluster (system identifier ${pg.systemIdentifier}).`,
        `Move it aside, or "pgherd node rejoin ${node.id} --via clone" (sets it aside).`,
      ),
    );
  if (node.id === state.primary || state.phase !== 'running' || node.membership !== 'full') return found;
  if (state.overrides[node.id]?.kind === 'stopped')
    return [...found, problem('node.stopped', `${node.id} was stopped on request.`, `"pgherd node start ${node.id}"`)];
  if (isMaintenance(view, node.id))
    return [
      ...found,
      problem('node.maintenance', `${node.id} is in maintenance: never promoted, never touched.`, `"pgherd node maintenance ${node.id} off"`),
    ];
  const verdict = lineageOf(view, report);
  const position = endOfWal(report);
  if (verdict !== null && position !== null && !isContained(verdict)) {
    const remedy =
      goal?.kind === 'fenced'
        ? `"pgherd node rejoin ${node.id}" takes it back, by a rewind or else by a copy; what only it has is set aside.`
        : 'It is rewound by itself; what only it has is set aside.';
    found.push(problem('node.diverged', `${node.id} ${describeLineage(verdict, position)}.`, remedy));
  } else if (goal?.kind === 'fenced')
    found.push(
      problem(
        'node.fenced',
        `${node.id} is fenced: ${goal.reason}.`,
        `"pgherd node rejoin ${node.id}" takes it back, if it does not come back by itself.`,
      ),
    );
  else if (pg.state === 'absent' && goal?.kind === 'standby' && activity === null) {
    found.push(
      problem('node.empty', `${node.id} has no data yet: it is copied from ${state.primary}.`, 'Nothing is to be done; "pgherd show" follows it.'),
    );
  } else if (!isAttached(view, node.id) && activity?.kind !== 'busy' && state.attempt === null) {
    found.push(
      problem(
        'node.not-streaming',
        `${node.id} does not stream from ${upstreamNow(view, node.id) ?? state.primary} (PostgreSQL is ${pg.state}).`,
        `See "pgherd log ${node.id}"; "pgherd node rejoin ${node.id}" takes it back.`,
      ),
    );
  }
  const wish = wishedUpstream(view, node.id);
  const cascade = state.cascades[node.id];
  if (wish !== null && cascade?.away === true)
    found.push(
      problem(
        'node.upstream-away',
        `${node.id} streams from the primary ${state.primary} since ${formatIso(cascade.sinceWallMs)}: ${wish} ${cascade.reason}.`,
        `It goes back to ${wish} by itself once that is in order; "pgherd node follow ${node.id} --upstream primary" keeps it where it is.`,
      ),
    );
  const end = primaryEnd(view);
  const lag = position === null || end === null || position.timeline !== state.timeline ? 0 : bytesBetween({ from: position.lsn, to: end });
  if (lag > view.spec.maxLagOnFailoverBytes && node.delayMs === 0)
    found.push(
      problem(
        'node.lag',
        `${node.id} is ${lag} bytes behind; more than ${view.spec.maxLagOnFailoverBytes} and it is not promoted by itself.`,
        'Look at the network and the disk between the two ("pgherd lag").',
      ),
    );
  return found;
}

/** The task of `init` runs: what it waits for, and how to watch it. To run `init` again would only be refused. */
function creating(view: ClusterView, task: Task): NodeProblem {
  const silent = view.spec.nodes.filter((node) => node.kind === 'data' && live(view, node.id) === null).map((node) => node.id);
  const step = task.steps.at(-1);
  const waits =
    view.state.phase === 'new' && silent.length > 0
      ? `waiting for the agent of ${silent.join(', ')}`
      : step === undefined
        ? 'it begins'
        : step.detail === ''
          ? step.name
          : step.detail;
  return problem('cluster.creating', `"pgherd init" is at work: ${waits}.`, `Watch it: "pgherd task log ${task.id}".`);
}

/**
 * The problems of all nodes, those that differ only in the node as one: `n1, n2: no fail-closed firewall rule …`. In the order in which they are
 * first met. Texts that do not begin with `NODE: ` stay as they are.
 */
export function groupProblems(nodes: readonly { readonly id: string; readonly problems: readonly NodeProblem[] }[]): readonly NodeProblem[] {
  const groups = new Map<string, { readonly nodes: string[]; readonly first: NodeProblem; readonly text: string | null }>();
  for (const node of nodes) {
    for (const one of node.problems) {
      const prefix = `${node.id}: `;
      const text = one.text.startsWith(prefix) ? one.text.slice(prefix.length) : null;
      const key = JSON.stringify([one.code, text ?? one.text, one.remedy]);
      const group = groups.get(key);
      if (group === undefined) groups.set(key, { nodes: [node.id], first: one, text });
      else if (!group.nodes.includes(node.id)) group.nodes.push(node.id);
    }
  }
  return [...groups.values()].map(({ nodes: names, first, text }) => (text === null ? first : { ...first, text: `${names.join(', ')}: ${text}` }));
}

/** Since too few members of the synchronous set acknowledge, with the silent ones, in words; null when writes do not wait. */
export function writesWait(view: ClusterView): string | null {
  const { primary, quorum } = view.state;
  const { k, members } = quorum.wanted;
  const report = primary === null ? null : live(view, primary);
  if (report?.sync == null || k === 0) return null;
  const silent = new Set(report.sync.silence.filter((one) => one.ms >= SILENT_MS).map((one) => one.voter));
  if (members.filter((member) => !silent.has(member)).length >= k) return null;
  const names = members.filter((member) => silent.has(member)).map((member) => nodeOfVoter(member) ?? member);
  return `Writes wait for ${k} of ${members.length} standbys, and too few acknowledge (silent: ${names.join(', ') || 'none; too few have joined'})`;
}

/** Problems of the cluster as a whole. */
export function clusterProblems(view: ClusterView): readonly NodeProblem[] {
  const { state, spec } = view;
  const found: NodeProblem[] = [];
  const create = findTask(view, 'create', 'running') ?? findTask(view, 'create', 'pending');
  if (create !== null) found.push(creating(view, create));
  else if (state.phase === 'new') found.push(problem('cluster.new', 'The cluster was not created yet.', '"pgherd init -f cluster.yaml"'));
  if (state.frozen !== null) {
    const until = state.frozen.untilWallMs === null ? '' : `, until ${formatIso(state.frozen.untilWallMs)}`;
    found.push(
      problem(
        'cluster.frozen',
        `Automatic actions are frozen by ${state.frozen.by} since ${formatIso(state.frozen.sinceWallMs)} (${state.frozen.reason})${until}.`,
        '"pgherd unfreeze"',
      ),
    );
  }
  if (spec.failover === 'manual')
    found.push(
      problem('cluster.failover-manual', 'Failover is manual: nothing is promoted by itself.', 'Set "failover: automatic" with "pgherd meta edit".'),
    );
  if (state.phase === 'stopped')
    found.push(problem('cluster.stopped', 'The cluster was stopped on request: nothing is started or promoted by itself.', '"pgherd cluster start"'));
  if (state.phase !== 'running' || state.primary === null) return found;
  const primary = live(view, state.primary);
  if (!isOpen(primary, state.primaryTerm)) {
    found.push(
      problem(
        'cluster.no-primary',
        `${state.primary}, the primary of term ${state.primaryTerm}, is not open for writes: ${state.decided.rule}: ${state.decided.why}`,
        'See "pgherd explain".',
      ),
    );
  }
  if (spec.nodes.every((node) => node.id !== state.primary))
    found.push(
      problem(
        'cluster.primary-removed',
        `The primary ${state.primary} is no longer in the desired state.`,
        'Move the role with "pgherd switchover", or add it again.',
      ),
    );
  const weak = weakCommitProblem(view);
  if (weak !== null) found.push(weak);
  const { lowered } = state.quorum;
  const waiting = writesWait(view);
  if (waiting !== null)
    found.push(problem('cluster.writes-wait', `${waiting}.`, 'Bring one of them back, or lower "durability" with "pgherd meta edit".'));
  if (lowered !== null) {
    found.push(
      problem(
        'cluster.protection-lowered',
        `Commits wait for ${state.quorum.wanted.k} of ${durabilityOf(spec).k} standbys since ${formatIso(lowered.sinceWallMs)}: ${lowered.reason}.`,
        'It is raised by itself once enough standbys stream; see the problems of the nodes. "durability.strict: true" would make writes wait instead.',
      ),
    );
  }
  const standbys = spec.nodes.filter((node) => node.kind === 'data' && node.id !== state.primary);
  if (create === null && standbys.length > 0 && standbys.every((node) => !isAttached(view, node.id))) {
    found.push(problem('cluster.no-standby', 'No standby streams: the primary has no successor.', 'See the problems of the nodes.'));
  }
  return found;
}
