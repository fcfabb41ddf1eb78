/** Our connection strings to an upstream. Passwords stay in the passfile. */
import { type NodeId, parseNodeId } from '../../core/ids.ts';
import { type Instance, ROLES } from './instance.ts';
import { passfilePath } from './managed-files.ts';

export interface Endpoint {
  readonly host: string;
  readonly port: number;
}

/** `key='value'` pairs of libpq; `'` and `\` are escaped with `\`. Source: PostgreSQL manual 34.1.1.1. */
export function renderConninfo(pairs: Readonly<Record<string, string>>): string {
  return Object.entries(pairs)
    .map(([key, value]) =>
      /^[A-Za-z0-9_./:-]+$/.test(value) ? `${key}=${value}` : `${key}='${value.replaceAll('\\', '\\\\').replaceAll("'", "\\'")}'`,
    )
    .join(' ');
}

/** Null when the text is no keyword string (a URI, or broken quoting); empty when it is empty. */
export function parseConninfo(text: string): ReadonlyMap<string, string> | null {
  const found = new Map<string, string>();
  const pattern = /\s*([a-z_]+)\s*=\s*(?:'((?:[^'\\]|\\.)*)'|((?:[^\s'\\]|\\.)*))/gy;
  let end = 0;
  for (let match = pattern.exec(text); match !== null; match = pattern.exec(text)) {
    found.set(match[1] ?? '', (match[2] ?? match[3] ?? '').replace(/\\(.)/g, '$1'));
    end = pattern.lastIndex;
  }
  return text.slice(end).trim() === '' ? found : null;
}

/**
 * Connection of this node's walreceiver, or of a tool (`database` set: pg_rewind).
 * TLS is required when this node has certificates of the cluster; else used when the server offers it (H54).
 * The time limits: a dead upstream is noticed within seconds, even half-open (Q19).
 */
export function upstreamConninfo(
  instance: Instance,
  upstream: Endpoint,
  options: { readonly database?: string; readonly applicationName?: string; readonly session?: string } = {},
): string {
  return renderConninfo({
    host: upstream.host,
    port: String(upstream.port),
    user: ROLES.replication,
    ...(options.database === undefined ? {} : { dbname: options.database }),
    ...(options.session === undefined ? {} : { options: options.session }),
    passfile: passfilePath(instance),
    application_name: options.applicationName ?? instance.node,
    sslmode: instance.tls === null ? 'prefer' : instance.tls.ca === null ? 'require' : 'verify-ca',
    ...(instance.tls?.ca == null ? {} : { sslrootcert: `${instance.socketDirectory}/ca.crt` }),
    connect_timeout: '2',
    keepalives: '1',
    keepalives_idle: '2',
    keepalives_interval: '1',
    keepalives_count: '3',
    tcp_user_timeout: '5000',
  });
}

/** Node id of an application_name: all of it, or the part before a dot (`n1.INCARNATION`); null for foreign ones. */
export function nodeOfApplicationName(name: string): NodeId | null {
  return parseNodeId(name.split('.')[0] ?? '');
}
