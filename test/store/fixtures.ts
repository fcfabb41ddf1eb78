/** Engines and certificates for the tests of the store; each cleans up what it made. */
import { type ChildProcess, execFile, execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import type { TlsFiles } from '../../src/store/pem.ts';
import { type EmbeddedStore, type EmbeddedStoreOptions, startEmbeddedStore } from '../../src/store/embedded/server.ts';

export function tempDir(): string {
  return mkdtempSync(join(tmpdir(), 'pgherd-store-'));
}

export function removeDir(dir: string): void {
  rmSync(dir, { recursive: true, force: true });
}

export async function startEmbedded(options: Partial<EmbeddedStoreOptions> & { readonly file: string }): Promise<EmbeddedStore> {
  const started = await startEmbeddedStore({ listen: { host: '127.0.0.1', port: 0 }, tls: null, ...options });
  if (!started.ok) throw new Error(`${started.error.code}: ${started.error.what}: ${started.error.cause}`);
  return started.value;
}

/** One authority, a server certificate for 127.0.0.1 and a client certificate. */
export function makeCertificates(dir: string): { readonly server: TlsFiles; readonly client: TlsFiles } {
  const path = (name: string): string => join(dir, name);
  const openssl = (...args: string[]): void => void execFileSync('openssl', args, { stdio: 'pipe' });
  openssl(
    'req',
    '-x509',
    '-newkey',
    'ec',
    '-pkeyopt',
    'ec_paramgen_curve:P-256',
    '-nodes',
    '-subj',
    '/CN=test authority',
    '-days',
    '2',
    '-keyout',
    path('ca.key'),
    '-out',
    path('ca.crt'),
  );
  writeFileSync(path('san.cnf'), 'subjectAltName=IP:127.0.0.1,DNS:localhost\n');
  for (const name of ['server', 'client']) {
    openssl(
      'req',
      '-newkey',
      'ec',
      '-pkeyopt',
      'ec_paramgen_curve:P-256',
      '-nodes',
      '-subj',
      `/CN=${name}`,
      '-keyout',
      path(`${name}.key`),
      '-out',
      path(`${name}.csr`),
    );
    openssl(
      'x509',
      '-req',
      '-in',
      path(`${name}.csr`),
      '-CA',
      path('ca.crt'),
      '-CAkey',
      path('ca.key'),
      '-CAcreateserial',
      '-days',
      '2',
      '-extfile',
      path('san.cnf'),
      '-out',
      path(`${name}.crt`),
    );
  }
  const files = (name: string): TlsFiles => ({ ca: path('ca.crt'), cert: path(`${name}.crt`), key: path(`${name}.key`) });
  return { server: files('server'), client: files('client') };
}

export interface EtcdMember {
  readonly url: string;
  readonly child: ChildProcess;
  /** SIGKILL, and the same member anew over its data. */
  restart(): Promise<void>;
}

export interface EtcdCluster {
  readonly members: readonly EtcdMember[];
  readonly urls: readonly string[];
  stop(): Promise<void>;
}

const ETCD = '/usr/bin/etcd';

/** Debian's etcd on loopback, `count` members. Throws when it is not installed: these tests do not skip. */
export async function startEtcd(count: number): Promise<EtcdCluster> {
  if (!existsSync(ETCD)) throw new Error('etcd is not installed: run scripts/setup, or apt-get install etcd-server etcd-client');
  const dir = tempDir();
  const ports = await freePorts(count * 2);
  const nodes = Array.from({ length: count }, (_, i) => ({
    name: `m${i}`,
    client: `http://127.0.0.1:${ports[i * 2]}`,
    peer: `http://127.0.0.1:${ports[i * 2 + 1]}`,
  }));
  const initial = nodes.map((node) => `${node.name}=${node.peer}`).join(',');
  const members = nodes.map((node): EtcdMember => {
    const args = [
      '--name',
      node.name,
      '--data-dir',
      join(dir, node.name),
      '--listen-client-urls',
      node.client,
      '--advertise-client-urls',
      node.client,
      '--listen-peer-urls',
      node.peer,
      '--initial-advertise-peer-urls',
      node.peer,
      '--initial-cluster',
      initial,
      '--initial-cluster-state',
      'new',
      '--initial-cluster-token',
      dir,
      '--pre-vote',
      '--log-level',
      'error',
    ];
    const start = (): ChildProcess => spawn(ETCD, args, { stdio: 'ignore', env: { PATH: '/usr/bin', ETCD_UNSUPPORTED_ARCH: process.arch } });
    let child = start();
    return {
      url: node.client,
      get child() {
        return child;
      },
      restart: async () => {
        await stopChild(child);
        child = start();
      },
    };
  });
  return {
    members,
    urls: nodes.map((node) => node.client),
    stop: async () => {
      await Promise.all(members.map(({ child }) => stopChild(child)));
      removeDir(dir);
    },
  };
}

/** SIGKILL and wait; a stopped (SIGSTOP) process dies of it too. */
export async function stopChild(child: ChildProcess): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null || child.pid === undefined) return;
  const gone = once(child, 'exit');
  child.kill('SIGKILL');
  await gone;
}

/** Ports between 21100 and 21999 that nobody listens on now. */
export async function freePorts(count: number): Promise<number[]> {
  const found: number[] = [];
  let port = 21_100 + ((process.pid * 7) % 800);
  for (let tries = 0; found.length < count && tries < 900; tries++, port = port >= 21_999 ? 21_100 : port + 1) {
    if (await isFree(port)) found.push(port);
  }
  if (found.length < count) throw new Error('no free ports between 21100 and 21999');
  return found;
}

function isFree(port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const server = createServer();
    server.once('error', () => resolve(false));
    server.listen(port, '127.0.0.1', () => server.close(() => resolve(true)));
  });
}

/** Runs etcdctl without blocking this process, which may itself serve the store. Answers standard output; throws with standard error. */
export async function etcdctl(...args: string[]): Promise<string> {
  const { stdout } = await promisify(execFile)('etcdctl', args, { env: { PATH: '/usr/bin', ETCDCTL_API: '3' }, timeout: 10_000 });
  return stdout.trim();
}

export async function compact(url: string, revision: number): Promise<void> {
  await etcdctl('--endpoints', url, 'compact', String(revision));
}
