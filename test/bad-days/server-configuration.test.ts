import assert from 'node:assert/strict';
import { test } from 'node:test';
import { checkConfigText } from '../../src/base/config.ts';
import { describeFailure } from '../../src/core/result.ts';
import { serverConfig } from '../../src/core/server-config.ts';

const wrong: readonly { readonly what: string; readonly text: string; readonly says: RegExp }[] = [
  { what: 'no data directory', text: 'controller: true\n', says: /dataDirectory: is missing/ },
  { what: 'a port that is none', text: 'dataDirectory: /d\nlisten: { port: 84330 }\n', says: /server\.yaml:2:\d+: listen\.port.*65535/ },
  {
    what: 'an unknown engine',
    text: 'dataDirectory: /d\nstore: { engine: consul }\n',
    says: /server\.yaml:2:\d+: store\.engine.*embedded or etcd.*consul/,
  },
  {
    what: 'etcd without an address',
    text: 'dataDirectory: /d\nstore: { engine: etcd, endpoints: [], ca: /a, cert: /b, key: /c }\n',
    says: /server\.yaml:2:\d+: store\.endpoints.*https:\/\/host:2379/,
  },
  {
    what: 'etcd with an address that is none',
    text: 'dataDirectory: /d\nstore: { engine: etcd, endpoints: ["10.0.0.1"], ca: /a, cert: /b, key: /c }\n',
    says: /store\.endpoints/,
  },
  { what: 'a misspelt key', text: 'dataDirectory: /d\ncontroler: true\n', says: /server\.yaml:2:1: controler.*controller/ },
  { what: 'broken YAML', text: 'dataDirectory: /d\n  listen: [\n', says: /server\.yaml:1:\d+: not YAML/ },
];

for (const { what, text, says } of wrong) {
  test(`server.yaml with ${what} is refused with its place`, () => {
    const checked = checkConfigText({ file: 'server.yaml', text, decoder: serverConfig });
    assert.ok(!checked.ok);
    assert.match(describeFailure(checked.error), says);
  });
}
