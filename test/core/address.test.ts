import assert from 'node:assert/strict';
import { test } from 'node:test';
import { parseAddress, unusableAddress } from '../../src/core/address.ts';
import { checkSpec, clusterSpec } from '../../src/core/spec.ts';

test('two spellings of one address are equal', () => {
  const cases: readonly [string, string | null][] = [
    ['10.0.0.1', '10.0.0.1'],
    ['FD00:98:0:0:0:0:0:64', 'fd00:98::64'],
    ['fd00:98::0064', 'fd00:98::64'],
    ['::', '::'],
    ['::1', '::1'],
    ['1:0:0:2:0:0:0:3', '1:0:0:2::3'],
    ['1:2:3:4:5:6:7:8', '1:2:3:4:5:6:7:8'],
    ['1:0:2:3:4:5:6:7', '1:0:2:3:4:5:6:7'],
    ['fe80::', 'fe80::'],
  ];
  for (const [text, canonical] of cases) assert.equal(parseAddress(text)?.text ?? null, canonical, text);
});

test('what is no plain address is refused', () => {
  const wrong = [
    '',
    'db1',
    '10.0.0',
    '10.0.0.256',
    '10.0.0.01',
    '10.0.0.1/24',
    '1::2::3',
    '1:2:3:4:5:6:7',
    '1:2:3:4:5:6:7:8:9',
    'fe80::1%eth0',
    '::ffff:10.0.0.1',
    'g::1',
    '1:2:3:4:5:6:7::8',
  ];
  for (const text of wrong) assert.equal(parseAddress(text), null, text);
});

test('loopback, multicast and link-local addresses serve no client', () => {
  for (const text of ['127.0.0.1', '0.0.0.0', '224.0.0.1', '255.255.255.255', '169.254.1.1', '::1', '::', 'ff02::1', 'fe80::1', 'febf::1']) {
    const address = parseAddress(text);
    assert.ok(address !== null && unusableAddress(address) !== null, text);
  }
  for (const text of ['10.0.0.1', '192.0.2.1', 'fd00::1', '2001:db8::1']) {
    const address = parseAddress(text);
    assert.ok(address !== null && unusableAddress(address) === null, text);
  }
});

test('the spec names what is wrong with a virtual address, and where', () => {
  const problems = (vips: object): readonly string[] => {
    const nodes = [
      { id: 'n1', host: '10.0.0.1' },
      { id: 'n2', host: 'db2.example', internalHost: 'fd00::2' },
    ];
    const spec = clusterSpec({ name: 'demo', nodes, durability: { mode: 'async' }, vips }, '');
    assert.ok(spec.ok);
    return checkSpec(spec.value).map((one) => `${one.path}: ${one.message}`);
  };
  assert.deepEqual(problems({ write: { address: '10.0.0.100', interface: 'eth0' }, read: { address: 'fd00::100' } }), []);
  assert.match(problems({ write: { address: '10.0.0.100/24' } })[0] ?? '', /^vips\.write\.address: "10\.0\.0\.100\/24" has a prefix/);
  assert.match(problems({ read: { address: 'vip.example' } })[0] ?? '', /^vips\.read\.address: .* is no IPv4 or IPv6 address/);
  assert.match(problems({ write: { address: '127.0.0.5' } })[0] ?? '', /loopback/);
  assert.match(problems({ write: { address: '10.0.0.1' } })[0] ?? '', /own address of node "n1"/);
  assert.match(problems({ write: { address: 'FD00:0::2' } })[0] ?? '', /own address of node "n2"/);
  assert.match(problems({ write: { address: 'fd00::9' }, read: { address: 'fd00:0::9' } })[0] ?? '', /^vips\.read\.address: .* write address too/);
  assert.match(problems({ write: { address: '10.0.0.100', interface: 'eth0; reboot' } })[0] ?? '', /^vips\.write\.interface/);
});
