/** The authority in the server's data directory: made at the first start, kept for good; signs the server's and the agents' certificates. */
import { X509Certificate, createPrivateKey } from 'node:crypto';
import { isIP } from 'node:net';
import { join } from 'node:path';
import { formatWall, wallMs } from '../base/clock.ts';
import { makeDirectory, readTextIfThere, writeFileAtomic } from '../base/files.ts';
import {
  type CertificateFacts,
  type CertificateSubject,
  type KeyAndCertificate,
  createAuthority,
  isIssuedBy,
  issueCertificate,
  needsRenewal,
  readCertificate,
  signRequest,
} from '../base/pki.ts';
import type { TlsMaterial } from '../base/tls.ts';
import { integer, list, object, oneOf, text } from '../core/decode.ts';
import { makeWallMs } from '../core/ids.ts';
import { type Failure, type Result, err, ok } from '../core/result.ts';
import { type Records, openRecords } from './records.ts';

const issued = object({
  subject: text,
  kind: oneOf('server', 'agent', 'proxy'),
  hosts: list(text),
  serial: text,
  fingerprint: text,
  notBeforeMs: integer,
  notAfterMs: integer,
});
type Issued = Extract<ReturnType<typeof issued>, { ok: true }>['value'];

export interface CertificateRow {
  readonly subject: string;
  readonly kind: 'ca' | 'server' | 'agent' | 'proxy';
  readonly hosts: readonly string[];
  readonly serial: string;
  readonly fingerprint: string;
  readonly notBefore: string;
  readonly notAfter: string;
  readonly daysLeft: number;
}

export interface Authority {
  /** PEM of the authority's certificate. */
  readonly ca: string;
  readonly fingerprint: string;
  /** The server's own material as files, for the store, and as text. */
  readonly files: { readonly ca: string; readonly cert: string; readonly key: string };
  server(): TlsMaterial;
  /** Reads the server's files again, or makes them anew when they no longer fit. True when they changed. */
  reload(hosts: readonly string[]): Promise<boolean>;
  /** A new key and certificate for the server; they serve from the next reload on. */
  renewServer(): Promise<string>;
  /** `pki.csr`. Answers PEM. */
  signHost(options: {
    readonly kind: 'agent' | 'proxy';
    readonly csr: string;
    readonly name: string;
    readonly hosts: readonly string[];
  }): Promise<Result<string, Failure>>;
  /** The newest certificate of each subject, the authority first. */
  list(): readonly CertificateRow[];
}

/** Newest entries kept: more than any installation's hosts times renewals of some years. */
const MAX_ISSUED = 2000;

/**
 * Opens or makes the authority below `dataDirectory`. The server's certificate is made anew when it is missing, is of another
 * authority, lacks one of `hosts`, or nears its end.
 * Invariant: an authority that exists is never replaced; half of one is an error.
 * Because: every host trusts exactly this certificate, so that a new one would cut off all of them.
 */
export async function openAuthority(dataDirectory: string, hosts: readonly string[]): Promise<Result<Authority, Failure>> {
  const directory = join(dataDirectory, 'ca');
  await makeDirectory(directory);
  const opened = openRecords(join(directory, 'issued.json'), issued);
  if (!opened.ok) return opened;
  const records = opened.value;
  const paths = {
    ca: join(directory, 'ca.crt'),
    caKey: join(directory, 'ca.key'),
    cert: join(directory, 'server.crt'),
    key: join(directory, 'server.key'),
  };

  const authority = await openCa(paths.ca, paths.caKey);
  if (!authority.ok) return authority;
  const ca = authority.value;
  const caFacts = readCertificate(ca.cert);
  if (caFacts === null) return err(broken(paths.ca));

  const renew = async (names: readonly string[]): Promise<KeyAndCertificate> => {
    const subject: CertificateSubject = { kind: 'server', name: 'pgherd-server', hosts: names };
    const made = await issueCertificate(ca, subject);
    await writeFileAtomic(paths.key, made.key);
    await writeFileAtomic(paths.cert, made.cert);
    await remember(records, made.cert, subject);
    return made;
  };
  const load = async (names: readonly string[]): Promise<KeyAndCertificate> => {
    const present = readOwn(paths.cert, paths.key);
    return present !== null && fits(present, ca.cert, names) ? present : await renew(names);
  };
  let material = await load(hosts);
  let covered = hosts;
  return ok({
    ca: ca.cert,
    fingerprint: caFacts.fingerprint,
    files: { ca: paths.ca, cert: paths.cert, key: paths.key },
    server: () => ({ ca: ca.cert, ...material }),
    renewServer: async () => {
      material = await renew(covered);
      return material.cert;
    },
    reload: async (names) => {
      const before = material.cert;
      covered = names;
      material = await load(names);
      return material.cert !== before;
    },
    signHost: async ({ kind, csr, name, hosts: names }) => {
      const subject: CertificateSubject = { kind, name, hosts: names };
      const signed = await signRequest(ca, csr, subject);
      if (signed.ok) await remember(records, signed.value, subject);
      return signed;
    },
    list: () => [toRow('ca', 'pgherd authority', caFacts), ...newest(records.all()).map((entry) => toRow(entry.kind, entry.subject, entry))],
  });
}

