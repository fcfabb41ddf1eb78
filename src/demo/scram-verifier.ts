/**
 * The stored form of a password with one iteration instead of 4096. The measuring clients log in dozens of times a second while they look for the
 * new primary; the hashing of their own password would take the processors that the measured programs need.
 * Only for passwords with 128 random bits and more: iterations protect guessable ones.
 * Source: PostgreSQL manual 53.8 (pg_authid.rolpassword); RFC 5802, section 3.
 */
import { createHash, createHmac, pbkdf2Sync, randomBytes } from 'node:crypto';

export function cheapVerifier(password: string): string {
  const salt = randomBytes(16);
  const salted = pbkdf2Sync(password, salt, 1, 32, 'sha256');
  const key = (text: string): Buffer => createHmac('sha256', salted).update(text).digest();
  const stored = createHash('sha256').update(key('Client Key')).digest('base64');
  return `SCRAM-SHA-256$1:${salt.toString('base64')}$${stored}:${key('Server Key').toString('base64')}`;
}
