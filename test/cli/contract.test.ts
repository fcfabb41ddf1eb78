import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, test } from 'node:test';
import { runCli } from '../../src/cli/program.ts';
import { type RunResult, fakeIo, run } from './fake-io.ts';
import { type Routes, TOKEN, apiError } from './fake-server.ts';
import { fakeServer, four, one, pgherd } from './harness.ts';
import { show, summary, task, troubled } from './fixtures.ts';

describe('reading', () => {
  test('show --json is what the server said, with every field of the contract', async () => {
    const result = await pgherd(['show', '--json'], { ...one, 'GET /clusters/demo': { body: troubled() } });
    assert.equal(result.exit, 0);
    assert.deepEqual(JSON.parse(result.out), troubled());
    assert.equal(result.err, '');
  });

  test('the cluster need not be named when there is one', async () => {
    const result = await pgherd(['show'], { ...one, 'GET /clusters/demo': { body: show() } });
    assert.equal(result.exit, 0);
    assert.match(result.out, /^demo {2}healthy/);
  });

  test('with two clusters the name is asked for, and both are listed', async () => {
    const result = await pgherd(['show'], { 'GET /clusters': { body: [summary, { ...summary, cluster: 'other' }] } });
    assert.equal(result.exit, 2);
    assert.match(result.err, /demo, other[\s\S]*-c demo/);
  });

  test('no cluster at all: refused, with the way to create one', async () => {
    const result = await pgherd(['show'], { 'GET /clusters': { body: [] } });
    assert.equal(result.exit, 3);
    assert.match(result.err, /pgherd init -f cluster.yaml/);
  });

  test('an unknown cluster is refused with exit code 3', async () => {
    const result = await pgherd(['show', '-c', 'nosuch'], {});
    assert.equal(result.exit, 3);
    assert.match(result.err, four);
  });

  test('lsn, lag, history, explain keep their JSON shapes', async () => {
    const bodies = {
      lsn: [{ node: 'n1', role: 'primary', timeline: 2, lsn: '0/3000148' }],
      lag: [
        {
          node: 'n2',
          role: 'standby',
          currentLsn: '0/3000148',
          sentLagBytes: 0,
          writeLagBytes: 0,
          flushLagBytes: 0,
          replayLagBytes: 0,
          replayLagMs: 1,
          sync: 'async',
          state: 'streaming',
          slot: 'pgherd_n2',
        },
      ],
      history: [
        {
          term: 1,
          timeline: 1,
          primary: 'n1',
          forkLsn: null,
          rule: 'bootstrap.created',
          reason: 'first',
          startedAt: '2026-11-21T04:00:00.000Z',
          outageMs: null,
          lostBytes: null,
        },
      ],
      explain: {
        rule: 'steady.ok',
        why: 'all well',
        candidates: [{ node: 'n2', eligible: true, reasons: [] }],
        ifPrimaryDies: { action: 'failover', promoted: 'n2', mayLoseBytes: 0, estimatedOutageMs: 3500 },
      },
    };
    for (const [verb, body] of Object.entries(bodies)) {
      const routes = { [`GET /clusters/demo/${verb}`]: { body } };
      const json = await pgherd([verb, '-c', 'demo', '-o', 'json'], routes);
      assert.deepEqual([json.exit, JSON.parse(json.out)], [0, body]);
      const table = await pgherd([verb, '-c', 'demo'], routes);
      assert.equal(table.exit, 0);
      assert.match(table.out, /n1|n2/);
    }
  });

  test('yaml has the same fields', async () => {
    const result = await pgherd(['clusters', '-o', 'yaml'], one);
    assert.match(result.out, /^- cluster: demo\n {2}state: healthy\n/);
  });

  test('no colour without a terminal; colour on one; none with --no-color', async () => {
    const routes = { 'GET /clusters': { body: [summary] } };
    assert.doesNotMatch((await pgherd(['clusters'], routes)).out, /\u001b/);
    assert.match((await pgherd(['clusters'], routes, { terminal: 100 })).out, /\u001b\[/);
    assert.doesNotMatch((await pgherd(['clusters', '--no-color'], routes, { terminal: 100 })).out, /\u001b/);
  });

  test('--watch goes on until Ctrl+C and ends with 0', async () => {
    fakeServer().seen.length = 0;
    const result = await interrupted(['show', '-c', 'demo', '--watch', '1s'], { 'GET /clusters/demo': { body: show() } }, 3);
    assert.equal(result.exit, 0);
    assert.ok(result.out.split('demo  healthy').length >= 3);
  });

  test('events --level gives the newest of that level, however many others came after them', async () => {
    const row = (id: number, level: string): object => ({
      id: `${id}`.padStart(4, '0'),
      at: '2026-11-21T04:00:00.000Z',
      level,
      rule: 'primary.lost',
      node: null,
      term: 3,
      text: `event ${id}`,
      detail: {},
    });
    const all = [row(1, 'error'), row(2, 'warn'), row(3, 'error'), ...[4, 5, 6, 7].map((id) => row(id, 'info'))];
    const routes: Routes = { 'GET /clusters/demo/events': (seen) => ({ body: all.slice(-Number(seen.query['limit'])) }) };
    const told = async (...flags: string[]): Promise<readonly string[]> =>
      (JSON.parse((await pgherd(['events', '-c', 'demo', '--json', ...flags], routes)).out) as { text: string }[]).map((one) => one.text);
    assert.deepEqual(await told('--level', 'warn', '-n', '2'), ['event 2', 'event 3']);
    assert.deepEqual(await told('--level', 'error'), ['event 1', 'event 3']);
    assert.deepEqual(await told('-n', '2'), ['event 6', 'event 7']);
  });

  test('events --follow asks on from the last one seen', async () => {
    const row = {
      id: '0000000000000001-000',
      at: '2026-11-21T04:00:00.000Z',
      level: 'warn',
      rule: 'primary.lost',
      node: 'n1',
      term: 3,
      text: 'gone',
      detail: {},
    };
    const result = await interrupted(
      ['events', '-c', 'demo', '--follow', '--json'],
      { 'GET /clusters/demo/events': (seen) => ({ body: seen.query['after'] === undefined ? [row] : [] }) },
      3,
    );
    assert.equal(result.exit, 0);
    assert.deepEqual(JSON.parse(result.out), row);
    assert.equal(fakeServer().seen.at(-1)?.query['after'], row.id);
  });
});

/** Presses Ctrl+C when the server was asked `calls` times. */
async function interrupted(argv: readonly string[], routes: Routes, calls: number): Promise<RunResult> {
  const made = fakeIo();
  let count = 0;
  fakeServer().seen.length = 0;
  fakeServer().routes = Object.fromEntries(
    Object.entries(routes).map(([route, answer]) => [
      route,
      (seen: Parameters<Extract<typeof answer, (...args: never[]) => unknown>>[0]) => {
        count += 1;
        if (count === calls) made.interrupt();
        return typeof answer === 'function' ? answer(seen) : answer;
      },
    ]),
  );
  const exit = await runCli([...argv, '--server', fakeServer().url, '--ca-file', fakeServer().caFile, '--token-file', fakeServer().tokenFile], made);
  return { exit, out: made.out(), err: made.err(), io: made };
}

describe('connection', () => {
  test('a server that is not there: exit 4, four parts, the address and where it came from', async () => {
    const result = await run(['clusters'], { env: { PGHERD_SERVER: 'https://127.0.0.1:25999' } });
    assert.equal(result.exit, 4);
    assert.match(result.err, four);
    assert.match(result.err, /ECONNREFUSED 127\.0\.0\.1:25999; address: PGHERD_SERVER/);
    assert.equal(result.out, '');
  });

  test('a wrong token: exit 4, and the token is not shown', async () => {
    const result = await run(['clusters', '--server', fakeServer().url, '--ca-file', fakeServer().caFile], {
      env: { PGHERD_TOKEN: 'pgh_wrong-one' },
    });
    assert.equal(result.exit, 4);
    assert.match(result.err, /auth\.invalid/);
    assert.match(result.err, /token: PGHERD_TOKEN/);
    assert.doesNotMatch(result.err, /pgh_wrong-one/);
  });

  test('no token: exit 4', async () => {
    assert.equal((await run(['clusters', '--server', fakeServer().url, '--ca-file', fakeServer().caFile])).exit, 4);
  });

  test('a certificate of an unknown authority: exit 4, and no token was sent to it', async () => {
    fakeServer().seen.length = 0;
    const result = await run(['clusters', '--server', fakeServer().url, '--token-file', fakeServer().tokenFile]);
    assert.equal(result.exit, 4);
    assert.match(result.err, /server\.certificate/);
    assert.deepEqual(fakeServer().seen, []);
  });

  test('errors are one JSON object on standard error in JSON mode', async () => {
    const result = await run(['clusters', '--json', '--server', 'https://127.0.0.1:25999']);
    const { error } = JSON.parse(result.err) as { error: Record<string, unknown> };
    assert.equal(error['code'], 'server.unreachable');
    assert.equal(error['exit'], 4);
    for (const part of ['what', 'cause', 'now', 'remedy']) assert.equal(typeof error[part], 'string');
    assert.equal(result.out, '');
  });

  test('flags go before the environment, the environment before the file', async () => {
    const home = fakeServer().directory;
    mkdirSync(join(home, 'pgherd'), { recursive: true });
    writeFileSync(join(home, 'pgherd', 'config.yaml'), `server: ${fakeServer().url}\ntokenFile: ../token\ncaFile: ../ca.crt\ncluster: fromfile\n`);
    fakeServer().routes = {
      'GET /clusters/fromfile': { body: show({ cluster: 'fromfile' }) },
      'GET /clusters/fromenv': { body: show({ cluster: 'fromenv' }) },
      'GET /clusters/fromflag': { body: show({ cluster: 'fromflag' }) },
    };
    const env = { XDG_CONFIG_HOME: home };
    assert.match((await run(['show'], { env })).out, /^fromfile/);
    assert.match((await run(['show'], { env: { ...env, PGHERD_CLUSTER: 'fromenv' } })).out, /^fromenv/);
    assert.match((await run(['show', '-c', 'fromflag'], { env: { ...env, PGHERD_CLUSTER: 'fromenv' } })).out, /^fromflag/);
  });

  test('a mistake in the settings file is wrong usage, with the nearest known key', async () => {
    const home = join(fakeServer().directory, 'bad');
    mkdirSync(join(home, 'pgherd'), { recursive: true });
    writeFileSync(join(home, 'pgherd', 'config.yaml'), 'sever: x\n');
    const result = await run(['clusters'], { env: { XDG_CONFIG_HOME: home } });
    assert.equal(result.exit, 2);
    assert.match(result.err, /did you mean "server"/);
  });

  test('-v says what was asked, never the token', async () => {
    const result = await pgherd(['clusters', '-v'], one);
    assert.match(result.err, /GET \/clusters at .*: ok, \d+ ms/);
    assert.ok(!result.err.includes(TOKEN));
  });
});

describe('tasks', () => {
  const created = (more = {}): Routes => ({
    'POST /clusters/demo/tasks': { body: { dryRun: false, task: task(), plan: [], problems: [] } },
    ...more,
  });
  const ends = (more: Parameters<typeof task>[0]): Routes =>
    created({ 'GET /tasks/t-1': { body: task({ finishedAt: '2026-11-21T04:00:01.500Z', ...more }) } });
  const steps = [{ name: 'promote', state: 'done' as const, at: '2026-11-21T04:00:01.000Z', detail: 'n2 opened term 4' }];

  test('switchover follows its task: steps on standard error, the end on standard output', async () => {
    const result = await pgherd(
      ['switchover', '-c', 'demo', '--to', 'n2', '--reason', 'patch'],
      ends({ status: 'done', steps, result: 'n2 is the primary' }),
    );
    assert.equal(result.exit, 0);
    assert.match(result.err, /✓ promote: n2 opened term 4/);
    assert.match(result.out, /^done switchover: n2 is the primary \(1\.5 s, task t-1\)/);
    const body = fakeServer().seen[0]?.body as { request: unknown; reason: string; requestId: string };
    assert.deepEqual(body.request, { kind: 'switchover', to: 'n2' });
    assert.equal(body.reason, 'patch');
    assert.match(body.requestId, /^[A-Za-z0-9_-]{8,64}$/);
  });

  test('a refused task: exit 3, each precondition named with its remedy', async () => {
    const problems = [
      { code: 'switchover.lag', text: 'n2 is 20 MiB behind', remedy: 'wait until it has caught up' },
      { code: 'switchover.maintenance', text: 'n2 is in maintenance', remedy: 'pgherd node maintenance n2 off' },
    ];
    const result = await pgherd(['switchover', '-c', 'demo'], ends({ status: 'refused', problems }));
    assert.equal(result.exit, 3);
    assert.match(result.err, /n2 is 20 MiB behind \(switchover\.lag\)[\s\S]*→ wait until it has caught up[\s\S]*n2 is in maintenance/);
  });

  test('a failed task: exit 1', async () => {
    assert.equal((await pgherd(['switchover', '-c', 'demo'], ends({ status: 'failed' }))).exit, 1);
  });

  test('the time limit: exit 5, and how to watch the task that goes on', async () => {
    const result = await pgherd(
      ['switchover', '-c', 'demo', '--timeout', '1s'],
      created({ 'GET /tasks/t-1': { body: task({ status: 'running' }) } }),
    );
    assert.equal(result.exit, 5);
    assert.match(result.err, /the task goes on \(t-1\)[\s\S]*pgherd task log t-1/);
  });

  test('Ctrl+C leaves the task running and says how to watch it', async () => {
    const result = await interrupted(['switchover', '-c', 'demo'], created({ 'GET /tasks/t-1': { body: task({ status: 'running' }) } }), 3);
    assert.equal(result.exit, 5);
    assert.match(result.err, /pgherd task log t-1/);
    assert.ok(!fakeServer().seen.some((seen) => seen.path.endsWith('/cancel')));
  });

  test('a real Ctrl+C to a real process ends with 5, and the task was not cancelled', async () => {
    fakeServer().seen.length = 0;
    fakeServer().routes = created({ 'GET /tasks/t-1': { body: task({ status: 'running' }) } });
    const main = new URL('../../src/main.ts', import.meta.url).pathname;
    const child = spawn(
      process.execPath,
      [main, 'switchover', '-c', 'demo', '--server', fakeServer().url, '--ca-file', fakeServer().caFile, '--token-file', fakeServer().tokenFile],
      { stdio: ['ignore', 'ignore', 'pipe'] },
    );
    const said: Buffer[] = [];
    child.stderr.on('data', (chunk: Buffer) => said.push(chunk));
    const ended = new Promise<number | null>((resolve) => child.once('close', resolve));
    const limit = setTimeout(() => child.kill('SIGKILL'), 15_000);
    try {
      // The second look at the task proves that it is being followed.
      fakeServer().routes = created({
        'GET /tasks/t-1': () => {
          if (fakeServer().seen.filter((seen) => seen.method === 'GET').length === 2) child.kill('SIGINT');
          return { body: task({ status: 'running' }) };
        },
      });
      assert.equal(await ended, 5);
    } finally {
      clearTimeout(limit);
    }
    assert.match(Buffer.concat(said).toString(), /pgherd task log t-1/);
    assert.ok(!fakeServer().seen.some((seen) => seen.path.endsWith('/cancel')));
  });

  test('a server that restarts meanwhile does not end the watching', async () => {
    let asked = 0;
    const result = await pgherd(
      ['switchover', '-c', 'demo'],
      created({
        'GET /tasks/t-1': () =>
          ++asked < 3 ? apiError(503, 'server.busy') : { body: task({ status: 'done', finishedAt: '2026-11-21T04:00:02.000Z' }) },
      }),
    );
    assert.equal(result.exit, 0);
    assert.match(result.err, /the task goes on, waiting to see it again/);
  });

  test('--no-wait answers with the task at once', async () => {
    const result = await pgherd(['switchover', '-c', 'demo', '--no-wait', '--json'], created());
    assert.equal(result.exit, 0);
    assert.equal((JSON.parse(result.out) as { id: string }).id, 't-1');
  });

  test('--dry-run prints the plan; exit 3 when something would refuse it', async () => {
    const dry = (problems: unknown[]): Routes => ({
      'POST /clusters/demo/tasks': { body: { dryRun: true, task: null, plan: ['CHECKPOINT on n1', 'stop n1', 'promote n2'], problems } },
    });
    const fine = await pgherd(['switchover', '-c', 'demo', '--dry-run'], dry([]));
    assert.equal(fine.exit, 0);
    assert.match(fine.out, / {2}2\. stop n1/);
    assert.deepEqual(
      fakeServer().seen.map((seen) => (seen.body as { dryRun: boolean }).dryRun),
      [true],
    );
    const refused = await pgherd(['switchover', '-c', 'demo', '--dry-run'], dry([{ code: 'x', text: 'n2 lags', remedy: 'wait' }]));
    assert.equal(refused.exit, 3);
    assert.match(refused.out, /It would be refused:[\s\S]*n2 lags/);
  });

  test('two operators at once: the conflict is refused with the running task named', async () => {
    const result = await pgherd(['switchover', '-c', 'demo'], {
      'POST /clusters/demo/tasks': apiError(409, 'task.conflict', { what: 'task t-9 (failover) is running' }),
    });
    assert.equal(result.exit, 3);
    assert.match(result.err, /task t-9/);
  });

  test('every node and cluster verb sends its request', async () => {
    const cases: readonly (readonly [readonly string[], unknown])[] = [
      [['node', 'start', 'n2'], { kind: 'nodeStart', node: 'n2' }],
      [['node', 'stop', 'n2'], { kind: 'nodeStop', node: 'n2' }],
      [['node', 'restart', 'n2'], { kind: 'nodeRestart', node: 'n2' }],
      [['node', 'promote', 'n2'], { kind: 'switchover', to: 'n2' }],
      [['node', 'follow', 'n2'], { kind: 'nodeRejoin', node: 'n2', via: 'stream' }],
      [['node', 'follow', 'n2', '--upstream', 'n3'], { kind: 'nodeFollow', node: 'n2', upstream: 'n3' }],
      [['node', 'follow', 'n2', '--upstream', 'primary'], { kind: 'nodeFollow', node: 'n2', upstream: null }],
      [['node', 'rejoin', 'n2'], { kind: 'nodeRejoin', node: 'n2', via: null }],
      [['node', 'repair', 'n2', '--via', 'rewind'], { kind: 'nodeRejoin', node: 'n2', via: 'rewind' }],
      [['node', 'rebuild', 'n2', '--yes'], { kind: 'nodeRejoin', node: 'n2', via: 'clone', source: null, rateKb: null }],
      [['node', 'maintenance', 'n2', 'on'], { kind: 'nodeMaintenance', node: 'n2', on: true }],
      [['cluster', 'start'], { kind: 'clusterStart' }],
      [['cluster', 'stop', '--yes'], { kind: 'clusterStop' }],
      [['cluster', 'restart', '--rolling'], { kind: 'clusterRestart', rolling: true }],
      [['cluster', 'restart', '--yes'], { kind: 'clusterRestart', rolling: false }],
      [['freeze', '--for', '2h'], { kind: 'freeze', forMs: 7_200_000 }],
      [['unfreeze'], { kind: 'unfreeze' }],
      [['failover', '--accept-two-primaries', '--yes'], { kind: 'failover', to: null, acceptLoss: false, acceptTwoPrimaries: true }],
      [['failover', '--to', 'n2', '--accept-loss', '--yes'], { kind: 'failover', to: 'n2', acceptLoss: true, acceptTwoPrimaries: false }],
    ];
    for (const [argv, request] of cases) {
      const result = await pgherd([...argv, '-c', 'demo', '--no-wait'], created());
      assert.deepEqual([result.exit, (fakeServer().seen[0]?.body as { request: unknown } | undefined)?.request], [0, request], argv.join(' '));
    }
  });

  test('task list, show, cancel', async () => {
    const routes: Routes = {
      'GET /tasks': { body: [task({ steps })] },
      'GET /tasks/t-1': { body: task({ steps, status: 'running' }) },
      'POST /tasks/t-1/cancel': { body: task({ cancelRequested: true }) },
    };
    assert.match((await pgherd(['task', 'list'], routes)).out, /t-1 +demo +switchover/);
    assert.match((await pgherd(['task', 'list', '--search', 'N2 OPENED'], routes)).out, /t-1 +demo/);
    assert.match((await pgherd(['task', 'list', '--search', 'nothing of the kind'], routes)).out, /no tasks/);
    assert.match((await pgherd(['task', 'list', '--status', 'cancelled'], routes)).out, /no tasks/);
    assert.equal((await pgherd(['task', 'list', '--status', 'odd'], routes)).exit, 2);
    assert.match((await pgherd(['task', 'show', 't-1'], routes)).out, /promote: n2 opened term 4/);
    assert.match((await pgherd(['task', 'cancel', 't-1'], routes)).out, /asked to stop/);
  });
});
