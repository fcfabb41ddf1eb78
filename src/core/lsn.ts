/** A position in the WAL, in bytes. Source: PostgreSQL manual, "pg_lsn Type" (8.20). */

declare const lsnBrand: unique symbol;
export type Lsn = bigint & { readonly [lsnBrand]: 'Lsn' };

const TEXT = /^([0-9A-Fa-f]{1,8})\/([0-9A-Fa-f]{1,8})$/;

/** Parses PostgreSQL's text form `X/Y`; null when `text` is not one. */
export function parseLsn(text: string): Lsn | null {
  const match = TEXT.exec(text);
  if (match === null) return null;
  return ((BigInt(`0x${match[1]}`) << 32n) | BigInt(`0x${match[2]}`)) as Lsn;
}

/** PostgreSQL's own text form, upper case, no leading zeros: `0/3000060`. */
export function formatLsn(lsn: Lsn): string {
  const high = (lsn >> 32n).toString(16).toUpperCase();
  const low = (lsn & 0xffffffffn).toString(16).toUpperCase();
  return `${high}/${low}`;
}

export function makeLsn(value: bigint): Lsn {
  return value as Lsn;
}

/** Bytes from `from` to `to`; negative when `to` lies before `from`. Exact up to 2^53. */
export function bytesBetween({ from, to }: { from: Lsn; to: Lsn }): number {
  return Number(to - from);
}

/** The greatest of the given positions; null when all are null. */
export function maxLsn(...all: readonly (Lsn | null)[]): Lsn | null {
  let best: Lsn | null = null;
  for (const lsn of all) if (lsn !== null && (best === null || lsn > best)) best = lsn;
  return best;
}
