import assert from 'node:assert/strict';
import { execFileSync, spawn } from 'node:child_process';
import { chmodSync, chownSync, existsSync, readFileSync, readdirSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { monoMs } from '../../src/base/clock.ts';
import { addMono } from '../../src/core/ids.ts';
import { createGuardClient } from '../../src/agent/guard/guard-client.ts';
import { findProcesses, readProcess } from '../../src/agent/guard/kill-tree.ts';
import { PATIENT, createRig, until } from './harness.ts';

const PORT = 23_200;

function osIds(): { uid: number; gid: number } {
  const [uid = 0, gid = 0] = ['-u', '-g'].map((flag) => Number(execFileSync('id', [flag, 'postgres'], { encoding: 'utf8' })));
  return { uid, gid };
}

test('the guard fences a real PostgreSQL whose every process is stopped (SIGSTOP), and puts standby.signal there for its owner', async () => {
  const bin = `/usr/lib/postgresql/${readdirSync('/usr/lib/postgresql').sort((a, b) => Number(b) - Number(a))[0]}/bin`;
  const rig = createRig();
  const ids = osIds();
  try {
    chmodSync(rig.root, 0o755);
    chownSync(rig.dataDirectory, ids.uid, ids.gid);
    execFileSync(join(bin, 'initdb'), ['-D', rig.dataDirectory, '-U', 'postgres', '-A', 'trust', '-N'], { ...ids, cwd: '/', stdio: 'pipe' });
    const server = spawn(
      join(bin, 'postgres'),
      ['-D', rig.dataDirectory, '-p', String(PORT), '-k', rig.dataDirectory, '-c', 'listen_addresses=127.0.0.1'],
      { ...ids, cwd: '/', stdio: 'ignore', detached: true },
    );
    rig.adopt(server.pid ?? 0);
    const pidFile = join(rig.dataDirectory, 'postmaster.pid');
    await until(() => existsSync(pidFile) && readFileSync(pidFile, 'utf8').includes('ready'), 20_000, 'PostgreSQL is ready');
    const postmaster = { pid: server.pid ?? 0, startTime: readProcess(server.pid ?? 0)?.startTime ?? 0 };
    const all = () => findProcesses({ dataDirectory: rig.dataDirectory, postmaster: null });
    assert.ok(all().length >= 5, `${all().length} processes`);
    const client = createGuardClient({ ...PATIENT, stateDirectory: rig.stateDirectory, onStarted: (pid) => rig.adopt(pid) });
    assert.equal((await client.ensure()).ok, true);
    for (const info of all()) process.kill(info.pid, 'SIGSTOP');
    const deadline = addMono(monoMs(), 1000);
    assert.equal(
      await client.arm({
        at: null,
        lease: null,
        addresses: [],
        term: 1,
        leaseId: '1',
        deadline,
        dataDirectory: rig.dataDirectory,
        postmaster,
        table: null,
      }),
      true,
    );
    await until(() => all().length === 0, 5000, 'no process is left');
    const took = monoMs() - deadline;
    assert.ok(took > 0 && took < 3000, `${took} ms after the deadline`);
    await until(async () => (await client.status())?.phase === 'fenced', 3000, 'fenced');
    assert.deepEqual((await client.status())?.fenced?.problems, []);
    assert.equal(statSync(join(rig.dataDirectory, 'standby.signal')).uid, ids.uid);
    await client.acknowledge();
    await client.quit();
  } finally {
    await rig.cleanup();
  }
});
