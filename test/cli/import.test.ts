import assert from 'node:assert/strict';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { parse } from 'yaml';
import { type RunResult, run } from './fake-io.ts';
import { assertGolden } from './golden.ts';

const place = (name: string): string => fileURLToPath(new URL(`./import/${name}`, import.meta.url));
const bring = (manager: string, ...args: readonly string[]): Promise<RunResult> => run(['import', manager, ...args]);

const directory = mkdtempSync(join(tmpdir(), 'pgherd-import-'));
after(() => rmSync(directory, { recursive: true }));
function file(name: string, text: string): string {
  const path = join(directory, name);
  writeFileSync(path, text);
  return path;
}

interface Spec {
  readonly name: string;
  readonly nodes: readonly {
    readonly id: string;
    readonly host: string;
    readonly port?: number;
    readonly priority?: number;
    readonly kind?: string;
  }[];
  readonly [field: string]: unknown;
}

test('CLup: init.json with several hosts, virtual addresses and a faulty node', async () => {
  const result = await bring('clup', place('init.json'), '--conf', place('clup.conf'));
  assert.deepEqual([result.exit, result.err], [0, '']);
  assertGolden('import-clup', result.out);
});

test('repmgr: repmgr.conf of one node, and the table that knows the others', async () => {
  const result = await bring('repmgr', place('repmgr.conf'), place('cluster-show.txt'), '--name', 'prod');
  assert.deepEqual([result.exit, result.err], [0, '']);
  assertGolden('import-repmgr', result.out);
});

test('Patroni: a patroni.yml, the dynamic configuration, and the list of members', async () => {
  const result = await bring('patroni', place('patroni-n1.yml'), place('patroni-show-config.yml'), place('patroni-list.json'));
  assert.deepEqual([result.exit, result.err], [0, '']);
  assertGolden('import-patroni', result.out);
});

test('no password of the old files is repeated, in no form of output', async () => {
  for (const json of [[], ['--json']]) {
    const outputs = await Promise.all([
      run(['import', 'clup', place('init.json'), '--conf', place('clup.conf'), ...json]),
      run(['import', 'patroni', place('patroni-n1.yml'), ...json]),
    ]);
    for (const { out, err } of outputs) assert.doesNotMatch(out + err, /pass-|rep-pass|su-pass/);
  }
});

test('what is printed is a cluster.yaml that "config check" accepts', async () => {
  for (const args of [
    ['clup', place('init.json')],
    ['repmgr', place('cluster-show.txt')],
    ['patroni', place('patroni-list.json'), place('patroni-show-config.yml')],
  ] as const) {
    const [manager, ...files] = args;
    const { out } = await bring(manager, ...files);
    const checked = await run(['config', 'check', '--kind', 'cluster', file('cluster.yaml', out)]);
    assert.equal(checked.exit, 0, checked.err);
  }
});

test('--json holds the spec, the notes and the plan with its ways back', async () => {
  const { out } = await run(['import', 'repmgr', place('repmgr.conf'), '--json']);
  const { spec, notes, plan } = JSON.parse(out) as { spec: Spec; notes: { setting: string }[]; plan: { commands: string[]; back: string | null }[] };
  assert.deepEqual(
    spec.nodes.map((node) => [node.id, node.host, node.port]),
    [['node248', '10.10.12.248', 54_321]],
  );
  assert.ok(
    notes.some((note) => note.setting === 'node_id'),
    'one node alone is said',
  );
  assert.ok(plan.length >= 6 && plan.filter((step) => step.back !== null).length >= 5);
});

