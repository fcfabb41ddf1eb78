/** Virtual addresses: what may be configured, in words that name the field. */
import { type Address, parseAddress, unusableAddress } from './address.ts';
import type { ClusterSpec, VipSpec } from './spec.ts';

export const VIP_ROLES = ['write', 'read'] as const;
export type VipRole = (typeof VIP_ROLES)[number];

/** The kernel's limit is 15 bytes, and a name has no slash, no space and no colon. Source: Linux, net/core/dev.c, dev_valid_name. */
export function isInterfaceName(text: string): boolean {
  return /^[^\s/:]{1,15}$/.test(text) && text !== '.' && text !== '..';
}

/** The configured address of a role in canonical form; null: none, or one that cannot be read (`checkVips` names it). */
export function vipOf(spec: Pick<ClusterSpec, 'vips'>, role: VipRole): (Address & { readonly interface: string | null }) | null {
  const vip = spec.vips[role];
  const address = vip === null ? null : parseAddress(vip.address);
  return vip === null || address === null ? null : { ...address, interface: vip.interface };
}

/** What is wrong with the virtual addresses of a spec; empty when there are none. */
export function checkVips(spec: ClusterSpec): readonly { readonly path: string; readonly message: string }[] {
  const problems: { path: string; message: string }[] = [];
  for (const role of VIP_ROLES) {
    const vip = spec.vips[role];
    if (vip === null) continue;
    const wrong = wrongAddress(spec, vip, role);
    if (wrong !== null) problems.push({ path: `vips.${role}.address`, message: wrong });
    if (vip.interface !== null && !isInterfaceName(vip.interface))
      problems.push({ path: `vips.${role}.interface`, message: `"${vip.interface}" is no name of a network interface` });
  }
  return problems;
}

function wrongAddress(spec: ClusterSpec, vip: VipSpec, role: VipRole): string | null {
  const address = parseAddress(vip.address);
  if (address === null) {
    return vip.address.includes('/')
      ? `"${vip.address}" has a prefix; write the address alone, it is added as /32 or /128 without a route of its own`
      : `"${vip.address}" is no IPv4 or IPv6 address`;
  }
  const unusable = unusableAddress(address);
  if (unusable !== null) return `${vip.address} cannot be a virtual address: ${unusable}`;
  if (role === 'read' && address.text === vipOf(spec, 'write')?.text)
    return `${vip.address} is the write address too; the two follow different nodes`;
  for (const node of spec.nodes) {
    const own = [node.host, node.internalHost].find((host) => host !== null && parseAddress(host)?.text === address.text);
    if (own !== undefined) return `${vip.address} is the own address of node "${node.id}"; a virtual address belongs to no node`;
  }
  return null;
}
