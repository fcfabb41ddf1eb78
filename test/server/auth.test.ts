import assert from 'node:assert/strict';
import { readFileSync, readdirSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { expectFailure, startTestServer, temporaryDirectory, expectOk } from './harness.ts';

test('the first start prints one admin token, keeps only its hash, and a restart prints none (H4)', async (t) => {
  const first = await startTestServer(t);
  assert.equal(first.printed.match(/pgh_/g)?.length, 1);
  assert.equal(expectOk(await first.admin.call('users')).length, 1);
  const kept = readFileSync(join(first.config.dataDirectory, 'users.json'), 'utf8');
  // The secret itself may hold and end with underscores: it is what follows the prefix and the 12 characters of the id.
  const secret = first.token.slice('pgh_'.length + 12 + 1);
  assert.equal(secret.length, 43);
  assert.ok(!kept.includes(secret), 'the secret part must not be stored');
  const fingerprint = first.server.context.authority.fingerprint;
  expectOk(await first.admin.call('createCluster', { body: { name: 'kept', nodes: [{ id: 'n1', host: '127.0.0.1' }] } }));
  await first.server.stop();

  const second = await startTestServer(t, { directory: first.directory, token: first.token });
  assert.equal(second.printed, '');
  assert.equal(second.server.context.authority.fingerprint, fingerprint, 'the authority is the same');
  assert.equal(expectOk(await second.admin.call('users')).length, 1);
  assert.equal(expectOk(await second.admin.call('getSpec', { params: { cluster: 'kept' } })).spec['name'], 'kept');
});

test('a missing, malformed or wrong token is 401, and its exit class is 4', async (t) => {
  const server = await startTestServer(t);
  const missing = expectFailure(await server.clientOf(null).call('clusters'));
  assert.deepEqual([missing.code, missing.status, missing.exit], ['auth.missing', 401, 4]);
  const wrong = expectFailure(await server.clientOf(`${server.token.slice(0, -4)}AAAA`).call('clusters'));
  assert.deepEqual([wrong.code, wrong.status, wrong.exit], ['auth.invalid', 401, 4]);
  const odd = await server.raw({ path: '/api/v1/clusters', token: null, headers: { authorization: 'Basic YWRtaW46YWRtaW4=' } });
  assert.equal(odd.status, 401);
  assert.equal(odd.headers['www-authenticate'], 'Bearer');
});

test('a token in the URL is no token (H5)', async (t) => {
  const server = await startTestServer(t);
  for (const name of ['token', 'access_token']) {
    const answer = await server.raw({ path: `/api/v1/clusters?${name}=${server.token}`, token: null });
    assert.equal(answer.status, 401);
  }
});

test('ten wrong tokens from one address are followed by 429, also for a right one; who was let in before goes on', async (t) => {
  const server = await startTestServer(t);
  const known = server.clientOf(expectOk(await server.admin.call('addUser', { body: { name: 'vera', role: 'viewer' } })).token);
  for (let i = 0; i < 10; i++) assert.equal((await server.raw({ path: '/api/v1/clusters', token: 'wrong' })).status, 401);
  const limited = expectFailure(await known.call('clusters'));
  assert.deepEqual([limited.code, limited.status, limited.exit], ['auth.rate-limited', 429, 4]);
  expectOk(await server.admin.call('clusters'));
  assert.equal((await server.raw({ path: '/livez', token: null })).status, 200);
});

test('a viewer looks, an operator asks for operations, only an admin adds users', async (t) => {
  const server = await startTestServer(t);
  const viewer = server.clientOf(expectOk(await server.admin.call('addUser', { body: { name: 'vera', role: 'viewer' } })).token);
  const operator = server.clientOf(expectOk(await server.admin.call('addUser', { body: { name: 'olaf', role: 'operator' } })).token);
  const spec = { name: 'demo', nodes: [{ id: 'n1', host: '127.0.0.1' }] };

  expectOk(await viewer.call('clusters'));
  assert.equal(expectFailure(await viewer.call('createCluster', { body: spec })).code, 'auth.forbidden');
  expectOk(await operator.call('createCluster', { body: spec }));
  assert.equal(expectFailure(await operator.call('addUser', { body: { name: 'eve', role: 'admin' } })).code, 'auth.forbidden');
  assert.equal(expectFailure(await operator.call('addJoinToken', { body: { cluster: 'demo' } })).code, 'auth.forbidden');

  expectOk(await server.admin.call('removeUser', { params: { name: 'vera' } }));
  assert.equal(expectFailure(await viewer.call('clusters')).code, 'auth.invalid', 'a removed token stops working at once');
  assert.equal(expectFailure(await server.admin.call('removeUser', { params: { name: 'admin' } })).code, 'user.last-admin');
  assert.equal(expectFailure(await server.admin.call('addUser', { body: { name: 'olaf', role: 'viewer' } })).code, 'user.exists');
});

test('what people did stands in the audit log, with refusals, and without secrets (H2)', async (t) => {
  const server = await startTestServer(t);
  const added = expectOk(await server.admin.call('addUser', { body: { name: 'olaf', role: 'operator' } }));
  await server.raw({ path: '/api/v1/clusters', method: 'POST', token: 'wrong', headers: { 'content-type': 'application/json' }, body: '{}' });
  expectOk(await server.admin.call('addJoinToken', { body: { cluster: 'demo' } }));
  const text = readFileSync(join(server.config.dataDirectory, 'audit.log'), 'utf8');
  const lines = text
    .trim()
    .split('\n')
    .map((line) => JSON.parse(line) as Record<string, unknown>);
  assert.deepEqual(
    lines.map(({ who, route, status, result }) => ({ who, route, status, result })),
    [
      { who: 'admin', route: 'POST /users', status: 200, result: 'ok' },
      { who: '-', route: 'POST /clusters', status: 401, result: 'auth.invalid' },
      { who: 'admin', route: 'POST /join-tokens', status: 200, result: 'ok' },
    ],
  );
  assert.ok(!text.includes(added.token) && !text.includes('pgh_'));
  assert.ok(!server.log.join('').includes(server.token));
});

test('files of the data directory are for their owner only (H1, H2)', async (t) => {
  const server = await startTestServer(t);
  expectOk(await server.admin.call('addJoinToken', { body: { cluster: 'demo' } }));
  const root = server.config.dataDirectory;
  assert.equal(statSync(root).mode & 0o777, 0o700);
  for (const entry of readdirSync(root, { recursive: true, withFileTypes: true })) {
    if (!entry.isFile() || entry.name === 'ca.crt') continue;
    assert.equal(statSync(join(entry.parentPath, entry.name)).mode & 0o077, 0, entry.name);
  }
});

test('the first token goes into a file instead when one is configured', async (t) => {
  const base = await temporaryDirectory(t);
  const file = join(base, 'first.token');
  const server = await startTestServer(t, { directory: base, overrides: { firstTokenFile: file } });
  assert.equal(server.printed, '');
  assert.equal(statSync(file).mode & 0o777, 0o600);
  expectOk(await server.clientOf(readFileSync(file, 'utf8').trim()).call('users'));
});
