/** Preconditions of a switchover: each one that does not hold is named before anything is touched (H59). */
import type { NodeId, Now } from '../ids.ts';
import { bytesBetween } from '../lsn.ts';
import type { NodeReport } from '../report.ts';
import { findNode } from '../spec.ts';
import type { ClusterView } from '../view.ts';
import { describeRejected, rankCandidates } from './election.ts';
import { endOfWal, isMaintenance, isOpen, isStreaming, live } from './observe.ts';
import type { Problem } from './tasks.ts';
import { isAttached } from './upstream.ts';

/** One WAL segment: what a standby can receive within the hold. */
const MAX_SWITCHOVER_LAG_BYTES = 16_777_216;
/** Every precondition that does not hold, each named; empty when the switchover may begin. */
export function checkSwitchover(view: ClusterView, to: NodeId): readonly Problem[] {
  const { state, spec } = view;
  const problems: Problem[] = [];
  const add = (code: string, text: string, remedy: string): void => void problems.push({ code: `switchover.${code}`, text, remedy });
  const node = findNode(spec, to);
  const from = state.primary;
  if (state.phase !== 'running' || from === null) add('no-primary', `The cluster is ${state.phase}.`, 'Create or start the cluster first.');
  if (state.attempt !== null)
    add('attempt', `Term ${state.attempt.term} is being opened (${state.attempt.reason}).`, 'Wait until it is; see "pgherd show".');
  const primary = from === null ? null : live(view, from);
  if (from !== null && !isOpen(primary, state.primaryTerm))
    add('primary-not-open', `${from} is not open for writes.`, 'Use "pgherd failover" if it does not come back.');
  if (node === null) {
    add('unknown-node', `${to} is not a node of this cluster.`, `The nodes are ${spec.nodes.map((one) => one.id).join(', ')}.`);
    return problems;
  }
  if (to === from) add('already-primary', `${to} is the primary already.`, 'Name a standby.');
  if (node.kind === 'witness') add('witness', `${to} is a witness and holds no data.`, 'Name a standby.');
  if (isMaintenance(view, to)) add('maintenance', `${to} is in maintenance.`, `End it with "pgherd node maintenance ${to} off".`);
  if (node.priority === 0) add('priority', `The priority of ${to} is 0: it is never promoted.`, 'Raise it with "pgherd meta edit".');
  if (to === from || node.kind === 'witness' || from === null) return problems;
  return [...problems, ...checkCandidate(view, to, from, primary)];
}

function checkCandidate(view: ClusterView, to: NodeId, from: NodeId, primary: NodeReport | null): readonly Problem[] {
  const report = live(view, to);
  if (report === null) return [{ code: 'switchover.silent', text: `The agent of ${to} does not report.`, remedy: 'Start it.' }];
  const problems: Problem[] = [];
  const delayMs = findNode(view.spec, to)?.delayMs ?? 0;
  if (delayMs > 0)
    problems.push({
      code: 'switchover.delayed',
      text: `${to} replays ${delayMs} ms later on purpose: to make it the primary would replay at once what the delay keeps back.`,
      remedy: 'Name another standby, or set its `delayMs` to 0 first ("pgherd meta edit").',
    });
  // The shutdown checkpoint of the old primary must reach it while everything else stops: by way of another standby that is one more thing to fail.
  if (!isStreaming(report, from)) {
    const behind = isAttached(view, to) ? report.postgres.streamingFrom : null;
    problems.push({
      code: 'switchover.not-streaming',
      text: behind === null ? `${to} does not stream from ${from}.` : `${to} streams from ${behind}, not from ${from}.`,
      remedy:
        behind === null
          ? `See "pgherd show"; "pgherd node rejoin ${to}" takes it back.`
          : `Let it stream from the primary first: "pgherd node follow ${to} --upstream primary".`,
    });
  }
  if (report.postgres.timeline !== null && report.postgres.timeline !== view.state.timeline) {
    problems.push({
      code: 'switchover.timeline',
      text: `${to} is on timeline ${report.postgres.timeline}, the cluster on ${view.state.timeline}.`,
      remedy: 'Wait until it has caught up.',
    });
  }
  const mine = endOfWal(report);
  const end = primary === null ? null : endOfWal(primary);
  const lag = mine === null || end === null ? 0 : bytesBetween({ from: mine.lsn, to: end.lsn });
  if (lag > MAX_SWITCHOVER_LAG_BYTES)
    problems.push({
      code: 'switchover.lag',
      text: `${to} is ${lag} bytes behind ${from}; at most ${MAX_SWITCHOVER_LAG_BYTES} are allowed.`,
      remedy: 'Wait until it has caught up ("pgherd lag").',
    });
  for (const [name, value] of Object.entries(primary?.postgres.minimums ?? {})) {
    const own = report.postgres.minimums[name];
    if (own !== undefined && own < value)
      problems.push({
        code: 'switchover.setting-lower',
        text: `${name} is ${own} on ${to}, and ${value} on ${from}.`,
        remedy: `Raise it on ${to} and restart it.`,
      });
  }
  return problems;
}

/** The standby to switch to when no name was given; problems when there is none. */
export function chooseSuccessor(view: ClusterView, now: Now): { readonly to: NodeId | null; readonly problems: readonly Problem[] } {
  const { eligible, rejected } = rankCandidates(view, now, { positions: { kind: 'report' }, acceptLoss: false, target: null });
  const fit = eligible.find((one) => checkSwitchover(view, one.node).length === 0);
  if (fit !== undefined) return { to: fit.node, problems: [] };
  const first = eligible[0];
  if (first !== undefined) return { to: null, problems: checkSwitchover(view, first.node) };
  const text = rejected.length === 0 ? 'There is no other data node.' : `No node can take over: ${describeRejected(rejected)}.`;
  return { to: null, problems: [{ code: 'switchover.no-candidate', text, remedy: 'See "pgherd explain".' }] };
}
