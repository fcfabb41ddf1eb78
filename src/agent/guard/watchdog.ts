/**
 * The kernel's watchdog device, kept by the guard: when nobody writes to it for its time, the machine is reset.
 *
 * Modes: off → (open) → armed → (release) → off, or armed → failed when a write fails.
 *
 * Invariant: the device is fed only while the guard is armed and its deadline lies ahead, and is let go only when no process of the data directory is left.
 * Because: what the watchdog is for is a fence that does not end (a process that cannot be killed, a guard that is frozen, a kernel that hangs); to let it
 *   go before the last process is gone would leave a writer behind (Z25, Q34). Broken if: `feed` is called by a timer of its own.
 * *Source:* Linux, Documentation/watchdog/watchdog-api.rst (magic close 'V', nowayout), sysfs-class-watchdog; wdctl(8) of util-linux.
 */
import { execFile } from 'node:child_process';
import { type FileHandle, open, readFile } from 'node:fs/promises';
import { basename, join } from 'node:path';
import { NO_WATCHDOG, type WatchdogConfig, type WatchdogStatus } from './protocol.ts';

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
  /** Opens the device unless it is open. Never rejects; `status` says what came of it. */
  open(config: WatchdogConfig): Promise<void>;
  /** Returns at once. A write that fails makes it `failed`. */
  feed(): void;
  /** No process is left that could write, or the role was given up. */
  release(): Promise<void>;
}

/** It answers within milliseconds; a driver that hangs must not keep the guard from its own work. */
const WDCTL_LIMIT_MS = 1000;

export function createWatchdog(openDevice: OpenWatchdog = openWatchdogDevice): Watchdog {
  let device: OpenDevice | null = null;
  let status: WatchdogStatus = NO_WATCHDOG;
  let opening: Promise<void> | null = null;
  let feeding = false;

  const openOnce = async (config: WatchdogConfig): Promise<void> => {
    try {
      const opened = await openDevice(config);
      device = opened;
      const time = opened.timeoutSeconds;
      status = { state: 'armed', detail: time === null ? `${config.device}, its time is not known` : `${config.device}, ${time} s` };
      if (config.mode === 'required' && (time === null || time > config.timeoutSeconds)) {
        await letGo();
        status = {
          state: 'failed',
          detail: `${config.device} resets after ${time ?? 'an unknown number of'} s, and at most ${config.timeoutSeconds} s are allowed`,
        };
      }
    } catch (cause) {
      status = { state: 'failed', detail: cause instanceof Error ? cause.message : String(cause) };
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
      status = { state: 'failed', detail: `it could not be let go: ${cause instanceof Error ? cause.message : String(cause)}` };
    }
  };
  return {
    status: () => status,
    open: (config) => {
      if (device !== null) return Promise.resolve();
      opening ??= openOnce(config).finally(() => {
        opening = null;
      });
      return opening;
    },
    feed: () => {
      const open = device;
      // One write at a time: a device that hangs must not fill the queue, and its time runs.
      if (open === null || feeding) return;
      feeding = true;
      open
        .feed()
        .catch((cause: unknown) => {
          if (device === open) status = { state: 'failed', detail: cause instanceof Error ? cause.message : String(cause) };
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
