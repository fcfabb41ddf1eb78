/** A fake server for the tests of one file, and the command line run against it. */
import { after, before } from 'node:test';
import { type FakeIoOptions, type RunResult, run } from './fake-io.ts';
import { type FakeServer, type Routes, startFakeServer } from './fake-server.ts';
import { summary } from './fixtures.ts';

let server: FakeServer;
before(async () => {
  server = await startFakeServer();
});
after(() => server.close());

/** The server of this file; there is one from the first test on. */
export function fakeServer(): FakeServer {
  return server;
}

/** Runs a verb against the fake server with a good token. */
export async function pgherd(argv: readonly string[], routes: Routes, options: FakeIoOptions = {}): Promise<RunResult> {
  server.routes = routes;
  server.seen.length = 0;
  return run(['--server', server.url, '--ca-file', server.caFile, '--token-file', server.tokenFile, ...argv], options);
}

/** A server that has one cluster, `demo`. */
export const one: Routes = { 'GET /clusters': { body: [summary] } };
/** An error with its four parts. */
export const four = /^pgherd: .+\n( {2}why .+\n)?( {2}now .+\n)( {2}do {2}.+\n)/m;
