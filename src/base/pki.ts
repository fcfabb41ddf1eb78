/**
 * One authority for everything: the store, the server's API and the agents' API all show certificates of the same CA.
 * Keys are ECDSA P-256. What a certificate may be is in its subject: O=pgherd, OU=server|agent, CN=name.
 */
import { X509Certificate, randomBytes, webcrypto } from 'node:crypto';
import { isIP } from 'node:net';
import type * as X509 from '@peculiar/x509';
import { wallMs } from './clock.ts';
import { defineReflectMetadata } from './reflect.ts';
import { type Failure, type Result, err, ok } from '../core/result.ts';

/** 10 years: as long as an installation lives. Replacing an authority means re-joining every host, which is worse than a long life. */
export const CA_DAYS = 3650;
/** 1 year; renewed when less than RENEW_DAYS are left. */
export const CERTIFICATE_DAYS = 365;
/** A quarter of a year of chances to renew, also for a host that was away for weeks. */
export const RENEW_DAYS = 90;
/** Hosts whose clocks are behind must not refuse a certificate that was just made. */
const CLOCK_SKEW_MS = 3_600_000;
const DAY_MS = 86_400_000;

const KEY = { name: 'ECDSA', namedCurve: 'P-256' } as const;
const SIGNATURE = { name: 'ECDSA', hash: 'SHA-256' } as const;
/** Source: RFC 5280, 4.2.1.12. */
const SERVER_AUTH = '1.3.6.1.5.5.7.3.1';
const CLIENT_AUTH = '1.3.6.1.5.5.7.3.2';

/** PEM texts. */
export interface KeyAndCertificate {
  readonly cert: string;
  readonly key: string;
}

export interface CertificateSubject {
  readonly kind: 'server' | 'agent' | 'proxy';
  /** `CLUSTER/NODE` for an agent. */
  readonly name: string;
  /** Host names and addresses for the subject alternative names. */
  readonly hosts: readonly string[];
}

/** Makes a new authority. Its key signs; it must stay in a 0600 file of the server. */
export async function createAuthority(): Promise<KeyAndCertificate> {
  const x509 = await loadLibrary();
  const keys = await generateKeys();
  const name = new x509.Name([{ O: ['pgherd'] }, { CN: [`pgherd authority ${randomBytes(4).toString('hex')}`] }]);
  const cert = await x509.X509CertificateGenerator.createSelfSigned({
    serialNumber: serial(),
    name: name.toJSON(),
    keys,
    signingAlgorithm: SIGNATURE,
    ...validity(CA_DAYS),
    extensions: [
      new x509.BasicConstraintsExtension(true, 0, true),
      new x509.KeyUsagesExtension(x509.KeyUsageFlags.keyCertSign | x509.KeyUsageFlags.cRLSign, true),
      await x509.SubjectKeyIdentifierExtension.create(keys.publicKey),
    ],
  });
  return { cert: `${cert.toString('pem')}\n`, key: await exportKey(keys.privateKey) };
}

/** A key and a certificate of the authority, for a process on this host. */
export async function issueCertificate(authority: KeyAndCertificate, subject: CertificateSubject): Promise<KeyAndCertificate> {
  const keys = await generateKeys();
  return { cert: await signKey(authority, subject, keys.publicKey), key: await exportKey(keys.privateKey) };
}

/** A key that never leaves this host, and the request for its certificate (PKCS#10). The authority decides about subject and names. */
export async function createRequest(name: string): Promise<{ readonly csr: string; readonly key: string }> {
  const x509 = await loadLibrary();
  const keys = await generateKeys();
  const csr = await x509.Pkcs10CertificateRequestGenerator.create({
    name: new x509.Name([{ CN: [name] }]).toJSON(),
    keys,
    signingAlgorithm: SIGNATURE,
  });
  return { csr: `${csr.toString('pem')}\n`, key: await exportKey(keys.privateKey) };
}

/**
 * Signs the key of a request. Only the key is taken from it: the subject and names are the caller's.
 * `pki.csr`: not a request, a wrong signature, or not a P-256 key.
 */
export async function signRequest(authority: KeyAndCertificate, csr: string, subject: CertificateSubject): Promise<Result<string, Failure>> {
  const x509 = await loadLibrary();
  let request: X509.Pkcs10CertificateRequest;
  let genuine: boolean;
  try {
    request = new x509.Pkcs10CertificateRequest(csr);
    genuine = await request.verify();
  } catch (cause) {
    return err(badRequest(cause instanceof Error ? cause.message : String(cause)));
  }
  if (!genuine) return err(badRequest('its signature is not of its own key'));
  const algorithm = request.publicKey.algorithm as { name?: string; namedCurve?: string };
  if (algorithm.name !== KEY.name || algorithm.namedCurve !== KEY.namedCurve) return err(badRequest('its key is not ECDSA P-256'));
  const key = await request.publicKey.export(KEY, ['verify']);
  return ok(await signKey(authority, subject, key));
}

export interface CertificateFacts {
  readonly subject: { readonly organization: string | null; readonly unit: string | null; readonly name: string | null };
  readonly hosts: readonly string[];
  readonly serial: string;
  /** SHA-256 of the DER bytes, 64 hexadecimal digits in lower case. */
  readonly fingerprint: string;
  readonly notBeforeMs: number;
  readonly notAfterMs: number;
}

