/** What "task cancel" does to each command at each point of it: undone, ended between two steps, or too late, with the reason. */
import type { ClusterState, Task } from '../state.ts';
import { hasStep } from './tasks.ts';

export type CancelEffect =
  /** `text`: what will happen, for the person who asks. */
  | { readonly kind: 'undo' | 'between-steps'; readonly text: string }
  /** The point of no return was passed; nothing is written. */
  | { readonly kind: 'too-late'; readonly text: string };

const undo = (text: string): CancelEffect => ({ kind: 'undo', text });
const tooLate = (text: string): CancelEffect => ({ kind: 'too-late', text });

/** Of an unfinished task. A task of a kind that has no point of its own ends at its next step, if it has one. */
export function cancelEffect(state: ClusterState, task: Task): CancelEffect {
  if (task.status === 'pending') return undo('it has not begun: nothing is done');
  const { request } = task;
  switch (request.kind) {
    case 'create':
      return state.phase === 'new'
        ? undo('no node was touched yet')
        : tooLate('data directories are being made; "pgherd cluster remove" forgets the cluster');
    case 'switchover':
      return cancelMove(state);
    case 'failover':
      return tooLate('the old primary is fenced, and votes for a new term are being given: a primary must come out of it');
    case 'clusterStop':
      return undo('every node is started again, with the same primary');
    case 'clusterStart':
      return tooLate('nodes are starting; "pgherd cluster stop" stops them again');
    case 'clusterRestart':
      if (!request.rolling)
        return state.phase === 'stopping' ? undo('every node is started again now') : tooLate('nodes are starting again, which is its last step');
      return { kind: 'between-steps', text: 'the node that is being restarted is waited for, and no other one is touched' };
    case 'nodeStop':
      return undo(`${request.node} is started again`);
    case 'nodeStart':
      return tooLate(`${request.node} is starting; "pgherd node stop ${request.node}" stops it again`);
    case 'nodeRestart':
      return tooLate(`${request.node} is being restarted, and comes back by itself`);
    case 'nodeRejoin':
      return tooLate(`${request.node} is being taken back; half a copy would be worse than none, and what was there is set aside`);
    case 'nodeFollow':
      return undo(`${request.node} streams from whom it streamed before`);
    case 'nodeAdd':
      return ['take in', 'undo', 'unregister'].includes(task.steps.at(-1)?.name ?? '')
        ? tooLate(
            hasStep(task, 'undo')
              ? `${request.node} is being taken out again already`
              : `${request.node} is a member already; "pgherd node remove ${request.node}" takes it out`,
          )
        : undo(`${request.node} is taken out again: ${hasStep(task, 'copy') ? 'its copy, ' : ''}its slot and its entry are removed`);
    case 'nodeRemove':
      return task.steps.at(-1)?.name === 'drain'
        ? undo(`${request.node} is a member as before`)
        : tooLate(`${request.node} is being stopped, and counts for nothing any more; "pgherd node add ${request.node}" takes it back`);
    default:
      return { kind: 'between-steps', text: 'it ends at its next safe point' };
  }
}

function cancelMove({ switchover, attempt }: ClusterState): CancelEffect {
  if (switchover === null && attempt === null) return tooLate('the role has moved; "pgherd switchover" moves it back');
  if (switchover?.phase === 'promote' || attempt !== null)
    return tooLate('the old primary has handed over, and the new one is being opened; if that fails the old one takes over again by itself');
  return undo('the old primary keeps its role, and proxies go on');
}
