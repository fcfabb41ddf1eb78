/**
 * The kernel's watchdog device, kept by the guard: when nobody writes to it for its time, the machine is reset.
 *
 * Modes: off → (open) → armed → (release) → off, or armed → failed when a write fails. A device that is asked for another time is let go and opened again.
 *
 * Invariant: the device is fed only while the guard is armed and its deadline lies ahead, and is let go only when no process of the data directory is left.
 * A device whose time fits into the lease is fed only where it would then still reset the host before the store can give the lease to another node. One
 * that is slower is fed until the deadline, and is told as `late`; where it is required, it does not serve.
 * Because: what the watchdog is for is a fence that does not end (a process that cannot be killed, a guard that is frozen, a kernel that hangs); to let it
 *   go before the last process is gone would leave a writer behind (Z25, Q34). Broken if: `feed` is called by a timer of its own.
 * *Source:* Linux, Documentation/watchdog/watchdog-api.rst (magic close 'V', nowayout), sysfs-class-watchdog; wdctl(8) of util-linux.
 */
import { execFile } from 'node:child_process';
import { type FileHandle, open, readFile } from 'node:fs/promises';
import { basename, join } from 'node:path';
import { type MonoMs, addMono } from '../../core/ids.ts';
import { type Armed, NO_WATCHDOG, type WatchdogConfig, type WatchdogStatus } from './protocol.ts';

export interface OpenDevice {
  /** Seconds without a write after which the machine is reset; null when the driver does not tell. */
  readonly timeoutSeconds: number | null;
  feed(): Promise<void>;
  /** Disarms and closes it. */
  release(): Promise<void>;
}

/** Opens it, which starts its time. Rejects with the reason in words; the device is not running then. */
export type OpenWatchdog = (config: WatchdogConfig) => Promise<OpenDevice>;

export interface Watchdog {
  status(): WatchdogStatus;
  /** Opens the device unless it is open for that time. Never rejects; `status` says what came of it. */
  open(config: WatchdogConfig): Promise<void>;
  /** While the deadline of `armed` lies ahead. Returns at once. A write that fails makes it `failed`. */
  feed(armed: Pick<Armed, 'deadline' | 'lease'>, now: MonoMs): void;
  /** No process is left that could write, or the role was given up. */
  release(): Promise<void>;
}

/** It answers within milliseconds; a driver that hangs must not keep the guard from its own work. */
const WDCTL_LIMIT_MS = 1000;

/**
 * The longest time of a device, in whole seconds, with which a host is reset before another node can get the lease, and not while renewals come: each of
 * them needs some time to arrive. At least one second: devices know no less.
 */
export function longestWatchdogSeconds({ ttlMs, renewMs }: { readonly ttlMs: number; readonly renewMs: number }): number {
  return Math.max(1, Math.floor((ttlMs - renewMs) / 1000));
}

/** Pure. Devices whose time is not known, or too long, are late. Null: an agent that did not say how long the lease is. */
function isLate(timeoutSeconds: number | null, lease: Armed['lease']): boolean {
  return lease !== null && (timeoutSeconds === null || timeoutSeconds > longestWatchdogSeconds(lease));
}

export function createWatchdog(openDevice: OpenWatchdog = openWatchdogDevice): Watchdog {
  let device: OpenDevice | null = null;
  let openedFor: number | null = null;
  let status: WatchdogStatus = NO_WATCHDOG;
  let opening: Promise<void> | null = null;
  let feeding = false;

  const openOnce = async (config: WatchdogConfig): Promise<void> => {
    try {
      const opened = await openDevice(config);
      device = opened;
      openedFor = config.timeoutSeconds;
      const time = opened.timeoutSeconds;
      status = { state: 'armed', detail: time === null ? `${config.device}, its time is not known` : `${config.device}, ${time} s`, late: false };
      if (config.mode === 'required' && (time === null || time > config.timeoutSeconds)) {
        await letGo();
        status = {
          state: 'failed',
          detail: `${config.device} resets after ${time ?? 'an unknown number of'} s, and at most ${config.timeoutSeconds} s are allowed`,
          late: false,
        };
      }
    } catch (cause) {
      status = failed(cause);
    }
  };
  const letGo = async (): Promise<void> => {
    const open = device;
    if (open === null) return;
    device = null;
    status = NO_WATCHDOG;
    try {
      await open.release();
    } catch (cause) {
      status = { state: 'failed', detail: `it could not be let go: ${failed(cause).detail}`, late: false };
    }
  };
  return {
    status: () => status,
    open: (config) => {
      if (device !== null && openedFor === config.timeoutSeconds) return Promise.resolve();
      opening ??= (device === null ? openOnce(config) : letGo().then(() => openOnce(config))).finally(() => {
        opening = null;
      });
      return opening;
    },
    feed: ({ deadline, lease }, now) => {
      const open = device;
      if (open === null) return;
      const late = isLate(open.timeoutSeconds, lease);
      if (status.state === 'armed' && status.late !== late) status = { ...status, late };
      // One write at a time: a device that hangs must not fill the queue, and its time runs.
      if (feeding) return;
      const tooFar = lease !== null && !late && addMono(now, (open.timeoutSeconds ?? 0) * 1000) > addMono(deadline, lease.marginMs);
      if (tooFar) return;
      feeding = true;
      open
        .feed()
        .catch((cause: unknown) => {
          if (device === open) status = failed(cause);
        })
        .finally(() => {
          feeding = false;
        });
    },
    release: async () => {
      await opening;
      await letGo();
    },
  };
}

function failed(cause: unknown): WatchdogStatus {
  return { state: 'failed', detail: cause instanceof Error ? cause.message : String(cause), late: false };
}

/** The real device. `nowayout` drivers are refused: they could never be let go, so that every planned stop would reset the host. */
async function openWatchdogDevice(config: WatchdogConfig): Promise<OpenDevice> {
  const name = basename(config.device) === 'watchdog' ? 'watchdog0' : basename(config.device);
  const about = (file: string): Promise<string | null> => readOrNull(join('/sys/class/watchdog', name, file));
  if ((await about('nowayout')) === '1') throw new Error(`the driver of ${config.device} was loaded with nowayout: it could never be let go`);
  // Node.js has no ioctl; wdctl sets the time and lets the device go again. Where it is missing the driver's own time counts.
  await new Promise<void>((resolve) => {
    const argv = ['--settimeout', String(config.timeoutSeconds), config.device];
    execFile('wdctl', argv, { timeout: WDCTL_LIMIT_MS, killSignal: 'SIGKILL', cwd: '/' }, () => resolve());
  });
  const handle: FileHandle = await open(config.device, 'w');
  const seconds = Number(await about('timeout'));
  return {
    timeoutSeconds: Number.isInteger(seconds) && seconds > 0 ? seconds : null,
    feed: async () => void (await handle.write('\0')),
    release: async () => {
      try {
        await handle.write('V');
      } finally {
        await handle.close();
      }
    },
  };
}

async function readOrNull(path: string): Promise<string | null> {
  try {
    return (await readFile(path, 'utf8')).trim();
  } catch (cause) {
    if (cause instanceof Error && 'code' in cause) return null;
    throw cause;
  }
}
