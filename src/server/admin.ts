/** The server itself: users, certificates, the store, version. */
import { setTimeout as later } from 'node:timers/promises';
import { formatWall } from '../base/clock.ts';
import { peerIdentity } from '../base/tls.ts';
import { backupStore, restoreStore } from '../store/snapshot.ts';
import { makeWallMs } from '../core/ids.ts';
import { err, ok } from '../core/result.ts';
import { makeApiFailure } from '../api/errors.ts';
import { expiryOf } from './authority.ts';
import { type Handler, storeFailure } from './context.ts';
import { allows } from './users.ts';
import { listClusters } from './view.ts';

export const version: Handler<'version'> = (context) => ok({ name: 'pgherd', version: context.version, api: 'v1', node: process.version });

export const ca: Handler<'ca'> = (context) => ok({ ca: context.authority.ca, fingerprint: context.authority.fingerprint });

export const users: Handler<'users'> = (context) =>
  ok(context.users.all().map(({ name, role, createdWallMs, by }) => ({ name, role, createdAt: formatWall(makeWallMs(createdWallMs)), by })));

export const addUser: Handler<'addUser'> = async (context, { body, caller }) => {
  const added = await context.users.add({ name: body.name, role: body.role, by: caller.name });
  return added.ok ? ok({ name: added.value.user.name, role: added.value.user.role, token: added.value.token }) : added;
};

export const removeUser: Handler<'removeUser'> = async (context, { params }) => {
  const removed = await context.users.remove(params.name);
  if (!removed.ok) return removed;
  const { name, role, createdWallMs, by } = removed.value;
  return ok({ name, role, createdAt: formatWall(makeWallMs(createdWallMs)), by });
};

export const certs: Handler<'certs'> = (context) => ok(context.authority.list().map((row) => ({ ...row, hosts: [...row.hosts] })));

/**
 * Invariant: an agent renews only its own certificate, under its own name and with the names that it has.
 * Because: name and hosts are taken from what the authority noted when it signed the one that the connection was made with.
 */
export const renewCert: Handler<'renewCert'> = async (context, { body, caller }) => {
  if (body.kind === 'server') {
    if (caller.role === null || !allows(caller.role, 'admin')) return err(forbidden('an admin’s token is needed to renew the server’s certificate'));
    const certificate = await context.authority.renewServer();
    // After the answer: the connection it goes over has the old one.
    later(50)
      .then(context.reloadTls)
      .catch((cause: unknown) =>
        context.log.error({ error: cause }, 'the renewed certificate cannot be loaded; the old one stays in use (SIGHUP tries again)'),
      );
    return ok({ certificate, ca: context.authority.ca, expiresAt: expiryOf(certificate) });
  }
  const peer = caller.socket === null ? null : peerIdentity(caller.socket);
  const kind = peer?.kind === 'agent' || peer?.kind === 'proxy' ? peer.kind : null;
  const known = context.authority.list().find((row) => row.kind === kind && row.subject === peer?.name);
  if (kind === null || known === undefined) return err(forbidden('an agent renews its certificate over a connection that shows the present one'));
  const signed = await context.authority.signHost({ kind, csr: body.csr, name: known.subject, hosts: known.hosts });
  if (!signed.ok) return err(makeApiFailure('join.csr', signed.error));
  return ok({ certificate: signed.value, ca: context.authority.ca, expiresAt: expiryOf(signed.value) });
};

function forbidden(what: string): ReturnType<typeof makeApiFailure> {
  return makeApiFailure('auth.forbidden', { what, remedy: 'If the certificate has expired, join again with a new token.' });
}

export const storeStatus: Handler<'storeStatus'> = async (context) => {
  const status = await context.store.status();
  if (!status.ok) return err(storeFailure(status.error, 'asking the store for its status'));
  return ok({ ...status.value, watchAgeMs: context.cache.ageMs(), clusters: listClusters(context.cache).length });
};

export const storeBackup: Handler<'storeBackup'> = async (context) => {
  const text = await backupStore(context.store, context.clock);
  return text.ok ? text : err(makeApiFailure('store.backup', text.error));
};

export const storeRestore: Handler<'storeRestore'> = async (context, { query, body }) => {
  if (!(body instanceof Uint8Array))
    return err(
      makeApiFailure('request.malformed', {
        what: 'the body is no backup',
        remedy: 'Send the file that `pgherd store backup` wrote, as application/octet-stream.',
      }),
    );
  const restored = await restoreStore(context.store, Buffer.from(body).toString('utf8'), { existing: query.replace ? 'replace' : 'refuse' });
  if (!restored.ok)
    return err(
      makeApiFailure(
        restored.error.code === 'store.not-empty'
          ? 'store.not-empty'
          : restored.error.code === 'store.backup-damaged'
            ? 'request.invalid'
            : 'store.unavailable',
        restored.error,
      ),
    );
  const { keys, takenAt, incarnation } = restored.value;
  return ok({
    keys,
    text: `${keys} keys of ${takenAt} (store ${incarnation}) are back. Failover stays off until the primaries’ agents have reported to this store.`,
  });
};
