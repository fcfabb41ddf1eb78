/** The store's key material, which can be replaced while it serves: a renewed certificate must not need a restart. */
import { ServerCredentials } from '@grpc/grpc-js';
import { type TlsFiles, readPem } from '../pem.ts';

export interface StoreCredentials {
  readonly credentials: ServerCredentials;
  /** Reads the files again; new connections get the new certificate, those that are open stay. Throws when they cannot be read; the old ones stay then. */
  reload(): void;
}

export function storeCredentials(tls: (TlsFiles & { readonly requireClientCert: boolean }) | null): StoreCredentials {
  if (tls === null) return { credentials: ServerCredentials.createInsecure(), reload: () => undefined };
  const credentials = new RenewableCredentials({ requestCert: tls.requireClientCert, rejectUnauthorized: tls.requireClientCert }, readContext(tls));
  return { credentials, reload: () => credentials.replace(readContext(tls)) };
}

interface Context {
  readonly ca: Buffer;
  readonly cert: Buffer[];
  readonly key: Buffer[];
}

function readContext(tls: TlsFiles): Context {
  return { ca: readPem(tls.ca), cert: [readPem(tls.cert)], key: [readPem(tls.key)] };
}

/** gRPC's own way to tell its listeners of new material. *Source:* @grpc/grpc-js, ServerCredentials.updateSecureContextOptions. */
class RenewableCredentials extends ServerCredentials {
  constructor(options: { readonly requestCert: boolean; readonly rejectUnauthorized: boolean }, context: Context) {
    super(options, context);
  }

  replace(context: Context): void {
    this.updateSecureContextOptions(context);
  }

  override _equals(other: ServerCredentials): boolean {
    return this === other;
  }
}
