/**
 * I12 *Invariant:* whoever is ordered to open a term by itself holds nothing that the primary before it has not: a node that left its history is no candidate. Excepted are
 *    orders of a person, a store that was restored, terms that may have been opened unseen, and servers that somebody promoted by hand, as long as nothing tells
 *    such a one from a standby: it went the same way to the same number, or what was done to it is news.
 */
import type { NodeId } from '../../src/core/ids.ts';
import { nodeReport } from '../../src/core/report.ts';
import { decodeShared } from '../../src/core/decode.ts';
import type { ClusterState } from '../../src/core/state.ts';
import type { DataDirectory } from '../model/postgres/directory.ts';
import { timelineAtEnd } from '../model/postgres/port-observe.ts';
import { contains } from '../model/postgres/wal.ts';
import { type World, nodeOf } from '../world/world.ts';
import { Violation } from './violation.ts';
import type { WriterChecks } from './writers.ts';

/** A look, a report over a bad link, and a decision that was begun before it. */
const NEWS_MS = 2000;

/** Answers what each state that is written breaks. */
export function createCandidateChecks(world: World, writers: WriterChecks): (state: ClusterState) => Violation | null {
  let ordered = 0;
  /** It cannot be known yet that somebody promoted this node. */
  const isNews = (node: NodeId, own: DataDirectory): boolean => {
    if (world.clock.now() - (writers.promotedByHandAt(node) ?? Number.NEGATIVE_INFINITY) < NEWS_MS) return true;
    const text = world.store.keyspace().get(world.keys.report(node))?.value ?? null;
    const report = text === null ? null : decodeShared(nodeReport, text);
    return report?.ok !== true || report.value.postgres.timeline !== timelineAtEnd(own).tli;
  };
  return ({ attempt, primary, incarnation }) => {
    if (attempt === null || attempt.phase !== 'promote' || attempt.candidate === null || attempt.term === ordered) return null;
    ordered = attempt.term;
    const isExcepted = attempt.acceptLoss || attempt.target !== null || attempt.afterRestore || attempt.mayHaveOpened.length > 0;
    if (primary === null || primary === attempt.candidate || isExcepted || incarnation !== world.store.incarnation()) return null;
    const before = nodeOf(world, primary).database?.server.disk.directory ?? null;
    const own = nodeOf(world, attempt.candidate).database?.server.disk.directory ?? null;
    if (before === null || own === null || contains(before.end, own.end)) return null;
    const byHand = world.dataNodes.some((node) => writers.wasPromotedByHand(node.name));
    if (byHand && (writers.wasPromotedByHand(primary) || looksContained(own, before) || isNews(attempt.candidate, own))) return null;
    return new Violation('I12', `${attempt.candidate} is to open term ${attempt.term} with WAL that ${primary}, the primary before it, never had`);
  };
}

/** By what its own files say of its timelines, it is a standby of the other. */
function looksContained(own: DataDirectory, other: DataDirectory): boolean {
  const [mine, theirs] = [timelineAtEnd(own), timelineAtEnd(other)];
  const isSameWay = mine.history.every(({ timeline, forkLsn }, index) => {
    const step = theirs.history[index];
    return step?.timeline === timeline && step.forkLsn === forkLsn;
  });
  if (!isSameWay) return false;
  const left = theirs.history[mine.history.length];
  return left === undefined ? mine.tli === theirs.tli : left.timeline === mine.tli && own.end.lsn <= Number(left.forkLsn);
}
