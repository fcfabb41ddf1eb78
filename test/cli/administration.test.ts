import assert from 'node:assert/strict';
import { readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, test } from 'node:test';
import { type Routes, apiError } from './fake-server.ts';
import { fakeServer, pgherd } from './harness.ts';
import { show, task } from './fixtures.ts';

describe('confirmation', () => {
  const failover: Routes = {
    'POST /clusters/demo/tasks': { body: { dryRun: false, task: task(), plan: [], problems: [] } },
    'GET /tasks/t-1': { body: task({ status: 'done' }) },
  };

  test('without a terminal a destructive verb needs --yes: exit 2 with the exact command, nothing sent', async () => {
    const result = await pgherd(['failover', '-c', 'demo', '--to', 'n2'], failover);
    assert.equal(result.exit, 2);
    assert.match(result.err, /run: pgherd failover --to n2 -c demo --yes/);
    assert.deepEqual(fakeServer().seen, []);
  });

  test('on a terminal the name must be typed', async () => {
    assert.equal((await pgherd(['failover', '-c', 'demo'], failover, { terminal: 100, answers: ['demo'] })).exit, 0);
    assert.equal((await pgherd(['failover', '-c', 'demo'], failover, { terminal: 100, answers: ['y'] })).exit, 3);
    assert.equal((await pgherd(['failover', '-c', 'demo'], failover, { terminal: 100, answers: [] })).exit, 3);
    assert.deepEqual(fakeServer().seen, []);
  });

  test('all destructive verbs ask', async () => {
    for (const argv of [
      ['failover'],
      ['node', 'rebuild', 'n2'],
      ['node', 'rejoin', 'n2', '--via', 'clone'],
      ['cluster', 'stop'],
      ['cluster', 'restart'],
      ['cluster', 'remove'],
      ['user', 'remove', 'bob'],
      ['store', 'restore', '/tmp/x'],
    ]) {
      const result = await pgherd([...argv, '-c', 'demo'], failover);
      assert.deepEqual([result.exit, fakeServer().seen.length], [2, 0], argv.join(' '));
      assert.match(result.err, /--yes/);
    }
  });

  test('cluster remove sends the name as its confirmation', async () => {
    const result = await pgherd(['cluster', 'remove', '-c', 'demo', '--yes'], {
      'DELETE /clusters/demo': { body: { cluster: 'demo', removed: true, kept: 'the data stays' } },
    });
    assert.equal(result.exit, 0);
    assert.deepEqual(fakeServer().seen[0]?.query, { confirm: 'demo', evenIfLive: 'false' });
  });
});

