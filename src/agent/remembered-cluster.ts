/**
 * The newest spec, state and members, kept in the agent's state directory.
 *
 * Invariant: nothing is decided from it that the store would not confirm.
 * Because: a lease is taken only with a comparison of `state`'s revision, and a goal of a lower term is refused; what is left are promises
 * (which carry their own terms) and standby goals (harmless).
 */
import { readFileSync } from 'node:fs';
import { writeFileAtomic } from '../base/files.ts';
import { realClock } from '../base/clock.ts';
import type { Logger } from '../base/log.ts';
import { decodeJson, encodeJson, formatDecodeError, list, nullable, object, text, withDefault } from '../core/decode.ts';
import { member, revision } from '../core/report.ts';
import { clusterSpec } from '../core/spec.ts';
import { clusterState } from '../core/state.ts';
import type { ClusterKnowledge, RememberedCluster } from './cluster-watch.ts';

/** A revision with the store that counts it: the one that answers next may be another (§4.10). */
const remembered = object({
  spec: nullable(clusterSpec),
  state: nullable(clusterState),
  members: list(member),
  newest: withDefault(nullable(object({ incarnation: text, revision })), null),
});

/** Null when there is no file; a damaged one is logged and counts as none: the store has the truth. */
export function readRemembered(file: string, log: Logger): RememberedCluster | null {
  let content: string;
  try {
    content = readFileSync(file, 'utf8');
  } catch (cause) {
    if ((cause as NodeJS.ErrnoException).code === 'ENOENT') return null;
    throw cause;
  }
  const decoded = decodeJson(remembered, content);
  if (decoded.ok) return decoded.value;
  log.warn({ file }, `what was known of the cluster cannot be read: ${formatDecodeError(decoded.error)}`);
  return null;
}

/** The state changes several times within a failover, when the disk has better things to do; a former value is safe, only less useful. */
const WRITE_AFTER_MS = 1000;

export interface Remembering {
  /** Written soon when something changed since the last write; never two writes at once, the newest wins. */
  note(knowledge: ClusterKnowledge): void;
}

export function rememberCluster(file: string, log: Logger): Remembering {
  let written = '';
  let writing = false;
  let next: ClusterKnowledge | null = null;
  const write = async (): Promise<void> => {
    writing = true;
    await realClock.sleep(WRITE_AFTER_MS);
    while (next !== null) {
      const { spec, state, members, incarnation, newestRevision } = next;
      next = null;
      const newest = incarnation === null ? null : { incarnation, revision: newestRevision };
      const content = `${encodeJson({ spec, state, members: [...members.values()], newest })}\n`;
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
    note: (knowledge) => {
      next = knowledge;
      if (!writing) void write();
    },
  };
}
