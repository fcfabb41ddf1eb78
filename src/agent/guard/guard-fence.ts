/**
 * What the guard does at the deadline: close the port and drop the virtual addresses, kill everything, keep PostgreSQL from starting writable, write it down.
 * The disk is touched only after the kill, because a stuck disk is one of the reasons for a fence (I6, Q34).
 */
import { execFile } from 'node:child_process';
import { chown, open, readFile, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { formatWall, monoMs, wallMs } from '../../base/clock.ts';
import { writeFileAtomic } from '../../base/files.ts';
import { parseAddress } from '../../core/address.ts';
import { isInterfaceName } from '../../core/vips.ts';
import { isTableName, renderClose } from '../firewall/rules.ts';
import { killTree } from './kill-tree.ts';
import type { Armed, FenceRecord } from './protocol.ts';

/** nft needs 3 ms. The element has timed out by now anyway, so that the kill does not wait longer for it. */
const NFT_LIMIT_MS = 100;
/** `ip` needs 2 ms. The addresses end by themselves some seconds later, so that the kill does not wait longer for it either. */
const ADDRESS_LIMIT_MS = 100;
/** One round of killing; the guard begins another one when something is left. */
export const KILL_ROUND_MS = 2000;
const DISK_LIMIT_MS = 2000;

export interface FenceOptions {
  readonly stateDirectory: string;
  /** Names of executables that count as server processes; for tests. */
  readonly executables?: readonly string[];
}

/** Never rejects. `complete: false` says which processes are left; the caller goes on with another round. */
export async function fenceNow(armed: Armed, why: string, options: FenceOptions): Promise<FenceRecord> {
  const problems: string[] = [];
  const begin = monoMs();
  const firewall = armed.table === null ? Promise.resolve(null) : closePort(armed.table);
  // Both at the same time: they wait for different programs, and the kill for neither.
  const addresses = within(dropAddresses(armed), ADDRESS_LIMIT_MS);
  const closed = await within(firewall, NFT_LIMIT_MS);
  if (closed.kind === 'late') problems.push('nft did not answer in time');
  else if (closed.value !== null) problems.push(`nft: ${closed.value}`);
  const dropped = await addresses;
  if (dropped.kind === 'late') problems.push('ip did not answer in time');
  else problems.push(...dropped.value);
  const target = { dataDirectory: armed.dataDirectory, postmaster: armed.postmaster };
  const kill = await killTree(options.executables === undefined ? target : { ...target, executables: options.executables }, {
    limitMs: KILL_ROUND_MS,
  });
  return {
    version: 1,
    term: armed.term,
    leaseId: armed.leaseId,
    why,
    at: formatWall(wallMs()),
    complete: kill.complete,
    killed: kill.killed,
    survivors: kill.survivors.map((info) => info.pid),
    durationMs: Math.round(monoMs() - begin),
    problems,
  };
}

/** After the kill: standby.signal and the record on disk. Returns the record with what went wrong; a full or stuck disk does not undo the fence. */
export async function recordFence(armed: Armed, record: FenceRecord, options: FenceOptions): Promise<FenceRecord> {
  const problems = [...record.problems];
  const signalled = await within(ensureStandbySignal(armed.dataDirectory), DISK_LIMIT_MS);
  if (signalled.kind === 'late') problems.push('standby.signal: the disk did not answer in time');
  else if (signalled.value !== null) problems.push(`standby.signal: ${signalled.value}`);
  const full = { ...record, problems };
  const written = await within(writeRecord(join(options.stateDirectory, 'fenced.json'), full), DISK_LIMIT_MS);
  if (written.kind === 'done' && written.value === null) return full;
  return { ...full, problems: [...problems, `fenced.json: ${written.kind === 'late' ? 'the disk did not answer in time' : written.value}`] };
}

/**
 * Makes `standby.signal` with the owner of the data directory and fsyncs it. Null when it stands; a text says why it does not.
 * *Source:* PostgreSQL manual, "Standby Server Operation" (standby.signal).
 */
async function ensureStandbySignal(dataDirectory: string): Promise<string | null> {
  const path = join(dataDirectory, 'standby.signal');
  try {
    const owner = await stat(dataDirectory);
    const file = await open(path, 'a', 0o600);
    try {
      await file.sync();
    } finally {
      await file.close();
    }
    if (process.getuid?.() === 0) await chown(path, owner.uid, owner.gid);
    const directory = await open(dataDirectory, 'r');
    try {
      await directory.sync();
    } finally {
      await directory.close();
    }
    return null;
  } catch (cause) {
    return cause instanceof Error ? cause.message : String(cause);
  }
}

async function writeRecord(path: string, record: FenceRecord): Promise<string | null> {
  try {
    await writeFileAtomic(path, `${JSON.stringify(record)}\n`);
    return null;
  } catch (cause) {
    return cause instanceof Error ? cause.message : String(cause);
  }
}

/** The record of an earlier guard of this state directory; null when there is none or it is not readable as one. */
export async function readFenceFile(stateDirectory: string): Promise<string | null> {
  try {
    return await readFile(join(stateDirectory, 'fenced.json'), 'utf8');
  } catch (cause) {
    if (cause instanceof Error && 'code' in cause && cause.code === 'ENOENT') return null;
    throw cause;
  }
}

function closePort(table: string): Promise<string | null> {
  if (!isTableName(table)) return Promise.resolve(`${table} is no table of ours`);
  return new Promise((resolve) => {
    execFile('nft', [renderClose(table)], { timeout: 1000, killSignal: 'SIGKILL', cwd: '/' }, (error, _stdout, stderr) => {
      resolve(error === null ? null : (stderr.trim().split('\n')[0] ?? '') || error.message);
    });
  });
}

/** What went wrong, for each address; empty when none is left. One that was not there is as good. */
async function dropAddresses(armed: Armed): Promise<readonly string[]> {
  const outcomes = await Promise.all(armed.addresses.map(dropAddress));
  return outcomes.filter((outcome) => outcome !== null);
}

function dropAddress({ address, interface: device }: Armed['addresses'][number]): Promise<string | null> {
  const parsed = parseAddress(address);
  if (parsed === null || !isInterfaceName(device)) return Promise.resolve(`${address} on ${device} is no address of ours`);
  const argv = ['addr', 'del', `${parsed.text}/${parsed.family === 4 ? 32 : 128}`, 'dev', device];
  return new Promise((resolve) => {
    execFile('ip', argv, { timeout: 1000, killSignal: 'SIGKILL', cwd: '/', env: { ...process.env, LC_ALL: 'C' } }, (error, _stdout, stderr) => {
      const gone = error === null || /cannot assign requested address|address not found|cannot find device/i.test(stderr);
      resolve(gone ? null : `ip: ${(stderr.trim().split('\n')[0] ?? '') || error.message}`);
    });
  });
}

type Within<T> = { readonly kind: 'done'; readonly value: T } | { readonly kind: 'late' };

/** The work goes on when it is late; only the wait ends. */
function within<T>(work: Promise<T>, limitMs: number): Promise<Within<T>> {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(() => resolve({ kind: 'late' }), limitMs);
    work.then(
      (value) => {
        clearTimeout(timer);
        resolve({ kind: 'done', value });
      },
      (cause: unknown) => {
        clearTimeout(timer);
        reject(cause instanceof Error ? cause : new Error(String(cause)));
      },
    );
  });
}
