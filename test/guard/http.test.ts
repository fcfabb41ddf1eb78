import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { request } from 'node:https';
import { connect } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { monoMs } from '../../src/base/clock.ts';
import { addMono, makeMonoMs, makeNodeId, makeTerm } from '../../src/core/ids.ts';
import { type AgentClient, createAgentClient } from '../../src/agent/http/agent-client.ts';
import { answerHealth, answerRoute, parseSize } from '../../src/agent/http/health.ts';
import { type AgentHttp, type TlsFiles, startAgentHttp } from '../../src/agent/http/server.ts';
import type { AgentStatus } from '../../src/agent/http/status.ts';

const status: AgentStatus = {
  cluster: 'demo',
  node: makeNodeId('n1'),
  version: '1',
  incarnation: 'A',
  role: 'primary',
  term: makeTerm(3),
  lease: { term: makeTerm(3), deadline: makeMonoMs(2000) },
  open: true,
  streaming: false,
  lagBytes: null,
  synchronous: false,
  maintenance: false,
  delayed: false,
  ready: true,
};
const standby: AgentStatus = { ...status, role: 'standby', lease: null, open: false, streaming: true, lagBytes: 1024 ** 2 };

test('each health URL says 200 only when it is true now (Z24)', () => {
  const table: [string, AgentStatus, number, number | null][] = [
    ['/primary', status, 1000, 200],
    ['/primary', status, 2000, 503],
    ['/primary', { ...status, open: false }, 1000, 503],
    ['/primary', { ...status, lease: null }, 1000, 503],
    ['/primary', standby, 1000, 503],
    ['/replica', standby, 1000, 200],
    ['/replica', { ...standby, streaming: false }, 1000, 503],
    ['/replica', { ...standby, maintenance: true }, 1000, 503],
    ['/replica', { ...standby, delayed: true }, 1000, 503],
    ['/replica?lag=16MB', standby, 1000, 200],
    ['/replica?lag=1kB', standby, 1000, 503],
    ['/replica?lag=16MB', { ...standby, lagBytes: null }, 1000, 503],
    ['/replica?lag=x', standby, 1000, 400],
    ['/read-only', status, 1000, 200],
    ['/read-only', standby, 1000, 200],
    ['/sync', { ...standby, synchronous: true }, 1000, 200],
    ['/sync', standby, 1000, 503],
    ['/async', standby, 1000, 200],
    ['/health', { ...status, role: null }, 1000, 503],
    ['/livez', { ...status, role: null }, 1000, 200],
    ['/readyz', { ...status, ready: false }, 1000, 503],
    ['/constructor', status, 1000, null],
  ];
  for (const [path, given, now, expected] of table) {
    const url = new URL(path, 'http://a');
    assert.equal(answerHealth(url.pathname, url.searchParams, given, makeMonoMs(now))?.code ?? null, expected, `${path} at ${now}`);
  }
  assert.deepEqual([parseSize('16MB'), parseSize('7'), parseSize('1 GB'), parseSize('-1')], [16 * 1024 ** 2, 7, 1024 ** 3, null]);
  assert.deepEqual([answerRoute(status, makeMonoMs(1500)).validMs, answerRoute(status, makeMonoMs(2500)).validMs], [500, 0]);
});

let root: string;
let tls: TlsFiles;
let http: AgentHttp;
let client: AgentClient;
let current = status;
let hang = false;
const returned: string[] = [];

