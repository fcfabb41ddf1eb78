/** People's commands other than create and switchover: refusals with every reason, and the first step of each. */
import type { NodeId, Now } from '../../ids.ts';
import { makeWallMs } from '../../ids.ts';
import { findNode } from '../../spec.ts';
import type { Task } from '../../state.ts';
import type { ClusterView, Outcome, Rule } from '../../view.ts';
import { openAttempt, outageStart } from '../attempts.ts';
import { cancelEffect } from '../cancel.ts';
import { refuseSource } from '../copy-source.ts';
import { describeCandidate, describeRejected, lagText, missingBytes, rankCandidates } from '../election.ts';
import { without } from '../goals.ts';
import { BY_HAND } from '../loss.ts';
import { isLeaseTaken, isOfThisStore, isOpen, live, primaryEnd } from '../observe.ts';
import { checkRolling } from '../restart-order.ts';
import { reachableVotes, twoPrimariesText } from '../quorum.ts';
import { type Problem, type TaskOf, cancel, describeRequest, findTask, finish, isExclusive, nodeOf, refuse, start, wordedReason } from '../tasks.ts';
import { formatIso } from '../text.ts';

/** A running command that stands in the way of `task`; null when it may begin. */
function obstacle(view: ClusterView, task: Task): Task | null {
  if (task.request.kind === 'freeze' || task.request.kind === 'unfreeze') return null;
  for (const other of view.tasks) {
    if (other.id === task.id || other.status !== 'running') continue;
    if (other.request.kind === 'create' && view.state.phase === 'running' && task.request.kind !== 'create') continue;
    // An emergency waits for no node's command, which may itself wait for the primary that is gone (the server judges the same way).
    if (task.request.kind === 'failover' && nodeOf(other.request) !== null) continue;
    if (isExclusive(other.request) || isExclusive(task.request)) return other;
    if (nodeOf(other.request) !== null && nodeOf(other.request) === nodeOf(task.request)) return other;
  }
  return null;
}

function busy(view: ClusterView, now: Now): Outcome | null {
  const refused: Task[] = [];
  for (const task of view.tasks) {
    const other = task.status === 'pending' ? obstacle(view, task) : null;
    if (other === null) continue;
    const text = `${describeRequest(other.request)} (task ${other.id}, by ${other.by}) is running.`;
    refused.push(refuse(task, now, [{ code: 'task.busy', text, remedy: `Wait for it ("pgherd task show ${other.id}") or cancel it.` }]));
  }
  return refused.length === 0 ? null : { why: refused.map((task) => task.problems.at(-1)?.text ?? '').join(' '), tasks: refused, then: 'continue' };
}

function cancelled(view: ClusterView, now: Now): Outcome | null {
  const tasks = view.tasks
    .filter(
      (task) =>
        task.cancelRequested && (task.status === 'pending' || (task.request.kind === 'create' && cancelEffect(view.state, task).kind === 'undo')),
    )
    .map((task) => cancel(task, now, 'cancelled before it began'));
  return tasks.length === 0 ? null : { why: `${tasks.length} commands were cancelled before they began`, tasks, then: 'continue' };
}

function freeze(view: ClusterView, now: Now): Outcome | null {
  const task = findTask(view, 'freeze', 'pending');
  if (task === null) return null;
  const { forMs } = task.request;
  const before = view.state.frozen;
  // Two people at once: the word of the first is not lost because the second gave none.
  const frozen = {
    reason: task.reason === '' ? (before?.reason ?? 'no reason given') : task.reason,
    by: task.by,
    sinceWallMs: now.wall,
    untilWallMs: forMs === null ? null : makeWallMs(now.wall + forMs),
  };
  const text = `automatic actions are frozen by ${task.by}: ${frozen.reason}${before === null ? '' : ` (already frozen by ${before.by} since ${formatIso(before.sinceWallMs)}: ${before.reason})`}`;
  return {
    why: text,
    state: { ...view.state, frozen },
    tasks: [
      finish(
        task,
        now,
        before === null ? 'frozen' : `frozen; it was frozen already by ${before.by} since ${formatIso(before.sinceWallMs)} (${before.reason})`,
      ),
    ],
    events: [{ level: 'warn', node: null, text, detail: {} }],
    then: 'continue',
  };
}

function unfreeze(view: ClusterView, now: Now): Outcome | null {
  const task = findTask(view, 'unfreeze', 'pending');
  if (task === null) return null;
  const text = view.state.frozen === null ? 'the cluster was not frozen' : `automatic actions go on (unfrozen by ${task.by})`;
  return {
    why: text,
    state: { ...view.state, frozen: null },
    tasks: [finish(task, now, text)],
    events: [{ level: 'info', node: null, text, detail: {} }],
    then: 'continue',
  };
}

