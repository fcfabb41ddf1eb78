/**
 * A file system of its own below each node's data directory: it can be filled, stopped and broken as a disk can, and nothing else of the machine notices.
 * The agent's own directory is not on it, as on hosts where the data has a volume of its own.
 */
import { execFileSync } from 'node:child_process';
import { chownSync, mkdirSync, readFileSync, rmSync, statSync, statfsSync, truncateSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { isAlive } from './network.ts';

/** `tmpfs`: quick, and can only be full. `ext4`: in a file, by a loop device; can be stopped (fsfreeze) and broken (an aborted journal: read-only). */
export type DiskKind = 'tmpfs' | 'ext4';

export interface LabDisks {
  /** Nothing more can be written: what was free is taken. */
  fill(node: string): void;
  /** The opposite of `fill`. */
  empty(node: string): void;
  /** Every write and fsync on it waits, uninterruptible, until `thaw`. Reads go on. */
  freeze(node: string): void;
  thaw(node: string): void;
  /** As after an error of the device: from now on every write is refused with EROFS. */
  breakDown(node: string): void;
  /** What a person does at boot after that: a check, and another mount. Only while nobody uses it. */
  repair(node: string): void;
  /** Safe to call twice; nobody uses them any more. */
  remove(): void;
}

/** Room for a cluster of the lab, its WAL, and a copy that was set aside. */
const SIZE_MIB = 1200;
/** What a server takes while the rest is taken. */
const LAST_BYTES = 64 * 1_048_576;
/** The name of the folder says whose it is, so that those of a lab that was killed are found. */
const FOLDER = /\/disk-pgl(\d+)$/;

/** Below the node's directory; the data lies in it. */
export function diskFolder(): string {
  return `disk-pgl${process.pid}`;
}

export function createDisks(directory: string, nodes: readonly string[], kind: DiskKind): LabDisks {
  removeAbandoned();
  const mounted = new Set<string>();
  const bound = new Set<string>();
  const frozen = new Set<string>();
  const place = (node: string): string => join(directory, node, diskFolder());
  const image = (node: string): string => join(directory, `${node}.img`);
  const filler = (node: string): string => join(place(node), 'filler');
  const mount = (node: string): void => {
    const source = kind === 'tmpfs' ? ['-t', 'tmpfs', '-o', `size=${SIZE_MIB}m`, 'lab'] : ['-o', 'loop', image(node)];
    run(['mount', ...source, place(node)]);
    mounted.add(node);
  };
  const disks: LabDisks = {
    fill: (node) => {
      const { bavail, bsize } = statfsSync(place(node));
      // The last blocks go one by one: what is free changes while a server runs, and a request for more than there is takes nothing.
      run(['fallocate', '-l', String(Math.max(bsize, bavail * bsize - LAST_BYTES)), filler(node)]);
      appendUntilFull(filler(node));
    },
    empty: (node) => rmSync(filler(node), { force: true }),
    freeze: (node) => {
      run(['fsfreeze', '--freeze', place(node)]);
      frozen.add(node);
    },
    thaw: (node) => {
      if (frozen.delete(node)) run(['fsfreeze', '--unfreeze', place(node)]);
    },
    breakDown: (node) => run(['mount', '-o', 'remount,abort', place(node)]),
    repair: (node) => {
      run(['umount', place(node)]);
      mounted.delete(node);
      // 1: errors were corrected. Source: e2fsck(8).
      run(['e2fsck', '-fy', image(node)], { mayFail: true });
      mount(node);
    },
    remove: () => {
      for (const node of [...frozen]) disks.thaw(node);
      for (const node of mounted) run(['umount', place(node)]);
      mounted.clear();
      for (const node of bound) run(['umount', join(directory, node)]);
      bound.clear();
      for (const node of nodes) rmSync(image(node), { force: true });
    },
  };
  try {
    for (const node of nodes) {
      mkdirSync(place(node), { recursive: true });
      // Each program on a host has a mount namespace of its own (ip-netns(8)); what is unmounted here leaves those too only below a shared mount.
      run(['mount', '--bind', join(directory, node), join(directory, node)]);
      bound.add(node);
      run(['mount', '--make-shared', join(directory, node)]);
      if (kind === 'ext4') {
        writeFileSync(image(node), '');
        truncateSync(image(node), SIZE_MIB * 1_048_576);
        run(['mkfs.ext4', '-q', '-m', '0', '-E', 'lazy_itable_init=1,lazy_journal_init=1', image(node)]);
      }
      mount(node);
      giveToDatabaseUser(place(node), join(directory, node));
    }
  } catch (error) {
    disks.remove();
    throw error;
  }
  return disks;
}

/** A write that fails ends it; what is already there stays. */
function appendUntilFull(file: string): void {
  const block = Buffer.alloc(4096);
  for (let blocks = 0; blocks < 65_536; blocks++) {
    try {
      writeFileSync(file, block, { flag: 'a' });
    } catch (error) {
      if (error instanceof Error && 'code' in error && error.code === 'ENOSPC') return;
      throw error;
    }
  }
  throw new Error(`${file}: the disk does not get full`);
}

function giveToDatabaseUser(...paths: readonly string[]): void {
  const line = readFileSync('/etc/passwd', 'utf8')
    .split('\n')
    .find((entry) => entry.startsWith('postgres:'));
  const [, , uid, gid] = (line ?? '').split(':');
  if (uid === undefined || gid === undefined) return;
  for (const path of paths) if (statSync(path).uid !== Number(uid)) chownSync(path, Number(uid), Number(gid));
}

/** A lab that was killed could not unmount. */
function removeAbandoned(): void {
  for (const line of readFileSync('/proc/mounts', 'utf8').split('\n')) {
    const [, place = ''] = line.split(' ');
    const owner = Number(FOLDER.exec(place)?.[1]);
    if (!Number.isInteger(owner) || isAlive(owner)) continue;
    run(['fsfreeze', '--unfreeze', place], { mayFail: true });
    run(['umount', place], { mayFail: true });
    run(['umount', dirname(place)], { mayFail: true });
  }
}

function run(argv: readonly string[], { mayFail = false }: { readonly mayFail?: boolean } = {}): void {
  const [program = '', ...rest] = argv;
  try {
    execFileSync(program, rest, { timeout: 60_000, stdio: ['ignore', 'pipe', 'pipe'] });
  } catch (error) {
    if (!mayFail) throw error;
  }
}