test('a data directory of the file cannot become a command of the plan', async () => {
  const conf = file('evil.conf', "node_id=1\nnode_name=n1\nconninfo='host=10.0.0.1'\ndata_directory='/data/$(touch /tmp/x); ''q'\n");
  const { out } = await bring('repmgr', conf);
  assert.match(out, /--data-directory '\/data\/\$\(touch \/tmp\/x\); '\\''q'/);
});

test('repmgr: other managers built on it say more', async () => {
  const { out } = await bring('repmgr', place('repmgr.conf'), place('cluster-show.txt'));
  const spec = parse(out) as Spec;
  assert.deepEqual(
    [spec['recovery'], spec['durability'], spec['trustedAddresses'], spec['failover']],
    ['standby', { mode: 'quorum', k: 1 }, ['10.10.12.1', '10.10.12.2'], undefined],
  );
  const manual = parse((await bring('repmgr', file('m.conf', "node_id=7\nnode_name='Node 7'\nconninfo='host=h7'\n"))).out) as Spec;
  assert.deepEqual([manual['failover'], manual.nodes[0]?.id], ['manual', 'node-7']);
});

test('Patroni: what a file says of replication is kept as strict as it was', async () => {
  const shown = (mode: string): Promise<RunResult> =>
    bring('patroni', place('patroni-list.json'), file('show.yml', `ttl: 30\nsynchronous_mode: ${mode}\nsynchronous_node_count: 2\n`));
  const durability = async (mode: string): Promise<unknown> => (parse((await shown(mode)).out) as Spec)['durability'];
  assert.deepEqual(await durability('true'), { mode: 'sync', k: 2 });
  assert.deepEqual(await durability('quorum'), { mode: 'quorum', k: 2 });
  assert.deepEqual(await durability('false'), { mode: 'async' });
});

test('garbage is refused with its line, exit code 2, and nothing on standard output', async () => {
  const node = '{"id": 1, "is_primary": 1, "host": "h1"}';
  const cases: readonly (readonly [string, string, string, RegExp])[] = [
    ['clup', 'a.json', '{\n  "db_list": [\n', /a\.json:\d+:\d+: not YAML/],
    ['clup', 'b.json', '{"write_vip": "10.0.0.1"}', /b\.json:1[\s\S]*there is no db_list/],
    ['clup', 'c.json', `{\n"db_list": [\n${node},\n{"id": 2, "is_primary": 0, "host": "h2", "port": "x"}\n]}`, /c\.json:4[\s\S]*db_list\[1\]\.port/],
    ['clup', 'd.json', `{\n"db_list": [\n${node},\n{"id": 2, "is_primary": 1, "host": "h2"}\n]}`, /d\.json:4[\s\S]*2 nodes have is_primary 1/],
    ['clup', 'e.json', `{\n"db_list": [\n${node},\n{"id": 1, "is_primary": 0, "host": "h2"}\n]}`, /e\.json:4[\s\S]*id 1 is used twice/],
    ['clup', 'f.json', `{"x": {"db_list": [${node}]}, "y": {"db_list": [${node}]}}`, /clusters x, y: say with --name/],
    ['repmgr', 'a.conf', 'node_id=1\nthis is no setting\n', /a\.conf:2[\s\S]*expected "name = value"/],
    ['repmgr', 'b.conf', "node_id=1\nnode_name='n1\n", /b\.conf:2[\s\S]*quoted value of node_name/],
    ['repmgr', 'c.conf', "node_id=one\nnode_name=n1\nconninfo='host=h'\n", /c\.conf:1[\s\S]*node_id: expected a number/],
    ['repmgr', 'd.conf', "node_id=1\nnode_name=n1\nconninfo='dbname=repmgr'\n", /d\.conf:3[\s\S]*expected "host=NAME/],
    ['repmgr', 'e.conf', 'node_id=1\n', /e\.conf[\s\S]*node_name is missing/],
    ['repmgr', 'f.txt', ' ID | Name | Role | Status | Connection string\n----+---\n x | n1 | primary | | host=h\n', /f\.txt:3[\s\S]*column ID/],
    ['patroni', 'a.yml', 'scope: x\nname: n1\npostgresql:\n  connect_address: 10.0.0.1:notaport\n', /a\.yml:4[\s\S]*expected HOST:PORT/],
    ['patroni', 'b.yml', 'scope: x\nname: n1\npostgresql:\n  data_dir: /d\n', /b\.yml:\d[\s\S]*connect_address/],
    ['patroni', 'c.yml', 'a: b\n', /c\.yml:1[\s\S]*neither a patroni.yml/],
    ['patroni', 'd.json', '[{"Member": "n1"}]', /d\.json:1[\s\S]*\[0\]/],
    ['patroni', 'e.yml', 'ttl: 30\nmaximum_lag_on_failover: lots\n', /e\.yml:2[\s\S]*maximum_lag_on_failover/],
  ];
  for (const [manager, name, text, says] of cases) {
    const result = await bring(manager, file(name, text));
    assert.deepEqual([result.exit, result.out], [2, ''], `${name}: ${result.err}`);
    assert.match(result.err, says, name);
  }
  const missing = await bring('repmgr', join(directory, 'nosuch.conf'));
  assert.equal(missing.exit, 2);
});

test('bytes of any kind end in an error or in a cluster.yaml, never in a crash', async () => {
  // A fixed sequence: the same texts at each run.
  let seed = 12_345;
  const next = (below: number): number => {
    seed = (seed * 1_103_515_245 + 12_345) % 2_147_483_648;
    return seed % below;
  };
  const bits = [
    '{',
    '}',
    '[',
    ']',
    ':',
    ',',
    '"',
    "'",
    '=',
    '|',
    '\n',
    '#',
    '-',
    ' ',
    '\t',
    '\0',
    'é',
    'db_list',
    'ID | Name | Role |',
    'node_id',
    'scope',
    '1',
  ];
  for (let round = 0; round < 150; round++) {
    const text = Array.from({ length: next(40) }, () => bits[next(bits.length)]).join('');
    for (const manager of ['clup', 'repmgr', 'patroni']) {
      const { exit } = await bring(manager, file('noise', text));
      assert.ok(exit === 0 || exit === 2, `${manager}: ${JSON.stringify(text)}`);
    }
  }
});
