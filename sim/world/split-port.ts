/**
 * The split port of the modelled proxy: the real positions (src/proxy/positions.ts) and the readers of the real route decision; which way a read goes is
 * said here again as `#wayOfRead` of src/proxy/split-session.ts has it, since that file is about bytes.
 */
import type { NodeControl } from '../../src/proxy/control.ts';
import { PATIENCE_MS, type Token, openPositions } from '../../src/proxy/positions.ts';
import { formatLsn, makeLsn } from '../../src/core/lsn.ts';
import { err, ok } from '../../src/core/result.ts';
import { type Route, type RouteTarget, pickReader } from '../../src/core/route/decide.ts';
import type { Clock } from '../../src/base/clock.ts';
import type { Scope } from '../clock.ts';
import type { Network } from '../network.ts';
import type { Random } from '../random.ts';
import type { SimNode } from './node.ts';

/** A read of some rows: where it was run, in which role, and which of the rows it saw. */
export interface ReadAnswer {
  readonly node: string;
  readonly role: 'primary' | 'standby';
  readonly found: readonly boolean[];
}

export interface SplitSession {
  /** The primary has answered a statement of this session. */
  answered(): void;
  /** `done` is called at most once; null: the session's connection is broken, or nobody may answer now. */
  read(rows: readonly number[], done: (answer: ReadAnswer | null) => void): void;
}

export interface SplitPort {
  /** A connection of a client; it ends with the proxy. */
  open(): SplitSession;
}

export interface SplitParts {
  readonly host: string;
  readonly scope: Scope;
  readonly clock: Clock;
  readonly network: Network;
  readonly random: Random;
  readonly peers: () => ReadonlyMap<string, SimNode>;
  readonly route: () => Route;
}

/** As in control.ts. */
const QUESTION_MS = 1000;
/** As in split-session.ts. */
const RETRY_MS = 500;

type ServerRun = NonNullable<SimNode['database']>['server']['core']['run'];

export function createSplitPort(parts: SplitParts): SplitPort {
  const positions = openPositions({
    controls: { of: (target) => controlOf(parts, target), close: () => undefined },
    route: parts.route,
    clock: parts.clock,
  });
  return { open: () => openSession(parts, positions) };
}

/** A question over the network; `answer` runs at the node, where its server answers; null: it does not, or not in time. */
function askNode<T>(parts: SplitParts, node: string, answer: (peer: SimNode) => T | null): Promise<T | null> {
  const { scope, network, host } = parts;
  return new Promise((resolve) => {
    const late = scope.after(QUESTION_MS, () => resolve(null));
    const back = (value: T | null): void =>
      network.send(node, host, () =>
        scope.deliver(() => {
          late.cancel();
          resolve(value);
        }),
      );
    network.send(host, node, () => {
      const peer = parts.peers().get(node);
      const { core } = peer?.database?.server ?? { core: null };
      if (peer === undefined || core === null || !core.machine.alive() || core.machine.paused() || core.process?.paused() === true) return;
      const lets = peer.port.lets('client') && peer.database?.isReadable() === true;
      back(lets ? answer(peer) : null);
    });
  });
}

const runOf = (peer: SimNode): ServerRun => peer.database?.server.core.run ?? null;

/** The two questions of positions.ts. *Source:* PostgreSQL manual, "Backup Control Functions", "Recovery Information Functions". */
function controlOf(parts: SplitParts, target: RouteTarget): NodeControl {
  return {
    target,
    ask: async (text) => {
      const answer = await askNode(parts, target.node, (peer) => {
        const run = runOf(peer);
        if (run === null) return null;
        if (text.includes('pg_current_wal_insert_lsn')) return run.status === 'primary' ? run.inserted.lsn : null;
        return run.replayed.lsn;
      });
      return answer === null ? err('no answer') : ok([{ lsn: formatLsn(makeLsn(BigInt(answer))) }]);
    },
    close: () => undefined,
  };
}

