/** A real cluster of a few nodes on loopback: server, agents, guards, PostgreSQL; all of it is ended and removed. */
import assert from 'node:assert/strict';
import { chmodSync, mkdtempSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { TestContext } from 'node:test';
import { describeFailure } from '../../src/core/result.ts';
import { type Herd, type HerdPlan, openHerd } from '../../src/demo/herd.ts';
import { startHerd, stopHerd } from '../../src/demo/processes.ts';
import { MAIN, freePort } from './agent-process.ts';

export async function startSmallHerd(t: TestContext, names: readonly string[], spec: Readonly<Record<string, unknown>> = {}): Promise<Herd> {
  const directory = mkdtempSync(join(tmpdir(), 'pgh-'));
  chmodSync(directory, 0o755);
  const nodes: HerdPlan['nodes'][number][] = [];
  for (const node of names) nodes.push({ node, address: '127.0.0.1', port: await freePort(), agentPort: await freePort(), inside: [] });
  const herd = openHerd({
    directory,
    program: [process.execPath, MAIN],
    cluster: 'demo',
    server: { address: '127.0.0.1', apiPort: await freePort(), storePort: await freePort(), inside: [] },
    nodes,
    spec,
    firewall: 'off',
    clientNetwork: '127.0.0.0/8',
  });
  t.after(async () => assert.deepEqual(await stopHerd(herd, { keep: false }), []));
  const failure = await startHerd(herd, { say: () => undefined, signal: new AbortController().signal });
  assert.equal(failure, null, failure === null ? '' : describeFailure(failure));
  return herd;
}