/** Null when `pem` is no certificate. */
export function readCertificate(pem: string): CertificateFacts | null {
  let certificate: X509Certificate;
  try {
    certificate = new X509Certificate(pem);
  } catch {
    // Text from a file or from the network: that it is none is an answer, not an error.
    return null;
  }
  const subject = new Map(
    certificate.subject.split('\n').map((line) => [line.slice(0, line.indexOf('=')), line.slice(line.indexOf('=') + 1)] as const),
  );
  const names = (certificate.subjectAltName ?? '').split(', ').filter((entry) => entry !== '');
  return {
    subject: { organization: subject.get('O') ?? null, unit: subject.get('OU') ?? null, name: subject.get('CN') ?? null },
    hosts: names.map((entry) => entry.slice(entry.indexOf(':') + 1)),
    serial: certificate.serialNumber,
    fingerprint: certificate.fingerprint256.replaceAll(':', '').toLowerCase(),
    notBeforeMs: certificate.validFromDate.getTime(),
    notAfterMs: certificate.validToDate.getTime(),
  };
}

/** True when less than RENEW_DAYS are left, or when it is no certificate. */
export function needsRenewal(pem: string, atMs: number = wallMs()): boolean {
  const facts = readCertificate(pem);
  return facts === null || facts.notAfterMs - atMs < RENEW_DAYS * DAY_MS;
}

/** True when the certificate was signed by this authority and is inside its validity. */
export function isIssuedBy(pem: string, authorityPem: string, atMs: number = wallMs()): boolean {
  const facts = readCertificate(pem);
  if (facts === null || readCertificate(authorityPem) === null) return false;
  const authority = new X509Certificate(authorityPem);
  const certificate = new X509Certificate(pem);
  return certificate.checkIssued(authority) && certificate.verify(authority.publicKey) && facts.notBeforeMs <= atMs && atMs < facts.notAfterMs;
}

async function signKey(authority: KeyAndCertificate, subject: CertificateSubject, publicKey: webcrypto.CryptoKey): Promise<string> {
  const x509 = await loadLibrary();
  const issuer = new x509.X509Certificate(authority.cert);
  const signingKey = await webcrypto.subtle.importKey('pkcs8', pemToDer(authority.key), KEY, false, ['sign']);
  const names = [...new Set(subject.hosts)].map((host) =>
    isIP(host) === 0 ? { type: 'dns' as const, value: host } : { type: 'ip' as const, value: host },
  );
  const certificate = await x509.X509CertificateGenerator.create({
    serialNumber: serial(),
    subject: new x509.Name([{ O: ['pgherd'] }, { OU: [subject.kind] }, { CN: [subject.name] }]).toJSON(),
    issuer: issuer.subjectName.toJSON(),
    signingKey,
    publicKey,
    signingAlgorithm: SIGNATURE,
    ...validity(CERTIFICATE_DAYS),
    extensions: [
      new x509.BasicConstraintsExtension(false, undefined, true),
      new x509.KeyUsagesExtension(x509.KeyUsageFlags.digitalSignature, true),
      new x509.ExtendedKeyUsageExtension([SERVER_AUTH, CLIENT_AUTH]),
      new x509.SubjectAlternativeNameExtension(names),
      await x509.AuthorityKeyIdentifierExtension.create(issuer.publicKey),
      await x509.SubjectKeyIdentifierExtension.create(publicKey),
    ],
  });
  return `${certificate.toString('pem')}\n`;
}

/** Loaded at first use: agents and proxies, which only read certificates, do not pay its memory. */
async function loadLibrary(): Promise<Omit<typeof X509, 'default'>> {
  defineReflectMetadata();
  // A CommonJS module: Node names its members and the whole (`default`), a bundle only the whole.
  return (await import('@peculiar/x509')).default;
}

async function generateKeys(): Promise<webcrypto.CryptoKeyPair> {
  return await webcrypto.subtle.generateKey(KEY, true, ['sign', 'verify']);
}

async function exportKey(key: webcrypto.CryptoKey): Promise<string> {
  const der = Buffer.from(await webcrypto.subtle.exportKey('pkcs8', key)).toString('base64');
  return `-----BEGIN PRIVATE KEY-----\n${der.replace(/(.{64})(?=.)/g, '$1\n')}\n-----END PRIVATE KEY-----\n`;
}

function pemToDer(pem: string): Buffer {
  return Buffer.from(pem.replace(/-----[^-]+-----/g, ''), 'base64');
}

function validity(days: number): { notBefore: Date; notAfter: Date } {
  const at = wallMs();
  return { notBefore: new Date(at - CLOCK_SKEW_MS), notAfter: new Date(at + days * DAY_MS) };
}

/** 126 random bits with a positive first byte. Source: RFC 5280, 4.1.2.2. */
function serial(): string {
  const bytes = randomBytes(16);
  bytes[0] = ((bytes[0] ?? 0) & 0x3f) | 0x40;
  return bytes.toString('hex');
}

function badRequest(cause: string): Failure {
  return {
    code: 'pki.csr',
    what: 'the certificate request cannot be used',
    cause,
    now: 'No certificate was made.',
    remedy: 'Send a PKCS#10 request in PEM for an ECDSA P-256 key, as `pgherd agent join` does.',
    retryable: false,
  };
}
