/**
 * What lies in the data directories.
 *
 * I7 *Invariant:* a voter's name stands for one directory: what was rebuilt has another one, so that it cannot acknowledge as what it was (architecture 4.4).
 * I9 *Invariant:* a directory that goes away (wiped, rewound) held nothing that the present primary's has not, or a copy of it was set aside; and no server
 *    runs on pages that do not belong to its WAL.
 * I10 *Invariant:* initdb runs only while no node has data.
 * I11 *Invariant:* one system identifier.
 * I12 *Invariant:* a reader that the route names has no row that the primary has not.
 * I13 *Invariant:* a directory that is being cloned or rewound is neither a reader's, nor waited for as a voter's, nor (acknowledgements.ts) a candidate's.
 */
import { nodeOfVoter } from '../../src/core/cluster/sync-set.ts';
import { OF_A_BACKUP } from '../../src/core/state.ts';
import type { DataDirectory } from '../model/postgres/directory.ts';
import { type WalRecord, contains } from '../model/postgres/wal.ts';
import type { Clients } from '../clients.ts';
import type { SimNode } from '../world/node.ts';
import type { World } from '../world/world.ts';
import { Excused, Violation } from './violation.ts';

export interface DirectoryChecks {
  /** Looks every time: directories are compared by identity, so that most looks cost nothing. */
  step(): void;
  /** Called every now and then while nothing is broken: what the route names. While nobody can decide, it names what it named. */
  look(): void;
}

/** Gone through after every event. */
interface Seat {
  readonly node: SimNode;
  readonly server: NonNullable<SimNode['database']>['server'];
  directory: DataDirectory | null;
  end: WalRecord | null;
}