/** Every precondition of a failover by hand that does not hold. */
export function checkFailover(view: ClusterView, now: Now, request: TaskOf<'failover'>['request']): readonly Problem[] {
  const { state, spec } = view;
  const problems: Problem[] = [];
  const add = (code: string, text: string, remedy: string): void => void problems.push({ code: `failover.${code}`, text, remedy });
  if (state.phase !== 'running' || state.primary === null) add('not-running', `The cluster is ${state.phase}.`, 'Create or start the cluster first.');
  if (state.attempt?.phase === 'promote' && isOfThisStore(view))
    add('attempt', `${state.attempt.candidate} is being promoted in term ${state.attempt.term}.`, 'Wait for its outcome; see "pgherd show".');
  if (state.switchover !== null && isOfThisStore(view))
    add('switchover', `The switchover to ${state.switchover.to} is running.`, `Cancel it with "pgherd task cancel ${state.switchover.taskId}".`);
  const node = request.to === null ? null : findNode(spec, request.to);
  if (request.to !== null && node === null)
    add('unknown-node', `${request.to} is not a node of this cluster.`, `The nodes are ${spec.nodes.map((one) => one.id).join(', ')}.`);
  if (request.to !== null && request.to === state.primary)
    add('already-primary', `${request.to} is the primary.`, 'Name a standby; "pgherd node restart" restarts the primary.');
  if (problems.length > 0) return problems;
  const { eligible, rejected } = rankCandidates(view, now, {
    positions: { kind: 'report' },
    acceptLoss: request.acceptLoss,
    target: request.to,
    descendants: !isOfThisStore(view),
  });
  const best = eligible[0];
  if (best === undefined) {
    add(
      'no-candidate',
      rejected.length === 0 ? 'There is no other data node.' : `No node can be promoted: ${describeRejected(rejected)}.`,
      'See "pgherd explain".',
    );
    return problems;
  }
  const votes = reachableVotes(view);
  if (!request.acceptTwoPrimaries && !votes.enough) {
    add(
      'votes',
      `Only ${votes.reachable.length} of ${votes.needed} needed members can be heard; missing: ${votes.missing.join(', ')}.`,
      `Bring one of them back. To accept loss is not enough: ${twoPrimariesText(state.primary)}.`,
    );
  }
  const missing = missingBytes(best.position, { timeline: state.timeline, lsn: primaryEnd(view) });
  if (!request.acceptLoss && missing !== null && missing > spec.maxLagOnFailoverBytes) {
    add('lag', `${lagText(view, describeCandidate(best), missing)}.`, 'Add --accept-loss to promote it all the same.');
  }
  return problems;
}

function failoverRefused(view: ClusterView, now: Now): Outcome | null {
  const task = findTask(view, 'failover', 'pending');
  const problems = task === null ? [] : checkFailover(view, now, task.request);
  if (task === null || problems.length === 0) return null;
  return { why: `failover refused: ${problems.map((problem) => problem.text).join(' ')}`, tasks: [refuse(task, now, problems)], then: 'continue' };
}

function failoverByHand(view: ClusterView, now: Now): Outcome | null {
  const task = findTask(view, 'failover', 'pending');
  const { primary } = view.state;
  const attempt = isOfThisStore(view) ? view.state.attempt : null;
  if (task === null || primary === null || checkFailover(view, now, task.request).length > 0) return null;
  const { acceptLoss, acceptTwoPrimaries, to } = task.request;
  const reason = wordedReason('failover', task);
  const text = `failover by ${task.by}${to === null ? '' : ` to ${to}`}${acceptLoss ? ', loss accepted' : ''}${acceptTwoPrimaries ? ', missing votes waived' : ''}`;
  const tasks = [start(task, now, isOpen(live(view, primary), view.state.primaryTerm) ? 'fence' : 'votes', text)];
  const events: Outcome['events'] = [{ level: 'warn', node: primary, text, detail: { reason } }];
  // A person says with it that the store which is here counts from now on (§4.10): members refuse terms below those they have seen.
  const here = {
    ...view,
    state: { ...view.state, incarnation: view.incarnation, switchover: isOfThisStore(view) ? view.state.switchover : null },
  };
  // An attempt that waits (votes, lag) is taken over in its own term: the votes for it stand.
  const state =
    attempt === null
      ? openAttempt(here, now, {
          path: 'manual',
          rule: BY_HAND,
          reason,
          outageFromWallMs: isLeaseTaken(view) ? now.wall : outageStart(view, now, primary),
          acceptLoss,
          acceptTwoPrimaries,
          afterRestore: !isOfThisStore(view),
          target: to,
          taskId: task.id,
        })
      : {
          ...here.state,
          attempt: {
            ...attempt,
            path: 'manual' as const,
            rule: BY_HAND,
            reason,
            acceptLoss,
            acceptTwoPrimaries,
            target: to,
            taskId: task.id,
          },
        };
  return { why: text, state, tasks, events, again: 50 };
}

