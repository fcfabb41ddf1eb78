/** What a classification works with, and how its parts say no. */
import { type Classification, EFFECT, REASON, ROUTE, type Rules } from './classification.ts';
import { type Scanner, createScanner } from './scan.ts';

/** Reused for all texts of a worker; nothing in it outlives a call of `classify`. */
export interface Classifier {
  readonly scanner: Scanner;
  /** Where `classify-query.ts` is in the present statement. */
  readonly walk: QueryWalk;
  into: Classification;
  rules: Rules;
  /** `TextSettings.ownSettings` of the present text. */
  ownSettings: boolean;
}

export interface QueryWalk {
  /** Open parentheses. */
  depth: number;
  /** One bit by depth: a list of WITH goes on there, in which a name behind a comma is the name of a query. */
  lists: number;
  /** The next word is the name of a query of WITH. */
  listName: boolean;
  /** One bit by depth: the parentheses there hold a source of FROM, or the arguments of a function that is one. */
  sources: number;
  /** The present name is a source of FROM. */
  sourceName: boolean;
  /** The token before closed a source. */
  sourceEnded: boolean;
  /** Kind of the token before; `TOKEN.end` at the start. */
  before: number;
  /** Code of the keyword that the token before was, or 0. */
  beforeWord: number;
  /** The present word is an alias, a type, or the target of an INSERT; so are the words behind its dots. */
  label: boolean;
  /** The last word calls something if a parenthesis follows. */
  callable: boolean;
  seldom: boolean;
  nameFrom: number;
  nameTo: number;
  nameHash: number;
  nameQuoted: boolean;
}

export function createClassifier(rules: Rules, into: Classification): Classifier {
  const walk: QueryWalk = {
    depth: 0,
    lists: 0,
    listName: false,
    sources: 0,
    sourceName: false,
    sourceEnded: false,
    before: 0,
    beforeWord: 0,
    label: false,
    callable: false,
    seldom: false,
    nameFrom: 0,
    nameTo: 0,
    nameHash: 0,
    nameQuoted: false,
  };
  return { scanner: createScanner(), walk, into, rules, ownSettings: true };
}

/** Reasons that mean that data may be written. */
const MAY_WRITE: readonly boolean[] = Object.values(REASON).map((reason) =>
  ([REASON.writes, REASON.function, REASON.relation, REASON.operator, REASON.notUnderstood, REASON.untrusted] as number[]).includes(reason),
);

/** The text must run on the primary. The first reason is kept; `at`…`end` is the word that is it. */
export function refuse(c: Classifier, reason: number, at: number, end: number): void {
  const { into } = c;
  if (into.reason === REASON.none || into.route !== ROUTE.primary) {
    into.reason = reason;
    into.reasonAt = at;
    into.reasonEnd = end;
  }
  into.route = ROUTE.primary;
  if (MAY_WRITE[reason] === true) into.effects |= EFFECT.write;
}

/** The text runs where the open block is. */
export function bindToBlock(c: Classifier, reason: number): void {
  if (c.into.reason === REASON.none) c.into.reason = reason;
  if (c.into.route < ROUTE.block) c.into.route = ROUTE.block;
}

/** What the scanner does not understand may be anything. */
export function refuseRest(c: Classifier): void {
  refuse(c, REASON.notUnderstood, c.scanner.from, Math.min(c.scanner.to, c.scanner.from + 40));
  c.into.effects |= EFFECT.opaque;
}
