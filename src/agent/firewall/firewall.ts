/**
 * The fail-closed port of a primary. `nftables` where the agent runs as root; `off` elsewhere, with the same interface, so that nobody asks which one it is.
 *
 * Modes:
 *   unrestricted  a standby: everybody connects (reads).
 *   closed        nobody over TCP: an unplanned fence, or a primary that holds no renewed lease. Also members, since proxies live there.
 *   members       replication of the named members only, while an opening is pending; ends by itself at `until`.
 *   timed         clients are let in until `until` (the lease's own deadline); to be applied anew with each renewal.
 */
import { execFile } from 'node:child_process';
import { monoMs } from '../../base/clock.ts';
import type { ClusterId, MonoMs, NodeId } from '../../core/ids.ts';
import { type Failure, type Result, err, ok } from '../../core/result.ts';
import { type NftSession, createNftSession } from './nft-session.ts';
import {
  type FirewallTable,
  firewallTable,
  isShaped,
  parseExpires,
  renderAway,
  renderClose,
  renderMembers,
  renderOpen,
  renderTable,
} from './rules.ts';

export type FirewallMode =
  | { readonly kind: 'unrestricted' }
  | { readonly kind: 'closed' }
  | { readonly kind: 'members'; readonly addresses: readonly string[]; readonly until: MonoMs }
  | { readonly kind: 'timed'; readonly until: MonoMs };

export interface Firewall {
  readonly kind: 'fail-closed' | 'off';
  /** `inet pgherd_CLUSTER.NODE` for the guard; null when off. */
  readonly table: string | null;
  /** Brings the table to this mode, verified by a listing. A failure leaves the port closed, or it closes by itself at the time-out of before. */
  apply(mode: FirewallMode): Promise<Result<null, Failure>>;
  /**
   * New connections are refused for `forMs`; established ones do not notice. A help, never a fence: it has no result, and ends by itself or with the next
   * change of the gate's rules. Nothing happens before the first `apply`.
   */
  turnAway(forMs: number): Promise<void>;
  /** Removes the own table (on request only: leaving the cluster). */
  remove(): Promise<Result<null, Failure>>;
  /** Ends the helper process; the table stays. */
  close(): void;
}

/** Longer than any nft run seen (3 ms) by far; a stuck one must not hold the renewal. */
const REFRESH_LIMIT_MS = 250;
const COMMAND_LIMIT_MS = 2000;

/** The interface without any effect: fencing then rests on agent and guard alone, which `show` says. */
export const FIREWALL_OFF: Firewall = {
  kind: 'off',
  table: null,
  apply: async () => ok(null),
  turnAway: async () => undefined,
  remove: async () => ok(null),
  close: () => undefined,
};

/** `auto`: nftables when we are root and nft works, else off. The table is not touched before the first `apply`. */
export async function openFirewall(options: {
  readonly setting: 'auto' | 'off';
  readonly cluster: ClusterId;
  readonly node: NodeId;
  readonly port: number;
}): Promise<Firewall> {
  if (options.setting === 'off' || process.getuid?.() !== 0) return FIREWALL_OFF;
  const works = await runNft('list tables');
  if (!works.ok) return FIREWALL_OFF;
  const session = createNftSession();
  session.warm();
  return createNftFirewall(firewallTable(options), session);
}

export function createNftFirewall(table: FirewallTable, session: NftSession): Firewall {
  /** What the gate chains are known to be; null: not known, so they are written before anything else. */
  let gate: 'guarded' | 'unrestricted' | null = null;
  let turn: Promise<unknown> = Promise.resolve();

  /** Changes come one after the other, in the order of the calls. */
  const inTurn = <T>(work: () => Promise<T>): Promise<T> => {
    const result = turn.then(work);
    turn = result.catch(() => undefined);
    return result;
  };
  const shape = async (wanted: 'guarded' | 'unrestricted', elements: string): Promise<Result<null, Failure>> => {
    gate = null;
    const commands = `${renderTable(table, wanted)}; ${elements}`;
    // The helper first: a process of its own for one transaction costs 20 ms on a busy host, in the middle of a promotion.
    const listing = await session.run({ commands, list: `list table ${table.name}`, limitMs: REFRESH_LIMIT_MS });
    if (listing !== null && isShaped(listing, wanted, elements)) {
      gate = wanted;
      return ok(null);
    }
    const done = await runNft(commands);
    if (!done.ok) return err(failed(`the ${wanted} rules of ${table.name}`, done.error));
    gate = wanted;
    return ok(null);
  };
  const refresh = async (set: string, commands: string, verify: (expires: number | null) => boolean): Promise<Result<null, Failure>> => {
    const listing = await session.run({ commands, list: `list set ${table.name} ${set}`, limitMs: REFRESH_LIMIT_MS });
    if (listing !== null && verify(parseExpires(listing))) return ok(null);
    // The helper failed, or somebody removed our table: write everything anew with a process of its own.
    return shape('guarded', commands);
  };

  const apply = (mode: FirewallMode): Promise<Result<null, Failure>> => {
    switch (mode.kind) {
      case 'unrestricted':
        return shape('unrestricted', renderClose(table.name));
      case 'closed':
        return gate === 'guarded'
          ? refresh('open', renderClose(table.name), (expires) => expires === null)
          : shape('guarded', renderClose(table.name));
      case 'members': {
        const left = Math.floor(mode.until - monoMs());
        return shape('guarded', left > 0 ? renderMembers(table, mode.addresses, left) : renderClose(table.name));
      }
      case 'timed': {
        const left = Math.floor(mode.until - monoMs());
        if (left <= 0) return apply({ kind: 'closed' });
        const commands = renderOpen(table, left);
        if (gate !== 'guarded') return shape('guarded', commands);
        return refresh('open', commands, (expires) => expires !== null && expires > left - REFRESH_LIMIT_MS && expires <= left);
      }
    }
  };
  const turnAway = async (forMs: number): Promise<void> => {
    if (gate === null) return;
    const listing = await session.run({ commands: renderAway(table, forMs), list: `list set ${table.name} away`, limitMs: REFRESH_LIMIT_MS });
    // Somebody removed our table: the next change writes it anew.
    if (listing === null) gate = null;
  };
  return {
    kind: 'fail-closed',
    table: table.name,
    apply: (mode) => inTurn(() => apply(mode)),
    turnAway: (forMs) => inTurn(() => turnAway(forMs)),
    remove: () =>
      inTurn(async () => {
        gate = null;
        const done = await runNft(`add table ${table.name}; delete table ${table.name}`);
        return done.ok ? ok(null) : err(failed(`removing ${table.name}`, done.error));
      }),
    close: () => session.close(),
  };
}

/** Runs one transaction with a process of its own. The error is nft's last line. */
export function runNft(commands: string, limitMs: number = COMMAND_LIMIT_MS): Promise<Result<string, string>> {
  return new Promise((resolve) => {
    execFile('nft', [commands], { timeout: limitMs, killSignal: 'SIGKILL', maxBuffer: 65_536, cwd: '/' }, (error, stdout, stderr) => {
      if (error === null) resolve(ok(stdout));
      else resolve(err(stderr.trim().split('\n')[0] || error.message));
    });
  });
}

function failed(what: string, cause: string): Failure {
  return {
    code: 'firewall.failed',
    what: `nftables refused ${what}`,
    cause,
    now: 'The port stays closed for clients, or closes by itself when the time-out of the last renewal ends.',
    remedy: 'Run `nft list ruleset` as root; if nftables cannot be used here, set `firewall: off` in agent.yaml.',
    retryable: true,
  };
}
