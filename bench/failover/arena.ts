/** One run, from nothing to nothing: empty hosts, the system, the measuring clients, one fault, the verdict, nothing left. */
import { chmodSync, mkdtempSync, readFileSync, realpathSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { watchStolen } from '../../lab/machine-speed.ts';
import { createNetwork } from '../../lab/network.ts';
import { ROOT } from '../../lab/stage.ts';
import { saveRun } from '../../lab/timeline.ts';
import { monoMs } from '../../src/base/clock.ts';
import { checkHistory } from '../../src/demo/check.ts';
import { killBelow, sendSignal, waitUntil } from '../../src/demo/children.ts';
import { type Recording, readRows, recordFrom } from '../../src/demo/recording.ts';
import { runFault } from './faults.ts';
import { makeOwned, prepareMeasuring, waitWhole, writableNodes } from './servers.ts';
import { CLIENT, type Cluster, type Fault, NODES, type Place, type RunLine, SERVER, type System } from './types.ts';

/** An empty cluster is whole within seconds; the slowest peer asks only every ten. */
const WHOLE_MS = 90_000;
/** Writes before the fault, so that caches are warm. */
const WARM_ROWS = 200;
const WARM_MS = 20_000;
/** The final primary answers by now, or it is part of the verdict that there is none. */
const FINAL_PRIMARY_MS = 10_000;
/** PostgreSQL's immediate shutdown takes a fraction of this; what remains is killed with its host. */
const STOP_MS = 5000;
/** Each node has a port of its own: PostgreSQL names its shared memory by nothing less. */
const FIRST_PORT = 26_432;

export interface RunOptions {
  readonly run: number;
  readonly keep: boolean;
  readonly say: (line: string) => void;
  /** Aborted: the run ends early and is not to be counted. */
  readonly signal: AbortSignal;
}

/** Never rejects for what the system did: that is a line that is not ok. Rejects when `signal` aborted, with everything removed. */
export async function measureOnce(system: System, fault: Fault, options: RunOptions): Promise<RunLine> {
  const { say, signal, keep } = options;
  const directory = realpathSync(mkdtempSync(join(tmpdir(), 'pgherd-failover-')));
  chmodSync(directory, 0o755);
  const network = createNetwork([SERVER, ...NODES, CLIENT]);
  const place: Place = {
    directory,
    network,
    say,
    signal,
    nodes: NODES.map((node, index) => ({
      node,
      address: network.address(node),
      port: FIRST_PORT + index,
      inside: network.inside(node),
      directory: join(directory, node),
    })),
  };
  for (const node of place.nodes) makeOwned(node.directory);
  let cluster: Cluster | null = null;
  let recording: Recording | null = null;
  let line: RunLine;
  try {
    cluster = await unlessAborted(system.start(place), signal);
    const primary = await unlessAborted(waitWhole(cluster, { synchronous: system.syncStandbys, limitMs: WHOLE_MS }), signal);
    await prepareMeasuring(cluster, primary);
    recording = recordFrom(network.inside(CLIENT), cluster, {
      run: `run-${process.pid}-${Math.round(monoMs())}`,
      entry: join(ROOT, 'src', 'demo', 'recorder-main.ts'),
    });
    if (!(await recording.waitServing({ afterMs: 0, limitMs: WARM_MS, rows: WARM_ROWS })))
      throw new Error('the recorder got no acknowledgements from the healthy cluster');
    line = await unlessAborted(measure({ system, cluster, fault, place, primary, recording, run: options.run }), signal);
  } catch (error) {
    line = broken(system, fault, { run: options.run, why: error instanceof Error ? error.message : String(error) });
  }
  if (!line.ok && !signal.aborted && cluster !== null) {
    const target = join(ROOT, '.pgherd', 'failover', `${system.id}-${fault}`);
    saveRun({ target, logs: cluster.logs, events: recording?.events ?? [], summary: JSON.stringify(line) });
    say(`what happened in this run is kept in ${target}`);
  }
  await tearDown({ recording, place, keep });
  signal.throwIfAborted();
  return line;
}

async function measure(parts: {
  readonly system: System;
  readonly cluster: Cluster;
  readonly fault: Fault;
  readonly place: Place;
  readonly primary: string;
  readonly recording: Recording;
  readonly run: number;
}): Promise<RunLine> {
  const { system, cluster, fault, recording } = parts;
  const stolen = watchStolen();
  const seen = await runFault(parts);
  await recording.stop();
  const stolenPercent = stolen();
  const endMs = monoMs();
  let writable: readonly string[] = [];
  await waitUntil(async () => {
    writable = await writableNodes(cluster);
    return writable.length > 0;
  }, FINAL_PRIMARY_MS);
  const [final = null] = writable;
  const present = final === null ? null : await readRows(cluster, final, recording.run);
  const verdict = checkHistory(recording.events, { faultMs: seen.faultMs, endMs, present });
  const facts = [final === null ? 'no writable node at the end' : `final primary ${final}`, ...seen.facts];
  if (writable.length > 1) facts.push(`writable at the end: ${writable.join(' and ')}`);
  const { outageMs, clientErrors, lostRows, doubleWritableMs, staleAckRows } = verdict;
  return {
    system: system.id,
    fault,
    run: parts.run,
    ok: seen.served && lostRows !== null,
    outageMs,
    clientErrors,
    lostRows,
    doubleWritableMs,
    staleAckRows,
    rejoinMs: seen.rejoinMs,
    stolenPercent: stolenPercent === null ? null : Math.round(stolenPercent),
    detail: facts.join('; '),
  };
}

function broken(system: System, fault: Fault, { run, why }: { readonly run: number; readonly why: string }): RunLine {
  const nothing = {
    outageMs: null,
    clientErrors: null,
    lostRows: null,
    doubleWritableMs: null,
    staleAckRows: null,
    rejoinMs: null,
    stolenPercent: null,
  };
  return { system: system.id, fault, run, ok: false, ...nothing, detail: why };
}

/**
 * Invariant: nothing of the run lives when this resolves.
 * Because: every process of it was started in one of the namespaces, and `remove` kills what is in them; `killBelow` covers what left them.
 * Broken if: a program of a peer were started outside of its host.
 */
async function tearDown(parts: { readonly recording: Recording | null; readonly place: Place; readonly keep: boolean }): Promise<void> {
  const { recording, place } = parts;
  const { network } = place;
  try {
    network.heal();
    await recording?.stop();
    const all = network.hosts.flatMap((host) => network.pids(host)).map((pid) => ({ pid, ...programOf(pid) }));
    // First what would start PostgreSQL again, then PostgreSQL in order: so its shared memory is given back.
    for (const { pid, name } of all) if (name !== POSTGRES) sendSignal(pid, 'SIGKILL');
    const servers = new Set(all.filter(({ name }) => name === POSTGRES).map(({ pid }) => pid));
    const postmasters = all.filter(({ pid, parent }) => servers.has(pid) && !servers.has(parent));
    for (const { pid } of postmasters) sendSignal(pid, 'SIGQUIT');
    await waitUntil(() => postmasters.every(({ pid }) => !sendSignal(pid, 0)), STOP_MS, 20);
  } finally {
    network.remove();
    const left = await killBelow(place.directory);
    if (left.length > 0) place.say(`these processes could not be ended: ${left.join(', ')}`);
    else if (parts.keep) place.say(`kept: ${place.directory}`);
    else rmSync(place.directory, { recursive: true, force: true });
  }
}

const POSTGRES = 'postgres';

/** Name and parent; empty when the process is gone. Source: proc(5), /proc/PID/stat. */
function programOf(pid: number): { readonly name: string; readonly parent: number } {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, 'utf8');
    const end = stat.lastIndexOf(')');
    return { name: stat.slice(stat.indexOf('(') + 1, end), parent: Number(stat.slice(end + 2).split(' ')[1]) };
  } catch {
    // Gone between the listing and the look.
    return { name: '', parent: 0 };
  }
}

/** What is under way goes on in the background until the hosts are removed below it. */
async function unlessAborted<T>(work: Promise<T>, signal: AbortSignal): Promise<T> {
  signal.throwIfAborted();
  const ended = new AbortController();
  const aborted = new Promise<never>((_, reject) => {
    signal.addEventListener('abort', () => reject(signal.reason instanceof Error ? signal.reason : new Error('interrupted')), {
      once: true,
      signal: ended.signal,
    });
  });
  try {
    return await Promise.race([work, aborted]);
  } finally {
    ended.abort();
  }
}
