import assert from 'node:assert/strict';
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { after, before, describe, it } from 'node:test';
import { type LabNetwork, cannotRunHere, createNetwork, labNamespaces } from '../../lab/network.ts';
import { until } from './plain-postgres.ts';

const why = cannotRunHere();

describe('hosts in network namespaces', { skip: why ?? false }, () => {
  let network: LabNetwork;
  const servers: ChildProcess[] = [];

  /** An echo server on the host; ready when this resolves. */
  async function listen(host: string): Promise<ChildProcess> {
    const script = `require('net').createServer((s) => s.end('hello')).listen(26500, '0.0.0.0', () => console.log('ready'))`;
    const [program = '', ...rest] = [...network.inside(host), process.execPath, '-e', script];
    const child = spawn(program, rest, { stdio: ['ignore', 'pipe', 'inherit'] });
    servers.push(child);
    await once(child.stdout ?? child, 'data');
    return child;
  }

  function reaches(from: string, to: string): Promise<boolean> {
    const script = `const s=require('net').connect(26500, '${network.address(to)}');s.setTimeout(400,()=>process.exit(1));s.on('error',()=>process.exit(1));s.on('data',()=>process.exit(0))`;
    const [program = '', ...rest] = [...network.inside(from), process.execPath, '-e', script];
    return new Promise((resolve) => spawn(program, rest, { stdio: 'ignore' }).once('exit', (code) => resolve(code === 0)));
  }

  before(async () => {
    network = createNetwork(['a', 'b', 'c']);
    await Promise.all([listen('a'), listen('b'), listen('c')]);
  });
  after(() => {
    network.remove();
    network.remove();
  });

  it('reach each other at first', async () => {
    assert.deepEqual(await Promise.all([reaches('a', 'b'), reaches('b', 'c'), reaches('c', 'a')]), [true, true, true]);
  });
  it('do not reach a host whose cable is out, and do again when it is back', async () => {
    network.unplug('b');
    assert.deepEqual(await Promise.all([reaches('a', 'b'), reaches('b', 'c'), reaches('c', 'a')]), [false, false, true]);
    network.plug('b');
    await until(() => reaches('a', 'b'), 5000);
  });
  it('are cut from one host and still reached by another', async () => {
    network.block('a', 'b');
    network.block('b', 'a');
    assert.deepEqual(await Promise.all([reaches('a', 'b'), reaches('b', 'a')]), [false, false]);
    // A neighbour that was away is asked for again only after a second (arp(7)), hence the polls.
    await until(() => reaches('c', 'b'), 5000);
    await until(() => reaches('c', 'a'), 5000);
    assert.equal(await reaches('a', 'b'), false);
    network.heal();
    await until(() => reaches('a', 'b'), 5000);
  });
  it('lose all their processes at once, and only theirs', async () => {
    const before = network.pids('b').length;
    network.killAll('a');
    assert.deepEqual([network.pids('a').length, network.pids('b').length, before], [0, 1, 1]);
  });
  it('refuse an unknown host by name', () => {
    assert.throws(() => network.unplug('x'), /no host "x"/);
  });
  it('leave no namespace and no process behind', async () => {
    const exits = servers.filter((child) => child.exitCode === null && child.signalCode === null).map((child) => once(child, 'exit'));
    network.remove();
    await Promise.all(exits);
    assert.deepEqual(
      labNamespaces().filter((name) => name.startsWith(`pgl${process.pid}-`)),
      [],
    );
  });
});
