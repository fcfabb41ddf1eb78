/**
 * The major versions of PostgreSQL that pgherd runs. 13: the first in which a standby follows a new primary by reload. 18: the last whose control
 * file, WAL headers and tools this version was tested with. A newer one is refused, not tried: the position that a vote rests on is read from
 * those files, and a layout that is read wrong would lose data without a word.
 */
export const OLDEST_POSTGRES = 13;
export const NEWEST_POSTGRES = 18;

/** Why this major version is not run, with what to do; null when it is. */
export function refusePostgres(major: number): { readonly cause: string; readonly remedy: string } | null {
  const span = `${OLDEST_POSTGRES} to ${NEWEST_POSTGRES}`;
  if (major < OLDEST_POSTGRES) return { cause: `following a new primary by reload needs ${OLDEST_POSTGRES}`, remedy: `install PostgreSQL ${span}` };
  if (major <= NEWEST_POSTGRES) return null;
  return {
    cause: `this version of pgherd was tested with ${span}; the files that it reads positions from may have another layout`,
    remedy: `install PostgreSQL ${span} and name it with binDirectory in agent.yaml, or a newer pgherd`,
  };
}
