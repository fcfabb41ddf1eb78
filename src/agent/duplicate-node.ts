/** Two agents under one node name would write over each other's reports, and the cluster would take both for one node. */
import type { Clock } from '../base/clock.ts';
import type { Logger } from '../base/log.ts';
import { decodeJson } from '../core/decode.ts';
import { type MonoMs, type NodeId, addMono } from '../core/ids.ts';
import { type Member, type NodeReport, member, nodeReport } from '../core/report.ts';
import { type Failure, type Result, err, ok } from '../core/result.ts';
import type { ClusterKeys } from '../store/keys.ts';
import type { Store } from '../store/store.ts';

export interface Identity {
  readonly node: NodeId;
  readonly host: string;
  readonly dataDirectory: string;
  readonly bootId: string;
}

/** `free`: nobody reports under this name, or a former run of this very agent. `taken`: somebody else does. */
export type NameVerdict = { readonly kind: 'free' } | { readonly kind: 'taken'; readonly by: string };

/**
 * Judges what stands in the store under the node's name; null: the key is not there, `unreadable`: not these bytes' decoder.
 * The report lies under its agent's lease, so one that stands is of an agent that lived within the TTL.
 *
 * Invariant: an agent that is restarted on its host never waits for its own last report.
 * Because: a primary's agent has to take its lease over from the guard before the deadline.
 * Broken if: anything that is new at each start (`agentRun`) is compared.
 */
export function judgeName(
  self: Identity,
  found: { readonly member: Member | 'unreadable' | null; readonly report: NodeReport | 'unreadable' | null },
): NameVerdict {
  const { report } = found;
  if (report === null) return { kind: 'free' };
  if (report === 'unreadable') return { kind: 'taken', by: 'an agent whose report cannot be read (of another version?)' };
  const entry = found.member === 'unreadable' ? null : found.member;
  const where = entry === null ? 'a host that is not registered' : `${entry.host}, data directory ${entry.dataDirectory}`;
  if (entry !== null && (entry.host !== self.host || entry.dataDirectory !== self.dataDirectory)) return { kind: 'taken', by: where };
  // The same address and directory, but another kernel: a copied machine, or this one before its reboot (whose report ends with its TTL).
  if (report.bootId !== self.bootId) return { kind: 'taken', by: `${where}, another boot of the machine or a copy of it` };
  return { kind: 'free' };
}

export interface DuplicateCheck {
  readonly store: Pick<Store, 'txn'>;
  readonly keys: ClusterKeys;
  readonly clock: Clock;
  readonly log: Logger;
  readonly self: Identity;
}

/** Three times the TTL of a report, and the full TTL that a restarted store gives once more. */
const VANISH_LIMIT_MS = 10_000;
const LOOK_EVERY_MS = 250;
/** Without an answer the agent goes on unchecked: a store that is lost must not keep a primary's agent from taking its lease over. */
const STORE_LIMIT_MS = 500;

/** Waits until the name is free. Error: `agent.duplicate-node` when somebody else still reports under it after 10 s. */
export async function refuseDuplicateNode(options: DuplicateCheck): Promise<Result<null, Failure>> {
  const { clock, log, self } = options;
  const end = addMono(clock.now().mono, VANISH_LIMIT_MS);
  for (let said = false; ; said = true) {
    const verdict = await look(options, addMono(clock.now().mono, STORE_LIMIT_MS));
    if (verdict === null || verdict.kind === 'free') return ok(null);
    if (clock.now().mono >= end) return err(duplicate(self, verdict.by));
    if (!said) log.warn({ node: self.node }, `the name ${self.node} is still reported by ${verdict.by}; waiting until that report ends`);
    await clock.sleep(LOOK_EVERY_MS);
  }
}

/** Null when the store did not answer. */
async function look({ store, keys, log, self }: DuplicateCheck, deadline: MonoMs): Promise<NameVerdict | null> {
  const read = await store.txn(
    [],
    [
      { kind: 'get', key: keys.member(self.node) },
      { kind: 'get', key: keys.report(self.node) },
    ],
    [],
    { deadline },
  );
  if (!read.ok) {
    log.warn({ error: read.error.kind }, `whether another agent has the name ${self.node} cannot be told: ${read.error.message}`);
    return null;
  }
  const [entry, report] = read.value.reads.map((found) => found[0]?.value ?? null);
  return judgeName(self, { member: decoded(member, entry ?? null), report: decoded(nodeReport, report ?? null) });
}

function decoded<T>(decoder: Parameters<typeof decodeJson<T>>[0], text: string | null): T | 'unreadable' | null {
  if (text === null) return null;
  const result = decodeJson(decoder, text);
  return result.ok ? result.value : 'unreadable';
}

function duplicate(self: Identity, by: string): Failure {
  return {
    code: 'agent.duplicate-node',
    what: `another agent is node "${self.node}" of this cluster`,
    cause: `it reports from ${by}`,
    now: 'this agent does not start, and changed nothing',
    remedy: 'give this host a node name of its own (`pgherd agent join --node NAME`), or stop the other agent first',
    retryable: false,
  };
}
