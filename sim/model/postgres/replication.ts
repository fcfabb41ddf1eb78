/** Walsender and walreceiver: how a standby connects, what is checked, how WAL and confirmations travel, and how each end notices that the other is gone. */
import { historyFileName } from '../../../src/agent/postgres/timeline-history.ts';
import { makeTimeline } from '../../../src/core/ids.ts';
import { type Core, type Link, type Receiver, type Run, afterIn, deliverTo, directoryOf, isResponsive, nextPid, sendable, setting } from './core.ts';
import type { DataDirectory, Slot } from './directory.ts';
import { releaseWaiters, syncConfigOf } from './primary.ts';
import { syncPriority } from './sync-rep.ts';
import { type TimelineBranch, type WalRecord, branchOf, contains, forkLsnOf } from './wal.ts';

/** Begins to connect; ends in `receiverEnded` when it does not work. */
export function connectReceiver(core: Core, run: Run, receiver: Receiver): void {
  const upstream = core.find(receiver.host, receiver.port);
  const fail = (ms: number, why: string): void => void afterIn(core, run, ms, () => core.signals.receiverEnded(run, receiver, why));
  const { connectTimeout, connect } = core.timings;
  if (upstream === null || !reaches(core, upstream) || upstream.machine.paused() || !upstream.machine.alive()) {
    fail(connectTimeout, `could not connect to ${receiver.host}:${receiver.port}: connection timed out`);
    return;
  }
  const roundTrip = core.network.delayMs(core.host, upstream.host) + core.network.delayMs(upstream.host, core.host);
  if (upstream.process?.alive() !== true || upstream.run?.isPrivate === true) {
    fail(roundTrip, 'connection refused');
    return;
  }
  afterIn(core, run, roundTrip * 3 + connect * (0.5 + core.random.next()), () => {
    if (run.receiver !== receiver) return;
    if (!reaches(core, upstream) || !isResponsive(upstream)) {
      fail(connectTimeout, 'connection timed out');
      return;
    }
    const refusal = begin(core, run, receiver, upstream);
    if (refusal !== null) core.signals.receiverEnded(run, receiver, refusal);
  });
}

function reaches(standby: Core, upstream: Core): boolean {
  return standby.network.isConnected(standby.host, upstream.host) && upstream.admits();
}

/** The checks of both sides, by numbers only, as PostgreSQL makes them. Null: streaming began. */
function begin(core: Core, run: Run, receiver: Receiver, upstream: Core): string | null {
  const source = upstream.run;
  if (source === null || upstream.disk.directory === null) return 'connection refused';
  if (source.status === 'starting') return 'FATAL: the database system is starting up';
  if (source.status === 'stopping') return 'FATAL: the database system is shutting down';
  const own = directoryOf(core);
  const theirs = directoryOf(upstream);
  if (own.systemIdentifier !== theirs.systemIdentifier) return 'FATAL: database system identifier differs between the primary and standby';
  const timeline = currentTimeline(upstream, source);
  const ownTli = branchAt(run.target, own.end.lsn).tli;
  if (timeline.tli < ownTli) return `FATAL: highest timeline ${timeline.tli} of the primary is behind recovery timeline ${ownTli}`;
  const missing = fetchHistories(own, theirs, ownTli, timeline.tli);
  if (missing !== null)
    return `FATAL: could not receive timeline history file from the primary server: ERROR:  could not open file "pg_wal/${missing}": No such file or directory`;
  // Asked for from the beginning of the segment. *Source:* PostgreSQL, walreceiver.c and xlogrecovery.c, RequestXLogStreaming.
  const start = Math.floor(own.end.lsn / core.timings.segmentBytes) * core.timings.segmentBytes;
  const slot = findSlot(theirs, run.startupSlot);
  if (typeof slot === 'string') return slot;
  const fork = ownTli === timeline.tli ? Number.POSITIVE_INFINITY : (forkLsnOf(timeline, ownTli) ?? -1);
  if (fork < start) {
    core.signals.rescanTimelines(run);
    return `ERROR: requested starting point ${start.toString(16)} on timeline ${ownTli} is not in this server's history`;
  }
  if (start > sendable(upstream).lsn) return 'ERROR: requested starting point is ahead of the WAL flush position of this server';
  core.signals.rescanTimelines(run);
  const link = openLink(core, run, receiver, upstream, source, slot);
  if (start < theirs.oldestLsn) turnAway(core, run, link, `ERROR: requested WAL segment ${segmentName(ownTli, start)} has already been removed`);
  else if (fork < own.end.lsn) turnAway(core, run, link, forkedOff(timeline.tli, ownTli));
  else beginPushing(link);
  return null;
}

