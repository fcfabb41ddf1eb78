/** The server's side of joining: one-time tokens, and certificates for hosts that show one. */
import { createHash, randomBytes, timingSafeEqual } from 'node:crypto';
import { formatWall, wallMs } from '../base/clock.ts';
import { deriveSecret } from '../base/secret.ts';
import { bool, object, text } from '../core/decode.ts';
import { type ClusterId, makeNodeId, makeWallMs, parseClusterId } from '../core/ids.ts';
import { wallMs as wallTime } from '../core/report.ts';
import { type Failure, type Result, err, ok } from '../core/result.ts';
import { clusterKeys } from '../store/keys.ts';
import { type ApiFailure, makeApiFailure } from '../api/errors.ts';
import { formatJoinToken } from '../api/join-token.ts';
import { expiryOf } from './authority.ts';
import { type Handler, storeFailure } from './context.ts';
import { openRecords } from './records.ts';

const joinToken = object({ cluster: text, hash: text, expiresWallMs: wallTime, used: bool, by: text });

export interface JoinTokens {
  make(options: {
    readonly cluster: ClusterId;
    readonly ttlMs: number;
    readonly by: string;
  }): Promise<{ readonly secret: string; readonly expiresWallMs: number }>;
  /** The token's cluster, without using it up. `join.token-invalid`, `join.token-expired`, `join.token-used`. */
  check(secret: string): Result<ClusterId, ApiFailure>;
  /** As check, and nobody can use the token afterwards: durable before it resolves. */
  use(secret: string): Promise<Result<ClusterId, ApiFailure>>;
}

/** Used and expired tokens are remembered for a day, so that their holder is told which of both it is. */
const REMEMBER_MS = 86_400_000;

export function openJoinTokens(file: string): Result<JoinTokens, Failure> {
  const opened = openRecords(file, joinToken);
  if (!opened.ok) return opened;
  const records = opened.value;
  type Entry = ReturnType<typeof records.all>[number];

  const find = (all: readonly Entry[], secret: string): Result<{ entry: Entry; cluster: ClusterId }, ApiFailure> => {
    const hash = hashOf(secret);
    const entry = all.find((one) => timingSafeEqual(Buffer.from(one.hash, 'base64url'), hash));
    const cluster = entry === undefined ? null : parseClusterId(entry.cluster);
    const remedy = 'Make a new one on the server’s side with `pgherd token join -c CLUSTER`.';
    if (entry === undefined || cluster === null) return err(makeApiFailure('join.token-invalid', { what: 'the join token is not known', remedy }));
    if (entry.used)
      return err(makeApiFailure('join.token-used', { what: 'the join token was used before', cause: 'each token lets one host join', remedy }));
    if (entry.expiresWallMs <= wallMs()) {
      return err(
        makeApiFailure('join.token-expired', {
          what: 'the join token has expired',
          cause: `it was good until ${formatWall(entry.expiresWallMs)}`,
          remedy,
        }),
      );
    }
    return ok({ entry, cluster });
  };
  return ok({
    make: async ({ cluster, ttlMs, by }) => {
      const secret = randomBytes(32).toString('base64url');
      const entry: Entry = { cluster, hash: hashOf(secret).toString('base64url'), expiresWallMs: makeWallMs(wallMs() + ttlMs), used: false, by };
      await records.update((current) =>
        ok({ records: [...current.filter((one) => one.expiresWallMs > wallMs() - REMEMBER_MS), entry], value: null }),
      );
      return { secret, expiresWallMs: entry.expiresWallMs };
    },
    check: (secret) => {
      const found = find(records.all(), secret);
      return found.ok ? ok(found.value.cluster) : found;
    },
    use: (secret) =>
      records.update((current) => {
        const found = find(current, secret);
        if (!found.ok) return found;
        return ok({ records: current.map((one) => (one === found.value.entry ? { ...one, used: true } : one)), value: found.value.cluster });
      }),
  });
}

