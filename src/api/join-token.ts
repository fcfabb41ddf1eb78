/**
 * The text form of a join token: where to go, whom to trust there, and the one-time secret.
 * `pgh_join_` + base64url of JSON {u: server URL, f: fingerprint of the authority, t: secret}; log masking knows the prefix `pgh_`.
 */
export interface JoinToken {
  readonly server: string;
  /** SHA-256, hexadecimal. */
  readonly fingerprint: string;
  readonly secret: string;
}

const PREFIX = 'pgh_join_';

export function formatJoinToken(token: JoinToken): string {
  return PREFIX + Buffer.from(JSON.stringify({ u: token.server, f: token.fingerprint, t: token.secret })).toString('base64url');
}

/** Null when `text` is none; blanks and line breaks around it are ignored. */
export function parseJoinToken(text: string): JoinToken | null {
  const trimmed = text.trim();
  if (!trimmed.startsWith(PREFIX) || trimmed.length > 2000) return null;
  try {
    const parsed: unknown = JSON.parse(Buffer.from(trimmed.slice(PREFIX.length), 'base64url').toString('utf8'));
    if (typeof parsed !== 'object' || parsed === null) return null;
    const { u, f, t } = parsed as Record<string, unknown>;
    return typeof u === 'string' && typeof f === 'string' && typeof t === 'string' && u.startsWith('https://')
      ? { server: u, fingerprint: f, secret: t }
      : null;
  } catch {
    // Not base64 of JSON: no token.
    return null;
  }
}
