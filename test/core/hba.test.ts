import assert from 'node:assert/strict';
import { test } from 'node:test';
import { refuseHbaLine } from '../../src/core/hba.ts';

test('lines that PostgreSQL takes are taken', () => {
  for (const line of [
    '',
    '  # a comment',
    'local all all peer',
    'local all postgres peer map=admins',
    'host app app 127.0.0.1/32 scram-sha-256',
    'host all all 0.0.0.0/0 md5 # later less',
    'hostssl "my db", other +group,@file 10.0.0.0 255.0.0.0 cert clientcert=verify-full',
    'host all all ::1/128 reject',
    'host all all fe80::1 ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff trust',
    'hostnossl replication rep samenet scram-sha-256',
    'host all /^app.*$ .example.com ldap ldapserver=ldap.example.com ldapprefix="cn=" ldapsuffix=", dc=example"',
    'hostgssenc all all all gss include_realm=0',
  ])
    assert.equal(refuseHbaLine(line), null, line);
});

test('what people mistype is named', () => {
  for (const [line, why] of [
    ['host all all all md5\nhost all all all trust', /line break/],
    ['hots all all all md5', /"hots" is no type of connection/],
    ['host all', /needs a database and a user/],
    ['host all all', /needs an address/],
    ['host all all 10.0.0.1 md5', /10\.0\.0\.1 needs a mask, like 10\.0\.0\.1\/32/],
    ['host all all 10.0.0.0/33 md5', /no network/],
    ['host all all 300.0.0.0/8 md5', /no network/],
    ['host all all 10.0.0.0/8', /needs an authentication method/],
    ['host all all 10.0.0.0/8 trst', /"trst" is no authentication method/],
    ['host all all 10.0.0.0/8 peer', /local connections only/],
    ['host all all 10.0.0.0/8 cert', /hostssl only/],
    ['host all all 10.0.0.0/8 md5 verify', /"verify" is no option/],
    ['local all all 10.0.0.0/8 md5', /"10\.0\.0\.0\/8" is no authentication method/],
    ['host "all all all md5', /quote is not closed/],
    ['host all all , md5', /no address/],
  ] as const)
    assert.match(refuseHbaLine(line) ?? 'taken', why, line);
});
