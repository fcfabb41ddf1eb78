/** The rules of a database, from the answers of its catalog (rules-sql.ts). */
import { ROUTE, type Rules, createClassification } from './classification.ts';
import { classify } from './classify.ts';
import { createClassifier } from './classifier.ts';
import { encodeText } from './bytes.ts';
import { SELDOM_CALL_NAMES } from './keywords.ts';
import { buildNameSet } from './names.ts';
import { ENCODING } from './scan.ts';

/** A row of RULES_SQL. */
export type RulesRow = readonly [kind: string, name: string, detail: string];

/** What people know better than the catalog; names of functions without their schema. */
export interface RulesOptions {
  /** Volatile, but nothing is lost when they run on a standby. */
  readonly harmless?: readonly string[];
  /** Must run on the primary whatever they are declared as. */
  readonly primary?: readonly string[];
  /** Leave nothing in the session: no setting, temporary table, lock, cursor; functions of triggers too. */
  readonly stateless?: readonly string[];
}

/** Rules before the catalog was read: nothing is a read. */
export const NO_RULES: Rules = {
  trusted: false,
  harmless: buildNameSet([]),
  stateless: buildNameSet([]),
  unsafe: buildNameSet([]),
  unsafeOperators: [],
  writesOpaque: true,
  settingsInside: true,
};

/** Not volatile, but the answer is that of the server or the session that is asked, not of the data. */
const OF_THE_SERVER: readonly (string | RegExp)[] = [
  'current_setting',
  'inet_server_addr',
  'inet_server_port',
  'pg_backend_pid',
  'pg_conf_load_time',
  'pg_current_snapshot',
  'pg_current_xact_id_if_assigned',
  'pg_cursor',
  'pg_listening_channels',
  'pg_postmaster_start_time',
  'pg_prepared_statement',
  'pg_prepared_xact',
  'pg_show_all_settings',
  'txid_current_if_assigned',
  'txid_current_snapshot',
  // Declared stable, and yet the first two write, and the others are refused in recovery.
  'pg_current_xact_id',
  'txid_current',
  'pg_walfile_name',
  'pg_walfile_name_offset',
  /^pg_(stat|get_replication|get_wal|get_backend|get_shmem|replication|control|tablespace|lock|hba|ident|show)_/,
];
/** Not volatile, but they run queries, or read relations, that are given to them as text. */
const OF_A_TEXT: readonly (string | RegExp)[] = [
  /^(crosstab|connectby|normal_rand|dblink|xpath_table)/,
  /_to_xml(schema|_and_xmlschema)?$/,
  'ts_stat',
  'ts_rewrite',
];
/** In C, but they change the session. */
const STATEFUL: readonly string[] = [
  'set_config',
  'pg_advisory_lock',
  'pg_advisory_lock_shared',
  'pg_try_advisory_lock',
  'pg_try_advisory_lock_shared',
  'pg_advisory_unlock',
  'pg_advisory_unlock_shared',
  'pg_advisory_unlock_all',
];

/** Volatile because each call gives something else, or takes time: that is the same on every server. Only when no other function has the name. */
const NOTHING_BUT_VOLATILE: readonly string[] = [
  ...['clock_timestamp', 'timeofday', 'pg_sleep', 'random', 'random_normal', 'gen_random_uuid', 'uuidv4', 'uuidv7', 'gen_random_bytes', 'gen_salt'],
  ...['uuid_generate_v1', 'uuid_generate_v1mc', 'uuid_generate_v4'],
  // The files of a standby are those of its primary.
  ...['pg_database_size', 'pg_indexes_size', 'pg_relation_size', 'pg_table_size', 'pg_total_relation_size', 'lo_get'],
];

/** What the rules hold besides, for people. */
export interface RulesReport {
  readonly rules: Rules;
  /** Why nothing is a read; empty when queries are. */
  readonly distrust: readonly string[];
  /** Views, tables and domains that are unsafe because of what stands in them. */
  readonly suspects: readonly string[];
}