describe('administration', () => {
  test('token join prints the token alone on standard output', async () => {
    const body = { token: 'pgh_join_abc', cluster: 'demo', server: fakeServer().url, fingerprint: 'f', expiresAt: '2026-11-21T05:00:00.000Z' };
    const result = await pgherd(['token', 'join', '-c', 'demo', '--join-url', 'https://10.0.0.1:8433'], { 'POST /join-tokens': { body } });
    assert.equal(result.out, 'pgh_join_abc\n');
    assert.match(result.err, /pgherd agent join/);
    assert.deepEqual(fakeServer().seen[0]?.body, { cluster: 'demo', ttlMs: 3_600_000, server: 'https://10.0.0.1:8433' });
  });

  test('user add can write the token into a file that only its owner reads', async () => {
    const file = join(fakeServer().directory, 'bob.token');
    const result = await pgherd(['user', 'add', 'bob', '--role', 'operator', '--token-out', file], {
      'POST /users': { body: { name: 'bob', role: 'operator', token: 'pgh_secret' } },
    });
    assert.equal(result.exit, 0);
    assert.equal(readFileSync(file, 'utf8'), 'pgh_secret\n');
    assert.equal(statSync(file).mode & 0o777, 0o600);
    assert.ok(!`${result.out}${result.err}`.includes('pgh_secret'));
  });

  test('a backup comes back as it was, in a 0600 file, and goes up again', async () => {
    const file = join(fakeServer().directory, 'backup');
    const bytes = Buffer.from([0, 1, 2, 255, 10]);
    const saved = await pgherd(['store', 'backup', file], { 'GET /store/backup': bytes });
    assert.equal(saved.exit, 0);
    assert.deepEqual(readFileSync(file), bytes);
    assert.equal(statSync(file).mode & 0o777, 0o600);
    const restored = await pgherd(['store', 'restore', file, '--replace', '--yes'], {
      'POST /store/restore': { body: { keys: 3, text: 'Failover stays off.' } },
    });
    assert.equal(restored.exit, 0);
    assert.equal(fakeServer().seen[0]?.query['replace'], 'true');
  });

  test('store migrate sends the new place, its login from a file, and shows what stands against it; without --yes it moves nothing', async () => {
    const login = join(fakeServer().directory, 'etcd.login');
    writeFileSync(login, 'pgherd:s3cret\n');
    const args = ['store', 'migrate', 'etcd', '--endpoints', 'https://10.0.0.11:2379,https://10.0.0.12:2379', '--login-file', login];
    const answer = { moved: false, from: '1', to: '2', hosts: ['agent/demo/n1'], problems: ['demo/n2 does not report; bring it back first'] };
    const dry = await pgherd([...args, '--dry-run'], { 'POST /store/migrate': { body: answer } });
    assert.equal(dry.exit, 3);
    assert.match(dry.out, /would not be moved:\n {2}demo\/n2 does not report/);
    assert.deepEqual(fakeServer().seen[0]?.body, {
      to: 'etcd',
      endpoints: ['https://10.0.0.11:2379', 'https://10.0.0.12:2379'],
      authority: null,
      username: 'pgherd',
      password: 's3cret',
      dryRun: true,
    });
    assert.ok(!`${dry.out}${dry.err}`.includes('s3cret'));
    const done = await pgherd([...args, '--yes'], { 'POST /store/migrate': { body: { ...answer, moved: true, problems: [] } } });
    assert.deepEqual([done.exit, /1 hosts use the store 2/.test(done.out)], [0, true]);
    assert.notEqual((await pgherd(args, {})).exit, 0);
    writeFileSync(login, 'no colon\n');
    assert.equal((await pgherd([...args, '--yes'], {})).exit, 2);
    assert.equal((await pgherd(['store', 'migrate', 'redis', '--yes'], {})).exit, 2);
  });

  test('settings set sends what is set and unset; nothing to set is wrong usage', async () => {
    const body = {
      revision: 4,
      dryRun: false,
      diff: [{ path: 'postgres.parameters.work_mem', from: null, to: '64MB' }],
      parameters: { work_mem: '64MB' },
    };
    const result = await pgherd(['settings', 'set', 'work_mem=64MB', '--unset', 'jit', '-c', 'demo'], { 'POST /clusters/demo/settings': { body } });
    assert.equal(result.exit, 0);
    assert.match(result.out, /\+ postgres\.parameters\.work_mem: "64MB"/);
    assert.deepEqual(fakeServer().seen[0]?.body, { set: { work_mem: '64MB' }, unset: ['jit'], reason: '' });
    assert.equal((await pgherd(['settings', 'set', '-c', 'demo'], {})).exit, 2);
    assert.equal((await pgherd(['settings', 'set', 'work_mem', '-c', 'demo'], {})).exit, 2);
  });

  test('psql runs where the primary is', async () => {
    const result = await pgherd(['psql', '-c', 'demo', '--', '-d', 'app', '-c', 'select 1'], { 'GET /clusters/demo': { body: show() } });
    assert.equal(result.exit, 0);
    assert.deepEqual(result.io.ran, [['psql', '-h', '10.0.0.11', '-p', '5432', '-d', 'app', '-c', 'select 1']]);
  });

  test('no primary: psql is refused and says what each node is', async () => {
    const result = await pgherd(['psql', '-c', 'demo'], { 'GET /clusters/demo': { body: show({ primary: null, nodes: [] }) } });
    assert.equal(result.exit, 3);
    assert.deepEqual(result.io.ran, []);
  });

  test('an answer that is not understood is a failure, not a crash', async () => {
    const result = await pgherd(['show', '-c', 'demo'], { 'GET /clusters/demo': { body: { nonsense: true } } });
    assert.equal(result.exit, 1);
    assert.match(result.err, /server\.answer/);
  });
});

