/** What a person wants to know of the machine before something large is put on it: load, free space, size of the data. */
import { availableParallelism, loadavg } from 'node:os';
import { dirname } from 'node:path';
import type { Clock } from '../base/clock.ts';
import type { Logger } from '../base/log.ts';
import type { NodeReport } from '../core/report.ts';
import type { Instance } from './postgres/instance.ts';
import { freeBytes } from './postgres/set-aside.ts';
import { withLocalSql } from './postgres/sql.ts';

/** statfs(2) is cheap, and a disk does not fill up within seconds. */
const FREE_EVERY_MS = 10_000;
/** Asks the size of every file: seconds of a large database's disk. */
const SIZE_EVERY_MS = 300_000;

export interface HostFacts {
  /** What is known now; looks anew beside the caller when it is time. Never waits, never throws. */
  current(server: 'running' | 'not-running'): NodeReport['host'];
}

export function createHostFacts(instance: Instance, options: { readonly clock: Pick<Clock, 'now'>; readonly log: Logger }): HostFacts {
  let free: number | null = null;
  let size: number | null = null;
  let freeAt = -Infinity;
  let sizeAt = -Infinity;
  const look = (what: string, work: Promise<void>): void => {
    work.catch((cause: unknown) => options.log.debug({ cause: String(cause) }, `${what} is not known`));
  };
  return {
    current: (server) => {
      const now = options.clock.now().mono;
      if (now - freeAt >= FREE_EVERY_MS) {
        freeAt = now;
        look('the free space', readFree());
      }
      if (server === 'running' && now - sizeAt >= SIZE_EVERY_MS) {
        sizeAt = now;
        look('the size of the data', readSize());
      }
      return { cpus: availableParallelism(), load: Math.round((loadavg()[0] ?? 0) * 100), freeBytes: free, dataBytes: size };
    },
  };

  async function readFree(): Promise<void> {
    free = await freeBytes(dirname(instance.dataDirectory));
  }

  async function readSize(): Promise<void> {
    const answer = await withLocalSql(instance, {}, async (sql) => {
      const [row] = await sql.query('SELECT sum(pg_tablespace_size(oid))::float8 AS bytes FROM pg_tablespace');
      return typeof row?.['bytes'] === 'number' ? row['bytes'] : null;
    });
    if (answer.ok) size = answer.value;
    // A server that is not ready yet is asked again with the next look at the disk.
    else sizeAt = options.clock.now().mono - SIZE_EVERY_MS + FREE_EVERY_MS;
  }
}