/**
 * Builds the rules. Rows of an unknown kind are an error of the caller (another version of RULES_SQL) and throw. Views that use unsafe views are unsafe
 * themselves, down to any depth.
 */
export function buildRules(rows: readonly RulesRow[], options: RulesOptions = {}): RulesReport {
  const byKind = new Map<string, RulesRow[]>(KINDS.map((kind) => [kind, []]));
  for (const row of rows) {
    const list = byKind.get(row[0]);
    if (list === undefined) throw new Error(`a row of the kind ${JSON.stringify(row[0])} among the rules of a database`);
    list.push(row);
  }
  const of = (kind: (typeof KINDS)[number]): readonly RulesRow[] => byKind.get(kind) ?? [];
  const names = (kind: (typeof KINDS)[number]): readonly string[] => of(kind).map(([, name]) => name);
  const primary = new Set(options.primary ?? []);
  const volatileInC = new Set(
    of('volatile')
      .filter(([, , detail]) => detail === 'c')
      .map(([, name]) => name),
  );
  const stateless = new Set([
    ...of('volatile')
      .filter(([, , detail]) => detail === 'c')
      .map(([, name]) => name),
    ...(options.stateless ?? []),
  ]);
  for (const name of STATEFUL) if (options.stateless?.includes(name) !== true) stateless.delete(name);
  const declared = [...names('harmless'), ...NOTHING_BUT_VOLATILE.filter((name) => volatileInC.has(name))];
  const harmless = declared.filter((name) => !matches(name, OF_THE_SERVER) && !matches(name, OF_A_TEXT));
  const distrust = names('implicit');
  const base: Rules = {
    trusted: distrust.length === 0,
    harmless: buildNameSet([...harmless, ...(options.harmless ?? [])].filter((name) => !primary.has(name))),
    stateless: buildNameSet([...stateless, ...harmless, ...names('harmless')]),
    unsafe: buildNameSet([]),
    unsafeOperators: names('operator').map(encodeText),
    writesOpaque: names('trigger').some((name) => !stateless.has(name)),
    settingsInside: [...of('view'), ...of('policy')].some(([, , detail]) => /current_setting/i.test(detail)),
  };
  const volatile = [...names('volatile'), ...primary];
  const unsafe = new Set([
    'pg_temp',
    ...names('attribute'),
    ...names('relation'),
    ...names('type'),
    ...volatile.filter((name) => SELDOM_CALL_NAMES.includes(name)),
  ]);
  for (const name of options.harmless ?? []) unsafe.delete(name);
  const suspects = addSuspects({ ...base, trusted: true }, unsafe, [...of('view'), ...of('policy'), ...of('domain')]);
  return { rules: { ...base, unsafe: buildNameSet(unsafe) }, distrust, suspects };
}

const KINDS = ['harmless', 'volatile', 'attribute', 'relation', 'view', 'policy', 'domain', 'type', 'operator', 'implicit', 'trigger'] as const;

function matches(name: string, list: readonly (string | RegExp)[]): boolean {
  return list.some((one) => (typeof one === 'string' ? one === name : one.test(name)));
}

/** Adds to `unsafe` what has something unsafe in its definition, until nothing is added any more: at most once for each definition. */
function addSuspects(rules: Rules, unsafe: Set<string>, rows: readonly RulesRow[]): readonly string[] {
  const into = createClassification();
  const suspects: string[] = [];
  let open = rows.map(([kind, name, detail]) => ({ name, text: encodeText(kind === 'view' ? detail : `SELECT ${detail}`) }));
  for (let again = true; again; ) {
    const classifier = createClassifier({ ...rules, unsafe: buildNameSet(unsafe) }, into);
    const rest: typeof open = [];
    for (const one of open) {
      classify(classifier, one.text, 0, one.text.length, { encoding: ENCODING.utf8, standardStrings: true, ownSettings: true });
      if (into.route === ROUTE.any) rest.push(one);
      else {
        suspects.push(one.name);
        unsafe.add(one.name);
      }
    }
    again = rest.length < open.length;
    open = rest;
  }
  return suspects;
}
