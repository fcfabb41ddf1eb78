import assert from 'node:assert/strict';
import { createHash, createHmac, pbkdf2Sync } from 'node:crypto';
import { describe, test } from 'node:test';
import fc from 'fast-check';
import { decodeBase64, encodeBase64 } from '../../src/wire/base64.ts';
import { encodeText } from '../../src/wire/bytes.ts';
import {
  SCRAM,
  SCRAM_PLUS,
  type ScramHashes,
  deriveKeys,
  formatScramSecret,
  makeMockSecret,
  makeScramSecret,
  parseScramSecret,
} from '../../src/wire/scram.ts';
import { type ClientChannel, type ClientCredentials, beginClient, continueClient, finishClient } from '../../src/wire/scram-client.ts';
import { type ServerChannel, beginServer, finishServer, offeredMechanisms } from '../../src/wire/scram-server.ts';
import '../fixed-seed.ts';

const hashes: ScramHashes = {
  hash: (data) => Uint8Array.from(createHash('sha256').update(data).digest()),
  hmac: (key, data) => Uint8Array.from(createHmac('sha256', key).update(data).digest()),
  pbkdf2: (password, salt, iterations) => Uint8Array.from(pbkdf2Sync(password, salt, iterations, 32, 'sha256')),
};

const text = (bytes: Uint8Array): string => Buffer.from(bytes).toString('latin1');
const secret = makeScramSecret(hashes, { password: 'pencil', salt: decodeBase64('W22ZaJ0SNY7soEsUEjb6gQ==')!, iterations: 4096 });
const endPoint = Uint8Array.from({ length: 32 }, (_, i) => i * 7);

interface Talk {
  readonly credentials?: ClientCredentials;
  readonly serverChannel?: ServerChannel;
  readonly clientChannel?: ClientChannel;
  readonly mechanism?: string;
  readonly change?: (message: string) => string;
}

/** A whole login; where it ended, and the keys that the server's side recovered. */
function talk({
  credentials = { kind: 'password', password: 'pencil' },
  serverChannel = { kind: 'plain' },
  clientChannel = { kind: 'none' },
  mechanism = SCRAM,
  change = (m) => m,
}: Talk) {
  const client = beginClient({ nonce: 'abc', channel: clientChannel });
  const first = beginServer({ secret, channel: serverChannel, mechanism, data: client.message, nonce: 'XYZ' });
  if (first.kind !== 'continue') return { end: `first ${first.kind}`, why: first.why };
  const next = continueClient(hashes, client.conversation, credentials, first.answer);
  if (next.kind !== 'continue') return { end: `client ${next.kind}`, why: next.why };
  const last = finishServer(hashes, first.conversation, encodeText(change(text(next.message))));
  if (last.kind !== 'proved') return { end: `last ${last.kind}`, why: last.why };
  return { end: finishClient(next.signature, last.answer)?.kind ?? 'ok', keys: last.keys };
}

