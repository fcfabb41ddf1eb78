/**
 * Says of the text of one or more statements where it may run and what it leaves in the session, from its bytes and the rules of the database.
 *
 * *Invariant:* a text is `ROUTE.any` only if no execution of it can write, lock rows, take a number of a sequence, or have another effect that a standby
 * could not have, or would have for itself alone.
 * *Because:* the first words are those of a query; no word in it begins a writing part or a row lock; every name that is called stands in the set of
 * harmless functions; no name in it is that of a relation, type or function that is unsafe; no operator is unsafe. Whatever else comes (an unknown word
 * at the start, a token that is not understood, text without an end) is not `any`.
 * *Broken if:* the rules are older than the catalog (a function was replaced by a volatile one), or a function is declared less volatile than it is. Then a
 * standby refuses the write with 25006, and the statement can be sent to the primary.
 */
import { ACCESS, EFFECT, ISOLATION, REASON, ROUTE } from './classification.ts';
import { type Classifier, bindToBlock, refuse } from './classifier.ts';
import { classifyStatement } from './classify-command.ts';
import { HINT, TOKEN, nextToken } from './scan.ts';

/** What is known about the session: `client_encoding` (`ENCODING`), `standard_conforming_strings`, and whether its own settings are the same on each server. */
export interface TextSettings {
  readonly encoding: number;
  readonly standardStrings: boolean;
  /** False: a setting of the application may have a value that was not carried to the standby, so that queries that ask for one are no reads. */
  readonly ownSettings: boolean;
}

/**
 * Classifies the text `bytes[from…to]` (without a zero at its end) into `c.into`. Allocates nothing; takes time in proportion to the text.
 * A text without statements has `statements` 0 and `ROUTE.block`.
 */
export function classify(c: Classifier, bytes: Uint8Array, from: number, to: number, settings: TextSettings): void {
  const { scanner: s, into } = c;
  begin(c);
  s.bytes = bytes;
  s.at = from;
  s.end = to;
  s.standardStrings = settings.standardStrings;
  s.encoding = settings.encoding;
  c.ownSettings = settings.ownSettings;
  s.hint = HINT.none;
  for (let token = nextToken(s); token !== TOKEN.end; token = nextToken(s)) {
    if (token === TOKEN.semicolon) continue;
    into.statements++;
    into.textAt = s.from;
    into.nameAt = into.nameEnd = 0;
    into.nameQuoted = false;
    const ended = classifyStatement(c, token);
    into.textEnd = s.from;
    if (ended === TOKEN.end) break;
  }
  into.hint = s.hint;
  if (into.statements === 0) bindToBlock(c, REASON.none);
  // Several statements are one transaction: they cannot be taken apart.
  if (into.statements > 1 && into.route !== ROUTE.any) into.route = ROUTE.primary;
}

/** A text of which not all bytes are known, because it is longer than anybody wants to keep: what nothing is known about. */
export function classifyUnknown(c: Classifier): void {
  begin(c);
  c.into.statements = 1;
  refuse(c, REASON.notUnderstood, 0, 0);
  c.into.effects |= EFFECT.opaque;
}

function begin(c: Classifier): void {
  const { into } = c;
  into.route = ROUTE.any;
  into.effects = 0;
  into.reason = REASON.none;
  into.reasonAt = 0;
  into.reasonEnd = 0;
  into.hint = HINT.none;
  into.statements = 0;
  into.access = ACCESS.unsaid;
  into.isolation = ISOLATION.unsaid;
  into.chain = false;
  into.textAt = into.textEnd = 0;
  into.nameAt = into.nameEnd = 0;
  into.nameQuoted = false;
}
