/**
 * The newest spec, state and members, kept in the agent's state directory.
 *
 * Invariant: nothing is decided from it that the store would not confirm.
 * Because: a lease is taken only with a comparison of `state`'s revision, and a goal of a lower term is refused; what is left are promises
 * (which carry their own terms) and standby goals (harmless).
 */
import { readFileSync } from 'node:fs';
import { writeFileAtomic } from '../base/files.ts';
import type { Logger } from '../base/log.ts';
import { decodeJson, encodeJson, formatDecodeError, list, nullable, object } from '../core/decode.ts';
import { member, revision } from '../core/report.ts';
import { clusterSpec } from '../core/spec.ts';
import { clusterState } from '../core/state.ts';
import type { ClusterKnowledge, RememberedCluster } from './cluster-watch.ts';

const remembered = object({ spec: nullable(clusterSpec), state: nullable(clusterState), stateRevision: revision, members: list(member) });

/** Null when there is no file; a damaged one is logged and counts as none: the store has the truth. */
export function readRemembered(file: string, log: Logger): RememberedCluster | null {
  let text: string;
  try {
    text = readFileSync(file, 'utf8');
  } catch (cause) {
    if ((cause as NodeJS.ErrnoException).code === 'ENOENT') return null;
    throw cause;
  }
  const decoded = decodeJson(remembered, text);
  if (decoded.ok) return decoded.value;
  log.warn({ file }, `what was known of the cluster cannot be read: ${formatDecodeError(decoded.error)}`);
  return null;
}

export interface Remembering {
  /** Writes when something changed since the last write; never two writes at once, the newest wins. */
  note(knowledge: ClusterKnowledge): void;
}

export function rememberCluster(file: string, log: Logger): Remembering {
  let written = '';
  let writing = false;
  let next: string | null = null;
  const write = async (): Promise<void> => {
    writing = true;
    while (next !== null) {
      const content = next;
      next = null;
      if (content === written) continue;
      try {
        await writeFileAtomic(file, content, { mode: 0o600 });
        written = content;
      } catch (cause) {
        // A full disk: the agent goes on; only a restart without the store would miss it.
        log.warn({ cause: String(cause) }, 'what is known of the cluster could not be kept');
      }
    }
    writing = false;
  };
  return {
    note: ({ spec, state, stateRevision, members }) => {
      next = `${encodeJson({ spec, state, stateRevision, members: [...members.values()] })}\n`;
      if (!writing) void write();
    },
  };
}
