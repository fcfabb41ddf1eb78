/**
 * Tells systemd how far a role is. Nothing happens where NOTIFY_SOCKET is not set.
 * Source: sd_notify(3), systemd-notify(1). The unit needs NotifyAccess=all, since the message comes from a child process.
 */
import { execFile } from 'node:child_process';

/** The message is a datagram to a local socket; a service manager that does not take it in this time is not waited for. */
const LIMIT_MS = 2000;

export type NotifyState = 'ready' | 'stopping';

/**
 * Resolves true when the message was handed over, false when there is nobody to tell or it failed: never an error,
 * since a role must not end because of its supervisor's bookkeeping.
 */
export function notifySystemd(
  state: NotifyState,
  options: { readonly status?: string; readonly env?: Readonly<Record<string, string | undefined>>; readonly command?: string } = {},
): Promise<boolean> {
  const env = options.env ?? process.env;
  if (env['NOTIFY_SOCKET'] === undefined || env['NOTIFY_SOCKET'] === '') return Promise.resolve(false);
  const args = ['--no-block', `--pid=${process.pid}`, state === 'ready' ? '--ready' : 'STOPPING=1'];
  if (options.status !== undefined) args.push(`--status=${options.status}`);
  return new Promise((resolve) => {
    execFile(options.command ?? 'systemd-notify', args, { timeout: LIMIT_MS, killSignal: 'SIGKILL', env }, (error) => resolve(error === null));
  });
}
