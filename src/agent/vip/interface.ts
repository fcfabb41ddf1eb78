/** On which interface of this host a virtual address belongs. Pure. */
import { parseAddress } from '../../core/address.ts';

/** The interface with the narrowest network that holds the address; null when none does. Loopback and single addresses (/32, /128) do not count. */
export function chooseInterface(
  address: string,
  local: readonly { readonly interface: string; readonly address: string; readonly prefix: number }[],
): string | null {
  const wanted = bitsOf(address);
  if (wanted === null) return null;
  const holding = local.filter((one) => {
    const bits = bitsOf(one.address);
    const usable = one.interface !== 'lo' && one.prefix > 0 && one.prefix < wanted.length;
    return usable && bits !== null && bits.length === wanted.length && bits.startsWith(wanted.slice(0, one.prefix));
  });
  return holding.sort((a, b) => b.prefix - a.prefix)[0]?.interface ?? null;
}

/** The address as 32 or 128 characters 0 and 1; null when it is none. */
function bitsOf(text: string): string | null {
  const address = parseAddress(text);
  if (address === null) return null;
  if (address.family === 4)
    return text
      .split('.')
      .map((part) => Number(part).toString(2).padStart(8, '0'))
      .join('');
  const [head = '', tail] = address.text.split('::');
  const groups = (half: string): readonly string[] => (half === '' ? [] : half.split(':'));
  const [before, after] = [groups(head), groups(tail ?? '')];
  const zeros = Array.from({ length: 8 - before.length - after.length }, () => '0');
  return [...before, ...zeros, ...after].map((group) => Number.parseInt(group, 16).toString(2).padStart(16, '0')).join('');
}
