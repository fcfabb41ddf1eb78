/**
 * Tablespaces of a copy: where each one lies on this host.
 *
 * The same absolute path where that is free, since that is where a person mounted a disk for it; else a directory of this node beside its data
 * directory, as on a host that has another member (or an older copy) in the same place.
 *
 * *Invariant:* no two data directories ever use one tablespace directory, and nothing outside of this node's own base is ever deleted.
 * *Because:* a path is taken only when it is empty, and what is deleted lies below the base and is linked by neither the data directory nor a copy that is kept.
 * *Broken if:* the path of the source is taken because it has the same name: on one host that is the source's own directory.
 */
import { lstat, mkdir, readdir, readlink, rm, stat } from 'node:fs/promises';
import { basename, dirname, isAbsolute, join, resolve } from 'node:path';
import type { Sql } from './sql.ts';
import { errnoOf } from './failure.ts';
import { ensureDirectory } from './files.ts';
import type { Instance, OsUser } from './instance.ts';

type Place = Pick<Instance, 'dataDirectory' | 'stateDirectory' | 'os'>;

export interface Tablespace {
  readonly oid: string;
  /** Absolute, on the host of the server that was asked. */
  readonly location: string;
}

export interface MappedTablespace {
  readonly oid: string;
  readonly from: string;
  readonly to: string;
}

/**
 * Tablespaces outside of the data directory, in the order of their OIDs. Those inside of it (`allow_in_place_tablespaces`) are copied with it.
 * *Source:* PostgreSQL manual 9.27.9, pg_tablespace_location: a relative path for those inside.
 */
export async function readTablespaces(sql: Sql): Promise<readonly Tablespace[]> {
  const rows = await sql.query(
    "SELECT oid::text AS oid, pg_tablespace_location(oid) AS location FROM pg_tablespace WHERE pg_tablespace_location(oid) <> '' ORDER BY pg_tablespace.oid",
  );
  return rows.map((row) => ({ oid: String(row['oid']), location: String(row['location']) })).filter((one) => isAbsolute(one.location));
}

/** Symbolic links of pg_tblspc: OID → absolute target; empty without a data directory. Throws errors of system calls. */
export async function tablespaceLinks(dataDirectory: string): Promise<ReadonlyMap<string, string>> {
  const directory = join(dataDirectory, 'pg_tblspc');
  const found = new Map<string, string>();
  for (const name of await namesIn(directory)) {
    const path = join(directory, name);
    if ((await lstat(path)).isSymbolicLink()) found.set(name, resolve(directory, await readlink(path)));
  }
  return found;
}

/** Where this node's own tablespaces lie. */
export function tablespaceBase(place: Pick<Place, 'dataDirectory'>): string {
  return `${place.dataDirectory.replace(/\/+$/, '')}.tablespaces`;
}

export function isInBase(place: Pick<Place, 'dataDirectory'>, target: string): boolean {
  return dirname(resolve(target)) === tablespaceBase(place);
}

/** A place for each one, made and empty, owned by PostgreSQL's user. Throws errors of system calls. */
export async function placeTablespaces(place: Place, found: readonly Tablespace[]): Promise<readonly MappedTablespace[]> {
  const mapped: MappedTablespace[] = [];
  for (const { oid, location } of found) {
    const taken = mapped.some((one) => one.to === location);
    const free = !taken && !isWithin(place.dataDirectory, location) && (await takeSamePath(location, place.os));
    mapped.push({ oid, from: location, to: free ? location : await takeOwnPath(place, oid) });
  }
  return mapped;
}

/** True when the path is an empty directory now, that PostgreSQL may use. Its parent must be there: a disk that is not mounted must not be replaced by a directory. */
async function takeSamePath(location: string, os: OsUser | null): Promise<boolean> {
  try {
    if (!(await stat(dirname(location))).isDirectory()) return false;
    try {
      await mkdir(location, { mode: 0o700 });
    } catch (cause) {
      if (errnoOf(cause) !== 'EEXIST') throw cause;
    }
    if (!(await lstat(location)).isDirectory() || (await readdir(location)).length > 0) return false;
    await ensureDirectory(location, { owner: os, mode: 0o700 });
    return true;
  } catch (cause) {
    if (['ENOENT', 'ENOTDIR', 'EACCES', 'EPERM', 'EROFS'].includes(errnoOf(cause) ?? '')) return false;
    throw cause;
  }
}

/** Copies that were set aside go on using theirs: a new one gets a number. */
async function takeOwnPath(place: Place, oid: string): Promise<string> {
  const base = tablespaceBase(place);
  await ensureDirectory(base, { owner: place.os, mode: 0o700 });
  const present = new Set(await readdir(base));
  let name = oid;
  for (let number = 1; present.has(name); number++) name = `${oid}.${number}`;
  await ensureDirectory(join(base, name), { owner: place.os, mode: 0o700 });
  return join(base, name);
}

/** Arguments of pg_basebackup. *Source:* PostgreSQL manual, pg_basebackup, --tablespace-mapping: an equal sign in a path is written `\=`. */
export function mappingArguments(mapped: readonly MappedTablespace[]): readonly string[] {
  const escaped = (path: string): string => path.replaceAll('=', '\\=');
  return mapped.filter((one) => one.from !== one.to).map((one) => `--tablespace-mapping=${escaped(one.from)}=${escaped(one.to)}`);
}

/**
 * Deletes what lies in this node's base and belongs to no data directory any more: neither to the present one nor to a copy that was set aside.
 * Returns the paths. Throws errors of system calls.
 */
export async function sweepTablespaces(place: Place): Promise<readonly string[]> {
  const base = tablespaceBase(place);
  const names = (await namesIn(base)).filter((name) => /^\d+(\.\d+)?$/.test(name));
  if (names.length === 0) return [];
  const used = new Set<string>();
  for (const directory of [place.dataDirectory, ...(await savedDirectories(place))])
    for (const target of (await tablespaceLinks(directory)).values()) used.add(target);
  const left = names.map((name) => join(base, name)).filter((path) => !used.has(path));
  for (const path of left) await rm(path, { recursive: true, force: true });
  return left;
}

/** Both places where `setAside` puts copies. */
async function savedDirectories(place: Place): Promise<readonly string[]> {
  const places = [join(place.stateDirectory, 'saved'), join(dirname(place.dataDirectory), `${basename(place.dataDirectory)}.saved`)];
  const found = await Promise.all(places.map(async (directory) => (await namesIn(directory)).map((name) => join(directory, name))));
  return found.flat();
}

function isWithin(directory: string, path: string): boolean {
  const [outer, inner] = [resolve(directory), resolve(path)];
  return inner === outer || inner.startsWith(`${outer}/`);
}

async function namesIn(directory: string): Promise<readonly string[]> {
  try {
    return await readdir(directory);
  } catch (cause) {
    if (errnoOf(cause) === 'ENOENT') return [];
    throw cause;
  }
}
