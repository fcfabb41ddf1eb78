/** Key material of a role: loaded from files, checked, and loaded again at SIGHUP or after a renewal. */
import { createPrivateKey, createHash, X509Certificate } from 'node:crypto';
import { readFileSync } from 'node:fs';
import type { TLSSocket } from 'node:tls';
import { formatWall, wallMs } from './clock.ts';
import { readCertificate } from './pki.ts';
import { makeWallMs } from '../core/ids.ts';
import { type Failure, type Result, err, ok } from '../core/result.ts';

export interface TlsFilePaths {
  readonly ca: string;
  readonly cert: string;
  readonly key: string;
}

/** PEM texts. `cert` may be a chain. */
export interface TlsMaterial {
  readonly ca: string;
  readonly cert: string;
  readonly key: string;
}

/** TLS 1.2 is what the oldest PostgreSQL and Python clients of supported distributions speak; older versions are broken. */
export const MIN_TLS_VERSION = 'TLSv1.2';
/** A client that connects and stays silent gives its socket back after this (Z75). */
export const HANDSHAKE_LIMIT_MS = 5000;

/** Reads and checks the three files. `tls.unreadable`, `tls.invalid` (no certificate, or a key of another one), `tls.expired`. */
export function loadTls(files: TlsFilePaths): Result<TlsMaterial, Failure> {
  const texts: Record<keyof TlsFilePaths, string> = { ca: '', cert: '', key: '' };
  for (const part of ['ca', 'cert', 'key'] as const) {
    try {
      texts[part] = readFileSync(files[part], 'utf8');
    } catch (cause) {
      return err(fail('tls.unreadable', `${part} ${files[part]} cannot be read`, cause instanceof Error ? cause.message : String(cause)));
    }
  }
  const facts = readCertificate(texts.cert);
  if (readCertificate(texts.ca) === null) return err(fail('tls.invalid', `${files.ca} is no certificate`, ''));
  if (facts === null) return err(fail('tls.invalid', `${files.cert} is no certificate`, ''));
  try {
    if (!new X509Certificate(texts.cert).checkPrivateKey(createPrivateKey(texts.key))) {
      return err(fail('tls.invalid', `${files.key} is not the key of ${files.cert}`, ''));
    }
  } catch (cause) {
    return err(fail('tls.invalid', `${files.key} is no private key`, cause instanceof Error ? cause.message : String(cause)));
  }
  if (facts.notAfterMs <= wallMs())
    return err(fail('tls.expired', `${files.cert} has expired`, `valid until ${formatWall(makeWallMs(facts.notAfterMs))}`));
  return ok(texts);
}

/** SHA-256 of a certificate's DER bytes, 64 lower-case hexadecimal digits; null when `pem` is no certificate. */
export function fingerprintOf(pem: string): string | null {
  return readCertificate(pem)?.fingerprint ?? null;
}

/** Accepts `AA:BB:…`, blanks and upper case, as openssl prints them; null when it is not a SHA-256 fingerprint. */
export function parseFingerprint(text: string): string | null {
  const hex = text
    .replace(/^sha256[:=]/i, '')
    .replaceAll(/[:\s]/g, '')
    .toLowerCase();
  return /^[0-9a-f]{64}$/.test(hex) ? hex : null;
}

export interface PeerIdentity {
  readonly kind: 'server' | 'agent' | 'proxy';
  /** `CLUSTER/NODE` for an agent. */
  readonly name: string;
  readonly fingerprint: string;
}

/**
 * Who the verified client at the other end is; null without a certificate of our authority. The socket's server must have been
 * made with `requestCert` and `ca`; `authorized` is then OpenSSL's own verdict on chain and validity.
 */
export function peerIdentity(socket: TLSSocket): PeerIdentity | null {
  if (!socket.authorized) return null;
  const raw = socket.getPeerCertificate().raw as Buffer | undefined;
  if (raw === undefined) return null;
  const facts = readCertificate(new X509Certificate(raw).toString());
  const kind = facts?.subject.unit;
  if (
    facts === null ||
    facts.subject.organization !== 'pgherd' ||
    facts.subject.name === null ||
    (kind !== 'server' && kind !== 'agent' && kind !== 'proxy')
  )
    return null;
  return { kind, name: facts.subject.name, fingerprint: createHash('sha256').update(raw).digest('hex') };
}

function fail(code: string, what: string, cause: string): Failure {
  return {
    code,
    what,
    cause,
    now: 'The old key material, if any, stays in use.',
    remedy: 'Put back the right files, or join again; then reload with SIGHUP.',
    retryable: false,
  };
}
