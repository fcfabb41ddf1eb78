/** Lets clients of one port in: limits, login, cancel requests. */
import { randomBytes } from 'node:crypto';
import type { Logger } from '../base/log.ts';
import { type Failure, type Result, err, ok } from '../core/result.ts';
import { buildError } from '../wire/backend.ts';
import type { CancelKey } from '../wire/startup.ts';
import { type Io, type Opening, listen } from './io/door.ts';
import type { ByteStream } from './io/stream.ts';
import { sendCancel } from './login/backend.ts';
import { type ClientArrival, type ClientTls, receiveClient } from './login/client-login.ts';
import type { Secrets } from './login/secrets.ts';
import { SessionMemory } from './memory.ts';
import type { RulesCache } from './rules.ts';
import type { Port, PortKind } from './port.ts';
import { ReadSession } from './read-session.ts';
import { Session } from './session.ts';
import { SplitSession } from './split-session.ts';

/** A door that lets logged-in clients in. */
interface DoorOptions {
  readonly host: string;
  readonly number: number;
  readonly io: Io;
  readonly tls: ClientTls | null;
  readonly secrets: Secrets;
  readonly limits: { readonly maxClients: number; readonly loginMs: number; readonly connectMs: number };
  readonly log: Logger;
}

export interface DoormanOptions extends DoorOptions {
  readonly port: Port;
  /** For connections to nodes. */
  readonly ca: string | null;
  readonly rules: RulesCache;
  /** Sessions of all ports: a cancel request may come in on any. */
  readonly everybody: () => readonly Session[];
}

export interface Doorman {
  readonly port: number;
  sessions(): readonly Session[];
  close(): void;
}

const KINDS = { write: Session, read: ReadSession, split: SplitSession } as const satisfies Record<PortKind, typeof Session>;

type Guest = Extract<ClientArrival, { kind: 'session' }>;

/** Clients that are logging in, beside those who are in. */
const MAX_ARRIVING = 500;

/** Error `proxy.port`: the address cannot be used. */
export async function openDoorman(options: DoormanOptions): Promise<Result<Doorman, Failure>> {
  const { port, rules } = options;
  let counter = randomBytes(4).readInt32BE() & 0x3fffffff;
  const opened = await openDoor(options, {
    count: () => port.sessions.size,
    cancel: (key) => cancel(options, key),
    admit: ({ login, stream, rest }) => {
      counter = (counter + 1) & 0x7fffffff;
      const Kind = login.replication ? Session : KINDS[port.kind];
      const memory = new SessionMemory(rules.of(login.database), login);
      port.add(new Kind({ host: port.host, login, client: stream, processId: counter, memory, rest }));
    },
  });
  return opened.ok ? ok({ ...opened.value, sessions: () => [...port.sessions] }) : opened;
}

/** Those of `users` who have logged in are given to `serve`; others are refused. Error `proxy.port`. */
export async function openAdminDoor(
  options: DoorOptions & { readonly users: readonly string[]; readonly serve: (stream: ByteStream, user: string) => void },
): Promise<Result<Pick<Doorman, 'port' | 'close'>, Failure>> {
  return openDoor(options, {
    count: () => 0,
    cancel: () => Promise.resolve(),
    admit: ({ login, stream }) => {
      if (options.users.includes(login.user)) {
        options.serve(stream, login.user);
        return;
      }
      stream.write(buildError({ severity: 'FATAL', sqlState: '28000', message: `"${login.user}" is none of adminUsers in proxy.yaml` }));
      stream.end();
    },
  });
}

interface Inside {
  readonly count: () => number;
  readonly admit: (guest: Guest) => void;
  readonly cancel: (key: CancelKey) => Promise<void>;
}

async function openDoor(options: DoorOptions, inside: Inside): Promise<Result<Pick<Doorman, 'port' | 'close'>, Failure>> {
  const { log, limits } = options;
  let arriving = 0;
  const full = (): string | null => {
    if (inside.count() >= limits.maxClients) return `the limit of ${limits.maxClients} clients is reached`;
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
      limitMs: limits.loginMs,
      findSecret: options.secrets.find,
    }).finally(() => {
      arriving -= 1;
    });
    if (arrival.kind === 'session') inside.admit(arrival);
    // The end tells its sender that the request was delivered: it cannot hit what the client sends afterwards.
    else if (arrival.kind === 'cancel') await inside.cancel(arrival.key).finally(() => opening.close());
    else log.info({ sqlState: arrival.sqlState, client: opening.remote }, `a client was refused: ${arrival.why}`);
  };
  const onOpen = (opening: Opening): void => {
    receive(opening).catch((cause: unknown) => {
      opening.close();
      log.error({ error: cause }, 'receiving a client broke');
    });
  };
  try {
    const listener = await listen({ host: options.host, port: options.number, onOpen });
    return ok({ port: listener.port, close: listener.close });
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
}

/** A wrong key is ignored without an answer, as a server does. */
async function cancel(options: DoormanOptions, key: CancelKey): Promise<void> {
  const session = options.everybody().find((one) => one.key.processId === key.processId && Buffer.compare(one.key.secret, key.secret) === 0);
  const backend = session?.active ?? null;
  if (session?.waiting === true && session.welcomed) session.giveUp('canceling statement due to user request', 'it waited for a connection', '57014');
  if (session === undefined || backend === null || backend.key === null) return;
  await session.whileCancelling(sendCancel(backend.target, backend.key, { ca: options.ca, limitMs: options.limits.connectMs }));
}
