import assert from 'node:assert/strict';
import { mkdirSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { FILE_DECODERS } from '../../src/cli/config-kinds.ts';
import { agentConfig } from '../../src/core/agent-config.ts';
import { serverConfig } from '../../src/core/server-config.ts';
import { checkHost } from '../../src/cli/doctor/host.ts';
import { buildProgram } from '../../src/cli/program.ts';
import { fakeIo, run } from './fake-io.ts';
import { assertGolden } from './golden.ts';

let directory: string;
before(() => {
  directory = mkdtempSync(join(tmpdir(), 'pgherd-cli-'));
});
after(() => rmSync(directory, { recursive: true, force: true }));

function file(name: string, text: string): string {
  const path = join(directory, name);
  writeFileSync(path, text);
  return path;
}

describe('help', () => {
  test('the help page is as reviewed', async () => {
    const result = await run(['--help']);
    assert.equal(result.exit, 0);
    assertGolden('help', result.out);
  });

  test('help finds a verb however deep it is, and says what is none', async () => {
    assert.equal((await run(['help', 'node', 'stop'])).out, (await run(['node', 'stop', '--help'])).out);
    assert.match((await run(['help', 'show'])).out, /^Usage: pgherd show /);
    assert.equal((await run(['help'])).exit, 0);
    for (const words of [
      ['help', 'nix'],
      ['help', 'node', 'nix'],
    ]) {
      const wrong = await run(words);
      assert.equal(wrong.exit, 2);
      assert.match(wrong.err, /unknown command 'nix'/);
    }
  });

  test('each verb has help, and all of it is as reviewed', async () => {
    const texts: string[] = [];
    const visit = async (path: readonly string[], commands: readonly import('commander').Command[]): Promise<void> => {
      for (const command of commands) {
        if (command.name() === 'help' || command.name() === 'complete') continue;
        const result = await run([...path, command.name(), '--help']);
        assert.equal(result.exit, 0, command.name());
        texts.push(`$ pgherd ${[...path, command.name()].join(' ')} --help\n${result.out.split('\nGlobal Options:')[0]?.trimEnd() ?? ''}\n`);
        await visit([...path, command.name()], command.commands);
      }
    };
    await visit([], buildProgram(fakeIo()).commands);
    assertGolden('help-verbs', texts.join('\n'));
  });

  test('every verb of the contract that is built is there, and no stub of a later one', () => {
    const verbs = buildProgram(fakeIo()).commands.map((command) => command.name());
    for (const verb of [
      'init',
      'clusters',
      'show',
      'lsn',
      'lag',
      'explain',
      'events',
      'history',
      'log',
      'freeze',
      'unfreeze',
      'switchover',
      'failover',
      'node',
      'cluster',
      'lb',
      'settings',
      'meta',
      'task',
      'token',
      'user',
      'cert',
      'store',
      'doctor',
      'psql',
      'completion',
      'version',
      'config',
      'agent',
      'import',
    ]) {
      assert.ok(verbs.includes(verb), verb);
    }
  });
});

describe('usage', () => {
  test('mistakes end with 2, in four parts, and name the nearest known word', async () => {
    for (const argv of [
      ['shwo'],
      ['show', '--wach'],
      ['node', 'stop'],
      ['node', 'maintenance', 'n1', 'maybe'],
      ['show', '-o', 'xml'],
      ['switchover', '--timeout', 'soon', '-c', 'x'],
      ['freeze', '--for', 'ever'],
      ['events', '-n', '0'],
      ['log', 'a', 'b'],
      ['node'],
      [],
    ]) {
      assert.equal((await run(argv)).exit, 2, argv.join(' '));
    }
    const result = await run(['shwo']);
    assert.match(result.err, /Did you mean show\?/);
    assert.match(result.err, / {2}do {2}see: pgherd --help/);
    assert.match((await run(['node', 'stop', '--foo'])).err, /see: pgherd node stop --help/);
  });

  test('in JSON mode a usage error is a JSON object', async () => {
    const { error } = JSON.parse((await run(['show', '--nope', '--json'])).err) as { error: { code: string } };
    assert.equal(error.code, 'cli.usage');
  });

  test('a server address that is none is wrong usage', async () => {
    for (const server of ['ftp://x', 'https://a/b', 'https://user:pw@x']) assert.equal((await run(['clusters', '--server', server])).exit, 2, server);
  });

  test('no verb takes a secret as an argument', () => {
    const flags = new Set<string>();
    const visit = (command: import('commander').Command): void => {
      for (const option of command.options) flags.add(option.long ?? '');
      for (const child of command.commands) visit(child);
    };
    visit(buildProgram(fakeIo()));
    assert.deepEqual(
      [...flags].filter((flag) => /password|secret|^--token$/.test(flag)),
      [],
    );
  });

  test('version prints itself', async () => {
    const { version } = JSON.parse(readFileSync(new URL('../../package.json', import.meta.url), 'utf8')) as { version: string };
    assert.match((await run(['version'])).out, new RegExp(`^pgherd ${version} `));
    assert.equal((await run(['--version'])).out, `pgherd ${version}\n`);
  });
});

describe('config check', () => {
  test('valid files of each kind are accepted', async () => {
    const cluster = file('cluster.yaml', 'name: demo\nnodes:\n  - { id: n1, host: 10.0.0.1 }\n');
    const server = file('server.yaml', 'listen: { port: 8433 }\ndataDirectory: /var/lib/pgherd/server\n');
    const agent = file(
      'agent.yaml',
      'cluster: demo\nnode: n1\nhost: 10.0.0.1\ndataDirectory: /d\nstateDirectory: /s\nstore: { endpoints: ["https://10.0.0.9:2379"], ca: null, cert: null, key: null }\n',
    );
    for (const [path, kind] of [
      [cluster, 'cluster'],
      [server, 'server'],
      [agent, 'agent'],
    ] as const) {
      const result = await run(['config', 'check', path, '--json']);
      assert.deepEqual([result.exit, (JSON.parse(result.out) as { kind: string }).kind], [0, kind], result.err);
    }
  });

  test('an unknown key is refused with its line and the nearest known key', async () => {
    const result = await run(['config', 'check', file('bad.yaml', 'name: demo\nfailovr: manual\nnodes:\n  - { id: n1, host: a }\n')]);
    assert.equal(result.exit, 2);
    assert.match(result.err, /bad\.yaml:2:1/);
    assert.match(result.err, /did you mean "failover"/);
  });

  test('two nodes of one name and a lease that cannot hold are named', async () => {
    const result = await run([
      'config',
      'check',
      file('twice.yaml', 'name: demo\nleaseTtlMs: 2000\nleaseRenewMs: 1000\nnodes:\n  - { id: n1, host: a }\n  - { id: n1, host: b }\n'),
    ]);
    assert.equal(result.exit, 2);
    assert.match(result.err, /node "n1" is named twice/);
    assert.match(result.err, /two renewals/);
  });

  test('broken YAML names its line', async () => {
    const result = await run(['config', 'check', file('broken.yaml', 'name: demo\nnodes: [\n')]);
    assert.equal(result.exit, 2);
    assert.match(result.err, /broken\.yaml:\d+/);
  });

  test('a missing file and a file of no known kind are wrong usage', async () => {
    assert.equal((await run(['config', 'check', join(directory, 'none.yaml')])).exit, 2);
    assert.match((await run(['config', 'check', file('other.yaml', 'a: 1\n')])).err, /--kind/);
  });

  test('defaults are printed, all of them', async () => {
    const { DEFAULTS } = await import('../../src/core/spec.ts');
    const { cluster, server, agent, proxy, fixed } = JSON.parse((await run(['config', 'defaults', '--json'])).out);
    for (const [name, value] of Object.entries(DEFAULTS)) assert.equal(cluster[name] ?? fixed[name] ?? server[name], value, name);
    assert.deepEqual([cluster['nodes.port'], cluster['postgres.checksums'], cluster.name], [5432, true, undefined]);
    const ports = [agent.port, agent['listen.port'], server['listen.port'], server['store.listen.port']];
    assert.deepEqual(ports, [5432, 8432, 8433, 2379], 'architecture 12');
    const proxyPorts = ['write', 'read', 'split', 'admin'].map((name) => proxy[`listen.${name}`]);
    assert.deepEqual(proxyPorts, [5433, 5434, 5435, 5436], 'architecture 12');
    assert.deepEqual([proxy['limits.waitMs'], proxy.secretFile, agent.node], [10_000, undefined, undefined]);
    const table = (await run(['config', 'defaults'])).out;
    assert.match(table, /^server\.yaml +listen\.port +8433$/m);
    assert.match(table, /^agent\.yaml +binDirectory +none$/m);
  });

  test('agent.yaml and server.yaml are checked by the decoders of the roles', () => {
    assert.equal(FILE_DECODERS.agent, agentConfig);
    assert.equal(FILE_DECODERS.server, serverConfig);
  });
});

describe('init', () => {
  test('a wrong cluster.yaml is refused before any server is asked', async () => {
    const result = await run(['init', '-f', file('init.yaml', 'name: Demo\nnodes: []\n'), '--server', 'https://127.0.0.1:25998']);
    assert.equal(result.exit, 2);
    assert.match(result.err, /init\.yaml:1/);
  });
});

describe('agent join', () => {
  const base = ['agent', 'join', '--node', 'n1', '--host', '10.0.0.1', '--data-directory', '/d'];

  test('a file without a join token is refused before anything is sent', async () => {
    const result = await run([...base, '--token-file', file('user.token', 'pgh_abcdefghijklmnopqrstuvwxyz\n')]);
    assert.equal(result.exit, 2);
    assert.match(result.err, /token of a user/);
    assert.equal((await run(base)).exit, 2);
  });

  test("another node's agent.yaml is not overwritten, and the token is kept", async () => {
    const { formatJoinToken } = await import('../../src/api/join-token.ts');
    const token = file('join.token', formatJoinToken({ server: 'https://127.0.0.1:25998', fingerprint: '0'.repeat(64), secret: 's' }));
    const config = file(
      'agent-n9.yaml',
      'cluster: demo\nnode: n9\nhost: h\ndataDirectory: /d\nstateDirectory: /s\nstore: { endpoints: ["https://10.0.0.9:2379"], ca: null, cert: null, key: null }\n',
    );
    const result = await run([...base, '--token-file', token, '--config', config]);
    assert.equal(result.exit, 3);
    assert.match(result.err, /node "n9"[\s\S]*the token can still be used/);
  });

  test('a server that is not there: exit 4, nothing written', async () => {
    const { formatJoinToken } = await import('../../src/api/join-token.ts');
    const token = file('join2.token', formatJoinToken({ server: 'https://127.0.0.1:25998', fingerprint: '0'.repeat(64), secret: 's' }));
    const result = await run([
      ...base,
      '--token-file',
      token,
      '--config',
      join(directory, 'new', 'agent.yaml'),
      '--state-directory',
      join(directory, 'state'),
    ]);
    assert.equal(result.exit, 4);
  });
});

describe('doctor', () => {
  const view = (root: string) => ({ root, path: '/usr/bin', isRoot: true, ports: [], dataDirectory: directory, wallYear: 2026 });

  test('a bare host: what is missing is named with its remedy', async () => {
    const root = join(directory, 'bare');
    mkdirSync(root, { recursive: true });
    const checks = await checkHost(view(root));
    const codes = checks.filter((check) => check.level !== 'ok').map((check) => check.code);
    for (const code of ['host.postgres-missing', 'host.os-user', 'host.nft-missing', 'host.arping-missing', 'host.watchdog-missing'])
      assert.ok(codes.includes(code), code);
    for (const check of checks) assert.ok(check.level === 'ok' || check.remedy !== '', check.code);
  });

  test("the distribution's unit: unmasked is a warning, masked is fine", async () => {
    const root = join(directory, 'units');
    mkdirSync(join(root, 'lib/systemd/system'), { recursive: true });
    mkdirSync(join(root, 'etc/systemd/system'), { recursive: true });
    writeFileSync(join(root, 'lib/systemd/system/postgresql.service'), '');
    const level = async (): Promise<string | undefined> => (await checkHost(view(root))).find((check) => check.code.startsWith('host.unit'))?.level;
    assert.equal(await level(), 'warn');
    symlinkSync('/dev/null', join(root, 'etc/systemd/system/postgresql.service'));
    assert.equal(await level(), 'ok');
  });

  test('a port in use is named', async () => {
    const { createServer } = await import('node:net');
    const holder = createServer();
    await new Promise<void>((resolve) => holder.listen(25_997, '0.0.0.0', resolve));
    try {
      const checks = await checkHost({
        ...view('/'),
        ports: [
          { port: 25_997, use: 'PostgreSQL' },
          { port: 25_996, use: 'agent' },
        ],
      });
      assert.deepEqual(
        checks.filter((check) => check.code === 'host.port').map((check) => check.level),
        ['warn', 'ok'],
      );
    } finally {
      await new Promise((resolve) => holder.close(resolve));
    }
  });

  test('a server that cannot be asked does not hide what this host says', async () => {
    const result = await run(['doctor', '--server', 'https://127.0.0.1:25998']);
    assert.equal(result.exit, 4);
    assert.match(result.out, /This host/);
    assert.match(result.err, /server\.unreachable/);
    const remote = await run(['doctor', '--remote', '--server', 'https://127.0.0.1:25998']);
    assert.deepEqual([remote.exit, remote.out], [4, '']);
  });
});

describe('completion', () => {
  test('scripts for each shell, and words at each Tab', async () => {
    const { execFileSync } = await import('node:child_process');
    const main = new URL('../../src/main.ts', import.meta.url).pathname;
    const say = (...argv: string[]): string => execFileSync(process.execPath, [main, ...argv], { encoding: 'utf8' });
    for (const shell of ['bash', 'zsh', 'fish']) assert.match(say('completion', shell), /pgherd/);
    assert.match(say('complete', '--', 'node', 're'), /^rejoin\t/m);
    const twice = execFileSync('bash', ['-c', `${say('completion', 'bash')}\n${say('completion', 'bash')}\necho once more`], {
      encoding: 'utf8',
      stdio: 'pipe',
    });
    assert.equal(twice, 'once more\n');
    assert.doesNotMatch(say('completion', 'bash'), /readonly/, 'a shell may read its start files twice');
  });
});
