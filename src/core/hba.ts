/**
 * A look at one line of pg_hba.conf, before it stands in a file. With one wrong line PostgreSQL does not start, and a running one takes over no change of
 * that file. It finds what people mistype; what only PostgreSQL knows (options of a method) the agent finds by asking the running server.
 * *Source:* PostgreSQL manual 21.1 (format, types, addresses) and 21.3 (methods); src/backend/libpq/hba.c, parse_hba_line.
 */
const TYPES: readonly string[] = ['local', 'host', 'hostssl', 'hostnossl', 'hostgssenc', 'hostnogssenc'];
const METHODS: readonly string[] = [
  'trust',
  'reject',
  'scram-sha-256',
  'md5',
  'password',
  'gss',
  'sspi',
  'ident',
  'peer',
  'ldap',
  'radius',
  'cert',
  'pam',
  'bsd',
  'oauth',
];
const IPV4 = /^(\d{1,3})\.(\d{1,3})\.(\d{1,3})\.(\d{1,3})$/;
const IPV6 = /^[0-9a-f:.]*:[0-9a-f:.]*$/i;
const HOST_NAME = /^\.?[a-z0-9_]([a-z0-9_.-]*[a-z0-9_])?\.?$/i;

/** What is wrong with the line, in words; null when nothing is seen. An empty line and a comment are right. */
export function refuseHbaLine(line: string): string | null {
  if (/[\n\r\0]/.test(line)) return 'it has a line break';
  const fields = split(line);
  if (fields === null) return 'a quote is not closed';
  const [type, database, user, ...rest] = fields;
  if (type === undefined) return null;
  if (!TYPES.includes(type)) return `"${type}" is no type of connection (${TYPES.join(', ')})`;
  if (database === undefined || user === undefined) return 'it needs a database and a user';
  if (type === 'local') return refuseMethod(type, rest);
  const [address, ...after] = rest;
  if (address === undefined) return 'it needs an address';
  const wrong = refuseAddress(address);
  if (wrong !== null) return wrong;
  if (!isIp(address)) return refuseMethod(type, after);
  const [mask, ...behind] = after;
  if (mask === undefined || !isIp(mask)) return `the address ${address} needs a mask, like ${address}/${address.includes(':') ? 128 : 32}`;
  return refuseMethod(type, behind);
}

function refuseMethod(type: string, [method, ...options]: readonly string[]): string | null {
  if (method === undefined) return 'it needs an authentication method';
  if (!METHODS.includes(method)) return `"${method}" is no authentication method (${METHODS.join(', ')})`;
  if (method === 'peer' && type !== 'local') return 'peer is for local connections only';
  if (method === 'cert' && type !== 'hostssl') return 'cert is for hostssl only';
  if ((method === 'gss' || method === 'sspi') && type === 'local') return `${method} is not for local connections`;
  const odd = options.find((option) => !/^[a-z_]+=/i.test(option));
  return odd === undefined ? null : `"${odd}" is no option like name=value`;
}

function refuseAddress(address: string): string | null {
  if (address === 'all' || address === 'samehost' || address === 'samenet') return null;
  const [host = '', bits, ...more] = address.split('/');
  if (bits === undefined) return isIp(address) || HOST_NAME.test(address) ? null : `"${address}" is no address`;
  const most = IPV4.test(host) ? 32 : 128;
  const right = more.length === 0 && isIp(host) && /^\d{1,3}$/.test(bits) && Number(bits) <= most;
  return right ? null : `"${address}" is no network like 10.0.0.0/8`;
}

function isIp(text: string): boolean {
  const parts = IPV4.exec(text);
  return parts === null ? IPV6.test(text) : parts.slice(1).every((part) => Number(part) <= 255);
}

/** Fields, without a comment; a list with commas is one field. Null: a quote is not closed. */
function split(line: string): readonly string[] | null {
  const fields: string[] = [];
  let field: string | null = null;
  let quoted = false;
  let listed = false;
  for (const letter of line) {
    if (letter === '"') {
      quoted = !quoted;
      field = field ?? '';
    } else if (quoted) field = (field ?? '') + letter;
    else if (letter === '#') break;
    else if (/\s/.test(letter)) {
      if (field !== null && !listed) {
        fields.push(field);
        field = null;
      }
    } else {
      field = (field ?? '') + letter;
      listed = letter === ',';
    }
  }
  if (quoted) return null;
  return field === null ? fields : [...fields, field];
}
