/** The hash functions that SCRAM's arithmetic needs, from Node. */
import { createHash, createHmac, pbkdf2Sync, randomBytes } from 'node:crypto';
import type { ScramHashes } from '../../wire/scram.ts';

export const HASHES: ScramHashes = {
  hash: (data) => createHash('sha256').update(data).digest(),
  hmac: (key, data) => createHmac('sha256', key).update(data).digest(),
  pbkdf2: (password, salt, iterations) => pbkdf2Sync(password, salt, iterations, 32, 'sha256'),
};

/** 18 random bytes as printable ASCII, new each time. Source: SCRAM_RAW_NONCE_LEN, src/include/common/scram-common.h. */
export function makeNonce(): string {
  return randomBytes(18).toString('base64');
}
