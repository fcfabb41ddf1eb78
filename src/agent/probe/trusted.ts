/** The trusted addresses gate: a host that reaches none of them may itself be the one that is cut off (S21, H17). */
import { connect } from 'node:net';
import { runProcess } from '../../base/process.ts';

/**
 * True when at least one address answers within the limit. `host:port` is asked by TCP (a refusal is an answer, too), a bare host by one ping.
 * A ping that could not be started proves nothing and counts as an answer: a full process table here must not look like a lost gateway (I28).
 * An empty list is true.
 */
export async function trustedReachable(addresses: readonly string[], timeoutMs: number): Promise<boolean> {
  if (addresses.length === 0) return true;
  const answers = await Promise.all(addresses.map((address) => answersOnce(address, timeoutMs)));
  return answers.some((answered) => answered);
}

function answersOnce(address: string, timeoutMs: number): Promise<boolean> {
  const tcp = /^\[?([^\]]+)\]?:(\d{1,5})$/.exec(address);
  const isIpv6 = address.includes(':') && !address.startsWith('[') && address.split(':').length > 2;
  return tcp !== null && !isIpv6 ? answersTcp(tcp[1] ?? '', Number(tcp[2]), timeoutMs) : answersPing(address, timeoutMs);
}

function answersTcp(host: string, port: number, timeoutMs: number): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect({ host, port });
    const end = (answered: boolean): void => {
      clearTimeout(timer);
      socket.destroy();
      resolve(answered);
    };
    const timer = setTimeout(() => end(false), timeoutMs);
    socket.once('connect', () => end(true));
    socket.once('error', (cause: NodeJS.ErrnoException) => end(cause.code === 'ECONNREFUSED'));
  });
}

/** Source: ping(8) of iputils: exit code 0 when an answer came, 1 when none did, 2 for other errors. */
async function answersPing(host: string, timeoutMs: number): Promise<boolean> {
  const seconds = Math.max(1, Math.ceil(timeoutMs / 1000));
  const result = await runProcess(['ping', '-n', '-q', '-c', '1', '-W', String(seconds), '--', host], { timeoutMs: timeoutMs + 200 });
  if (!result.ok) return result.error.kind === 'spawn';
  return result.value.exitCode === 0;
}
