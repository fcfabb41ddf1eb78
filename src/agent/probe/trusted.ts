/** Trusted addresses: does this node reach the rest of the world? */
import { existsSync } from 'node:fs';
import { Socket, isIP } from 'node:net';
import { runProcess } from '../../base/process.ts';
import { errnoOf } from '../postgres/failure.ts';

export interface TrustedAnswer {
  /** Null: nothing is configured, or no address could be asked at all (no `ping`, no process left): that is no proof of isolation (I28). */
  readonly reachable: boolean | null;
  /** Which address answered first, or why none could be asked. */
  readonly detail: string;
}

/**
 * True as soon as one address answers. `host:port` is asked by TCP (a refusal is an answer too), a bare address by ICMP.
 * Never rejects; takes at most `limitMs` plus a few milliseconds.
 */
export async function askTrusted(addresses: readonly string[], { limitMs }: { readonly limitMs: number }): Promise<TrustedAnswer> {
  if (addresses.length === 0) return { reachable: null, detail: 'none configured' };
  const answers = await Promise.all(addresses.map(async (address) => ({ address, result: await askOne(address, limitMs) })));
  const good = answers.find((answer) => answer.result === 'answered');
  if (good !== undefined) return { reachable: true, detail: good.address };
  const impossible = answers.filter((answer) => answer.result === 'impossible');
  if (impossible.length === answers.length) return { reachable: null, detail: 'no address could be asked' };
  return { reachable: false, detail: `no answer from ${addresses.join(', ')}` };
}

type Answer = 'answered' | 'silent' | 'impossible';

function askOne(address: string, limitMs: number): Promise<Answer> {
  const match = /^(?:\[([^\]]+)\]|([^:]+)):(\d+)$/.exec(address);
  const host = match?.[1] ?? match?.[2];
  return host === undefined ? askByPing(address, limitMs) : askByTcp(host, Number(match?.[3]), limitMs);
}

function askByTcp(host: string, port: number, limitMs: number): Promise<Answer> {
  return new Promise((resolve) => {
    const socket = new Socket();
    const end = (answer: Answer): void => {
      clearTimeout(timer);
      socket.destroy();
      resolve(answer);
    };
    const timer = setTimeout(() => end('silent'), limitMs);
    socket.once('connect', () => end('answered'));
    // A refusal was sent by the trusted host itself; everything else (unreachable, no route) is said by our own side.
    socket.once('error', (cause) =>
      end(
        errnoOf(cause) === 'ECONNREFUSED' || errnoOf(cause) === 'ECONNRESET'
          ? 'answered'
          : ['EMFILE', 'ENFILE', 'ENOBUFS', 'ENOMEM'].includes(errnoOf(cause) ?? '')
            ? 'impossible'
            : 'silent',
      ),
    );
    socket.connect(port, host);
  });
}

const PING = ['/usr/bin/ping', '/bin/ping', '/usr/sbin/ping'];

/** iputils: exit code 0: answered, 1: no answer, 2: another error (no permission, unknown host). Source: ping(8). */
async function askByPing(address: string, limitMs: number): Promise<Answer> {
  const program = PING.find((path) => existsSync(path));
  if (program === undefined || (isIP(address) === 0 && !/^[A-Za-z0-9.-]+$/.test(address))) return 'impossible';
  const result = await runProcess([program, '-n', '-q', '-c', '1', '-W', String(Math.max(0.05, limitMs / 1000)), '--', address], {
    timeoutMs: limitMs + 100,
    maxOutputBytes: 4096,
  });
  if (!result.ok) return result.error.kind === 'timeout' ? 'silent' : 'impossible';
  return result.value.exitCode === 0
    ? 'answered'
    : result.value.exitCode === 1
      ? 'silent'
      : /unreachable/i.test(result.value.stderr)
        ? 'silent'
        : 'impossible';
}
