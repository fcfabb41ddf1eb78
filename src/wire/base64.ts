/** Base64 with padding (RFC 4648 §4), as SCRAM uses it. */

const ALPHABET = 'ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/';

export function encodeBase64(bytes: Uint8Array): string {
  let text = '';
  for (let i = 0; i < bytes.length; i += 3) {
    const left = bytes.length - i;
    const bits = ((bytes[i] as number) << 16) | ((left > 1 ? (bytes[i + 1] as number) : 0) << 8) | (left > 2 ? (bytes[i + 2] as number) : 0);
    text += ALPHABET.charAt(bits >>> 18) + ALPHABET.charAt((bits >>> 12) & 63);
    text += left > 1 ? ALPHABET.charAt((bits >>> 6) & 63) : '=';
    text += left > 2 ? ALPHABET.charAt(bits & 63) : '=';
  }
  return text;
}

/** Null when `text` has a character that is not of the alphabet, a wrong length or padding, or bits behind the last byte that are not zero. */
export function decodeBase64(text: string): Uint8Array | null {
  if (text.length % 4 !== 0) return null;
  const padding = text.endsWith('==') ? 2 : text.endsWith('=') ? 1 : 0;
  const bytes = new Uint8Array((text.length / 4) * 3 - padding);
  let at = 0;
  for (let i = 0; i < text.length; i += 4) {
    const last = i + 4 === text.length;
    const digits = last ? 4 - padding : 4;
    let bits = 0;
    for (let k = 0; k < 4; k++) {
      const value = k < digits ? ALPHABET.indexOf(text.charAt(i + k)) : 0;
      if (value === -1) return null;
      bits = (bits << 6) | value;
    }
    if (digits === 2 && (bits & 0xffff) !== 0) return null;
    if (digits === 3 && (bits & 0xff) !== 0) return null;
    bytes[at++] = bits >>> 16;
    if (digits > 2) bytes[at++] = (bits >>> 8) & 0xff;
    if (digits > 3) bytes[at++] = bits & 0xff;
  }
  return bytes;
}
