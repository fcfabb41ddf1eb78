import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { chownSync, mkdtempSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { connect } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { createSecureContext } from 'node:tls';
import { monoMs } from '../../src/base/clock.ts';
import { type KeyAndCertificate, createAuthority, issueCertificate } from '../../src/base/pki.ts';
import { openRawBinding } from '../../src/proxy/io/raw-handle.ts';
import { type ClientTls, endPointHash } from '../../src/proxy/login/client-login.ts';
import { joinBytes } from '../../src/wire/bytes.ts';
import { buildQuery } from '../../src/wire/frontend.ts';
import { buildSslRequest } from '../../src/wire/startup.ts';
import { login, until } from '../lab/plain-postgres.ts';
import { type ProxyStage, type Servers, openStage, sqlStateOf, startServers } from './stage.ts';

const HOST = '127.0.0.1';
let servers: Servers;
let directory: string;
let authority: KeyAndCertificate;
let other: KeyAndCertificate;
let ours: KeyAndCertificate;

before(async () => {
  directory = mkdtempSync(join(tmpdir(), 'pgherd-tls-'));
  [servers, authority, other] = await Promise.all([startServers(23_560), createAuthority(), createAuthority()]);
  ours = await issueCertificate(authority, { kind: 'proxy', name: 'c/p1', hosts: [HOST] });
  writeFileSync(join(directory, 'ca.crt'), authority.cert);
  writeFileSync(join(directory, 'other.crt'), other.cert);
  const { cert, key } = await issueCertificate(authority, { kind: 'agent', name: 'c/a', hosts: [HOST] });
  const { a } = servers;
  const { uid, gid } = statSync(a.directory);
  for (const [name, text] of [
    ['server.crt', cert],
    ['server.key', key],
  ] as const) {
    writeFileSync(join(a.directory, name), text, { mode: 0o600 });
    chownSync(join(a.directory, name), uid, gid);
  }
  await a.query('alter system set ssl = on');
  await a.query('select pg_reload_conf()');
  await until(async () => (await a.query('show ssl'))[0]?.['ssl'] === 'on', 5000);
});
after(async () => {
  await servers.remove();
  rmSync(directory, { recursive: true });
});

function clientTls(mode: ClientTls['mode'], shown: KeyAndCertificate = ours, bound: KeyAndCertificate = shown): ClientTls {
  return { mode, context: createSecureContext({ cert: shown.cert, key: shown.key, minVersion: 'TLSv1.2' }), endPoint: endPointHash(bound.cert) };
}

/** What libpq's own client says: the output, or its error. */
function psql(port: number, settings: Readonly<Record<string, string>>, sql: string): Promise<{ readonly output: string; readonly error: string }> {
  const env = {
    PATH: process.env['PATH'] ?? '',
    PGHOST: HOST,
    PGPORT: String(port),
    PGUSER: login.user,
    PGPASSWORD: login.password,
    PGDATABASE: login.database,
    PGSSLROOTCERT: join(directory, 'ca.crt'),
    PGCONNECT_TIMEOUT: '10',
    ...settings,
  };
  return new Promise((resolve) => {
    execFile('psql', ['-X', '-A', '-t', '-q', '-c', sql], { env, maxBuffer: 64 * 1024 * 1024 }, (_cause, stdout, stderr) =>
      resolve({ output: stdout.trim(), error: stderr.trim() }),
    );
  });
}

async function withStage(options: Partial<Parameters<typeof openStage>[1]>, work: (stage: ProxyStage) => Promise<void>): Promise<void> {
  const stage = await openStage(servers, { io: openRawBinding(), ...options });
  try {
    await work(stage);
  } finally {
    stage.close();
  }
}

const ENCRYPTED = 'select ssl::text from pg_stat_ssl where pid = pg_backend_pid()';

describe('TLS', () => {
  test('libpq verifies the proxy by chain and name, and binds SCRAM to its certificate; the proxy encrypts towards the server too', () =>
    withStage({ tls: clientTls('require'), ca: authority.cert }, async ({ port }) => {
      assert.deepEqual(await psql(port, { PGSSLMODE: 'verify-full', PGCHANNELBINDING: 'require' }, ENCRYPTED), { output: 'true', error: '' });
      assert.deepEqual(await psql(port, { PGSSLMODE: 'require', PGCHANNELBINDING: 'disable' }, 'select 1'), { output: '1', error: '' });
      const foreign = { PGSSLMODE: 'verify-ca', PGSSLROOTCERT: join(directory, 'other.crt') };
      assert.match((await psql(port, foreign, 'select 1')).error, /certificate verify failed/);
      assert.match(
        (await psql(port, { PGSSLMODE: 'verify-full', PGHOST: 'localhost', PGHOSTADDR: HOST }, 'select 1')).error,
        /does not match host name/,
      );
      assert.match((await psql(port, { PGSSLMODE: 'disable' }, 'select 1')).error, /this port wants TLS/);
    }));

  test('is the client’s choice with `prefer`, and not to be had with `off`', async () => {
    await withStage({ tls: clientTls('prefer') }, async ({ port }) => {
      assert.equal((await psql(port, { PGSSLMODE: 'disable' }, 'select 1')).output, '1');
      assert.equal((await psql(port, { PGSSLMODE: 'prefer' }, ENCRYPTED)).output, 'false', 'each side by itself');
      assert.match((await psql(port, { PGSSLMODE: 'disable', PGCHANNELBINDING: 'require' }, 'select 1')).error, /channel binding/);
    });
    await withStage({}, async ({ port }) => {
      assert.equal((await psql(port, { PGSSLMODE: 'prefer' }, 'select 1')).output, '1');
      assert.match((await psql(port, { PGSSLMODE: 'require' }, 'select 1')).error, /does not support SSL/);
    });
  });

  test('a login that was bound to another certificate is refused: somebody stands between', () =>
    withStage({ tls: clientTls('require', ours, other) }, async ({ port }) => {
      assert.match(
        (await psql(port, { PGSSLMODE: 'require', PGCHANNELBINDING: 'require' }, 'select 1')).error,
        /channel binding|malformed|authentication/i,
      );
      assert.equal((await psql(port, { PGSSLMODE: 'require', PGCHANNELBINDING: 'disable' }, 'select 1')).output, '1');
    }));

  test('a node whose certificate is not of this installation, or that has none, gets no session and no key', async () => {
    await withStage({ ca: other.cert, waitMs: 600 }, async (stage) => {
      assert.equal(await sqlStateOf(stage.connect()), '57P03');
    });
    await withStage({ ca: authority.cert, waitMs: 600 }, async (stage) => {
      stage.route({ writer: stage.targets.b });
      assert.equal(await sqlStateOf(stage.connect()), '57P03');
    });
  });

  test('large results and large statements come through whole, encrypted on both sides', () =>
    withStage({ tls: clientTls('require'), ca: authority.cert }, async ({ port }) => {
      const rows = "select string_agg(repeat(md5(n::text), 100), '' order by n) from generate_series(1, 5000) n";
      const [through, direct] = await Promise.all([psql(port, { PGSSLMODE: 'require' }, rows), servers.a.query(rows)]);
      assert.equal(through.error, '');
      assert.ok(through.output === direct[0]?.['string_agg'], `${through.output.length} bytes`);
      const long = 'x'.repeat(100_000);
      assert.equal((await psql(port, { PGSSLMODE: 'require' }, `select length('${long}')`)).output, '100000');
    }));

  test('clear text behind a request for TLS is refused, and a client that goes silent in the handshake gives its place back', () =>
    withStage({ tls: clientTls('prefer'), loginMs: 500 }, async ({ port, sessions }) => {
      const talk = (bytes: Uint8Array): Promise<{ readonly heard: Buffer; readonly ms: number }> =>
        new Promise((resolve) => {
          const from = monoMs();
          const heard: Buffer[] = [];
          const socket = connect(port, HOST);
          socket.on('error', () => undefined);
          socket.on('data', (chunk: Buffer) => void heard.push(chunk));
          socket.once('close', () => resolve({ heard: Buffer.concat(heard), ms: monoMs() - from }));
          socket.write(bytes);
        });
      const injected = await talk(joinBytes([buildSslRequest(), buildQuery('select 1')]));
      assert.match(injected.heard.toString('latin1'), /08P01/);
      const silent = await talk(buildSslRequest());
      assert.equal(silent.heard.toString('latin1'), 'S');
      assert.ok(silent.ms >= 400 && silent.ms < 5000, `${silent.ms} ms`);
      assert.equal(sessions.sessions.size, 0);
    }));
});
