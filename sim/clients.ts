/**
 * Clients that write and read all the time and remember what they were told. They are as bad as clients can be: they know nothing of the cluster and try
 * every node in turn, so that any node that takes writes is found, whoever is supposed to be the primary.
 */
import type { Random } from './random.ts';
import type { Scope } from './clock.ts';
import { PROXY_HOST, type SimProxy } from './world/proxy.ts';
import type { ReadAnswer } from './world/split-port.ts';
import { type World, nodeOf } from './world/world.ts';

export interface Commit {
  readonly id: number;
  readonly bytes: number;
  readonly sentAt: number;
  /** When a server answered that it is done; null: none did. */
  servedAt: number | null;
  /** Where the client was told that it is done, and when; null: refused, or never told. */
  acknowledged: { readonly node: string; readonly at: number } | null;
}

export interface Read {
  readonly at: number;
  readonly node: string;
  /** The newest commit of this client that was acknowledged before the read was sent. */
  readonly wanted: number;
  readonly found: boolean;
  readonly role: 'primary' | 'standby';
  /** Nothing was promised of that node when it answered: the answer may have been on its way for long. */
  readonly excepted: boolean;
}

/** A read of a session of the proxy's split port, of rows that it had written or seen before. */
export interface SessionRead {
  readonly at: number;
  readonly node: string;
  readonly role: 'primary' | 'standby';
  readonly rows: readonly number[];
  readonly found: readonly boolean[];
}

export interface Clients {
  readonly commits: readonly Commit[];
  readonly acknowledged: readonly Commit[];
  /** Bounded: the newest. */
  readonly reads: readonly Read[];
  /** What clients of the proxy still wait for, in words; empty without one. */
  missing(): readonly string[];
  /** One large transaction more, e.g. a bulk load. */
  burst(bytes: number): void;
  /** Milliseconds between two commits of one client; null: nobody writes any more. */
  setPace(ms: number | null): void;
  onAcknowledged(callback: (commit: Commit) => void): void;
  /** At the moment when the server says that it is done, whether the client will hear it or not. */
  onServed(callback: (commit: Commit, node: string) => void): void;
  /** `isExcepted` is asked when a node answers. */
  onRead(callback: (read: Read) => void, isExcepted: (node: string) => boolean): void;
  onSessionRead(callback: (read: SessionRead) => void): void;
}

/** A client gives up a connection that says nothing. */
const PATIENCE_MS = 2000;
/** Between two tries after a refusal. */
const RETRY_MS = 25;
const MAX_READS = 10_000;
/** A client of the proxy writes every 600 ms at the least. */
const PROXY_QUIET_MS = 3000;

