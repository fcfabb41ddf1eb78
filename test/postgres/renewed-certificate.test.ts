import assert from 'node:assert/strict';
import { X509Certificate } from 'node:crypto';
import { writeFileSync } from 'node:fs';
import { connect as connectTcp } from 'node:net';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { connect as connectTls } from 'node:tls';
import { reloadTls } from '../../src/agent/reload.ts';
import type { Instance } from '../../src/agent/postgres/instance.ts';
import { createAuthority, issueCertificate } from '../../src/base/pki.ts';
import { createLab, createPrimary, sql, until } from './harness.ts';

const lab = createLab();
after(() => lab.close());

/** The fingerprint of the certificate that PostgreSQL shows. *Source:* PostgreSQL manual 53.2.10 (SSLRequest, code 80877103). */
function shownBy(instance: Instance): Promise<string> {
  return new Promise((resolve, reject) => {
    const socket = connectTcp(instance.port, '127.0.0.1', () => socket.write(Buffer.from([0, 0, 0, 8, 0x04, 0xd2, 0x16, 0x2f])));
    socket.on('error', reject);
    socket.once('data', (answer) => {
      assert.equal(answer.toString(), 'S');
      const secure = connectTls({ socket, rejectUnauthorized: false }, () => {
        resolve(secure.getPeerCertificate().fingerprint256);
        secure.destroy();
      });
      secure.on('error', reject);
    });
  });
}

test('PostgreSQL shows a renewed certificate after the reload, and no session ends', async () => {
  const authority = await createAuthority();
  const files = { ca: join(lab.root, 'ca.crt'), cert: join(lab.root, 'agent.crt'), key: join(lab.root, 'agent.key') };
  const renew = async (): Promise<string> => {
    const made = await issueCertificate(authority, { kind: 'agent', name: 't/n1', hosts: ['127.0.0.1'] });
    writeFileSync(files.key, made.key, { mode: 0o600 });
    writeFileSync(files.cert, made.cert);
    return new X509Certificate(made.cert).fingerprint256;
  };
  writeFileSync(files.ca, authority.cert);
  const first = await renew();
  const instance: Instance = { ...(await lab.node('n1')), tls: files };
  await createPrimary(instance);
  assert.equal(await shownBy(instance), first);
  const users = { files, http: { reloadTls: () => undefined }, client: null, instance };
  await sql(instance, async (db) => {
    const [before] = await db.query('SELECT pg_backend_pid() AS pid');
    const second = await renew();
    await reloadTls(users);
    await until('the new certificate', async () => (await shownBy(instance)) === second);
    const [now] = await db.query('SELECT pg_backend_pid() AS pid, pg_is_in_recovery() AS standby');
    assert.deepEqual(now, { pid: before?.['pid'], standby: false }, 'the session from before goes on');
  });
  writeFileSync(files.cert, 'nonsense');
  const present = await shownBy(instance);
  await assert.rejects(reloadTls(users), /is no certificate/);
  assert.equal(await shownBy(instance), present, 'files that are not usable change nothing');
});
