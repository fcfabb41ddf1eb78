/**
 * The text of pgherd's own nftables table. Pure.
 *
 *   input:  tcp dport PORT → gate_in      output: tcp sport PORT → gate_out
 *   away:   while its element lives, new connections are answered with a reset; established ones do not notice.
 *   gate:   empty while the node is no primary; else: accept while the set element lives; everybody else's statements are answered with a TCP reset,
 *           and PostgreSQL's answers to them leave as resets (RST and ACK set in the segment): a receiver throws the data of a reset
 *           away, and no client is left hanging without an answer (I21).
 *
 * Invariant: while the gate is guarded, no client's statement reaches PostgreSQL and no answer leaves it, unless an element with a time-out lives.
 * Because: the time-out ends with the lease's own deadline and the kernel counts it, whoever of our processes is dead or frozen; established connections
 *   pass the same hooks; answers are judged in the output hook too, so that a commit that ends late is not acknowledged.
 * Broken if: clients come over a Unix socket (those are cut by the kill), or a port other than PORT leads to PostgreSQL in this namespace.
 * *Source:* nft(8), "SETS" (timeout), "REJECT STATEMENT"; man page of nftables 1.0.6.
 */
import { isIP } from 'node:net';
import type { ClusterId, NodeId } from '../../core/ids.ts';

export interface FirewallTable {
  /** Family and name as nft takes them, e.g. `inet pgherd_demo.n1`. */
  readonly name: string;
  readonly port: number;
}

/** `.` cannot stand in a cluster's or node's name, so that two pairs never share a table. */
export function firewallTable(options: { readonly cluster: ClusterId; readonly node: NodeId; readonly port: number }): FirewallTable {
  return { name: `inet pgherd_${options.cluster}.${options.node}`, port: options.port };
}

/** A name that `firewallTable` can have made: the guard checks what it is told before it runs nft. */
export function isTableName(name: string): boolean {
  return /^inet pgherd_[a-z0-9_-]{1,63}\.[a-z0-9_-]{1,63}$/.test(name);
}

/** Makes the table or brings it to its shape, whatever it was before. `guarded`: everybody is refused but for the sets' elements. Elements stay. */
export function renderTable(table: FirewallTable, gate: 'guarded' | 'unrestricted'): string {
  const { name, port } = table;
  // The end of a connection passes as it is: a FIN without PSH carries no answer (the kernel marks the last segment of each write with PSH).
  const goodbye = [`add rule ${name} gate_out tcp flags & rst == rst accept`, `add rule ${name} gate_out tcp flags & (fin | psh) == fin accept`];
  const chain = (way: 'in' | 'out'): readonly string[] => {
    const [own, peer] = way === 'in' ? ['dport', 'saddr'] : ['sport', 'daddr'];
    if (gate === 'unrestricted') return [];
    return [
      ...(way === 'out' ? goodbye : []),
      `add rule ${name} gate_${way} tcp ${own} @open accept`,
      `add rule ${name} gate_${way} ip ${peer} @members4 accept`,
      `add rule ${name} gate_${way} ip6 ${peer} @members6 accept`,
      `add rule ${name} gate_${way} ${way === 'in' ? 'reject with tcp reset' : 'tcp flags set 0x14 accept'}`,
    ];
  };
  return [
    `add table ${name}`,
    `add set ${name} open { type inet_service; flags timeout; }`,
    `add set ${name} away { type inet_service; flags timeout; }`,
    `add set ${name} members4 { type ipv4_addr; flags timeout; }`,
    `add set ${name} members6 { type ipv6_addr; flags timeout; }`,
    `add chain ${name} input { type filter hook input priority -10; policy accept; }`,
    `add chain ${name} output { type filter hook output priority -10; policy accept; }`,
    `add chain ${name} gate_in`,
    `add chain ${name} gate_out`,
    `flush set ${name} away`,
    `flush chain ${name} input`,
    `flush chain ${name} output`,
    `flush chain ${name} gate_in`,
    `flush chain ${name} gate_out`,
    ...chain('in'),
    ...chain('out'),
    `add rule ${name} input tcp dport @away tcp flags & (syn | ack) == syn reject with tcp reset`,
    `add rule ${name} input tcp dport ${port} goto gate_in`,
    `add rule ${name} output tcp sport ${port} goto gate_out`,
  ].join('; ');
}

/** Nobody may pass. One transaction. */
export function renderClose(name: string): string {
  return `flush set ${name} open; flush set ${name} members4; flush set ${name} members6`;
}

/** Everybody may pass for `timeoutMs`. One transaction: no packet sees the set empty. */
export function renderOpen(table: FirewallTable, timeoutMs: number): string {
  return `${renderClose(table.name)}; add element ${table.name} open { ${table.port} timeout ${timeoutMs}ms }`;
}

/** Only these addresses may pass, for `timeoutMs`. Texts that are no addresses are left out: they can never open anything. */
export function renderMembers(table: FirewallTable, addresses: readonly string[], timeoutMs: number): string {
  const parts = [renderClose(table.name)];
  for (const version of [4, 6] as const) {
    const own = [...new Set(addresses.filter((address) => isIP(address) === version && !address.includes('%')))];
    if (own.length === 0) continue;
    parts.push(`add element ${table.name} members${version} { ${own.map((address) => `${address} timeout ${timeoutMs}ms`).join(', ')} }`);
  }
  return parts.join('; ');
}

/** New connections are refused for `timeoutMs`. Not part of `renderClose`, which the guard runs on tables of former versions too. */
export function renderAway(table: FirewallTable, timeoutMs: number): string {
  return `flush set ${table.name} away; add element ${table.name} away { ${table.port} timeout ${timeoutMs}ms }`;
}

/** The longest `expires` of a listed set in milliseconds; null when no element lives. */
export function parseExpires(listing: string): number | null {
  let longest: number | null = null;
  for (const match of listing.matchAll(/expires ((?:\d+(?:ms|[dhms]))+)/g)) {
    let total = 0;
    for (const part of (match[1] ?? '').matchAll(/(\d+)(ms|[dhms])/g)) total += Number(part[1]) * UNIT_MS[part[2] as keyof typeof UNIT_MS];
    if (longest === null || total > longest) longest = total;
  }
  return longest;
}

const UNIT_MS = { ms: 1, s: 1000, m: 60_000, h: 3_600_000, d: 86_400_000 } as const;

/**
 * Whether a `list table` shows what `renderTable` and the elements asked for: each chain with its number of rules, and elements if and only if some
 * were added. A helper tells of an error on another stream, perhaps later; the listing is the proof.
 */
export function isShaped(listing: string, gate: 'guarded' | 'unrestricted', elements: string): boolean {
  const rules = (chain: string): number => {
    const body = listing.match(new RegExp(`^\\tchain ${chain} \\{\\n([\\s\\S]*?)^\\t\\}`, 'm'))?.[1];
    return body === undefined ? -1 : body.split('\n').filter((line) => line.trim() !== '' && !line.trim().startsWith('type filter hook')).length;
  };
  const [gateIn, gateOut] = gate === 'guarded' ? [4, 6] : [0, 0];
  return (
    rules('input') === 2 &&
    rules('output') === 1 &&
    rules('gate_in') === gateIn &&
    rules('gate_out') === gateOut &&
    (parseExpires(listing) !== null) === elements.includes('add element')
  );
}