export function createClients(
  world: World,
  random: Random,
  options: { readonly writers: number; readonly paceMs: number; readonly splitReads: boolean },
): Clients {
  const commits: Commit[] = [];
  const acknowledged: Commit[] = [];
  const reads: Read[] = [];
  const heard: ((commit: Commit) => void)[] = [];
  const served: ((commit: Commit, node: string) => void)[] = [];
  const seen: { readonly callback: (read: Read) => void; readonly isExcepted: (node: string) => boolean }[] = [];
  const sessionReads: ((read: SessionRead) => void)[] = [];
  const names = world.dataNodes.map((node) => node.name);
  let paceMs: number | null = options.paceMs;
  let pendingBurst = 0;
  let lastId = 0;

  for (let index = 0; index < options.writers; index++) {
    const host = world.shape.clients[index % world.shape.clients.length] ?? 'c1';
    const scope = world.machines.of(host).scope().child(`client ${index}`);
    void runWriter(scope, host, random.stream(`writer ${index}`));
  }

  let throughProxyAt = Number.NEGATIVE_INFINITY;
  const { proxy } = world;
  if (proxy !== null) {
    const host = world.shape.clients[0] ?? 'c1';
    if (options.splitReads)
      void runSplitSession(proxy, world.machines.of(host).scope().child('session of the proxy'), host, random.stream('session of the proxy'));
    else void runThroughProxy(proxy, world.machines.of(host).scope().child('client of the proxy'), host, random.stream('writer of the proxy'));
  }

  /** Writes now and then, and reads what it wrote, and what it has seen of others. */
  async function runSplitSession(through: SimProxy, scope: Scope, host: string, own: Random): Promise<void> {
    let session = through.openSession();
    /** The newest row that it wrote, and the newest of anybody's that a read showed. */
    let wrote: number | null = null;
    let saw: number | null = null;
    for (;;) {
      if (paceMs === null) {
        await scope.sleep(500);
        continue;
      }
      if (own.chance(0.4)) {
        const before = lastId;
        const outcome = await writeThrough(through, scope, host, session.answered);
        if (outcome === 'acknowledged') {
          wrote = before + 1;
          throughProxyAt = world.clock.now();
        } else await scope.sleep(RETRY_MS);
      }
      const news = acknowledged.at(-1)?.id ?? null;
      const known = [wrote, saw].filter((row) => row !== null);
      const answer = await readThrough(session, scope, host, news === null ? known : [...known, news]);
      if (answer === null) {
        // A new session knows of nothing; the proxy may be another one by now.
        if (!session.isAlive() || own.chance(0.2)) {
          session = through.openSession();
          wrote = null;
          saw = null;
        }
        await scope.sleep(RETRY_MS);
        continue;
      }
      const rows = known;
      const read: SessionRead = { at: world.clock.now(), node: answer.node, role: answer.role, rows, found: answer.found.slice(0, rows.length) };
      for (const callback of sessionReads) callback(read);
      if (news !== null && answer.found.at(-1) === true) saw = news;
      await scope.sleep(paceMs * own.between(0.1, 1));
    }
  }

  function readThrough(
    session: ReturnType<SimProxy['openSession']>,
    scope: Scope,
    host: string,
    rows: readonly number[],
  ): Promise<ReadAnswer | null> {
    return new Promise((resolve) => {
      const late = scope.after(PATIENCE_MS, () => resolve(null));
      world.network.send(host, PROXY_HOST, () =>
        session.read(rows, (answer) =>
          world.network.send(PROXY_HOST, host, () =>
            scope.deliver(() => {
              late.cancel();
              resolve(answer);
            }),
          ),
        ),
      );
    });
  }

  /** A transaction whose answer does not come is given up with its connection, and another one is made. */
  async function runThroughProxy(through: SimProxy, scope: Scope, host: string, own: Random): Promise<void> {
    for (;;) {
      if (paceMs === null) {
        await scope.sleep(500);
        continue;
      }
      const outcome = await writeThrough(through, scope, host);
      if (outcome === 'acknowledged') throughProxyAt = world.clock.now();
      await scope.sleep(outcome === 'acknowledged' ? paceMs * own.between(0.5, 1.5) : RETRY_MS);
    }
  }

  /** `answered`: called where the proxy hears the primary's answer. */
  function writeThrough(
    through: SimProxy,
    scope: Scope,
    host: string,
    answered: () => void = () => undefined,
  ): Promise<'acknowledged' | 'refused' | 'unknown'> {
    return new Promise((resolve) => {
      const commit: Commit = { id: ++lastId, bytes: 180, sentAt: world.clock.now(), servedAt: null, acknowledged: null };
      let leave: () => void = () => undefined;
      const late = scope.after(PATIENCE_MS, () => {
        leave();
        resolve('unknown');
      });
      let at = '';
      const done = (outcome: 'acknowledged' | 'refused'): void => {
        answered();
        world.network.send(PROXY_HOST, host, () =>
          scope.deliver(() => {
            late.cancel();
            if (outcome === 'acknowledged') heardOf(commit, at);
            resolve(outcome);
          }),
        );
      };
      world.network.send(host, PROXY_HOST, () => {
        leave = through.take({
          done,
          send: (node, answer) => {
            at = node;
            world.network.send(PROXY_HOST, node, () => serve(node, commit, (outcome) => world.network.send(node, PROXY_HOST, () => answer(outcome))));
          },
        });
      });
    });
  }

  function heardOf(commit: Commit, node: string): void {
    commit.acknowledged = { node, at: world.clock.now() };
    acknowledged.push(commit);
    for (const callback of heard) callback(commit);
  }

  async function runWriter(scope: Scope, host: string, own: Random): Promise<void> {
    let at = own.int(names.length);
    let lastAcknowledged = 0;
    for (;;) {
      if (paceMs === null) {
        await scope.sleep(500);
        continue;
      }
      const node = names[at % names.length] as string;
      const outcome = await write(scope, host, node);
      if (outcome.kind === 'acknowledged') {
        lastAcknowledged = outcome.commit.id;
        if (own.chance(0.2)) await read(scope, host, own.chance(0.5) ? node : own.pick(names), lastAcknowledged);
        await scope.sleep(paceMs * own.between(0.5, 1.5));
      } else {
        at++;
        await scope.sleep(RETRY_MS);
      }
    }
  }

  /** One transaction at one node; `unknown` when the answer never came. */
  function write(scope: Scope, host: string, node: string): Promise<{ kind: 'acknowledged'; commit: Commit } | { kind: 'refused' | 'unknown' }> {
    return new Promise((resolve) => {
      const commit: Commit = {
        id: ++lastId,
        bytes: pendingBurst > 0 ? pendingBurst : 180,
        sentAt: world.clock.now(),
        servedAt: null,
        acknowledged: null,
      };
      const late = scope.after(PATIENCE_MS, () => resolve({ kind: 'unknown' }));
      const answer = (kind: 'acknowledged' | 'refused'): void =>
        world.network.send(node, host, () =>
          scope.deliver(() => {
            late.cancel();
            if (kind === 'acknowledged') {
              heardOf(commit, node);
              resolve({ kind, commit });
            } else resolve({ kind });
          }),
        );
      world.network.send(host, node, () => serve(node, commit, answer));
    });
  }

  /** A commit arrives at a server. */
  function serve(node: string, commit: Commit, answer: (kind: 'acknowledged' | 'refused') => void): void {
    const server = nodeOf(world, node);
    const machine = world.machines.of(node).scope();
    if (!machine.alive() || machine.paused() || server.database === null) return;
    if (!server.port.lets('client') || !server.database.isReadable()) {
      answer('refused');
      return;
    }
    if (!server.database.isWritable()) {
      answer('refused');
      return;
    }
    commits.push(commit);
    if (commit.bytes === pendingBurst) pendingBurst = 0;
    server.database.commit({ id: commit.id, bytes: commit.bytes }, (outcome) => {
      if (outcome === 'acknowledged') {
        commit.servedAt = world.clock.now();
        for (const callback of served) callback(commit, node);
      }
      // A session that the firewall cut off, or whose host is suspended, hears nothing.
      if (server.port.lets('client') && !world.machines.of(node).scope().paused()) answer(outcome);
    });
  }

  function read(scope: Scope, host: string, node: string, wanted: number): Promise<void> {
    return new Promise((resolve) => {
      const late = scope.after(PATIENCE_MS, () => resolve());
      let excepted: readonly boolean[] = [];
      const done = (found: boolean | null, role: 'primary' | 'standby'): void =>
        world.network.send(node, host, () =>
          scope.deliver(() => {
            late.cancel();
            if (found !== null && reads.length < MAX_READS) {
              const entry = { at: world.clock.now(), node, wanted, found, role };
              reads.push({ ...entry, excepted: excepted.includes(true) });
              for (const [index, { callback }] of seen.entries()) callback({ ...entry, excepted: excepted[index] === true });
            }
            resolve();
          }),
        );
      world.network.send(host, node, () => {
        const server = nodeOf(world, node);
        const machine = world.machines.of(node).scope();
        if (!machine.alive() || machine.paused()) return;
        const open = server.database?.isReadable() === true && server.port.lets('client');
        const role = server.database?.isWritable() === true ? 'primary' : 'standby';
        excepted = seen.map(({ isExcepted }) => isExcepted(node));
        done(open ? (server.database?.has(wanted) ?? false) : null, role);
      });
    });
  }

  return {
    commits,
    acknowledged,
    reads,
    missing: () => {
      const quietMs = world.clock.now() - throughProxyAt;
      return proxy === null || paceMs === null || quietMs < PROXY_QUIET_MS
        ? []
        : [`nothing was written through the proxy for ${Math.round(quietMs)} ms`];
    },
    burst: (bytes) => {
      pendingBurst = bytes;
    },
    setPace: (ms) => {
      paceMs = ms;
    },
    onAcknowledged: (callback) => void heard.push(callback),
    onServed: (callback) => void served.push(callback),
    onRead: (callback, isExcepted) => void seen.push({ callback, isExcepted }),
    onSessionRead: (callback) => void sessionReads.push(callback),
  };
}