export function createDirectoryChecks(world: World, clients: Clients, wasPromotedByHand: (node: string) => boolean): DirectoryChecks {
  const told = new Set<number>();
  clients.onAcknowledged((commit) => told.add(commit.id));
  const seats = world.dataNodes.flatMap((node): readonly Seat[] =>
    node.database === null ? [] : [{ node, server: node.database.server, directory: null, end: null }],
  );
  let identifier: string | null = null;
  const incompleteAt = new Map<string, number>();
  let lastState: ReturnType<World['state']> = null;

  function step(): void {
    checkNewVoters();
    for (const before of seats) {
      const { node } = before;
      const { directory, incomplete } = before.server.disk;
      if (incomplete === null) {
        if (incompleteAt.size > 0) incompleteAt.delete(node.name);
      } else if (!incompleteAt.has(node.name)) incompleteAt.set(node.name, world.clock.now());
      if (directory !== before.directory) changed(node, before, directory);
      if (directory === null) continue;
      if (directory.corrupt !== null) {
        const text = `${node.name} runs on a directory whose pages are not those of its WAL: ${directory.corrupt}`;
        // Two promotions at the same position make timelines that nothing tells apart, and the controller need not have seen the one by hand.
        if (wasPromotedByHand(node.name)) throw new Excused(text);
        throw new Violation('I9', text);
      }
      if (before.end !== null && directory.end !== before.end && !isStopped(node)) {
        before.end = directory.end;
        continue;
      }
      if (before.end !== null && directory.end !== before.end && !contains(directory.end, before.end))
        gone(node, before.end, `${node.name} was rewound`);
      before.end = directory.end;
    }
  }

  const serverOf = (name: string): Seat['server'] | null => seats.find((seat) => seat.node.name === name)?.server ?? null;
  const isStopped = (node: SimNode): boolean => node.database?.server.core.run === null;

  function changed(node: SimNode, before: Seat, directory: DataDirectory | null): void {
    if (directory !== null && before.directory === null) appeared(node, directory);
    if (before.directory !== null && before.end !== null) {
      const kept = node.database?.server.disk.saved.includes(before.directory) === true;
      const isOrdered = world.state()?.goals[node.name]?.kind === 'removed';
      if (!kept && !isOrdered) gone(node, before.end, `the directory of ${node.name} was replaced`);
    }
    before.directory = directory;
    before.end = directory?.end ?? null;
  }

  function appeared(node: SimNode, directory: DataDirectory): void {
    const others = seats.flatMap((other) => (other.node !== node && other.directory !== null ? [other.node] : []));
    if (identifier !== null && directory.systemIdentifier !== identifier && others.length > 0)
      throw new Violation('I10', `${node.name} made a new database although ${others.map((other) => other.name).join(', ')} has data`);
    identifier = directory.systemIdentifier;
  }

  /** WAL up to `end` is no more on that node: some other directory, or a saved one, must have all of its commits. */
  function gone(node: SimNode, end: WalRecord, what: string): void {
    const last = lastTold(end, told);
    const all = seats.flatMap(({ server }) => [server.disk.directory, ...server.disk.saved]);
    const kept = node.database?.server.disk.kept.some((one) => contains(one, last)) === true;
    const covered = kept || all.some((directory) => directory !== null && contains(directory.end, last));

    if (!covered) throw new Violation('I9', `${what}, and nobody has its last acknowledged row any more, and no copy was set aside`);
  }

  function look(): void {
    const pausedMs = world.clock.now() - lookedAt;
    lookedAt = world.clock.now();
    if (pausedMs > LOOK_GAP_MS) for (const known of [divergedSince, incompleteSince]) known.clear();
    const state = world.state();
    if (state === null || state.primary === null) return;
    const primary = serverOf(state.primary);
    if (primary === null || !primary.isWritable() || primary.core.run === null) return;
    let wrong = false;
    for (const name of state.route.readers) {
      const reader = serverOf(name);
      if (reader !== null && reader.disk.incomplete !== null) {
        wrong = true;
        since(incompleteSince, name, (ms) => {
          throw new Violation('I13', `${name} is named as a reader ${ms} ms after its ${reader.disk.incomplete ?? ''} began`);
        });
        continue;
      }
      incompleteSince.delete(name);
      const replayed = reader?.core.run?.status === 'standby' ? reader.core.run.replayed : null;
      if (replayed === null || contains(primary.core.run.inserted, replayed)) continue;
      wrong = true;
      since(divergedSince, name, (ms) => {
        throw new Violation('I12', `${name} is named as a reader ${ms} ms after it diverged from ${state.primary ?? 'nobody'}`);
      });
    }
    if (!wrong) divergedSince.clear();
  }

  /**
   * Asked for with a decision, at a time when its node's last report must have said that it copies. What a restored backup says was decided long ago, and is
   * obeyed by nobody before it is confirmed.
   */
  function checkNewVoters(): void {
    const state = world.state();
    if (state === lastState) return;
    const before = lastState?.quorum.wanted.members ?? [];
    const isBackup = state !== null && state.incarnation !== lastState?.incarnation && state.incarnation.startsWith(OF_A_BACKUP);
    lastState = state;
    if (isBackup) return;
    for (const voter of state?.quorum.wanted.members ?? []) {
      if (before.includes(voter)) continue;
      const name = nodeOfVoter(voter);
      checkVoterName(voter, name === null ? null : (serverOf(name)?.disk.directory ?? null));
      const ms = world.clock.now() - (name === null ? Number.POSITIVE_INFINITY : (incompleteAt.get(name) ?? Number.POSITIVE_INFINITY));
      if (ms > VOTER_LIMIT_MS)
        throw new Violation('I13', `${voter} is asked to acknowledge ${Math.round(ms)} ms after its directory became incomplete`);
    }
  }

  const named = new Map<string, DataDirectory>();

  function checkVoterName(voter: string, directory: DataDirectory | null): void {
    if (directory === null || directory.incarnation === null || !voter.endsWith(`.${directory.incarnation}`)) return;
    const before = named.get(voter);
    if (before !== undefined && before !== directory)
      throw new Violation('I7', `${voter} is asked to acknowledge, and was the name of another directory`);
    named.set(voter, directory);
  }

  /** Calls `late` when it has been so for longer than news and a decision take. */
  function since(known: Map<string, number>, name: string, late: (ms: number) => void): void {
    const began = known.get(name) ?? world.clock.now();
    known.set(name, began);
    const ms = world.clock.now() - began;
    if (ms > READER_LIMIT_MS) late(Math.round(ms));
  }

  let lookedAt = Number.NEGATIVE_INFINITY;
  const divergedSince = new Map<string, number>();
  const incompleteSince = new Map<string, number>();
  return { step, look };
}

/** After everything healed: a watch that is given up and listed again (6 s), a controller elected anew (2 s), a report (3 s), and a decision. */
const READER_LIMIT_MS = 12_000;
/** The longest report interval, a decision, and some. */
const VOTER_LIMIT_MS = 1500;
/** No look for longer than this: there was trouble meanwhile, and what was wrong before it counts anew. */
const LOOK_GAP_MS = 6000;

/** The newest record that a client was told of; heartbeats, checkpoints and rows that nobody was told of are nobody's. */
function lastTold(end: WalRecord, told: ReadonlySet<number>): WalRecord {
  let record = end;
  while ((record.commit === null || !told.has(record.commit)) && record.prev !== null) record = record.prev;
  return record;
}