/**
 * For a moment a walreceiver says that it streams, although it gets nothing that is new: WAL that was removed (found out when it is read), or the old
 * timeline up to the fork, where the standby went past it in the same segment. It confirms nothing, and comes again after the retry interval.
 */
function turnAway(core: Core, run: Run, link: Link, why: string): void {
  link.state = 'startup';
  afterIn(core, run, 1 + core.random.next(), () => linkLost(link, why));
}

/** As the standby's log has it, after each walreceiver that brought nothing. *Source:* PostgreSQL, xlogrecovery.c, rescanLatestTimeLine. */
function forkedOff(newTli: number, ownTli: number): string {
  return `LOG: new timeline ${newTli} forked off current database system timeline ${ownTli} before current recovery point`;
}

function segmentName(tli: number, lsn: number): string {
  const hex = (value: number): string => Math.floor(value).toString(16).toUpperCase().padStart(8, '0');
  const segment = lsn / (16 * 1024 * 1024);
  return `${hex(tli)}${hex(segment / 256)}${hex(segment % 256)}`;
}

/** Of a primary: what it writes. Of a standby: what it has replayed. */
export function currentTimeline(core: Core, run: Run): TimelineBranch {
  const { timeline } = directoryOf(core);
  if (run.role === 'primary') return timeline;
  return branchOf(timeline, run.replayed.tli) ?? timeline;
}

/** The branch of a lineage that owns a position; exactly at a fork it is the parent. */
function branchAt(timeline: TimelineBranch, lsn: number): TimelineBranch {
  let at = timeline;
  while (at.parent !== null && lsn <= at.forkLsn) at = at.parent;
  return at;
}

/**
 * Fetched before streaming is asked for, and kept when that is refused. Answers the name of the first that the upstream has not; null: it had all.
 * *Source:* PostgreSQL, walreceiver.c, WalRcvFetchTimeLineHistoryFiles.
 */
export function fetchHistories(own: DataDirectory, theirs: DataDirectory, from: number, to: number): string | null {
  for (let tli = Math.max(2, from); tli <= to; tli++) {
    if (own.histories.has(tli)) continue;
    const file = theirs.histories.get(tli);
    if (file === undefined) return historyFileName(makeTimeline(tli));
    own.histories.set(tli, file);
  }
  return null;
}

function findSlot(theirs: DataDirectory, name: string): Slot | null | string {
  if (name === '') return null;
  const slot = theirs.slots.get(name);
  if (slot === undefined) return `ERROR: replication slot "${name}" does not exist`;
  // A lost slot is accepted: what it kept is missing, and that shows when it is read. *Source:* PostgreSQL 15, walsender.c, StartReplication.
  return slot.active ? `ERROR: replication slot "${name}" is active` : slot;
}

function openLink(core: Core, run: Run, receiver: Receiver, upstream: Core, source: Run, slot: Slot | null): Link {
  const application = applicationOf(receiver.conninfo) ?? 'walreceiver';
  const config = syncConfigOf(source.loaded);
  const link: Link = {
    upstream,
    standby: core,
    upstreamRun: source,
    standbyRun: run,
    application,
    conninfo: receiver.conninfo,
    pid: nextPid(upstream),
    startedAt: upstream.clock.now(),
    up: core.streams.open(core.host, upstream.host),
    down: core.streams.open(upstream.host, core.host),
    slot,
    state: 'catchup',
    sent: null,
    flush: null,
    apply: 0,
    config,
    // Walsenders of a standby are never synchronous. *Source:* syncrep.c, SyncRepGetStandbyPriority (am_cascading_walsender).
    priority: source.role === 'primary' ? syncPriority(config, application) : 0,
    senderGone: false,
    receiverGone: false,
    senderTimer: null,
    receiverTimer: null,
  };
  if (slot !== null) slot.active = true;
  source.links.add(link);
  receiver.link = link;
  run.received = true;
  return link;
}

