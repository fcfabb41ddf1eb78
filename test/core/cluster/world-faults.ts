/** Faults of the store in the small closed loop, and the look for losses that nobody was told of. */
import type { Decision } from '../../../src/core/view.ts';
import { type Server, type World, big } from './world-model.ts';
import { dropLease, tell } from './world.ts';

/** An operator saves the state of the store. */
export function takeBackup(world: World): void {
  world.backup = world.state;
}

/** What was saved comes back, marked; nothing under a lease does. */
export function restoreBackup(world: World): void {
  if (world.backup === null) return;
  tell(world, `the store is restored: term ${world.backup.term}, ${world.backup.primary}`);
  if (world.lease !== null) dropLease(world, 'is gone with the restore');
  world.revision += 1;
  world.state = { ...world.backup, incarnation: 'restored' };
  world.stateRevision = world.revision;
  for (const one of world.hosts.values()) one.report = null;
}

/** Everything that `mine` has is in the history of `theirs`. */
function isContained(mine: Server, theirs: Server): boolean {
  const shared = JSON.stringify(theirs.history.slice(0, mine.history.length), big) === JSON.stringify(mine.history, big);
  if (!shared) return false;
  if (mine.timeline === theirs.timeline) return mine.lsn <= theirs.lsn;
  const fork = theirs.history.find((one) => one.timeline === mine.timeline);
  return fork !== undefined && mine.lsn <= fork.forkLsn;
}

/** I5: a term that says that nothing was lost has everything that clients were told; what a term gives up is told as lost or unknown. */
export function checkLoss(world: World, decision: Decision): string | null {
  if (decision.opened === null) return null;
  const winner = world.hosts.get(decision.opened.primary);
  if (winner === undefined) return null;
  for (const [key, told] of world.acknowledged) {
    if (isContained(told, winner.pg)) continue;
    if (decision.opened.lostBytes === 0) return `term ${decision.opened.term} says that nothing is lost, but ${told.lsn} of ${key} is not there`;
    world.acknowledged.delete(key);
  }
  return null;
}