before(async () => {
  root = mkdtempSync(join(tmpdir(), 'pgherd-http-'));
  const file = (name: string): string => join(root, name);
  const openssl = (...args: string[]) => execFileSync('openssl', args, { cwd: root, stdio: 'pipe' });
  openssl(
    'req',
    '-x509',
    '-newkey',
    'ec',
    '-pkeyopt',
    'ec_paramgen_curve:P-256',
    '-nodes',
    '-keyout',
    'ca.key',
    '-out',
    'ca.crt',
    '-subj',
    '/CN=ca',
    '-days',
    '2',
  );
  openssl('req', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes', '-keyout', 'a.key', '-out', 'a.csr', '-subj', '/CN=n1');
  writeFileSync(file('ext'), 'subjectAltName=IP:127.0.0.1\n');
  openssl('x509', '-req', '-in', 'a.csr', '-CA', 'ca.crt', '-CAkey', 'ca.key', '-CAcreateserial', '-out', 'a.crt', '-days', '2', '-extfile', 'ext');
  tls = { ca: file('ca.crt'), cert: file('a.crt'), key: file('a.key') };
  http = await startAgentHttp({
    listen: { host: '127.0.0.1', port: 0 },
    tls,
    getStatus: () => current,
    onPromise: (asked) =>
      hang ? new Promise(() => undefined) : Promise.resolve({ kind: 'promised', node: makeNodeId('n1'), term: asked.term, ttlMs: asked.longMs }),
    onPromiseReturn: (given) => returned.push(given.hold),
    readLog: async (source, lines) => [`${source} ${lines}`],
    metrics: () => 'pgherd_up 1\n',
  });
  client = createAgentClient({ tls });
});
after(async () => {
  client?.close();
  await http?.close();
  rmSync(root, { recursive: true });
});

const here = () => ({ host: '127.0.0.1', port: http.port });

/** Without a client certificate. */
function plain(path: string, method = 'GET'): Promise<{ code: number; body: string }> {
  return new Promise((resolve, reject) => {
    const sent = request({ ...here(), path, method, ca: readFileSync(tls.ca), agent: false }, (response) => {
      let body = '';
      response.on('data', (chunk: Buffer) => {
        body += String(chunk);
      });
      response.on('end', () => resolve({ code: response.statusCode ?? 0, body }));
    });
    sent.on('error', reject);
    sent.end();
  });
}

test('health URLs need no certificate, member URLs do', async () => {
  current = { ...status, lease: { term: makeTerm(3), deadline: addMono(monoMs(), 60_000) } };
  assert.equal((await plain('/primary')).code, 200);
  assert.deepEqual(await plain('/primary', 'HEAD'), { code: 200, body: '' });
  assert.equal((await plain('/primary', 'OPTIONS')).code, 200);
  assert.equal((await plain('/primary', 'POST')).code, 405);
  assert.equal((await plain('/metrics')).body, 'pgherd_up 1\n');
  assert.equal((await plain('/nothing')).code, 404);
  for (const path of ['/v1/alive', '/v1/log', '/v1/route', '/v1/promise', '/v1/promise/return']) assert.equal((await plain(path)).code, 401, path);
});

const asked = {
  cluster: 'demo',
  incarnation: 'A',
  term: makeTerm(3),
  from: makeNodeId('n2'),
  hold: 'h1',
  electorateRevision: 1,
  ttlMs: 3000,
  longMs: 3000,
};

test('members ask for promises, life, route and log of an agent alone, without a store (Z13)', async () => {
  assert.deepEqual(await client.promise(here(), { ...asked, longMs: 8000 }), { kind: 'promised', node: 'n1', term: 3, ttlMs: 8000 });
  // A primary of an older version asks for a TTL, and does not say for how long at most.
  const { longMs: _none, ...former } = asked;
  assert.deepEqual(await client.promise(here(), former as typeof asked), { kind: 'promised', node: 'n1', term: 3, ttlMs: 3000 });
  await client.returnPromise(here(), { cluster: 'demo', term: makeTerm(3), from: makeNodeId('n2'), hold: 'h1' });
  assert.deepEqual(returned, ['h1']);
  assert.equal((await client.alive(here()))?.node, 'n1');
  assert.equal((await client.route(here()))?.primary, true);
  for (const source of ['agent', 'postgres', 'guard'] as const) assert.deepEqual(await client.log(here(), { source, lines: 3 }), [`${source} 3`]);
});

test('an agent that does not answer costs 400 ms, and the next call gets a fresh connection', async () => {
  hang = true;
  const begin = monoMs();
  assert.equal(await client.promise(here(), asked), null);
  assert.ok(monoMs() - begin < 3000);
  hang = false;
  assert.equal((await client.promise(here(), asked))?.kind, 'promised');
  assert.equal(await client.alive({ host: '127.0.0.1', port: 23_999 }), null);
});

test('clients that connect and say nothing block nobody (Z75)', async () => {
  const silent = Array.from({ length: 50 }, () => connect(http.port, '127.0.0.1').on('error', () => undefined));
  const begin = monoMs();
  assert.equal((await plain('/livez')).code, 200);
  assert.ok(monoMs() - begin < 3000);
  for (const socket of silent) socket.destroy();
});
