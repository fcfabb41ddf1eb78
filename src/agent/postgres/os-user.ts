/** The operating system's users. */
import { readFileSync } from 'node:fs';
import type { OsUser } from './instance.ts';

/** By name from /etc/passwd; null when there is none. Users of directory services must be given by number. */
export function findUser(name: string): OsUser | null {
  for (const line of readFileSync('/etc/passwd', 'utf8').split('\n')) {
    const [user, , uid, gid] = line.split(':');
    if (user === name && uid !== undefined && gid !== undefined) return { uid: Number(uid), gid: Number(gid), name };
  }
  return null;
}
