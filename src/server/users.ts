/**
 * People's tokens: opaque, shown once, kept as scrypt hashes. `pgh_ID_SECRET`: the id finds the record, so that one hash is computed a try.
 */
import { createHash, randomBytes, scrypt, timingSafeEqual } from 'node:crypto';
import { wallMs } from '../base/clock.ts';
import { object, oneOf, text } from '../core/decode.ts';
import { wallMs as wallTime } from '../core/report.ts';
import { type Failure, type Result, err, ok } from '../core/result.ts';
import { type ApiFailure, makeApiFailure } from '../api/errors.ts';
import type { RoleName } from '../api/schema.ts';
import { type Records, openRecords } from './records.ts';

const user = object({ name: text, role: oneOf('viewer', 'operator', 'admin'), id: text, salt: text, hash: text, createdWallMs: wallTime, by: text });

export interface User {
  readonly name: string;
  readonly role: RoleName;
  readonly createdWallMs: number;
  readonly by: string;
}

export interface Users {
  all(): readonly User[];
  /** Null: no such token. Always costs one hash for a token of the right form, known or not. */
  verify(token: string): Promise<User | null>;
  /** As verify, without a hash: null also for a right token that was not verified lately. */
  recall(token: string): User | null;
  /** `user.exists`. The token is not kept. */
  add(options: {
    readonly name: string;
    readonly role: RoleName;
    readonly by: string;
  }): Promise<Result<{ readonly user: User; readonly token: string }, ApiFailure>>;
  /** `user.not-found`, `user.last-admin` (nobody could add one again). */
  remove(name: string): Promise<Result<User, ApiFailure>>;
}

const ROLE_RANK: Readonly<Record<RoleName, number>> = { viewer: 0, operator: 1, admin: 2 };
const TOKEN = /^pgh_([A-Za-z0-9]{12})_([A-Za-z0-9_-]{43})$/;
/** 16 MiB and about 30 ms a try: the secret has 256 random bits, so the cost only slows down whoever floods us with guesses. Source: RFC 7914. */
const SCRYPT = { N: 16_384, r: 8, p: 1 } as const;
/** Verified tokens by SHA-256, so that the 30 ms are paid once a token and not once a request. */
const MAX_VERIFIED = 200;

export function allows(role: RoleName, needed: RoleName): boolean {
  return ROLE_RANK[role] >= ROLE_RANK[needed];
}

export function openUsers(file: string): Result<Users, Failure> {
  const opened = openRecords(file, user);
  if (!opened.ok) return opened;
  const records: Records<(typeof opened)['value'] extends Records<infer T> ? T : never> = opened.value;
  const verified = new Map<string, string>();

  return ok({
    all: () => records.all(),
    recall: (token) => {
      const id = verified.get(digestOf(token));
      return id === undefined ? null : (records.all().find((entry) => entry.id === id) ?? null);
    },
    verify: async (token) => {
      const match = TOKEN.exec(token);
      if (match === null) return null;
      const [, id = '', secret = ''] = match;
      const found = records.all().find((entry) => entry.id === id);
      const hash = await hashSecret(secret, found === undefined ? Buffer.alloc(16) : Buffer.from(found.salt, 'base64url'));
      if (found === undefined || !timingSafeEqual(hash, Buffer.from(found.hash, 'base64url'))) return null;
      if (verified.size >= MAX_VERIFIED) verified.clear();
      verified.set(digestOf(token), found.id);
      // Between the hash and now the user may have been removed.
      return records.all().find((entry) => entry.id === id) ?? null;
    },
    add: async ({ name, role, by }) => {
      const id = randomId();
      const secret = randomBytes(32).toString('base64url');
      const salt = randomBytes(16);
      const hash = await hashSecret(secret, salt);
      const added = { name, role, id, salt: salt.toString('base64url'), hash: hash.toString('base64url'), createdWallMs: wallMs(), by };
      const result = await records.update((current) =>
        current.some((entry) => entry.name === name)
          ? err(
              makeApiFailure('user.exists', {
                what: `user "${name}" exists`,
                remedy: 'Take another name, or remove the user first: the old token then stops working.',
              }),
            )
          : ok({ records: [...current, added], value: added }),
      );
      return result.ok ? ok({ user: result.value, token: `pgh_${id}_${secret}` }) : result;
    },
    remove: (name) =>
      records.update((current) => {
        const found = current.find((entry) => entry.name === name);
        if (found === undefined)
          return err(makeApiFailure('user.not-found', { what: `there is no user "${name}"`, remedy: 'See `pgherd user list`.' }));
        const rest = current.filter((entry) => entry !== found);
        if (!rest.some((entry) => entry.role === 'admin')) {
          return err(
            makeApiFailure('user.last-admin', {
              what: `"${name}" is the last admin`,
              remedy: 'Add another admin first: without one nobody could add users any more.',
            }),
          );
        }
        return ok({ records: rest, value: found });
      }),
  });
}

function hashSecret(secret: string, salt: Buffer): Promise<Buffer> {
  return new Promise((resolve, reject) => {
    scrypt(secret, salt, 32, SCRYPT, (cause, key) => (cause === null ? resolve(key) : reject(cause)));
  });
}

function digestOf(token: string): string {
  return createHash('sha256').update(token).digest('hex');
}

function randomId(): string {
  return randomBytes(24).toString('base64url').replaceAll(/[_-]/g, '').padEnd(12, '0').slice(0, 12);
}
