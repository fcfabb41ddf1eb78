import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { after, before, describe, it } from 'node:test';
import { checkHistory } from '../../src/demo/check.ts';
import type { Ack, HistoryEvent } from '../../src/demo/history.ts';
import { findFreePorts } from '../../src/demo/ports.ts';
import { startWritableProbes } from '../../src/demo/probe-writable.ts';
import { RECORDER_SCHEMA, startRecorder } from '../../src/demo/recorder.ts';
import { openWriter } from '../../src/demo/writer.ts';
import { monoMs } from '../../src/base/clock.ts';
import { type PlainPostgres, login, startPlainPostgres, until } from './plain-postgres.ts';

describe('the recording client against plain PostgreSQL', () => {
  let primary: PlainPostgres;
  let standby: PlainPostgres;
  const targets = (): { node: string; host: string; port: number }[] => [
    { node: 'n1', host: '127.0.0.1', port: standby.port },
    { node: 'n2', host: '127.0.0.1', port: primary.port },
    { node: 'n3', host: '127.0.0.1', port: 26_099 },
  ];
  const acks = (events: readonly HistoryEvent[]): Ack[] => events.filter((event): event is Ack => event.kind === 'ack');

  before(async () => {
    // Two runs of this suite at the same time look for their ports from different places.
    const [first = 0, second = 0] = await findFreePorts('127.0.0.1', { preferred: 26_200 + (process.pid % 40) * 10, count: 2 });
    primary = await startPlainPostgres(first);
    standby = await startPlainPostgres(second);
    await standby.restartAsStandby();
    for (const sql of RECORDER_SCHEMA) await primary.query(sql);
    await primary.query(
      `create function warn() returns trigger language plpgsql as 'begin raise warning ''might not have been replicated''; return new; end'`,
    );
  });
  after(async () => {
    await primary?.remove();
    await standby?.remove();
  });

  it('finds the one writable host among a standby and a dead one', async () => {
    const events: HistoryEvent[] = [];
    const recorder = startRecorder({ run: 'find', targets: targets(), login, emit: (event) => events.push(event) });
    await until(() => acks(events).length >= 20, 5000);
    await recorder.stop();
    const rows = await primary.query(`select n::int from recorder where run = 'find' order by n`);
    const present = new Set(rows.map((row) => row['n']));
    const isUnknown = (n: unknown): boolean => events.some((event) => event.kind === 'unknown' && event.n === n);
    const acked = new Set<unknown>(acks(events).map((ack) => ack.n));
    assert.deepEqual(
      [...acked].filter((n) => !present.has(n)),
      [],
      'what was acknowledged is there',
    );
    assert.deepEqual(
      [...present].filter((n) => !acked.has(n) && !isUnknown(n)),
      [],
      'what is there was acknowledged, or its answer came too late',
    );
    assert.ok(acks(events).every((ack) => ack.node === 'n2' && ack.timeline === 1));
    // A lower bound only: a loaded machine makes rows later, never closer together on the whole.
    const sent = acks(events).map((ack) => ack.sentMs);
    assert.ok(
      (sent.at(-1) ?? 0) - (sent[0] ?? 0) >= (sent.length - 1) * 8,
      'rows are sent every 10 ms, and what was missed is not made up for in a burst',
    );
  });

  it('counts an answer with a warning as unknown: such a commit was not waited for (Z64)', async () => {
    await primary.query('create trigger warn before insert on recorder for each row execute function warn()');
    const writer = await openWriter({ node: 'n2', host: '127.0.0.1', port: primary.port }, { login, session: 'read-write' });
    assert.ok(typeof writer !== 'string', String(writer));
    const answer = await writer.write(`insert into recorder (run, n, node) values ('warned', 1, 'n2')`);
    writer.drop();
    await primary.query('drop trigger warn on recorder');
    assert.equal(answer.kind, 'unknown');
  });

  it('counts a refusal as failed and a killed session as unknown', async () => {
    const writer = await openWriter({ node: 'n2', host: '127.0.0.1', port: primary.port }, { login, session: 'read-write' });
    assert.ok(typeof writer !== 'string', String(writer));
    assert.equal((await writer.write('select 1/0')).kind, 'failed');
    assert.equal((await writer.write('select pg_terminate_backend(pg_backend_pid())')).kind, 'unknown');
    assert.equal(writer.usable(), false);
  });

  it('refuses a standby within the limit', async () => {
    const opened = await openWriter({ node: 'n1', host: '127.0.0.1', port: standby.port }, { login, session: 'read-write' });
    assert.equal(opened, 'a standby');
  });

  it('gives up on a frozen server after the limits, calls the row unknown, never tries it twice, and goes on', async () => {
    const events: HistoryEvent[] = [];
    const recorder = startRecorder({ run: 'freeze', targets: targets(), login, emit: (event) => events.push(event) });
    await until(() => acks(events).length >= 5, 5000);
    const faultMs = monoMs();
    const backends = await primary.query(`select pid from pg_stat_activity where application_name = 'pgherd_recorder'`);
    const pids = backends.map((row) => Number(row['pid']));
    for (const pid of [primary.pid(), ...pids]) process.kill(pid, 'SIGSTOP');
    try {
      await until(() => events.some((event) => event.kind === 'unknown'), 3000);
    } finally {
      for (const pid of [primary.pid(), ...pids]) process.kill(pid, 'SIGCONT');
    }
    const before = acks(events).length;
    await until(() => acks(events).length > before + 5, 5000);
    await recorder.stop();
    const numbers = events.flatMap((event) => ('n' in event ? [event.n] : []));
    assert.equal(new Set(numbers).size, numbers.length);
    const verdict = checkHistory(events, { faultMs, endMs: monoMs(), present: null });
    assert.equal(verdict.clientErrors, 1);
    assert.ok((verdict.outageMs ?? 0) >= 490 && (verdict.outageMs ?? 0) < 2000, `outage ${verdict.outageMs} ms`);
  });

  it('probes every node directly and takes only acknowledgements as proof', async () => {
    const events: HistoryEvent[] = [];
    const probes = startWritableProbes({ run: 'probe', targets: targets(), login, emit: (event) => events.push(event) });
    await until(() => acks(events).length >= 4, 5000);
    await probes.stop();
    assert.deepEqual([...new Set(acks(events).map((ack) => ack.node))], ['n2']);
  });

  it('runs as a process of its own and ends with its standard input', async () => {
    const child = spawn(process.execPath, ['src/demo/recorder-main.ts'], { stdio: ['pipe', 'pipe', 'inherit'] });
    let out = '';
    child.stdout.setEncoding('utf8').on('data', (chunk: string) => {
      out += chunk;
    });
    child.stdin.write(`${JSON.stringify({ run: 'child', targets: targets(), login, probes: 'on' })}\n`);
    await until(() => out.split('"ack"').length > 10, 8000);
    child.stdin.end();
    const code = await new Promise<number | null>((resolve) => child.once('close', resolve));
    assert.equal(code, 0);
    assert.match(out.trim().split('\n').at(-1) ?? '', /"ended"/);
  });
});