async function openCa(certFile: string, keyFile: string): Promise<Result<KeyAndCertificate, Failure>> {
  const cert = readTextIfThere(certFile);
  const key = readTextIfThere(keyFile);
  if (cert !== null && key !== null) return ok({ cert, key });
  if (cert !== null) return err(broken(keyFile));
  // A key without its certificate is a first start that was cut off: nobody trusts that authority yet.
  const made = await createAuthority();
  await writeFileAtomic(keyFile, made.key);
  await writeFileAtomic(certFile, made.cert, { mode: 0o644 });
  return ok(made);
}

/** `openssl` writes IPv6 addresses in full, so that `::1` is compared by what the parser makes of it. */
function fits(own: KeyAndCertificate, ca: string, hosts: readonly string[]): boolean {
  if (!isIssuedBy(own.cert, ca) || needsRenewal(own.cert) || !hasKey(own)) return false;
  const certificate = new X509Certificate(own.cert);
  return hosts.every((host) => (isIP(host) === 0 ? certificate.checkHost(host) : certificate.checkIP(host)) !== undefined);
}

/** False after a crash between the two writes of a renewal, or for a key that cannot be read. */
function hasKey(own: KeyAndCertificate): boolean {
  try {
    return new X509Certificate(own.cert).checkPrivateKey(createPrivateKey(own.key));
  } catch {
    // No private key: both are made anew.
    return false;
  }
}

function readOwn(certFile: string, keyFile: string): KeyAndCertificate | null {
  const cert = readTextIfThere(certFile);
  const key = readTextIfThere(keyFile);
  return cert === null || key === null ? null : { cert, key };
}

async function remember(records: Records<Issued>, pem: string, subject: CertificateSubject): Promise<void> {
  const facts = readCertificate(pem);
  if (facts === null) return;
  const entry: Issued = {
    subject: subject.name,
    kind: subject.kind,
    hosts: subject.hosts,
    serial: facts.serial,
    fingerprint: facts.fingerprint,
    notBeforeMs: facts.notBeforeMs,
    notAfterMs: facts.notAfterMs,
  };
  await records.update((current) => ok({ records: [...current, entry].slice(-MAX_ISSUED), value: null }));
}

function newest(all: readonly Issued[]): readonly Issued[] {
  const bySubject = new Map<string, Issued>();
  for (const entry of all) bySubject.set(`${entry.kind}/${entry.subject}`, entry);
  return [...bySubject.values()];
}

function toRow(
  kind: CertificateRow['kind'],
  subject: string,
  facts: Pick<CertificateFacts, 'hosts' | 'serial' | 'fingerprint' | 'notBeforeMs' | 'notAfterMs'>,
): CertificateRow {
  return {
    subject,
    kind,
    hosts: facts.hosts,
    serial: facts.serial,
    fingerprint: facts.fingerprint,
    notBefore: formatWall(makeWallMs(facts.notBeforeMs)),
    notAfter: formatWall(makeWallMs(facts.notAfterMs)),
    daysLeft: Math.floor((facts.notAfterMs - wallMs()) / 86_400_000),
  };
}

function broken(file: string): Failure {
  return {
    code: 'server.authority',
    what: `the authority's file ${file} is missing or damaged`,
    cause: '',
    now: 'The server does not start: a new authority would cut off every host.',
    remedy: 'Restore the directory `ca` from a backup. Only if no host has joined yet, remove it: the next start makes a new one.',
    retryable: false,
  };
}

export function expiryOf(pem: string): string {
  const facts = readCertificate(pem);
  return formatWall(makeWallMs(facts?.notAfterMs ?? 0));
}