describe('SCRAM-SHA-256', () => {
  test('says what the example of RFC 7677 says', () => {
    const client = { header: 'n,,', firstBare: 'n=user,r=rOprNGfwEbeRWgbNEkqO', nonce: 'rOprNGfwEbeRWgbNEkqO', channel: { kind: 'none' } } as const;
    const first = beginServer({
      secret,
      channel: { kind: 'plain' },
      mechanism: SCRAM,
      data: encodeText('n,,n=user,r=rOprNGfwEbeRWgbNEkqO'),
      nonce: '%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0',
    });
    assert.ok(first.kind === 'continue');
    assert.equal(text(first.answer), 'r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096');
    const next = continueClient(hashes, client, { kind: 'password', password: 'pencil' }, first.answer);
    assert.ok(next.kind === 'continue');
    assert.equal(text(next.message), 'c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=');
    const last = finishServer(hashes, first.conversation, next.message);
    assert.ok(last.kind === 'proved');
    assert.equal(text(last.answer), 'v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=');
    assert.equal(finishClient(next.signature, last.answer), null);
  });

  test('gives the server keys that log in without the password', () => {
    const { end, keys } = talk({});
    assert.equal(end, 'ok');
    assert.deepEqual(keys, deriveKeys(hashes, { password: 'pencil', salt: secret.salt, iterations: 4096 }));
    assert.equal(talk({ credentials: { kind: 'keys', keys: keys!, secret } }).end, 'ok');
  });

  test('refuses keys of a secret that was replaced, before any proof is sent', () => {
    const { keys } = talk({});
    const { end } = talk({ credentials: { kind: 'keys', keys: keys!, secret: { salt: Uint8Array.of(1), iterations: 4096 } } });
    assert.equal(end, 'client other-secret');
  });

  test('binds the channel when both sides can, and notices every disagreement', () => {
    const tls: ServerChannel = { kind: 'tls', endPoint };
    assert.deepEqual(offeredMechanisms(tls), [SCRAM_PLUS, SCRAM]);
    const bound: ClientChannel = { kind: 'bound', endPoint };
    assert.equal(talk({ serverChannel: tls, clientChannel: bound, mechanism: SCRAM_PLUS }).end, 'ok');
    assert.equal(
      talk({ serverChannel: tls, clientChannel: { kind: 'bound', endPoint: endPoint.slice(1) }, mechanism: SCRAM_PLUS }).end,
      'last refused',
    );
    assert.equal(talk({ serverChannel: tls, clientChannel: { kind: 'unbound' } }).end, 'first refused');
    assert.equal(talk({ serverChannel: { kind: 'tls-unbound' }, clientChannel: { kind: 'unbound' } }).end, 'ok');
    assert.equal(talk({ serverChannel: tls, clientChannel: { kind: 'none' } }).end, 'ok');
    assert.equal(talk({ serverChannel: tls, clientChannel: { kind: 'none' }, mechanism: SCRAM_PLUS }).end, 'first malformed');
    assert.equal(talk({ clientChannel: bound, mechanism: SCRAM_PLUS }).end, 'first malformed');
    assert.equal(talk({ serverChannel: tls, clientChannel: bound }).end, 'first malformed');
  });

  const changes: readonly [name: string, end: string, change: (message: string) => string][] = [
    ['another proof', 'last refused', (m) => m.replace(/p=..../, 'p=AAAA')],
    ['a proof that is too short', 'last malformed', (m) => m.replace(/p=.*/, 'p=AAAA')],
    ['no proof', 'last malformed', (m) => m.replace(/,p=.*/, '')],
    ['another nonce', 'last malformed', (m) => m.replace('r=abcXYZ', 'r=abcXYA')],
    ['the nonce of the client alone', 'last malformed', (m) => m.replace('r=abcXYZ', 'r=abc')],
    ['another header', 'last refused', (m) => m.replace('c=biws', 'c=eSws')],
    ['an extension that the proof does not cover', 'last refused', (m) => m.replace(',p=', ',x=1,p=')],
  ];
  for (const [name, end, change] of changes)
    test(`refuses ${name}`, () => {
      assert.equal(talk({ change }).end, end);
    });

  test('refuses a wrong password', () => {
    assert.equal(talk({ credentials: { kind: 'password', password: 'Pencil' } }).end, 'last refused');
  });

  const firsts = [
    '',
    'n,,',
    'n,,r=abc',
    'n,a=x,n=,r=abc',
    'n,,m=x,n=,r=abc',
    'n,,n=,r=',
    'n,,n=,r=a b',
    'p=tls-unique,,n=,r=a',
    'q,,n=,r=a',
    'n,,n=u,q=1,r=abc',
  ];
  for (const data of firsts)
    test(`refuses the first message ${JSON.stringify(data)}`, () => {
      assert.equal(beginServer({ secret, channel: { kind: 'plain' }, mechanism: SCRAM, data: encodeText(data), nonce: 'X' }).kind, 'malformed');
    });

  for (const data of [
    '',
    'r=abcX',
    'r=abcX,s=AAAA',
    'r=abcX,s=AAAA,i=0',
    'r=abcX,s=AAAA,i=99999999',
    'r=abc,s=AAAA,i=1',
    'r=zbcX,s=AAAA,i=1',
    'm=x,r=abcX,s=AAAA,i=1',
    'r=abcX,s=,i=1',
    'r=abcX,s=A,i=1',
  ])
    test(`of a client refuses a server that begins with ${JSON.stringify(data)}`, () => {
      const { conversation } = beginClient({ nonce: 'abc', channel: { kind: 'none' } });
      assert.equal(continueClient(hashes, conversation, { kind: 'password', password: 'x' }, encodeText(data)).kind, 'malformed');
    });

  test('of a client refuses a server that cannot prove that it knows the secret', () => {
    assert.equal(finishClient(new Uint8Array(32), encodeText(`v=${encodeBase64(Uint8Array.from({ length: 32 }, () => 1))}`))?.kind, 'refused');
    assert.equal(finishClient(new Uint8Array(32), encodeText('e=invalid-proof'))?.kind, 'refused');
    assert.equal(finishClient(new Uint8Array(0), encodeText('v='))?.kind, 'malformed');
  });

  test('treats an unknown user like a wrong password, with the same salt each time', () => {
    const nonce = Uint8Array.of(1, 2, 3);
    const mock = makeMockSecret(hashes, { user: 'nobody', nonce });
    assert.deepEqual(makeMockSecret(hashes, { user: 'nobody', nonce }), mock);
    assert.notDeepEqual(makeMockSecret(hashes, { user: 'other', nonce }).salt, mock.salt);
    const client = beginClient({ nonce: 'abc', channel: { kind: 'none' } });
    const first = beginServer({ secret: mock, channel: { kind: 'plain' }, mechanism: SCRAM, data: client.message, nonce: 'X' });
    assert.ok(first.kind === 'continue');
    const next = continueClient(hashes, client.conversation, { kind: 'password', password: 'x' }, first.answer);
    assert.ok(next.kind === 'continue');
    assert.equal(finishServer(hashes, first.conversation, next.message).kind, 'refused');
  });

  test('reads the stored form of secrets, and nothing else', () => {
    assert.deepEqual(parseScramSecret(formatScramSecret(secret)), secret);
    for (const other of [
      '',
      'md5d41d8cd98f00b204e9800998ecf8427e',
      formatScramSecret(secret).replace('4096', '0'),
      formatScramSecret(secret).slice(0, -4),
    ])
      assert.equal(parseScramSecret(other), null);
  });

  test('prepares passwords by SASLprep', () => {
    const key = (password: string): string => text(deriveKeys(hashes, { password, salt: Uint8Array.of(1), iterations: 1 }).clientKey);
    // The examples of RFC 4013 §3.
    assert.equal(key('I\u00adX'), key('IX'));
    assert.equal(key('\u2168'), key('IX'));
    assert.equal(key('\u00aa'), key('a'));
    assert.notEqual(key('USER'), key('user'));
    assert.equal(key('a\u00a0b'), key('a b'));
    assert.notEqual(key('\u2168\u0007'), key('IX\u0007'));
  });
});

test("base64 is the platform's, and decodes only what it would encode", () => {
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 40 }), (bytes) => {
      assert.equal(encodeBase64(bytes), Buffer.from(bytes).toString('base64'));
      assert.deepEqual(decodeBase64(encodeBase64(bytes)), bytes);
    }),
  );
  fc.assert(
    fc.property(fc.string({ maxLength: 12 }), (any) => {
      const decoded = decodeBase64(any);
      if (decoded !== null) assert.equal(encodeBase64(decoded), any);
    }),
  );
  for (const bad of ['A', 'AA', 'AB==', 'AAB=', '====', 'A===', 'AA=A', 'A*==']) assert.equal(decodeBase64(bad), null);
});
