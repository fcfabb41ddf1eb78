/**
 * Clocks of a host that can be made to stand still, as those of a paused virtual machine do: every process of the host loads a small library that takes the
 * paused time off each clock (lab/paused-clocks.c). Time-outs that the kernel keeps by itself, those of nftables among them, go on.
 */
import { execFileSync } from 'node:child_process';
import { closeSync, mkdirSync, openSync, writeFileSync, writeSync } from 'node:fs';
import { join } from 'node:path';

export interface LabClocks {
  /** Put after the argv that enters the host, before that of a program. */
  prefix(host: string): readonly string[];
  /** `ms` have passed that no clock of the host counted. Only while each process of the host stands still. */
  skip(host: string, ms: number): void;
}

/** Throws, with the compiler's words, when there is none (`cc`, of gcc or clang). */
export function createClocks(root: string, directory: string, hosts: readonly string[]): LabClocks {
  const skipped = new Map<string, number>();
  const place = (host: string): string => join(directory, `clocks-${host}`);
  for (const host of hosts) {
    mkdirSync(join(place(host), 'etc'), { recursive: true });
    const library = join(place(host), 'paused-clocks.so');
    const file = `-DPAUSE_FILE="${join(place(host), 'paused')}"`;
    execFileSync('cc', ['-shared', '-fPIC', '-O2', file, '-o', library, join(root, 'lab', 'paused-clocks.c'), '-ldl'], { timeout: 60_000 });
    writeFileSync(join(place(host), 'paused'), Buffer.alloc(8), { mode: 0o644 });
    // The environment would not do: PostgreSQL and the guard are started with one of their own.
    writeFileSync(join(place(host), 'etc', 'ld.so.preload'), `${library}\n`);
  }
  return {
    // Each program on a host has a mount namespace of its own (ip-netns(8)): what is mounted there is seen by it and its children only.
    prefix: (host) => ['sh', '-c', `mount -t overlay overlay -o lowerdir=${join(place(host), 'etc')}:/etc /etc && exec "$@"`, 'sh'],
    skip: (host, ms) => {
      const total = (skipped.get(host) ?? 0) + ms;
      skipped.set(host, total);
      const nanoseconds = Buffer.alloc(8);
      nanoseconds.writeBigInt64LE(BigInt(Math.round(total * 1e6)));
      const file = openSync(join(place(host), 'paused'), 'r+');
      try {
        writeSync(file, nanoseconds, 0, 8, 0);
      } finally {
        closeSync(file);
      }
    },
  };
}
