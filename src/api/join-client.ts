/** A new host joins: its key is made here and stays here; the server answers with a certificate for it. */
import { join } from 'node:path';
import { makeDirectory, readTextIfThere, writeFileAtomic } from '../base/files.ts';
import { createRequest, isIssuedBy, needsRenewal } from '../base/pki.ts';
import { decodeJson, object, text } from '../core/decode.ts';
import { type Result, err, ok } from '../core/result.ts';
import { createApiClient } from './client.ts';
import { type ApiFailure, makeApiFailure } from './errors.ts';
import { parseJoinToken } from './join-token.ts';

export interface JoinOptions {
  /** As `pgherd token join` printed it. */
  readonly token: string;
  /** Null: the address inside the token. */
  readonly server?: string | null;
  readonly stateDirectory: string;
  readonly node: string;
  /** Names and addresses of this host, for its certificate. */
  readonly hosts: readonly string[];
  readonly timeoutMs?: number;
}

export interface JoinedHost {
  readonly cluster: string;
  readonly node: string;
  readonly server: string;
  readonly storeEndpoints: readonly string[];
  /** Where the files lie; all 0600. */
  readonly files: { readonly ca: string; readonly cert: string; readonly key: string; readonly clusterSecret: string };
  readonly expiresAt: string;
}

/**
 * Uses the token up. Files are written only after the server's answer was checked; joining again replaces them.
 * Failures: `join.token-invalid|-expired|-used`, `join.fingerprint` (somebody else answers: the token was not sent),
 * `join.node-live`, `join.files` (this host's disk; the token is used up then), `server.…`.
 */
export async function joinServer(options: JoinOptions): Promise<Result<JoinedHost, ApiFailure>> {
  const token = parseJoinToken(options.token);
  if (token === null) {
    return err(
      makeApiFailure('join.token-invalid', {
        what: 'this is no join token',
        now: 'Nothing was sent or written.',
        remedy: 'Make one on the server’s side with `pgherd token join -c CLUSTER`, and copy all of it.',
      }),
    );
  }
  const server = options.server ?? token.server;
  const client = createApiClient({
    server,
    token: null,
    fingerprint: token.fingerprint,
    ...(options.timeoutMs === undefined ? {} : { timeoutMs: options.timeoutMs }),
  });
  const authority = await client.authority();
  if (!authority.ok) return authority;

  const { csr, key } = await createRequest(options.node);
  const answer = await client.call('join', { body: { token: token.secret, node: options.node, hosts: [...options.hosts], csr } });
  if (!answer.ok) return answer;
  const { ca, certificate, clusterSecret, cluster, node, store, expiresAt } = answer.value;
  if (ca !== authority.value || !isIssuedBy(certificate, ca)) {
    return err(
      makeApiFailure('server.answer', {
        what: `the certificate that ${server} sent is not of its authority`,
        now: 'Nothing was written. The token is used up.',
        remedy: 'Compare the clocks of both hosts, then make a new token.',
      }),
    );
  }

  const at = (name: string): string => join(options.stateDirectory, name);
  const files = { ca: at('ca.crt'), cert: at('agent.crt'), key: at('agent.key'), clusterSecret: at('cluster.secret') };
  try {
    await makeDirectory(options.stateDirectory);
    await writeFileAtomic(at('server.json'), `${JSON.stringify({ server, cluster, node })}\n`);
    // The certificate last: whoever finds it finds everything that belongs to it.
    await writeFileAtomic(files.ca, ca);
    await writeFileAtomic(files.clusterSecret, `${clusterSecret}\n`);
    await writeFileAtomic(files.key, key);
    await writeFileAtomic(files.cert, certificate);
  } catch (cause) {
    return err(
      makeApiFailure('join.files', {
        what: `the files of node "${node}" cannot be written to ${options.stateDirectory}`,
        cause: cause instanceof Error ? cause.message : String(cause),
        now: 'The token is used up; this host has not joined.',
        remedy: 'Make room or give the right to write, then join with a new token.',
      }),
    );
  }
  return ok({ cluster, node, server, storeEndpoints: store.endpoints, files, expiresAt });
}

const joinedTo = object({ server: text, cluster: text, node: text });

/**
 * Renews the certificate of a joined host, by showing the present one to the server that it joined; key and certificate are
 * replaced, and the agent takes them with its next SIGHUP. Answers false when there is time left (and `force` is not set).
 * `join.not-joined`: no files of a join there. An expired certificate cannot renew itself: join again.
 */
export async function renewAgentCertificate(options: {
  readonly stateDirectory: string;
  readonly force?: boolean;
  readonly timeoutMs?: number;
}): Promise<Result<boolean, ApiFailure>> {
  const at = (name: string): string => join(options.stateDirectory, name);
  const [ca, cert, key, where] = ['ca.crt', 'agent.crt', 'agent.key', 'server.json'].map((name) => readTextIfThere(at(name)));
  const joined = decodeJson(joinedTo, where ?? '');
  if (!ca || !cert || !key || !joined.ok) {
    return err(
      makeApiFailure('join.not-joined', {
        what: `${options.stateDirectory} holds no complete join`,
        remedy: 'Join this host with `pgherd agent join`.',
      }),
    );
  }
  if (options.force !== true && !needsRenewal(cert)) return ok(false);
  const { csr, key: newKey } = await createRequest(joined.value.node);
  const client = createApiClient({
    server: joined.value.server,
    token: null,
    ca,
    clientCertificate: { cert, key },
    ...(options.timeoutMs === undefined ? {} : { timeoutMs: options.timeoutMs }),
  });
  const renewed = await client.call('renewCert', { body: { kind: 'agent', csr } });
  if (!renewed.ok) return renewed;
  try {
    await writeFileAtomic(at('agent.key'), newKey);
    await writeFileAtomic(at('agent.crt'), renewed.value.certificate);
    return ok(true);
  } catch (cause) {
    const why = cause instanceof Error ? cause.message : String(cause);
    return err(
      makeApiFailure('join.files', {
        what: `the renewed certificate cannot be written to ${options.stateDirectory}`,
        cause: why,
        now: 'Key and certificate may not fit each other any more.',
        remedy: 'Make room, then join this host again before its agent restarts.',
      }),
    );
  }
}
