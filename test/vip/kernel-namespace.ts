/** Runs inside a network namespace of its own (started by kernel.test.ts): this host, and two others on the same cable, each in a namespace of its own. */
import assert from 'node:assert/strict';
import { type ChildProcess, execFileSync, spawn } from 'node:child_process';
import { readFileSync, readlinkSync } from 'node:fs';
import { after, before, test } from 'node:test';
import { monoMs } from '../../src/base/clock.ts';
import { addMono } from '../../src/core/ids.ts';
import { type LocalAddress, type VipKernel, createVipKernel } from '../../src/agent/vip/kernel.ts';
import { createGuardClient } from '../../src/agent/guard/guard-client.ts';
import { PATIENT, createRig, until } from '../guard/harness.ts';

const VIP4 = '10.98.0.100';
const VIP6 = 'fd00:98::64';
const kernel: VipKernel = createVipKernel();
const children: ChildProcess[] = [];
const others: { readonly mac: string; readonly run: Run }[] = [];
const ip = (...argv: readonly string[]): string => execFileSync('ip', argv, { encoding: 'utf8' });
const place = (address: string): { readonly address: string; readonly interface: string } => ({ address, interface: 'eth0' });

before(async () => {
  const cable = await startHost();
  // The switch stands in a namespace of its own, so that nothing of this host answers but eth0.
  cable.run('ip', 'link', 'add', 'br0', 'type', 'bridge', 'forward_delay', '0');
  cable.run('ip', 'link', 'set', 'br0', 'up');
  const plug = (index: number): void => {
    ip('link', 'add', 'far0', 'type', 'veth', 'peer', 'name', `port${index}`);
    ip('link', 'set', `port${index}`, 'netns', cable.pid);
    cable.run('ip', 'link', 'set', `port${index}`, 'master', 'br0', 'up');
  };
  ip('link', 'set', 'lo', 'up');
  plug(1);
  ip('link', 'set', 'far0', 'name', 'eth0');
  configure((...argv) => execFileSync(argv[0] ?? '', argv.slice(1), { encoding: 'utf8' }), 1);
  for (const index of [2, 3]) {
    const host = await startHost();
    plug(index);
    ip('link', 'set', 'far0', 'netns', host.pid);
    host.run('ip', 'link', 'set', 'far0', 'name', 'eth0');
    configure(host.run, index);
    others.push({ ...host, mac: /link\/ether (\S+)/.exec(host.run('ip', 'link', 'show', 'eth0'))?.[1] ?? '' });
  }
  // Link-local addresses are ready a moment after the link is.
  const ready = (): boolean =>
    ![ip('-6', 'addr', 'show'), ...others.map((one) => one.run('ip', '-6', 'addr', 'show'))].some((shown) => shown.includes('tentative'));
  await until(ready, 8000, 'IPv6 is ready');
});
after(() => {
  for (const child of children) child.kill('SIGKILL');
});

type Run = (...argv: readonly string[]) => string;

async function startHost(): Promise<{ readonly pid: string; readonly run: Run }> {
  const child = spawn('unshare', ['--net', 'sleep', '60'], { stdio: 'ignore' });
  children.push(child);
  const pid = String(child.pid ?? 0);
  const own = readlinkSync('/proc/self/ns/net');
  await until(() => readlinkSync(`/proc/${pid}/ns/net`) !== own, 5000, 'the other host is there');
  return { pid, run: (...argv) => execFileSync('nsenter', ['-t', pid, '-n', ...argv], { encoding: 'utf8' }) };
}

function configure(run: Run, index: number): void {
  run('ip', 'link', 'set', 'eth0', 'up');
  run('ip', 'addr', 'add', `10.98.0.${index}/24`, 'dev', 'eth0');
  run('ip', 'addr', 'add', `fd00:98::${index}/64`, 'dev', 'eth0', 'nodad');
}

const other = (index: number): (typeof others)[number] => others[index] ?? assert.fail('no such host');
const stranger = (): (typeof others)[number] => other(0);
const client = (): (typeof others)[number] => other(1);
const ownMac = (): string => /link\/ether (\S+)/.exec(ip('link', 'show', 'eth0'))?.[1] ?? '';

async function listed(address: string): Promise<LocalAddress | undefined> {
  const found = await kernel.list();
  assert.ok(found.ok);
  return found.value.addresses.find((one) => one.address === address);
}

/** What the client's host has in its table of neighbours. */
function learned(address: string): string | null {
  return /lladdr (\S+)/.exec(client().run('ip', 'neigh', 'show', address, 'dev', 'eth0'))?.[1] ?? null;
}