interface Connected {
  readonly target: RouteTarget;
  readonly run: ServerRun;
}

function openSession(parts: SplitParts, positions: ReturnType<typeof openPositions>): SplitSession {
  const { scope, route } = parts;
  let token: Token | null = null;
  /** A question for the token that was asked before this number rose does not count any more. */
  let asked = 0;
  let wanted = false;
  let standby: Connected | null = null;
  let opening = false;
  let notBefore = Number.NEGATIVE_INFINITY;
  /** The read that waits for its standby is looked at again. */
  let goOn: () => void = () => undefined;

  const readers = (): Route['readers'] => route().readers.filter((reader) => reader.node !== route().writer?.node);
  const serves = (target: RouteTarget): boolean => !route().hold && readers().some((reader) => reader.node === target.node);

  function want(): void {
    if (wanted) return;
    wanted = true;
    const at = asked;
    positions.want({
      onToken: (found) => {
        if (at !== asked) return;
        token = found;
        goOn();
      },
    });
  }

  function outdate(): void {
    token = null;
    wanted = false;
    asked += 1;
  }

  function connect(): void {
    if (opening || scope.now() < notBefore) return;
    const target = pickReader(readers(), parts.random.next());
    if (target === null) return;
    opening = true;
    notBefore = scope.now() + RETRY_MS;
    void askNode(parts, target.node, (peer) => ({ run: runOf(peer) })).then((made) => {
      opening = false;
      if (made === null || made.run === null || !serves(target)) return;
      positions.forget(target);
      standby = { target, run: made.run };
      outdate();
      want();
    });
  }

  function wayOfRead(impatient: boolean): Connected | 'primary' | 'soon' {
    if (standby === null) {
      connect();
      return 'primary';
    }
    if (!serves(standby.target)) {
      standby = null;
      return 'primary';
    }
    const patient = !impatient && !positions.late(standby.target);
    if (token !== null) {
      if (token.term > route().term) return 'primary';
      if (!positions.reached(standby.target, token, () => goOn())) return patient ? 'soon' : 'primary';
      return standby;
    }
    want();
    return patient ? 'soon' : 'primary';
  }

  function answer(peer: SimNode, rows: readonly number[]): ReadAnswer {
    const { database } = peer;
    return {
      node: peer.name,
      role: database?.isWritable() === true ? 'primary' : 'standby',
      found: rows.map((row) => database?.has(row) === true),
    };
  }

  function readAtPrimary(rows: readonly number[], done: (answer: ReadAnswer | null) => void): void {
    const { writer, hold } = route();
    if (writer === null || hold) {
      done(null);
      return;
    }
    void askNode(parts, writer.node, (peer) => answer(peer, rows)).then((found) => {
      outdate();
      if (standby !== null) want();
      done(found);
    });
  }

  function readAtStandby(at: Connected, rows: readonly number[], done: (answer: ReadAnswer | null) => void): void {
    void askNode(parts, at.target.node, (peer) => (runOf(peer) === at.run ? answer(peer, rows) : null)).then((found) => {
      if (found !== null) {
        done(found);
        return;
      }
      // The connection is broken: the session goes on at the primary.
      if (standby === at) standby = null;
      positions.forget(at.target);
      readAtPrimary(rows, done);
    });
  }

  return {
    answered: () => {
      outdate();
      if (standby !== null) want();
    },
    read: (rows, done) => {
      let over = false;
      const go = (impatient: boolean): void => {
        if (over) return;
        const way = route().writer === null || route().hold ? 'primary' : wayOfRead(impatient);
        if (way === 'soon') return;
        over = true;
        late.cancel();
        goOn = () => undefined;
        if (way === 'primary') readAtPrimary(rows, done);
        else readAtStandby(way, rows, done);
      };
      goOn = () => go(false);
      const late = scope.after(PATIENCE_MS, () => go(true));
      go(false);
    },
  };
}
