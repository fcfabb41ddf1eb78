/** A joined host's certificate: renewed at the server that it joined, by showing the present one; replaced so that a crash leaves a fitting pair. */
import { X509Certificate, createPrivateKey } from 'node:crypto';
import { rm } from 'node:fs/promises';
import { join } from 'node:path';
import { readTextIfThere, writeFileAtomic } from '../../base/files.ts';
import { sendHttp } from '../../base/http.ts';
import { createRequest, isIssuedBy, needsRenewal, readCertificate } from '../../base/pki.ts';
import { decodeJson, object, text } from '../../core/decode.ts';
import { type Failure, type Result, err, ok } from '../../core/result.ts';

const joinedTo = object({ server: text, cluster: text, node: text });
const answer = object({ certificate: text, ca: text });
const refusal = object({ error: object({ what: text, cause: text }) });
/** The route `renewCert` of the API. */
const PATH = '/api/v1/certs/renew';
const LIMIT_MS = 10_000;

const filesOf = (directory: string) => {
  const at = (name: string): string => join(directory, name);
  return {
    ca: at('ca.crt'),
    cert: at('agent.crt'),
    key: at('agent.key'),
    server: at('server.json'),
    nextCert: at('agent.next.crt'),
    nextKey: at('agent.next.key'),
  };
};

/** True when `cert` is the file that a join wrote: only that one can be renewed here; another one is its maker's affair. */
export function isJoined(stateDirectory: string, cert: string | null): boolean {
  const files = filesOf(stateDirectory);
  return cert === files.cert && readTextIfThere(files.server) !== null;
}

export interface RenewOptions {
  readonly stateDirectory: string;
  /** Milliseconds since 1970. */
  readonly atMs: number;
  readonly force?: boolean;
}

/**
 * False when there is time left (and `force` is not set); true when key and certificate were replaced: they serve once they are loaded again.
 * `certificate.not-joined`: no complete join there; `certificate.renewal`: the server did not answer, or refused; `certificate.files`. Nothing was
 * replaced then. An expired certificate cannot renew itself: join again.
 */
export async function renewAgentCertificate({ stateDirectory, atMs, force = false }: RenewOptions): Promise<Result<boolean, Failure>> {
  const files = filesOf(stateDirectory);
  const [ca, cert, key] = [files.ca, files.cert, files.key].map(readTextIfThere);
  const joined = decodeJson(joinedTo, readTextIfThere(files.server) ?? '');
  if (!ca || !cert || !key || !joined.ok) {
    return err(
      failed(
        'certificate.not-joined',
        `${stateDirectory} holds no complete join`,
        '',
        'join this host again ("pgherd token join" on the server’s side)',
      ),
    );
  }
  if (!force && !needsRenewal(cert, atMs)) return ok(false);
  const { csr, key: newKey } = await createRequest(joined.value.node);
  const sent = await sendHttp({
    url: `${joined.value.server.replace(/\/+$/, '')}${PATH}`,
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify({ kind: 'agent', csr }),
    tls: { ca, cert, key, expect: 'server' },
    timeoutMs: LIMIT_MS,
    maxBytes: 256 * 1024,
  });
  const refused = (cause: string): Failure =>
    failed(
      'certificate.renewal',
      `the certificate of this agent cannot be renewed at ${joined.value.server}`,
      cause,
      'see that the server runs and is reached from here; or join this host again',
    );
  if (!sent.ok) return err(refused(sent.error.message));
  const body = sent.value.body.toString('utf8');
  if (sent.value.status !== 200) {
    const said = decodeJson(refusal, body);
    return err(refused(said.ok ? `${said.value.error.what} ${said.value.error.cause}`.trim() : `HTTP status ${sent.value.status}`));
  }
  const renewed = decodeJson(answer, body);
  if (!renewed.ok || renewed.value.ca !== ca || !isIssuedBy(renewed.value.certificate, ca) || !fits(renewed.value.certificate, newKey))
    return err(refused('its answer is no certificate of the authority for the key that was sent'));
  try {
    await replacePair(files, { cert: renewed.value.certificate, key: newKey });
    return ok(true);
  } catch (cause) {
    const why = cause instanceof Error ? cause.message : String(cause);
    return err(
      failed(
        'certificate.files',
        `the renewed certificate cannot be written to ${stateDirectory}`,
        why,
        'make room, and see that the agent may write there',
      ),
    );
  }
}

interface Pair {
  readonly cert: string;
  readonly key: string;
}

/**
 * *Invariant:* after a crash at any point, `finishRenewal` leaves a key and a certificate that belong together.
 * *Because:* both lie complete beside the old ones before the first of those is replaced, and are taken away only after the second.
 * *Broken if:* somebody else writes the pair between; a join is newer then, and wins.
 */
async function replacePair(files: ReturnType<typeof filesOf>, pair: Pair): Promise<void> {
  await writeFileAtomic(files.nextKey, pair.key);
  await writeFileAtomic(files.nextCert, pair.cert);
  await writeFileAtomic(files.key, pair.key);
  await writeFileAtomic(files.cert, pair.cert);
  await removeNext(files);
}

/** Completes a renewal that a crash cut off; nothing to do in every other case. Rejects with errors of the file system. */
export async function finishRenewal(stateDirectory: string): Promise<void> {
  const files = filesOf(stateDirectory);
  const [cert, key, present] = [files.nextCert, files.nextKey, files.cert].map(readTextIfThere);
  if (!cert && !key) return;
  const isNewer = (readCertificate(cert ?? '')?.notBeforeMs ?? 0) >= (readCertificate(present ?? '')?.notBeforeMs ?? 0);
  if (cert && key && isNewer && fits(cert, key)) await replacePair(files, { cert, key });
  else await removeNext(files);
}

async function removeNext(files: ReturnType<typeof filesOf>): Promise<void> {
  await rm(files.nextCert, { force: true });
  await rm(files.nextKey, { force: true });
}

function fits(cert: string, key: string): boolean {
  try {
    return new X509Certificate(cert).checkPrivateKey(createPrivateKey(key));
  } catch {
    // Text that is no certificate or no key: they do not fit.
    return false;
  }
}

function failed(code: string, what: string, cause: string, remedy: string): Failure {
  return { code, what, cause, now: 'the present certificate stays in use; the agent tries again', remedy, retryable: true };
}