/** A manual failover whose attempt ended otherwise than by opening its candidate. */
function failoverOvertaken(view: ClusterView, now: Now): Outcome | null {
  const task = findTask(view, 'failover', 'running');
  if (task === null || view.state.attempt?.taskId === task.id) return null;
  const tasks = [finish(task, now, `${view.state.primary ?? 'nobody'} is the primary of term ${view.state.primaryTerm}`)];
  return { why: 'the failover is over', tasks, then: 'continue' };
}

/** What forbids a command for one node; empty when nothing does. */
function checkNode(view: ClusterView, node: NodeId, request: Task['request']): readonly Problem[] {
  const { state, spec } = view;
  const problems: Problem[] = [];
  const add = (code: string, text: string, remedy: string): void => void problems.push({ code: `node.${code}`, text, remedy });
  const found = findNode(spec, node);
  if (found === null) {
    add('unknown', `${node} is not a node of this cluster.`, `The nodes are ${spec.nodes.map((one) => one.id).join(', ')}.`);
    return problems;
  }
  const isPrimary = node === state.primary;
  if (state.phase !== 'running') add('not-running', `The cluster is ${state.phase}.`, 'Start the cluster first ("pgherd cluster start").');
  if (found.kind === 'witness' && request.kind !== 'nodeMaintenance')
    add('witness', `${node} is a witness: it runs no PostgreSQL.`, 'Name a data node.');
  // A member that is set aside goes on counting while the primary is out of sight: to bring it back is the way to its vote.
  const bringsVote = request.kind === 'nodeMaintenance' && !request.on && state.attempt?.phase === 'vote';
  if (state.attempt !== null && !bringsVote) add('attempt', `Term ${state.attempt.term} is being opened.`, 'Wait until it is; see "pgherd show".');
  if (isPrimary && request.kind === 'nodeStop')
    add('is-primary', `${node} is the primary.`, 'Move the role first ("pgherd switchover"), or stop the whole cluster ("pgherd cluster stop").');
  if (isPrimary && request.kind === 'nodeRejoin') add('is-primary', `${node} is the primary; there is nothing to take back.`, 'Name a standby.');
  if (request.kind === 'nodeRejoin' && request.source !== null && !isPrimary) {
    const refused = request.source === node ? 'is the node itself' : refuseSource(view, request.source);
    if (refused !== null) add('source', `${request.source} cannot be copied: it ${refused}.`, 'Leave --from out, or name another member.');
  }
  if (isPrimary && request.kind === 'nodeMaintenance' && request.on)
    add('is-primary', `${node} is the primary.`, 'Move the role first ("pgherd switchover"), or stop automatic actions ("pgherd freeze").');
  if (request.kind === 'nodeMaintenance' && !request.on && found.maintenance)
    add('maintenance-in-spec', `${node} is in maintenance by the desired state.`, 'Change it with "pgherd meta edit".');
  const needsAgent = request.kind !== 'nodeMaintenance';
  if (needsAgent && live(view, node) === null) add('silent', `The agent of ${node} does not report.`, 'Start it; see "pgherd show".');
  const override = state.overrides[node];
  if (request.kind === 'nodeRestart' && override?.kind === 'stopped')
    add('stopped', `${node} was stopped on request.`, `Start it with "pgherd node start ${node}".`);
  if (needsAgent && (override?.kind === 'maintenance' || found.maintenance))
    add('maintenance', `${node} is in maintenance.`, `End it with "pgherd node maintenance ${node} off".`);
  return problems;
}

function nodeRefused(view: ClusterView, now: Now): Outcome | null {
  for (const task of view.tasks) {
    const { request } = task;
    if (task.status !== 'pending' || !('node' in request) || ['nodeAdd', 'nodeRemove', 'nodeFollow'].includes(request.kind)) continue;
    const problems = checkNode(view, request.node, request);
    if (problems.length > 0)
      return {
        why: `${describeRequest(request)} refused: ${problems.map((problem) => problem.text).join(' ')}`,
        tasks: [refuse(task, now, problems)],
        then: 'continue',
      };
  }
  return null;
}

