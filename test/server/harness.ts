/** A real server on loopback: TLS, embedded store, temporary data directory; everything is taken down again. */
import assert from 'node:assert/strict';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { TestContext } from 'node:test';
import { type ApiClient, createApiClient } from '../../src/api/client.ts';
import type { ApiFailure } from '../../src/api/errors.ts';
import { type HttpAnswer, sendHttp } from '../../src/base/http.ts';
import { monoMs } from '../../src/base/clock.ts';
import { type Logger, createLogger } from '../../src/base/log.ts';
import type { Result } from '../../src/core/result.ts';
import { type ServerConfig, serverConfig } from '../../src/core/server-config.ts';
import { type RunningServer, startServer } from '../../src/server/server.ts';

export interface TestServer {
  readonly server: RunningServer;
  readonly directory: string;
  readonly config: ServerConfig;
  /** What was printed at this start. */
  readonly printed: string;
  /** The first admin's token; of an earlier start when it was not printed at this one. */
  readonly token: string;
  readonly admin: ApiClient;
  readonly log: string[];
  clientOf(token: string | null): ApiClient;
  /** A raw request, for what the client would never send. */
  raw(options: {
    readonly path: string;
    readonly method?: string;
    readonly headers?: Record<string, string>;
    readonly body?: string | Uint8Array;
    readonly token?: string | null;
  }): Promise<HttpAnswer>;
}

export interface TestServerOptions {
  readonly directory?: string;
  readonly token?: string;
  readonly controller?: boolean;
  readonly overrides?: Record<string, unknown>;
}

export async function temporaryDirectory(t: TestContext): Promise<string> {
  const directory = await mkdtemp(join(tmpdir(), 'pgherd-server-'));
  t.after(() => rm(directory, { recursive: true, force: true }));
  return directory;
}

export function collectLog(lines: string[]): Logger {
  return createLogger({ role: 'server', level: 'debug', stream: { write: (line) => void lines.push(line) } });
}

export async function startTestServer(t: TestContext, options: TestServerOptions = {}): Promise<TestServer> {
  const directory = options.directory ?? (await temporaryDirectory(t));
  const decoded = serverConfig(
    {
      listen: { port: 0 },
      dataDirectory: join(directory, 'data'),
      store: { engine: 'embedded', listen: { host: '127.0.0.1', port: 0 } },
      controller: options.controller ?? false,
      ...options.overrides,
    },
    '',
  );
  assert.ok(decoded.ok, JSON.stringify(decoded));
  let printed = '';
  const log: string[] = [];
  const started = await startServer({
    config: decoded.value,
    log: collectLog(log),
    print: (text) => {
      printed += text;
    },
  });
  assert.ok(started.ok, JSON.stringify(started));
  const server = started.value;
  t.after(() => server.stop());
  const token = /pgh_\S+/.exec(printed)?.[0] ?? options.token ?? '';
  const ca = server.context.authority.ca;
  const clientOf = (of: string | null): ApiClient => createApiClient({ server: server.url, token: of, ca, timeoutMs: 10_000 });
  return {
    server,
    directory,
    config: decoded.value,
    printed,
    token,
    admin: clientOf(token),
    log,
    clientOf,
    raw: async ({ path, method = 'GET', headers = {}, body, token: of = token }) => {
      const sent = await sendHttp({
        url: `${server.url}${path}`,
        method,
        headers: { ...(of === null ? {} : { authorization: `Bearer ${of}` }), ...headers },
        ...(body === undefined ? {} : { body }),
        tls: { ca },
        timeoutMs: 10_000,
      });
      assert.ok(sent.ok, JSON.stringify(sent));
      return sent.value;
    },
  };
}

export function expectOk<T>(result: Result<T, ApiFailure>): T {
  assert.ok(result.ok, result.ok ? '' : JSON.stringify(result.error));
  return result.value;
}

export function expectFailure<T>(result: Result<T, ApiFailure>): ApiFailure {
  assert.ok(!result.ok, 'expected a failure, found a value');
  return result.error;
}

/** A spec of three nodes. */
export function specOf(name: string, nodes = ['n1', 'n2', 'n3']): Record<string, unknown> {
  return { name, nodes: nodes.map((id, index) => ({ id, host: '127.0.0.1', port: 24_100 + index })) };
}

/** Polls; fails with `what` after the limit. */
export async function eventually<T>(what: string, look: () => Promise<T | null> | T | null, limitMs = 5000): Promise<T> {
  const deadline = monoMs() + limitMs;
  for (;;) {
    const found = await look();
    if (found !== null) return found;
    assert.ok(monoMs() < deadline, `did not happen within ${limitMs} ms: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
}
