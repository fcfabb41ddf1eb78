import assert from 'node:assert/strict';
import { test } from 'node:test';
import { chooseInterface } from '../../src/agent/vip/interface.ts';

const local = [
  { interface: 'lo', address: '127.0.0.1', prefix: 8 },
  { interface: 'eth0', address: '10.0.0.1', prefix: 16 },
  { interface: 'eth1', address: '10.0.7.1', prefix: 23 },
  { interface: 'eth2', address: '10.0.7.9', prefix: 32 },
  { interface: 'eth3', address: 'fd00:98::1', prefix: 64 },
];

test('the narrowest network that holds the address decides', () => {
  const cases: readonly [string, string | null][] = [
    ['10.0.6.200', 'eth1'],
    ['10.0.7.9', 'eth1'],
    ['10.0.8.1', 'eth0'],
    ['10.1.0.1', null],
    ['127.0.0.9', null],
    ['fd00:98::ffff:1', 'eth3'],
    ['fd00:98:0:1::1', null],
    ['nonsense', null],
  ];
  for (const [address, wanted] of cases) assert.equal(chooseInterface(address, local), wanted, address);
});
