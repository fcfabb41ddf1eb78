/** A new host joins: its key is made here and stays here; the server answers with a certificate for it. */
import { join } from 'node:path';
import { makeDirectory, writeFileAtomic } from '../base/files.ts';
import { createRequest, isIssuedBy } from '../base/pki.ts';
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
  /** What joins: a database host's agent, or a proxy. */
  readonly kind?: 'agent' | 'proxy';
  /** Names and addresses of this host, for its certificate. */
  readonly hosts: readonly string[];
  readonly timeoutMs?: number;
}

export interface JoinedHost {
  readonly cluster: string;
  readonly node: string;
  readonly server: string;
  readonly storeEndpoints: readonly string[];
  /** The user of the store; null where it has none. */
  readonly storeUser: string | null;
  /** Where the files lie; all 0600. */
  readonly files: { readonly ca: string; readonly cert: string; readonly key: string; readonly secret: string };
  /** The same for the store; null where it needs none. */
  readonly storeFiles: { readonly authority: string | null; readonly password: string | null };
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

  const kind = options.kind ?? 'agent';
  const { csr, key } = await createRequest(options.node);
  const answer = await client.call('join', { body: { token: token.secret, kind, node: options.node, hosts: [...options.hosts], csr } });
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
  const files = {
    ca: at('ca.crt'),
    cert: at(`${kind}.crt`),
    key: at(`${kind}.key`),
    secret: at(kind === 'proxy' ? 'proxy.secret' : 'cluster.secret'),
  };
  const storeFiles = {
    authority: store.authority === null ? null : at('store-ca.crt'),
    password: store.password === null ? null : at('store.password'),
  };
  try {
    await makeDirectory(options.stateDirectory);
    await writeFileAtomic(at('server.json'), `${JSON.stringify({ server, cluster, node })}\n`);
    // The certificate last: whoever finds it finds everything that belongs to it.
    await writeFileAtomic(files.ca, ca);
    await writeFileAtomic(files.secret, `${clusterSecret}\n`);
    if (storeFiles.authority !== null) await writeFileAtomic(storeFiles.authority, store.authority ?? '');
    if (storeFiles.password !== null) await writeFileAtomic(storeFiles.password, `${store.password}\n`);
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
  return ok({ cluster, node, server, storeEndpoints: store.endpoints, storeUser: store.username, files, storeFiles, expiresAt });
}

/** The part `store` of the joined host's configuration file. */
export function storePart({ storeEndpoints, storeUser, files, storeFiles }: JoinedHost): Readonly<Record<string, unknown>> {
  return {
    endpoints: [...storeEndpoints],
    ca: files.ca,
    cert: files.cert,
    key: files.key,
    ...(storeFiles.authority === null ? {} : { authority: storeFiles.authority }),
    ...(storeUser === null ? {} : { username: storeUser }),
    ...(storeFiles.password === null ? {} : { passwordFile: storeFiles.password }),
  };
}