for (const address of [VIP4, VIP6]) {
  const bits = address === VIP4 ? 32 : 128;
  test(`${address}: nobody has it, so nobody answers; a stranger that has it is named`, async () => {
    assert.equal(await kernel.probe(place(address), 200), null);
    stranger().run('ip', 'addr', 'add', `${address}/${bits}`, 'dev', 'eth0', ...(bits === 128 ? ['nodad'] : []));
    const begin = monoMs();
    assert.equal(await kernel.probe(place(address), 2000), stranger().mac);
    assert.ok(monoMs() - begin < 1000, 'an answer is not waited for to the end');
    stranger().run('ip', 'addr', 'del', `${address}/${bits}`, 'dev', 'eth0');
    assert.equal(await kernel.probe(place(address), 200), null);
  });

  test(`${address}: it is added with a life time, is no source of ours, and goes by itself or when it is removed`, async () => {
    assert.equal((await kernel.add(place(address))).ok, true);
    assert.deepEqual(await listed(address), { interface: 'eth0', address, prefix: bits, expires: true, duplicate: false });
    assert.doesNotMatch(ip('addr', 'show', 'dev', 'eth0'), /tentative/);
    const target = address === VIP4 ? '10.98.0.3' : 'fd00:98::3';
    assert.match(ip('route', 'get', target), address === VIP4 ? /src 10\.98\.0\.1 / : /src fd00:98::1 /);
    assert.doesNotMatch(ip(address === VIP4 ? '-4' : '-6', 'route', 'show'), new RegExp(address));
    assert.equal((await kernel.remove(place(address))).ok, true);
    assert.equal(await listed(address), undefined);
    assert.equal((await kernel.remove(place(address))).ok, true, 'removed is removed');
    assert.equal((await kernel.remove({ ...place(address), interface: 'eth7' })).ok, true);
  });

  test(`${address}: the neighbours learn at once that it moved here`, async () => {
    stranger().run('ip', 'addr', 'add', `${address}/${bits}`, 'dev', 'eth0', ...(bits === 128 ? ['nodad'] : []));
    client().run('ip', 'neigh', 'replace', address, 'dev', 'eth0', 'use');
    await until(() => learned(address) === stranger().mac, 3000, 'the client knows the stranger');
    stranger().run('ip', 'addr', 'del', `${address}/${bits}`, 'dev', 'eth0');
    assert.equal((await kernel.add(place(address))).ok, true);
    await kernel.announce(place(address));
    await until(() => learned(address) === ownMac(), 3000, 'the client knows this host');
    await kernel.announce(place(address));
    assert.deepEqual((await listed(address))?.prefix, bits, 'announced again, it is still here');
    await kernel.remove(place(address));
  });
}

test('a setting that is changed for a moment is put back', async () => {
  const read = (): string => readFileSync('/proc/sys/net/ipv6/conf/eth0/accept_dad', 'utf8').trim();
  assert.equal(read(), '1');
  await kernel.add(place(VIP6));
  assert.equal(read(), '1');
  await kernel.remove(place(VIP6));
});

test('with arping of iputils a stranger is found while the address is held', async () => {
  await kernel.add(place(VIP4));
  assert.equal(await kernel.probeHeld(place(VIP4), 1000), null);
  stranger().run('ip', 'addr', 'add', `${VIP4}/32`, 'dev', 'eth0');
  assert.equal(await kernel.probeHeld(place(VIP4), 1000), stranger().mac);
  stranger().run('ip', 'addr', 'del', `${VIP4}/32`, 'dev', 'eth0');
  await kernel.remove(place(VIP4));
});

test('the hardware addresses of this host are known', async () => {
  const found = await kernel.list();
  assert.ok(found.ok && found.value.macs.has(ownMac()) && !found.value.macs.has(stranger().mac));
});

test('what the kernel refuses is told with its words', async () => {
  const added = await kernel.add({ ...place(VIP4), interface: 'eth7' });
  assert.ok(!added.ok);
  assert.equal(added.error.code, 'vip.ip');
  assert.match(added.error.cause, /eth7/);
});

test('the guard of a silent agent removes the addresses', async () => {
  const rig = createRig();
  const guard = createGuardClient({ ...PATIENT, stateDirectory: rig.stateDirectory, onStarted: (pid) => rig.adopt(pid) });
  try {
    const postmaster = await rig.startServer(1);
    for (const address of [VIP4, VIP6]) await kernel.add(place(address));
    assert.equal((await guard.ensure()).ok, true);
    const armed = await guard.arm({
      at: null,
      lease: null,
      term: 1,
      leaseId: '1',
      deadline: addMono(monoMs(), 1000),
      dataDirectory: rig.dataDirectory,
      postmaster,
      table: null,
      addresses: [place(VIP4), place(VIP6), { address: '10.98.0.200', interface: 'eth0' }],
    });
    assert.equal(armed, true);
    await until(async () => (await guard.status())?.phase === 'fenced', 5000, 'fenced');
    assert.deepEqual([await listed(VIP4), await listed(VIP6)], [undefined, undefined]);
    // On a busy host `ip` may be later than the kill waits for it; it must not fail.
    assert.deepEqual(
      (await guard.status())?.fenced?.problems.filter((problem) => problem.startsWith('ip:')),
      [],
    );
  } finally {
    guard.close();
    await rig.cleanup();
  }
});