function beginPushing(link: Link): void {
  const { upstream, standby } = link;
  const lag = sendable(upstream).lsn - directoryOf(standby).end.lsn;
  const catchUpMs = lag / standby.timings.catchUpBytesPerMs;
  if (catchUpMs < 1) push(link, 'again');
  else afterIn(upstream, link.upstreamRun, catchUpMs, () => push(link, 'again'));
}

/** Sends what is new; `again`: the same once more (the other end may have missed it). */
function push(link: Link, what: 'new' | 'again'): void {
  if (link.senderGone || link.upstream.run !== link.upstreamRun) return;
  const target = sendable(link.upstream);
  if (link.sent === target && what === 'new') return;
  if (!link.upstream.admits()) {
    review(link);
    return;
  }
  link.sent = target;
  link.down.send(() =>
    deliverTo(link.standby, link.standbyRun, () => {
      if (!link.receiverGone && link.upstream.admits()) link.standby.signals.received(link, target);
    }),
  );
}

/** New WAL may be sent, or was received by a standby with standbys of its own. */
export function pushAll(run: Run): void {
  for (const link of run.links) if (link.sent !== null) push(link, 'new');
}

/** The standby tells how far it is. */
export function reply(link: Link): void {
  if (link.receiverGone || link.standby.run !== link.standbyRun || link.state === 'startup') return;
  const flush = directoryOf(link.standby).durable.lsn;
  const apply = link.standbyRun.replayed.lsn;
  link.up.send(() =>
    deliverTo(link.upstream, link.upstreamRun, () => {
      if (!link.senderGone && link.upstream.admits()) heardReply(link, flush, apply);
    }),
  );
}

function heardReply(link: Link, flush: number, apply: number): void {
  const run = link.upstreamRun;
  link.flush = flush;
  link.apply = apply;
  if (link.slot !== null && flush > link.slot.restartLsn) link.slot.restartLsn = flush;
  if (link.state === 'catchup') {
    if (link.sent !== null && flush < link.sent.lsn) return;
    link.state = 'streaming';
  }
  if (run.role === 'primary') releaseWaiters(run, link);
  if (run.status === 'stopping') link.upstream.signals.maybeDrained(run);
}

/** A walsender has loaded new settings. */
export function reloadSender(link: Link, settings: ReadonlyMap<string, string>): void {
  if (link.senderGone || link.upstreamRun.role !== 'primary') return;
  link.config = syncConfigOf(settings);
  link.priority = syncPriority(link.config, link.application);
  // *Source:* walsender.c, ProcessWalSndrMessage / WalSndLoop: after a reload waiters are looked at again.
  releaseWaiters(link.upstreamRun, link);
}

/** The walreceiver ends (terminated, restarted with new settings, its server stops); its kernel tells the other side. */
export function endReceiver(link: Link): void {
  if (link.receiverGone) return;
  link.receiverGone = true;
  link.receiverTimer = cleared(link.receiverTimer);
  if (link.senderGone) closeStreams(link);
  else tellOtherSide(link, 'sender');
}

/** The walsender ends. */
export function endSender(link: Link): void {
  if (link.senderGone) return;
  link.senderGone = true;
  link.senderTimer = cleared(link.senderTimer);
  link.upstreamRun.links.delete(link);
  if (link.slot !== null) link.slot.active = false;
  if (link.receiverGone) closeStreams(link);
  else tellOtherSide(link, 'receiver');
  if (link.upstream.run === link.upstreamRun && link.upstreamRun.status === 'stopping') link.upstream.signals.maybeDrained(link.upstreamRun);
}

function closeStreams(link: Link): void {
  link.up.close();
  link.down.close();
}