export const addJoinToken: Handler<'addJoinToken'> = async (context, { body, caller }) => {
  const cluster = parseClusterId(body.cluster);
  if (cluster === null)
    return err(makeApiFailure('request.invalid', { what: `"${body.cluster}" cannot name a cluster`, remedy: 'Take another name.' }));
  await context.secrets.ensure(cluster);
  const { secret, expiresWallMs } = await context.joinTokens.make({ cluster, ttlMs: body.ttlMs, by: caller.name });
  const server = (body.server ?? context.url()).replace(/\/+$/, '');
  const fingerprint = context.authority.fingerprint;
  return ok({
    token: formatJoinToken({ server, fingerprint, secret }),
    cluster,
    server,
    fingerprint,
    expiresAt: formatWall(makeWallMs(expiresWallMs)),
  });
};

/**
 * Invariant: a token gives at most one certificate, for one node that is not alive.
 * Because: what can refuse is checked before the token is used up; using it up is durable before anything is signed.
 * Broken if: the signature came first; a crash in between would leave a token that works twice.
 */
export const join: Handler<'join'> = async (context, { body, caller }) => {
  const checked = context.joinTokens.check(body.token);
  if (!checked.ok) return checked;
  const granted = context.place.grant(context.place.present());
  if (!granted.ok) return err(makeApiFailure('store.files', granted.error));
  const grant = granted.value;
  if (!isLoopback(caller.address) && grant.endpoints.every((endpoint) => isLoopback(new URL(endpoint).hostname))) {
    return err(
      makeApiFailure('join.store-loopback', {
        what: `node "${body.node}" could not reach the store`,
        cause: `the store listens on ${grant.endpoints.join(', ')}, which only this server's host reaches`,
        now: 'Nothing was signed; the token can still be used.',
        remedy: 'Set `store.listen.host` (and `names`) in server.yaml to an address that the database hosts reach, and restart the server.',
      }),
    );
  }
  const cluster = checked.value;
  // Z40: two agents under one name would act as one node. The report's key exists only while its agent keeps its lease.
  const keys = clusterKeys(cluster);
  const report = await context.store.get(body.kind === 'proxy' ? keys.proxyAck(body.node) : keys.report(makeNodeId(body.node)));
  if (!report.ok) return err(storeFailure(report.error, 'joining'));
  if (report.value !== null) {
    return err(
      makeApiFailure('join.node-live', {
        what: `${body.kind === 'proxy' ? 'proxy' : 'node'} "${body.node}" of cluster "${cluster}" is alive already`,
        now: 'Nothing was signed; the token can still be used.',
        remedy: `Choose another name, or stop the ${body.kind} that runs under this one first.`,
      }),
    );
  }

  const used = await context.joinTokens.use(body.token);
  if (!used.ok) return used;
  const name = `${cluster}/${body.node}`;
  const secret = await context.secrets.ensure(cluster);
  const signed = await context.authority.signHost({ kind: body.kind, csr: body.csr, name, hosts: [...body.hosts, body.node] });
  if (!signed.ok) return err(makeApiFailure('join.csr', { ...signed.error, now: 'The token is used up.' }));
  return ok({
    cluster,
    node: body.node,
    ca: context.authority.ca,
    certificate: signed.value,
    clusterSecret: body.kind === 'proxy' ? deriveSecret(secret, 'proxy') : secret,
    store: { ...grant, endpoints: [...grant.endpoints] },
    expiresAt: expiryOf(signed.value),
  });
};

function isLoopback(host: string): boolean {
  const plain = host.replace(/^\[|\]$/g, '').replace(/^::ffff:/, '');
  return plain === 'localhost' || plain === '::1' || plain.startsWith('127.');
}

function hashOf(secret: string): Buffer {
  // 256 random bits need no slow hash: there is nothing to guess.
  return createHash('sha256').update(secret).digest();
}
