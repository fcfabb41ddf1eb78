/** The logs of this node: the agent's own lines since its start, PostgreSQL's newest file, the guard's. */
import { join } from 'node:path';
import { maskSecrets } from '../base/log.ts';
import { type RecentLines, tailFile } from '../base/recent-lines.ts';
import { tailLog } from './postgres/log-tail.ts';

export type NodeLogSource = 'agent' | 'postgres' | 'guard';

export interface LogReader {
  /** The last lines, oldest first; empty when there is no such log. Secrets are masked: statements may hold passwords. */
  read(source: NodeLogSource, lines: number): Promise<readonly string[]>;
}

/** 2,000 lines of 250 bytes. More is not sent at once, and the file itself is on the host. */
const TAIL_BYTES = 512 * 1024;

export function createLogReader(options: { readonly stateDirectory: string; readonly own: RecentLines }): LogReader {
  return {
    read: async (source, lines) => {
      if (source === 'agent') return options.own.tail(lines);
      const found =
        source === 'guard'
          ? await tailFile(join(options.stateDirectory, 'guard.log'), { count: lines, maxBytes: TAIL_BYTES })
          : await tailLog(options, lines, TAIL_BYTES);
      return found.map(maskSecrets);
    },
  };
}
