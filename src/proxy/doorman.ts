/** Lets clients of one port in: limits, login, cancel requests. */
import { randomBytes } from 'node:crypto';
import type { Logger } from '../base/log.ts';
import { type Failure, type Result, err, ok } from '../core/result.ts';
import { buildError } from '../wire/backend.ts';
import type { CancelKey } from '../wire/startup.ts';
import { type Io, type Listener, type Opening, listen } from './io/door.ts';
import { sendCancel } from './login/backend.ts';
import { type ClientTls, receiveClient } from './login/client-login.ts';
import type { Secrets } from './login/secrets.ts';
import { SessionMemory } from './memory.ts';
import type { RulesCache } from './rules.ts';
import type { Port } from './port.ts';
import { Session } from './session.ts';
import { SplitSession } from './split-session.ts';

export interface DoormanOptions {
  readonly port: Port;
  readonly host: string;
  readonly number: number;
  readonly io: Io;
  readonly tls: ClientTls | null;
  /** For connections to nodes. */
  readonly ca: string | null;
  readonly secrets: Secrets;
  readonly rules: RulesCache;
  readonly limits: { readonly maxClients: number; readonly loginMs: number; readonly connectMs: number };
  readonly log: Logger;
  /** Sessions of all ports: a cancel request may come in on any. */
  readonly everybody: () => readonly Session[];
}

export interface Doorman {
  readonly port: number;
  sessions(): readonly Session[];
  close(): void;
}

/** Clients that are logging in, beside those who are in. */
const MAX_ARRIVING = 500;

/** Error `proxy.port`: the address cannot be used. */
export async function openDoorman(options: DoormanOptions): Promise<Result<Doorman, Failure>> {
  const { port, log } = options;
  let arriving = 0;
  let counter = randomBytes(4).readInt32BE() & 0x3fffffff;
  const full = (): string | null => {
    if (port.sessions.size >= options.limits.maxClients) return `the limit of ${options.limits.maxClients} clients is reached`;
    return arriving >= MAX_ARRIVING ? 'too many clients are logging in' : null;
  };
  const receive = async (opening: Opening): Promise<void> => {
    const why = full();
    if (why !== null) {
      opening.close(buildError({ severity: 'FATAL', sqlState: '53300', message: `the proxy takes no more clients: ${why}` }));
      return;
    }
    arriving += 1;
    const arrival = await receiveClient(opening, {
      io: options.io,
      tls: options.tls,
      limitMs: options.limits.loginMs,
      findSecret: options.secrets.find,
    }).finally(() => {
      arriving -= 1;
    });
    if (arrival.kind === 'cancel') await cancel(options, arrival.key);
    else if (arrival.kind === 'refused') log.info({ sqlState: arrival.sqlState, client: opening.remote }, `a client was refused: ${arrival.why}`);
    else {
      counter = (counter + 1) & 0x7fffffff;
      const { login, stream, rest } = arrival;
      const Kind = port.kind === 'split' && !login.replication ? SplitSession : Session;
      port.add(
        new Kind({
          host: port.host,
          login,
          client: stream,
          processId: counter,
          memory: new SessionMemory(options.rules.of(login.database), login.replication ? 'a replication connection' : null),
          rest,
        }),
      );
    }
  };
  let listener: Listener;
  try {
    listener = await listen({
      host: options.host,
      port: options.number,
      onOpen: (opening) => {
        receive(opening).catch((cause: unknown) => {
          opening.close();
          log.error({ error: cause }, 'receiving a client broke');
        });
      },
    });
  } catch (cause) {
    return err({
      code: 'proxy.port',
      what: `cannot listen on ${options.host}:${options.number}`,
      cause: cause instanceof Error ? cause.message : String(cause),
      now: 'the proxy does not start',
      remedy: 'end the program that uses the port, or set another one in proxy.yaml',
      retryable: false,
    });
  }
  return ok({ port: listener.port, sessions: () => [...port.sessions], close: listener.close });
}

/** A wrong key is ignored without an answer, as a server does. */
async function cancel(options: DoormanOptions, key: CancelKey): Promise<void> {
  const session = options.everybody().find((one) => one.key.processId === key.processId && Buffer.compare(one.key.secret, key.secret) === 0);
  const backend = session?.active ?? null;
  if (backend === null || backend.key === null) return;
  await sendCancel(backend.target, backend.key, { ca: options.ca, limitMs: options.limits.connectMs });
}
