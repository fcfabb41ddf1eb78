import assert from 'node:assert/strict';
import { X509Certificate } from 'node:crypto';
import { existsSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { connect } from 'node:tls';
import { finishRenewal, renewAgentCertificate } from '../../src/agent/certificate/renew.ts';
import { joinServer } from '../../src/api/join-client.ts';
import { formatJoinToken, parseJoinToken } from '../../src/api/join-token.ts';
import { createApiClient } from '../../src/api/client.ts';
import { sendHttp } from '../../src/base/http.ts';
import { createAuthority, createRequest, issueCertificate } from '../../src/base/pki.ts';
import { loadTls } from '../../src/base/tls.ts';
import { wallMs } from '../../src/base/clock.ts';
import { openStore } from '../../src/store/etcd-client.ts';
import { eventually, expectFailure, startTestServer, temporaryDirectory, expectOk } from './harness.ts';

test('a host joins with a token: its key never leaves it, its files are 0600, and the store accepts its certificate (H7)', async (t) => {
  const server = await startTestServer(t);
  const made = expectOk(await server.admin.call('addJoinToken', { body: { cluster: 'demo' } }));
  const stateDirectory = join(server.directory, 'n1');
  const joined = expectOk(await joinServer({ token: made.token, stateDirectory, node: 'n1', hosts: ['127.0.0.1', 'db1.example'] }));

  assert.deepEqual([joined.cluster, joined.node, joined.server], ['demo', 'n1', server.server.url]);
  for (const file of Object.values(joined.files)) assert.equal(statSync(file).mode & 0o777, 0o600, file);
  const certificate = new X509Certificate(readFileSync(joined.files.cert));
  assert.match(certificate.subject, /OU=agent\nCN=demo\/n1/);
  assert.equal(certificate.checkHost('db1.example'), 'db1.example');
  assert.equal(certificate.checkIP('127.0.0.1'), '127.0.0.1');
  assert.match(readFileSync(joined.files.secret, 'utf8'), /^[A-Za-z0-9_-]{43}\n$/);

  const store = openStore({ endpoints: joined.storeEndpoints, tls: joined.files });
  t.after(() => store.close());
  const status = await store.status();
  assert.ok(status.ok, JSON.stringify(status));

  const stranger = await issueCertificate(await createAuthority(), { kind: 'agent', name: 'demo/n9', hosts: ['127.0.0.1'] });
  const foreign = openStore({ endpoints: joined.storeEndpoints, tls: { ca: joined.files.ca, ...stranger } });
  t.after(() => foreign.close());
  assert.equal((await foreign.status()).ok, false, 'a certificate of another authority opens nothing');
});

test('two nodes of a cluster get the same secret, another cluster another one, and none lies in the store', async (t) => {
  const server = await startTestServer(t);
  const secrets: string[] = [];
  for (const [cluster, node] of [
    ['a', 'n1'],
    ['a', 'n2'],
    ['b', 'n1'],
  ] as const) {
    const made = expectOk(await server.admin.call('addJoinToken', { body: { cluster } }));
    const joined = expectOk(
      await joinServer({ token: made.token, stateDirectory: join(server.directory, cluster + node), node, hosts: ['127.0.0.1'] }),
    );
    secrets.push(readFileSync(joined.files.secret, 'utf8').trim());
  }
  assert.equal(secrets[0], secrets[1]);
  assert.notEqual(secrets[0], secrets[2]);
  const listing = await server.server.context.store.list('/pgherd/');
  assert.ok(listing.ok && !JSON.stringify(listing.value).includes(secrets[0] ?? ''));
});

test('a token works once', async (t) => {
  const server = await startTestServer(t);
  const { token } = expectOk(await server.admin.call('addJoinToken', { body: { cluster: 'demo' } }));
  const options = { token, hosts: ['127.0.0.1'] };
  const both = await Promise.all(['n1', 'n2'].map((node) => joinServer({ ...options, node, stateDirectory: join(server.directory, node) })));
  assert.equal(both.filter((one) => one.ok).length, 1, 'of two at once one joins');
  const third = expectFailure(await joinServer({ ...options, node: 'n3', stateDirectory: join(server.directory, 'n3') }));
  assert.deepEqual([third.code, third.exit], ['join.token-used', 4]);
  assert.ok(!existsSync(join(server.directory, 'n3')));
});

test('an expired token and an unknown one are refused, each by its own name', async (t) => {
  const server = await startTestServer(t);
  const { context } = server.server;
  const expired = await context.joinTokens.make({ cluster: 'demo' as never, ttlMs: -1, by: 'test' });
  assert.ok(expired.expiresWallMs < wallMs());
  const text = (secret: string): string => formatJoinToken({ server: server.server.url, fingerprint: context.authority.fingerprint, secret });
  const options = { node: 'n1', hosts: ['127.0.0.1'], stateDirectory: join(server.directory, 'n1') };
  assert.equal(expectFailure(await joinServer({ ...options, token: text(expired.secret) })).code, 'join.token-expired');
  assert.equal(expectFailure(await joinServer({ ...options, token: text('guess') })).code, 'join.token-invalid');
  assert.equal(expectFailure(await joinServer({ ...options, token: 'pgh_join_nonsense' })).code, 'join.token-invalid');
});

test('the token is not sent to a server whose authority has another fingerprint', async (t) => {
  const server = await startTestServer(t);
  const { token } = expectOk(await server.admin.call('addJoinToken', { body: { cluster: 'demo' } }));
  const parsed = parseJoinToken(token);
  assert.ok(parsed !== null);
  const forged = formatJoinToken({ ...parsed, fingerprint: 'ab'.repeat(32) });
  const stateDirectory = join(server.directory, 'n1');
  assert.equal(expectFailure(await joinServer({ token: forged, node: 'n1', hosts: ['127.0.0.1'], stateDirectory })).code, 'join.fingerprint');
  assert.ok(!existsSync(stateDirectory));
  expectOk(await joinServer({ token, node: 'n1', hosts: ['127.0.0.1'], stateDirectory }));
});

test('a node that is alive is not joined a second time, and the token stays good (Z40)', async (t) => {
  const server = await startTestServer(t);
  const { token } = expectOk(await server.admin.call('addJoinToken', { body: { cluster: 'demo' } }));
  await server.server.context.store.txn([], [{ kind: 'put', key: '/pgherd/v1/demo/nodes/n1/report', value: '{}' }]);
  const options = { token, hosts: ['127.0.0.1'] };
  assert.equal(expectFailure(await joinServer({ ...options, node: 'n1', stateDirectory: join(server.directory, 'n1') })).code, 'join.node-live');
  expectOk(await joinServer({ ...options, node: 'n2', stateDirectory: join(server.directory, 'n2') }));
});

test('an agent renews its own certificate by showing it; without one it gets none', async (t) => {
  const server = await startTestServer(t);
  const { token } = expectOk(await server.admin.call('addJoinToken', { body: { cluster: 'demo' } }));
  const joined = expectOk(await joinServer({ token, node: 'n1', hosts: ['127.0.0.1'], stateDirectory: join(server.directory, 'n1') }));
  const { csr } = await createRequest('somebody-else');
  const read = (file: string): string => readFileSync(file, 'utf8');
  const request = {
    url: `${server.server.url}/api/v1/certs/renew`,
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify({ kind: 'agent', csr }),
    timeoutMs: 5000,
  };
  const renewed = await sendHttp({ ...request, tls: { ca: read(joined.files.ca), cert: read(joined.files.cert), key: read(joined.files.key) } });
  assert.ok(renewed.ok && renewed.value.status === 200, JSON.stringify(renewed));
  const { certificate } = JSON.parse(renewed.value.body.toString()) as { certificate: string };
  assert.match(new X509Certificate(certificate).subject, /CN=demo\/n1/, 'the name is the old one, whatever the request says');
  const before = read(joined.files.cert);
  const stateDirectory = join(server.directory, 'n1');
  const atMs = wallMs();
  assert.deepEqual(await renewAgentCertificate({ stateDirectory, atMs }), { ok: true, value: false }, 'there is time left');
  assert.deepEqual(await renewAgentCertificate({ stateDirectory, atMs, force: true }), { ok: true, value: true });
  assert.notEqual(read(joined.files.cert), before);
  const loaded = loadTls(joined.files);
  assert.ok(loaded.ok, 'key and certificate belong to each other');
  const without = await sendHttp({ ...request, tls: { ca: read(joined.files.ca) } });
  assert.ok(without.ok && without.value.status === 403);
});

test('the client does not take an agent for the server, though one authority signed both', async (t) => {
  const server = await startTestServer(t);
  const { authority } = server.server.context;
  const { csr, key } = await createRequest('n1');
  const signed = await authority.signHost({ kind: 'agent', csr, name: 'demo/n1', hosts: ['127.0.0.1'] });
  assert.ok(signed.ok);
  const { createServer } = await import('node:https');
  const impostor = createServer({ cert: signed.value, key, ca: authority.ca }, (_request, response) => response.end('{}'));
  await new Promise<void>((resolve) => impostor.listen(0, '127.0.0.1', resolve));
  t.after(() => impostor.close());
  const address = impostor.address();
  assert.ok(typeof address === 'object' && address !== null);
  const client = createApiClient({ server: `https://127.0.0.1:${address.port}`, token: 'pgh_secret', ca: authority.ca });
  const failure = expectFailure(await client.call('clusters'));
  assert.deepEqual([failure.code, failure.exit], ['server.certificate', 4]);
});

test('a renewed server certificate serves at once, and a new name in the configuration gets into it at reload', async (t) => {
  const server = await startTestServer(t);
  const before = server.server.context.authority.server().cert;
  expectOk(await server.admin.call('renewCert', { body: { kind: 'server' } }));
  assert.notEqual(server.server.context.authority.server().cert, before);
  await server.server.reload({ ...server.config, names: ['pgherd.example'] });
  assert.equal(new X509Certificate(server.server.context.authority.server().cert).checkHost('pgherd.example'), 'pgherd.example');
  expectOk(await server.admin.call('clusters'));
  const row = expectOk(await server.admin.call('certs')).find((one) => one.kind === 'server');
  assert.ok(row?.hosts.includes('pgherd.example') && row.daysLeft > 360);
});

test('files that cannot be written are said after the token is used up', async (t) => {
  const server = await startTestServer(t);
  const base = await temporaryDirectory(t);
  const { token } = expectOk(await server.admin.call('addJoinToken', { body: { cluster: 'demo' } }));
  const { writeFileSync } = await import('node:fs');
  writeFileSync(join(base, 'file'), '');
  const failure = expectFailure(await joinServer({ token, node: 'n1', hosts: ['127.0.0.1'], stateDirectory: join(base, 'file', 'below') }));
  assert.equal(failure.code, 'join.files');
});

test('a renewal that a crash cut off is finished at the next start, unless the host was joined again meanwhile', async (t) => {
  const server = await startTestServer(t);
  const stateDirectory = join(server.directory, 'n1');
  const at = (name: string): string => join(stateDirectory, name);
  const { token } = expectOk(await server.admin.call('addJoinToken', { body: { cluster: 'demo' } }));
  const joined = expectOk(await joinServer({ token, node: 'n1', hosts: ['127.0.0.1'], stateDirectory }));
  const old = { cert: readFileSync(at('agent.crt'), 'utf8'), key: readFileSync(at('agent.key'), 'utf8') };
  assert.deepEqual(await renewAgentCertificate({ stateDirectory, atMs: wallMs(), force: true }), { ok: true, value: true });
  const renewed = { cert: readFileSync(at('agent.crt'), 'utf8'), key: readFileSync(at('agent.key'), 'utf8') };
  // Cut off between the key and the certificate.
  writeFileSync(at('agent.crt'), old.cert);
  writeFileSync(at('agent.next.crt'), renewed.cert);
  writeFileSync(at('agent.next.key'), renewed.key);
  assert.equal(loadTls(joined.files).ok, false);
  await finishRenewal(stateDirectory);
  assert.deepEqual(
    [loadTls(joined.files).ok, readFileSync(at('agent.crt'), 'utf8') === renewed.cert, existsSync(at('agent.next.crt'))],
    [true, true, false],
  );
  // Half of a pair, from a crash before anything was replaced.
  writeFileSync(at('agent.next.key'), old.key);
  await finishRenewal(stateDirectory);
  assert.deepEqual([loadTls(joined.files).ok, existsSync(at('agent.next.key'))], [true, false]);
});

test('the embedded store shows a renewed certificate to new connections, and cuts no open one', async (t) => {
  const server = await startTestServer(t);
  const { authority, store, place } = server.server.context;
  const granted = place.grant(place.present());
  assert.ok(granted.ok);
  const url = new URL(granted.value.endpoints[0] ?? '');
  const shown = (): Promise<string> =>
    new Promise((resolve, reject) => {
      const { ca, cert, key } = authority.server();
      const socket = connect({ host: url.hostname, port: Number(url.port), ca, cert, key, ALPNProtocols: ['h2'] }, () => {
        resolve(socket.getPeerCertificate().fingerprint256);
        socket.destroy();
      });
      socket.on('error', reject);
    });
  const before = await shown();
  expectOk(await server.admin.call('renewCert', { body: { kind: 'server' } }));
  await eventually('the new certificate', async () => ((await shown()) === before ? null : true));
  assert.equal(await shown(), new X509Certificate(authority.server().cert).fingerprint256);
  assert.ok((await store.txn([], [{ kind: 'put', key: '/x/a', value: '1' }])).ok, 'the connection from before still works');
});
