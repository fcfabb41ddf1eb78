/** Debian's etcdctl against the embedded engine, with and without TLS: somebody else's client understands us. */
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import type { EmbeddedStore } from '../../src/store/embedded/server.ts';
import { until } from './contract.ts';
import { etcdctl, makeCertificates, removeDir, startEmbedded, stopChild, tempDir } from './fixtures.ts';

for (const transport of ['plain', 'TLS'] as const) {
  describe(`etcdctl against the embedded engine, ${transport}`, () => {
    const dir = tempDir();
    let server: EmbeddedStore;
    let flags: string[];
    const ctl = (...args: string[]): Promise<string> => etcdctl(...flags, ...args);
    before(async () => {
      if (!existsSync('/usr/bin/etcdctl')) throw new Error('etcdctl is not installed: run scripts/setup, or apt-get install etcd-client');
      const { server: files, client } = makeCertificates(dir);
      server = await startEmbedded({ file: join(dir, 'store.db'), tls: transport === 'TLS' ? { ...files, requireClientCert: true } : null });
      const address = `127.0.0.1:${server.port}`;
      flags =
        transport === 'TLS'
          ? ['--endpoints', `https://${address}`, '--cacert', client.ca, '--cert', client.cert, '--key', client.key]
          : ['--endpoints', address];
    });
    after(async () => {
      await server?.close();
      removeDir(dir);
    });

    test('put, get with prefix, limit and order, and del', async () => {
      for (const name of ['a', 'b', 'c']) assert.equal(await ctl('put', `/x/${name}`, `value ${name}`), 'OK');
      assert.equal(await ctl('get', '/x/a', '--print-value-only'), 'value a');
      assert.equal(await ctl('get', '/x/', '--prefix', '--keys-only', '--order=DESCEND', '--sort-by=MODIFY', '--limit=2'), '/x/c\n\n/x/b');
      assert.equal(await ctl('get', '/x/a', '/x/c', '--keys-only'), '/x/a\n\n/x/b');
      assert.match(await ctl('get', '/x/', '--prefix', '--limit=1', '-w', 'fields'), /"More" : true\n"Count" : 3/);
      assert.equal(await ctl('put', '--prev-kv', '/x/a', 'new'), 'OK\n/x/a\nvalue a');
      assert.equal(await ctl('del', '--prefix', '/x/'), '3');
      assert.equal(await ctl('get', '/x/', '--prefix'), '');
    });

    test('get at an old revision, and compaction', async () => {
      await ctl('put', '/rev', 'one');
      const at = JSON.parse(await ctl('get', '/rev', '-w', 'json')).header.revision as number;
      await ctl('put', '/rev', 'two');
      assert.equal(await ctl('get', '/rev', '--rev', String(at), '--print-value-only'), 'one');
      assert.match(await ctl('compact', String(at + 1)), /compacted revision/);
      await assert.rejects(ctl('get', '/rev', '--rev', String(at)), /has been compacted/);
      await assert.rejects(ctl('get', '/rev', '--rev', '999999'), /future revision/);
    });

    test('leases: grant, put under it, timetolive, list, keep-alive, revoke', async () => {
      const id = /lease ([0-9a-f]+) granted/.exec(await ctl('lease', 'grant', '60'))?.[1] ?? '';
      await ctl('put', '--lease', id, '/leased', 'x');
      assert.match(await ctl('lease', 'timetolive', id, '--keys'), /granted with TTL\(60s\), remaining\(\d+s\), attached keys\(\[\/leased\]\)/);
      assert.match(await ctl('lease', 'list'), new RegExp(id));
      assert.match(await ctl('lease', 'keep-alive', '--once', id), /keepalived with TTL\(60\)/);
      assert.match(await ctl('lease', 'revoke', id), /revoked/);
      assert.equal(await ctl('get', '/leased'), '');
      await assert.rejects(ctl('put', '--lease', id, '/leased', 'x'), /requested lease not found/);
    });

    test('watch sees puts and deletes with the values before', async () => {
      const watch = spawn('etcdctl', [...flags, 'watch', '--prev-kv', '/w'], { env: { PATH: '/usr/bin', ETCDCTL_API: '3' } });
      try {
        let seen = '';
        watch.stdout.on('data', (chunk: Buffer) => {
          seen += chunk.toString();
        });
        await until('the watch stands', async () => {
          await ctl('put', '/w', 'probe');
          return seen.includes('probe');
        });
        await ctl('put', '/w', 'last');
        await ctl('del', '/w');
        await until('the deletion', () => seen.includes('DELETE'));
        assert.match(seen, /PUT\n\/w\nprobe\n\/w\nlast\n/);
        assert.match(seen, /DELETE\n\/w\nlast\n\/w\n/);
      } finally {
        await stopChild(watch);
      }
    });

    test('a transaction takes the branch that its compares choose', async () => {
      await ctl('put', '/t', 'old');
      const run = async (input: string): Promise<string> => {
        const child = spawn('etcdctl', [...flags, 'txn'], { env: { PATH: '/usr/bin', ETCDCTL_API: '3' } });
        let out = '';
        child.stdout.on('data', (chunk: Buffer) => {
          out += chunk.toString();
        });
        child.stdin.end(input);
        await until('etcdctl ends', () => child.exitCode !== null);
        return out;
      };
      assert.match(await run('value("/t") = "old"\n\nput /t new\n\nget /t\n\n'), /^SUCCESS/);
      assert.match(await run('mod("/t") < "1"\n\nput /t never\n\nget /t\n\n'), /^FAILURE[\s\S]*new/);
    });

    test('endpoint status and health, member list, alarms, snapshot', async () => {
      const [status] = JSON.parse(await ctl('endpoint', 'status', '-w', 'json')) as { Status: { header: { cluster_id: number }; version: string } }[];
      assert.match(status?.Status.version ?? '', /pgherd-embedded/);
      assert.match(await ctl('member', 'list'), /started, embedded/);
      assert.equal(await ctl('alarm', 'list'), '');
      await ctl('endpoint', 'health');
      await ctl('snapshot', 'save', join(dir, 'snapshot.db'));
      assert.ok(existsSync(join(dir, 'snapshot.db')));
    });

    test('users and nested transactions are refused clearly', async () => {
      await assert.rejects(ctl('user', 'list'), /nimplemented|unknown/i);
    });
  });
}
