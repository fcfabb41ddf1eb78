/** Says in words what a text was classified as. */
import { type Classification, EFFECT, REASON, ROUTE, type Rules, createClassification } from '../../src/wire/classification.ts';
import { classify } from '../../src/wire/classify.ts';
import { createClassifier } from '../../src/wire/classifier.ts';
import { type RulesRow, buildRules } from '../../src/wire/rules.ts';
import { ENCODING } from '../../src/wire/scan.ts';

export const rows: readonly RulesRow[] = [
  ...['lower', 'count', 'max', 'now', 'left', 'coalesce_all', 'json_to_record', 'row_number', 'generate_series', 'like', 'substring', 'overlay'].map(
    (name): RulesRow => ['harmless', name, ''],
  ),
  ...['nextval', 'random', 'setseed', 'set_config', 'pg_advisory_lock', 'pg_advisory_unlock', 'pg_advisory_unlock_all', 'pg_notify'].map(
    (name): RulesRow => ['volatile', name, 'c'],
  ),
  ['harmless', 'current_setting', ''],
  ['harmless', 'pg_backend_pid', ''],
  ['harmless', 'table_to_xml', ''],
  ['harmless', 'pg_stat_get_activity', ''],
  ['volatile', 'write_it', ''],
  ['attribute', 'sly', ''],
  ['relation', 'unlogged_table', ''],
  ['relation', 'pg_stat_activity', ''],
  ['view', 'outer_view', ' SELECT inner_view.x FROM inner_view;'],
  ['view', 'inner_view', " SELECT nextval('s'::regclass) AS x;"],
  ['view', 'good_view', ' SELECT lower(t.x) AS lower FROM t;'],
  ['policy', 'guarded', '(write_it(owner) > 0)'],
  ['policy', 'tenants', "(tenant = current_setting('app.tenant'::text))"],
  ['domain', 'checked', 'CHECK ((write_it(VALUE) > 0))'],
  ['domain', 'positive', 'CHECK ((VALUE > 0))'],
  ['operator', '<<>>', ''],
  ['type', 'cast_target', ''],
];

export const testRules: Rules = buildRules(rows).rules;

const effectNames = Object.entries(EFFECT);
const name = (table: Readonly<Record<string, number>>, value: number): string =>
  Object.entries(table).find(([, one]) => one === value)?.[0] ?? String(value);

export interface Outcome {
  readonly route: string;
  readonly effects: string;
  readonly reason: string;
  readonly word: string;
  readonly name: string;
  readonly into: Classification;
}

export interface Settings {
  readonly rules?: Rules;
  readonly encoding?: number;
  readonly standardStrings?: boolean;
  readonly ownSettings?: boolean;
}

/** Classifies the text where it stands in the middle of other bytes, which must not matter. */
export function outcome(
  text: string | Uint8Array,
  { rules = testRules, encoding = ENCODING.utf8, standardStrings = true, ownSettings = true }: Settings = {},
): Outcome {
  const bytes = typeof text === 'string' ? Buffer.from(text) : text;
  const buffer = Buffer.concat([Buffer.from("'(/*"), bytes, Buffer.from("'*/--\n(")]);
  const into = createClassification();
  classify(createClassifier(rules, into), buffer, 4, 4 + bytes.length, { encoding, standardStrings, ownSettings });
  const slice = (from: number, to: number): string => buffer.toString('utf8', from, to);
  return {
    route: name(ROUTE, into.route),
    effects: effectNames
      .filter(([, bit]) => (into.effects & bit) !== 0)
      .map(([effect]) => effect)
      .join(' '),
    reason: name(REASON, into.reason),
    word: slice(into.reasonAt, into.reasonEnd),
    name: slice(into.nameAt, into.nameEnd),
    into,
  };
}