/** A FIN or RST, if it gets there; else the other side has to notice by its own time-out. */
function tellOtherSide(link: Link, side: 'sender' | 'receiver'): void {
  const [from, to] = side === 'sender' ? [link.standby, link.upstream] : [link.upstream, link.standby];
  if (from.machine.alive() && from.network.isOpen(from.host, to.host) && link.upstream.admits()) {
    // After what is already on its way in that direction.
    const stream = side === 'sender' ? link.up : link.down;
    stream.send(() => {
      if (side === 'sender') deliverTo(to, link.upstreamRun, () => endSender(link));
      else deliverTo(to, link.standbyRun, () => linkLost(link, 'the upstream closed the connection'));
    });
  } else review(link);
}

function linkLost(link: Link, why: string): void {
  const { receiver } = link.standbyRun;
  endReceiver(link);
  if (receiver?.link === link) link.standby.signals.receiverEnded(link.standbyRun, receiver, why);
}

/** Looks who still hears whom. Called when links change, when a process or a machine stops, dies or goes on. */
export function review(link: Link): void {
  const { upstream, standby } = link;
  const upstreamLives = upstream.run === link.upstreamRun && isResponsive(upstream) && !link.senderGone;
  const standbyLives = standby.run === link.standbyRun && isResponsive(standby) && !link.receiverGone;
  const admitted = upstream.admits();
  const senderHears = standbyLives && admitted && upstream.network.isOpen(standby.host, upstream.host);
  const receiverHears = upstreamLives && admitted && upstream.network.isOpen(upstream.host, standby.host);
  if (!link.senderGone) {
    if (senderHears) link.senderTimer = cleared(link.senderTimer);
    else link.senderTimer ??= timeOut(upstream, link.upstreamRun, link, () => endSender(link));
  }
  if (!link.receiverGone) {
    if (receiverHears) link.receiverTimer = cleared(link.receiverTimer);
    else link.receiverTimer ??= timeOut(standby, link.standbyRun, link, () => linkLost(link, 'terminating walreceiver due to timeout'));
  }
  if (senderHears && receiverHears) {
    // What was dropped meanwhile is sent again.
    if (link.sent !== null && link.sent !== directoryOf(standby).end) push(link, 'again');
    reply(link);
  }
}

function cleared(timer: Link['senderTimer']): null {
  timer?.cancel();
  return null;
}

/** A dead partner on a living host is noticed with the next message of the own side, a silent one after the replication time-out. */
function timeOut(core: Core, run: Run, link: Link, over: () => void): Link['senderTimer'] {
  const other = core === link.upstream ? link.standby : link.upstream;
  const otherRun = core === link.upstream ? link.standbyRun : link.upstreamRun;
  const reset = other.run !== otherRun && other.machine.alive() && core.network.isConnected(core.host, other.host) && link.upstream.admits();
  const ms = reset ? 1000 * core.random.next() : core.timings.replicationTimeout - 1000 * core.random.next();
  return afterIn(core, run, ms, over);
}

/** All connections of a server, as either side. */
export function linksOf(core: Core): readonly Link[] {
  if (core.run === null) return [];
  const own = core.run.receiver?.link ?? null;
  return own === null ? [...core.run.links] : [...core.run.links, own];
}

export function streamedBy(run: Run): Link | null {
  const link = run.receiver?.link ?? null;
  return link === null || link.receiverGone ? null : link;
}

/** For checkers: true when what the standby has is not what the upstream has sent. */
export function isForeign(link: Link, target: WalRecord): boolean {
  return !contains(target, directoryOf(link.standby).end) && !contains(directoryOf(link.standby).end, target);
}

/** Settings of a connection string. */
export function endpointOf(conninfo: string): { readonly host: string; readonly port: number } | null {
  const host = /(?:^|\s)host=(\S+)/.exec(conninfo)?.[1];
  return host === undefined ? null : { host, port: Number(/(?:^|\s)port=(\d+)/.exec(conninfo)?.[1] ?? 5432) };
}

/** Null when it names none. */
export function applicationOf(conninfo: string): string | null {
  return /(?:^|\s)application_name=(\S+)/.exec(conninfo)?.[1] ?? null;
}

export function conninfoOf(settings: ReadonlyMap<string, string>): string {
  return setting(settings, 'primary_conninfo');
}
