/** What `node add` costs beside a bare pg_basebackup of the same member over the same network and with the same login. */
import { rmSync } from 'node:fs';
import { join } from 'node:path';
import { monoMs } from '../src/base/clock.ts';
import { runOnce, waitUntil } from '../src/demo/children.ts';
import { findPlan } from '../src/demo/herd.ts';
import { joinNode } from '../src/demo/processes.ts';
import { findBinDirectory } from '../src/agent/postgres/instance.ts';
import { SPARE, type Stage, openStage } from './stage.ts';

const LIMIT_MS = 120_000;
/** One row of the ballast with its header. */
const ROW_BYTES = 1000;

export interface AddMeasurement {
  readonly ok: boolean;
  readonly copiedMib: number;
  readonly bareMs: number;
  /** Each from the command to its verified end: the first one, and one after the node was removed with its data. */
  readonly addMs: readonly number[];
  readonly removeMs: number;
  readonly outageMs: number;
  readonly detail: string;
}

/** Throws with the reason in words when a step fails. */
export async function measureAdd(options: {
  readonly mib: number;
  readonly keep: boolean;
  readonly say: (line: string) => void;
}): Promise<AddMeasurement> {
  const { mib, ...rest } = options;
  const stage = await openStage({
    spec: {},
    priorities: {},
    locations: {},
    proxies: 0,
    pooling: {},
    witness: null,
    store: 'embedded',
    spareEtcd: false,
    spareServer: false,
    fencing: null,
    disks: null,
    nodes: 3,
    storeDisks: null,
    clocks: null,
    firewall: 'auto',
    lengthMs: null,
    ...rest,
  });
  try {
    const { herd, primary, standbys } = stage;
    const rows = Math.round((mib * 1_048_576) / ROW_BYTES);
    options.say(`writing ${mib} MiB`);
    const fill = `set synchronous_commit = off; create table ballast as select g, repeat(md5(g::text), 30) as t from generate_series(1, ${rows}) g; checkpoint`;
    for (const part of fill.split('; ')) await runSql(stage, primary, part);
    const [spare] = herd.plan.spares ?? [];
    const refused = spare === undefined ? 'no spare host' : ((await joinNode(herd, spare))?.cause ?? null);
    if (refused !== null) throw new Error(`${SPARE} could not join: ${refused}`);
    const [source] = standbys;
    const words = ['node', 'add', SPARE, '--source', source, '--timeout', `${LIMIT_MS / 1000}s`];
    await waitUntil(async () => (await herd.verb([...words, '--dry-run', '--json'], 5000)).code === 0, 30_000, 200);
    const first = await timed(stage, words);
    const removeMs = await timed(stage, ['node', 'remove', SPARE, '--drop-data', '--yes']);
    const bareMs = await bareCopy(stage, source);
    await waitUntil(async () => (await herd.verb([...words, '--dry-run', '--json'], 5000)).code === 0, 30_000, 200);
    const second = await timed(stage, words);
    const addMs = [first, second];
    const acks = stage.recording.events.flatMap((event) => (event.kind === 'ack' ? [event.atMs] : []));
    const outageMs = Math.round(Math.max(0, ...acks.slice(1).map((at, index) => at - (acks[index] ?? at))));
    const ok = second <= 1.1 * bareMs + 5000;
    const ratio = (second / bareMs).toFixed(2);
    const detail = `${mib} MiB of rows: bare pg_basebackup ${bareMs} ms, node add ${addMs.join(' and ')} ms (the second ${ratio} times; goal 1.1 times and 5 s), node remove --drop-data ${removeMs} ms, longest wait of the writing client ${outageMs} ms`;
    return { ok, copiedMib: mib, bareMs, addMs, removeMs, outageMs, detail };
  } finally {
    await stage.close();
  }
}

async function runSql(stage: Stage, node: string, text: string): Promise<void> {
  const { herd } = stage;
  const { port, inside } = findPlan(herd.plan, node);
  const psql = ['psql', '-h', join(herd.places.state(node), 'run'), '-p', String(port), '-U', 'pgherd', '-d', herd.login.database, '-c', text];
  const done = await runOnce({ inside, argv: psql, cwd: '/', limitMs: LIMIT_MS });
  if (done.code !== 0) throw new Error(`${text.slice(0, 60)}: ${done.stderr}`);
}

async function timed(stage: Stage, words: readonly string[]): Promise<number> {
  const fromMs = monoMs();
  const done = await stage.herd.verb(words, LIMIT_MS + 5000);
  if (done.code !== 0) throw new Error(`${words.join(' ')} ended with exit code ${done.code}: ${done.stderr}`);
  return Math.round(monoMs() - fromMs);
}

/** As a person would take it on the new host, with the login that its agent left there. */
async function bareCopy(stage: Stage, source: string): Promise<number> {
  const { herd } = stage;
  const spare = findPlan(herd.plan, SPARE);
  const { address, port } = findPlan(herd.plan, source);
  const run = join(herd.places.state(SPARE), 'run');
  const target = join(herd.places.node(SPARE), 'bare');
  const conninfo = `host=${address} port=${port} user=pgherd_replicator passfile=${run}/replication.pgpass sslmode=verify-ca sslrootcert=${run}/ca.crt`;
  const program = join(findBinDirectory() ?? '/usr/bin', 'pg_basebackup');
  // With root's HOME libpq would look for a certificate in a directory that this user may not read.
  const user = process.getuid?.() === 0 ? ['setpriv', '--reuid=postgres', '--regid=postgres', '--clear-groups', 'env', '-u', 'HOME'] : [];
  const argv = [...user, program, '-D', target, '-X', 'stream', '--checkpoint=fast', '-P', '--no-password', '-d', conninfo];
  const fromMs = monoMs();
  const done = await runOnce({ inside: spare.inside, argv, cwd: '/', limitMs: LIMIT_MS });
  const tookMs = Math.round(monoMs() - fromMs);
  rmSync(target, { recursive: true, force: true });
  if (done.code !== 0) throw new Error(`pg_basebackup ended with exit code ${done.code}: ${done.stderr.slice(-500)}`);
  return tookMs;
}