function maintenance(view: ClusterView, now: Now): Outcome | null {
  const task = findTask(view, 'nodeMaintenance', 'pending');
  if (task === null || checkNode(view, task.request.node, task.request).length > 0) return null;
  const { node, on } = task.request;
  const { overrides } = view.state;
  const text = on ? `${node} is in maintenance: watched, never promoted, never touched` : `${node} is no longer in maintenance`;
  const next = on
    ? { ...overrides, [node]: { kind: 'maintenance' as const, reason: task.reason, by: task.by, sinceWallMs: now.wall } }
    : without(overrides, node);
  return {
    why: text,
    state: { ...view.state, overrides: next },
    tasks: [finish(task, now, text)],
    events: [{ level: 'info', node, text, detail: { by: task.by } }],
    then: 'continue',
  };
}

function clusterRefused(view: ClusterView, now: Now): Outcome | null {
  const { phase, attempt, primary } = view.state;
  for (const task of view.tasks) {
    const { kind } = task.request;
    if (task.status !== 'pending' || (kind !== 'clusterStop' && kind !== 'clusterStart' && kind !== 'clusterRestart')) continue;
    const problems: Problem[] = [];
    const wanted = kind === 'clusterStart' ? 'stopped' : 'running';
    if (phase !== wanted)
      problems.push({
        code: 'cluster.phase',
        text: `The cluster is ${phase}.`,
        remedy: kind === 'clusterStart' ? 'Only a stopped cluster can be started.' : 'Only a running cluster can be stopped or restarted.',
      });
    if (attempt !== null)
      problems.push({ code: 'cluster.attempt', text: `Term ${attempt.term} is being opened.`, remedy: 'Wait until it is; see "pgherd show".' });
    if (kind === 'clusterRestart' && primary !== null && !isOpen(live(view, primary), view.state.primaryTerm))
      problems.push({ code: 'cluster.no-primary', text: `${primary} is not open for writes.`, remedy: 'See "pgherd explain".' });
    if (task.request.kind === 'clusterRestart' && task.request.rolling && problems.length === 0) problems.push(...checkRolling(view, now));
    if (problems.length > 0)
      return {
        why: `${describeRequest(task.request)} refused: ${problems.map((problem) => problem.text).join(' ')}`,
        tasks: [refuse(task, now, problems)],
        then: 'continue',
      };
  }
  return null;
}

export { checkNode };

export const commandRules: readonly Rule[] = [
  {
    id: 'command.cancelled',
    when: 'a command was cancelled before it began, or `init` while it still waits for agents',
    why: 'Nothing was done, nothing is to be undone.',
    decide: cancelled,
  },
  {
    id: 'command.busy',
    when: 'a command comes while another one needs the cluster, or the same node',
    why: 'Two operators at once: the second is told of the first, by name (Q38, Z39).',
    decide: busy,
  },
  {
    id: 'command.freeze',
    when: '`freeze` was asked',
    why: 'Stops every automatic action, never a lease, a guard or a fence; always allowed.',
    decide: freeze,
  },
  { id: 'command.unfreeze', when: '`unfreeze` was asked', why: 'Automatic actions go on.', decide: unfreeze },
  {
    id: 'failover.refused',
    when: 'a failover by hand was asked, and a precondition does not hold',
    why: 'Each one is named, with figures and the override (Q13, Q45).',
    decide: failoverRefused,
  },
  {
    id: 'failover.by-hand',
    when: 'a failover by hand was asked, and every precondition holds',
    why: 'A living primary is fenced first; anti-flapping, freeze and `failover: manual` do not bind a person (Q41).',
    decide: failoverByHand,
  },
  {
    id: 'failover.over',
    when: 'the attempt of a failover by hand ended',
    why: 'The command says what became of it (Z79).',
    decide: failoverOvertaken,
  },
  {
    id: 'node.refused',
    when: 'a command for one node, and a precondition does not hold',
    why: 'Each one is named; the primary is never stopped by accident.',
    decide: nodeRefused,
  },
  { id: 'node.maintenance', when: '`node maintenance` was asked', why: 'The node is left alone, and does not vote (I14).', decide: maintenance },
  {
    id: 'cluster.refused',
    when: 'start, stop or restart of the cluster was asked in the wrong phase',
    why: 'Each precondition is named.',
    decide: clusterRefused,
  },
];
