/** A server over real TLS on loopback that answers what a test tells it; authority and certificate are made anew for each. */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import type { IncomingHttpHeaders, IncomingMessage, ServerResponse } from 'node:http';
import { createServer } from 'node:https';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createAuthority, issueCertificate } from '../../src/base/pki.ts';

export const TOKEN = 'pgh_test-token-of-an-operator';

export interface Seen {
  readonly method: string;
  readonly path: string;
  readonly query: Readonly<Record<string, string>>;
  readonly headers: IncomingHttpHeaders;
  readonly text: string;
  readonly body: unknown;
}

export type Answer = { readonly status?: number; readonly body: unknown } | Buffer;
/** Route (`GET /clusters`) → answer; a function is asked at each call. Everything but /version needs the token. */
export type Routes = Readonly<Record<string, Answer | ((seen: Seen) => Answer)>>;

export interface FakeServer {
  readonly url: string;
  readonly port: number;
  readonly directory: string;
  readonly caFile: string;
  readonly tokenFile: string;
  readonly seen: Seen[];
  routes: Routes;
  close(): Promise<void>;
}

export function apiError(
  status: number,
  code: string,
  more: Partial<{ what: string; cause: string; now: string; remedy: string; problems: unknown }> = {},
): Answer {
  return {
    status,
    body: {
      error: {
        code,
        what: more.what ?? `what of ${code}`,
        cause: more.cause ?? 'a cause',
        now: more.now ?? 'nothing was changed',
        remedy: more.remedy ?? 'a remedy',
        ...(more.problems === undefined ? {} : { problems: more.problems }),
      },
    },
  };
}

export async function startFakeServer(): Promise<FakeServer> {
  const authority = await createAuthority();
  const own = await issueCertificate(authority, { kind: 'server', name: 'fake', hosts: ['127.0.0.1', 'localhost'] });
  const directory = mkdtempSync(join(tmpdir(), 'pgherd-cli-'));
  writeFileSync(join(directory, 'ca.crt'), authority.cert);
  writeFileSync(join(directory, 'token'), `${TOKEN}\n`, { mode: 0o600 });
  const seen: Seen[] = [];
  const fake = { routes: {} as Routes };
  const server = createServer({ key: own.key, cert: own.cert }, (request, response) => {
    void handle(request, response, seen, fake);
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const address = server.address();
  const port = typeof address === 'object' && address !== null ? address.port : 0;
  return Object.assign(fake, {
    url: `https://127.0.0.1:${port}`,
    port,
    directory,
    caFile: join(directory, 'ca.crt'),
    tokenFile: join(directory, 'token'),
    seen,
    close: async () => {
      server.closeAllConnections();
      await new Promise<void>((resolve) => server.close(() => resolve()));
      rmSync(directory, { recursive: true, force: true });
    },
  });
}

async function handle(request: IncomingMessage, response: ServerResponse, seen: Seen[], fake: { routes: Routes }): Promise<void> {
  const chunks: Buffer[] = [];
  for await (const chunk of request) chunks.push(chunk as Buffer);
  const url = new URL(request.url ?? '/', 'https://fake');
  const text = Buffer.concat(chunks).toString('utf8');
  const isJson = request.headers['content-type'] === 'application/json';
  const path = url.pathname.replace('/api/v1', '');
  const entry: Seen = {
    method: request.method ?? '',
    path,
    query: Object.fromEntries(url.searchParams),
    headers: request.headers,
    text,
    body: isJson ? (JSON.parse(text) as unknown) : null,
  };
  seen.push(entry);
  const answer = answerOf(fake.routes, entry);
  if (Buffer.isBuffer(answer)) {
    response.writeHead(200, { 'content-type': 'application/octet-stream' }).end(answer);
    return;
  }
  response.writeHead(answer.status ?? 200, { 'content-type': 'application/json' }).end(JSON.stringify(answer.body));
}

function answerOf(routes: Routes, seen: Seen): Answer {
  if (seen.path !== '/version' && seen.headers.authorization === undefined) return apiError(401, 'auth.missing');
  if (seen.path !== '/version' && seen.headers.authorization !== `Bearer ${TOKEN}`) return apiError(401, 'auth.invalid');
  const route = routes[`${seen.method} ${seen.path}`];
  if (route === undefined) return apiError(404, seen.path.startsWith('/clusters/') ? 'cluster.not-found' : 'request.unknown-route');
  return typeof route === 'function' ? route(seen) : route;
}