describe('meta edit', () => {
  const spec = { name: 'demo', nodes: [{ id: 'n1', host: '10.0.0.11' }] };
  const diff = [{ path: 'nodes[0].priority', from: null, to: 50 }];
  const routes = (revision: number): Routes => ({
    'GET /clusters/demo/spec': { body: { spec, revision } },
    'PUT /clusters/demo/spec': (seen) =>
      seen.headers['if-match'] === '"7"' ? { body: { revision: 8, dryRun: seen.query['dryRun'] === 'true', diff } } : apiError(412, 'spec.conflict'),
  });
  const edit =
    (from: RegExp, to: string) =>
    (argv: readonly string[]): number => {
      const file = argv.at(-1) ?? '';
      writeFileSync(file, readFileSync(file, 'utf8').replace(from, to));
      return 0;
    };

  test('shows the difference, asks, and writes with the revision that was read', async () => {
    const result = await pgherd(['meta', 'edit', '-c', 'demo'], routes(7), {
      terminal: 100,
      answers: ['demo'],
      run: edit(/host: 10.0.0.11/, 'host: 10.0.0.11\n    priority: 50'),
    });
    assert.equal(result.exit, 0);
    assert.match(result.err, /\+ .*nodes\[0\]\.priority: 50/);
    assert.match(result.out, /written at revision 8/);
  });

  test('a change of somebody else in between is refused, and the text is kept', async () => {
    const result = await pgherd(['meta', 'edit', '-c', 'demo'], routes(6), { terminal: 100, answers: ['demo'], run: edit(/10.0.0.11/, '10.0.0.99') });
    assert.equal(result.exit, 3);
    const kept = /your text is kept in (\S+)/.exec(result.err)?.[1] ?? '';
    assert.match(readFileSync(kept, 'utf8'), /10\.0\.0\.99/);
    rmSync(join(kept, '..'), { recursive: true });
  });

  test('an invalid text is refused before anything is sent', async () => {
    const result = await pgherd(['meta', 'edit', '-c', 'demo'], routes(7), { terminal: 100, run: edit(/name: demo/, 'nmae: demo') });
    assert.equal(result.exit, 2);
    assert.match(result.err, /did you mean "name"/);
    assert.ok(fakeServer().seen.every((seen) => seen.method === 'GET'));
  });

  test('closing the editor without a change changes nothing', async () => {
    const result = await pgherd(['meta', 'edit', '-c', 'demo'], routes(7), { terminal: 100 });
    assert.equal(result.exit, 0);
    assert.match(result.err, /no change/);
  });
});

describe('settings edit', () => {
  const spec = {
    name: 'demo',
    nodes: [{ id: 'n1', host: '10.0.0.11' }],
    postgres: { parameters: { work_mem: '4MB', jit: 'off' }, hba: ['host all all all md5'] },
  };
  const diff = [{ path: 'postgres.parameters.work_mem', from: '4MB', to: '64MB' }];
  const routes: Routes = {
    'GET /clusters/demo/spec': { body: { spec, revision: 7 } },
    'PUT /clusters/demo/spec': (seen) =>
      seen.headers['if-match'] === '"7"' ? { body: { revision: 8, dryRun: seen.query['dryRun'] === 'true', diff } } : apiError(412, 'spec.conflict'),
  };
  const edit =
    (change: (text: string) => string) =>
    (argv: readonly string[]): number => {
      const file = argv.at(-1) ?? '';
      writeFileSync(file, change(readFileSync(file, 'utf8')));
      return 0;
    };

  test('opens the parameters as YAML, shows the difference, and writes onto the revision that was read', async () => {
    const result = await pgherd(['settings', 'edit', '-c', 'demo'], routes, {
      terminal: 100,
      answers: ['demo'],
      run: edit((text) => {
        assert.match(text, /^#.*\n#.*\nwork_mem: 4MB\njit: "?off"?\n$/);
        return text.replace(/^work_mem.*/m, 'work_mem: 64MB').replace(/jit.*/, 'max_connections: 300');
      }),
    });
    assert.equal(result.exit, 0, result.err);
    assert.match(result.err, /\+ postgres\.parameters\.work_mem: "64MB"/);
    const sent = fakeServer()
      .seen.filter((seen) => seen.method === 'PUT')
      .at(-1);
    assert.deepEqual(sent?.body, { ...spec, postgres: { ...spec.postgres, parameters: { work_mem: '64MB', max_connections: '300' } } });
  });

  test('a parameter that pgherd sets itself is refused with its line, before anything is sent', async () => {
    const result = await pgherd(['settings', 'edit', '-c', 'demo'], routes, { terminal: 100, run: edit((text) => `${text}primary_conninfo: x\n`) });
    assert.equal(result.exit, 2);
    assert.match(result.err, /demo\.yaml:5:1: primary_conninfo[\s\S]*set by pgherd itself/);
    assert.deepEqual(
      fakeServer().seen.map((seen) => seen.method),
      ['GET'],
    );
  });

  test('without a terminal: refused, with the way to do it by a file, and that way works', async () => {
    const refused = await pgherd(['settings', 'edit', '-c', 'demo'], routes);
    assert.equal(refused.exit, 2);
    assert.match(refused.err, /run: pgherd settings edit -c demo -f FILE --yes/);
    const file = join(fakeServer().directory, 'parameters.yaml');
    writeFileSync(file, 'work_mem: 64MB\n');
    assert.equal((await pgherd(['settings', 'edit', '-c', 'demo', '-f', file, '--yes'], routes)).exit, 0);
  });
});
