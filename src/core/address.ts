/** IP addresses as text. Pure: one canonical form for each address, so that two spellings of one address are equal. */

export interface Address {
  readonly family: 4 | 6;
  /** Canonical: no leading zeros; IPv6 in lower case, the longest run of zero groups as `::` (RFC 5952), never with a zone. */
  readonly text: string;
}

/** Null when `text` is not one plain IPv4 or IPv6 address: a name, a prefix (`/24`), a zone (`%eth0`), an IPv4 address inside an IPv6 one. */
export function parseAddress(text: string): Address | null {
  return text.includes(':') ? parse6(text) : parse4(text);
}

function parse4(text: string): Address | null {
  const parts = text.split('.');
  // A leading zero is refused: some programs read it as octal.
  if (parts.length !== 4 || parts.some((part) => !/^(0|[1-9]\d{0,2})$/.test(part) || Number(part) > 255)) return null;
  return { family: 4, text };
}

function parse6(text: string): Address | null {
  const halves = text.split('::');
  if (halves.length > 2) return null;
  const groups = halves.map((half) => (half === '' ? [] : half.split(':')));
  if (groups.flat().some((group) => !/^[0-9a-f]{1,4}$/i.test(group))) return null;
  const [head = [], tail] = groups;
  const missing = 8 - head.length - (tail?.length ?? 0);
  if (tail === undefined ? missing !== 0 : missing < 1) return null;
  const all = [...head, ...Array.from({ length: tail === undefined ? 0 : missing }, () => '0'), ...(tail ?? [])];
  return { family: 6, text: render6(all.map((group) => Number.parseInt(group, 16))) };
}

function render6(groups: readonly number[]): string {
  let best = { at: -1, length: 1 };
  for (let at = 0; at < 8; at++) {
    let length = 0;
    while (at + length < 8 && groups[at + length] === 0) length++;
    if (length > best.length) best = { at, length };
  }
  const hex = groups.map((group) => group.toString(16));
  if (best.at < 0) return hex.join(':');
  return `${hex.slice(0, best.at).join(':')}::${hex.slice(best.at + best.length).join(':')}`;
}

/** Why no client could use this address to reach a cluster, in words; null when nothing is wrong with its kind. */
export function unusableAddress(address: Address): string | null {
  const { text } = address;
  if (address.family === 4) {
    const first = Number(text.split('.')[0]);
    if (first === 127) return 'it is a loopback address, which no other host reaches';
    if (first === 0 || first >= 224) return 'it is no unicast address';
    if (text.startsWith('169.254.')) return 'it is a link-local address';
    return null;
  }
  if (text === '::1') return 'it is a loopback address, which no other host reaches';
  if (text === '::' || text.startsWith('ff')) return 'it is no unicast address';
  if (/^fe[89ab]/.test(text)) return 'it is a link-local address';
  return null;
}
