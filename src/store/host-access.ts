/**
 * A host's access to a store that may be moved: follows the mark of a move, gets itself ready, says so, and goes over.
 *
 * What the join wrote stays in the configuration file. After a move the place of the store lies beside the certificate, in `store-moved.json`, and counts
 * as long as the configuration names the same endpoints as then: whoever edits them is believed again.
 */
import { readFileSync } from 'node:fs';
import { rm } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import type { Clock } from '../base/clock.ts';
import { readTextIfThere, writeFileAtomic } from '../base/files.ts';
import { sendHttp } from '../base/http.ts';
import type { Logger } from '../base/log.ts';
import { type Decoded, decodeJson, encodeJson, list, literal, nullable, object, text, withDefault } from '../core/decode.ts';
import { type Result, err, ok } from '../core/result.ts';
import type { StoreAccess } from '../core/store-access.ts';
import { type AccessOptions, openAccess } from './access.ts';
import { followPrefix } from './follow.ts';
import { createMovableStore } from './movable.ts';
import { MOVE_KEY, type MoveRecord, readMove, readyKey } from './move-record.ts';
import { followRestores } from './restored.ts';
import type { Store } from './store.ts';

/** `GET` of the API: where the store is that this server is moving to, or has moved to. */
const PATH = '/api/v1/store/access';
const REQUEST_MS = 5000;
const RETRY_MS = 500;

const joinedTo = object({ server: text, cluster: text, node: text });
const grant = object({
  endpoints: list(text),
  authority: withDefault(nullable(text), null),
  username: withDefault(nullable(text), null),
  password: withDefault(nullable(text), null),
});
const movedFile = object({
  version: literal(1),
  /** The endpoints of the configuration that this replaces. */
  configured: list(text),
  endpoints: list(text),
  authority: nullable(text),
  username: nullable(text),
  passwordFile: nullable(text),
});

export interface HostAccessOptions extends AccessOptions {
  readonly access: StoreAccess;
  readonly kind: 'agent' | 'proxy';
  /** `CLUSTER/NODE`. */
  readonly name: string;
  readonly clock: Clock;
  readonly log: Logger;
  /** The store in use is another one now. */
  readonly onMoved: () => void;
}

export interface HostAccess {
  readonly store: Store;
  close(): Promise<void>;
}

interface Prepared {
  readonly id: string;
  readonly store: Store;
  readonly file: Decoded<typeof movedFile>;
}

interface Context extends HostAccessOptions {
  readonly directory: string;
  readonly movable: ReturnType<typeof createMovableStore>;
  readonly signal: AbortSignal;
  prepared: Prepared | null;
  /** The move that was made last. */
  done: string | null;
}

/** Throws for key files that cannot be read, like `openAccess`. Without a certificate of a join nothing is followed: the store stays where the configuration says. */
export function openHostAccess(options: HostAccessOptions): HostAccess {
  const directory = options.access.cert === null ? '' : dirname(options.access.cert);
  const movable = createMovableStore(openAccess(presentAccess(options.access, directory), options));
  const stopping = new AbortController();
  const context: Context = { ...options, directory, movable, signal: stopping.signal, prepared: null, done: null };
  const joined = directory !== '' && readTextIfThere(join(directory, 'server.json')) !== null;
  const following = Promise.all([
    joined ? follow(context) : null,
    followRestores({
      ...options,
      movable,
      open: () => openAccess(presentAccess(context.access, context.directory), context),
      signal: stopping.signal,
    }),
  ]);
  return {
    store: movable.store,
    close: async () => {
      stopping.abort();
      context.prepared?.store.close();
      movable.store.close();
      await following;
    },
  };
}

/** What the configuration says, or where the store was moved to since. */
export function presentAccess(access: StoreAccess, directory: string): StoreAccess {
  const content = directory === '' ? null : readTextIfThere(movedPath(directory));
  const moved = content === null ? null : decodeJson(movedFile, content);
  if (moved === null || !moved.ok || JSON.stringify(moved.value.configured) !== JSON.stringify(access.endpoints)) return access;
  const { endpoints, authority, username, passwordFile } = moved.value;
  return { ...access, endpoints, authority, username, passwordFile };
}

function movedPath(directory: string): string {
  return join(directory, 'store-moved.json');
}

async function follow(context: Context): Promise<void> {
  const { movable, clock, log, signal } = context;
  let latest: MoveRecord | null = null;
  let wake = new AbortController();
  const take = (record: MoveRecord | null): void => {
    latest = record;
    wake.abort();
  };
  const following = followPrefix({
    store: movable.store,
    prefix: MOVE_KEY,
    clock,
    log,
    signal,
    onListing: (listing) => take(readMove(listing.kvs.find((kv) => kv.key === MOVE_KEY))),
    onBatch: (batch) => {
      for (const event of batch.events) if (event.kind === 'put' && event.kv.key === MOVE_KEY) take(readMove(event.kv));
    },
    onLost: () => undefined,
  });
  while (!signal.aborted) {
    wake = new AbortController();
    const record: MoveRecord | null = latest;
    const again = record === null ? null : await step(context, record);
    if (again === null && latest === record) await clock.sleep(60_000, AbortSignal.any([wake.signal, signal]));
    else if (again !== null) await clock.sleep(again, AbortSignal.any([wake.signal, signal]));
  }
  await following;
}

/** Null: nothing more to do for this record. Else when to try again. */
async function step(context: Context, record: MoveRecord): Promise<number | null> {
  const { movable, log } = context;
  if (record.id === context.done) return null;
  if (record.phase === 'aborted') {
    context.prepared?.store.close();
    const { authority = null, passwordFile = null } = context.prepared?.file ?? {};
    for (const file of [authority, passwordFile]) if (file !== null) await rm(file, { force: true });
    context.prepared = null;
    return null;
  }
  if (context.prepared?.id !== record.id) {
    const prepared = await prepare(context, record);
    const key = readyKey(record.id, context.kind, context.name);
    const value = encodeJson({ version: 1, ready: prepared.ok, problem: prepared.ok ? null : prepared.error });
    if (record.phase === 'prepare') await movable.store.txn([], [{ kind: 'put', key, value }]);
    if (!prepared.ok) {
      log.warn({ move: record.id }, `this host cannot use the store that is to be the next: ${prepared.error}`);
      return RETRY_MS;
    }
    context.prepared = prepared.value;
  }
  if (record.phase !== 'moved') return null;
  const { store, file } = context.prepared;
  // Before it is used: a host that is restarted between the two comes here again by the mark in the old store.
  await writeFileAtomic(movedPath(context.directory), `${encodeJson(file)}\n`);
  context.prepared = null;
  context.done = record.id;
  movable.replace(store);
  log.warn({ move: record.id, endpoints: file.endpoints, incarnation: record.to }, 'the store was moved; this host uses the new one from now on');
  context.onMoved();
  return null;
}

/** Fetches address and login from the server, by this host's certificate, and tries them. The error is for people. */
async function prepare(context: Context, record: MoveRecord): Promise<Result<Prepared, string>> {
  const { access, directory } = context;
  try {
    const joined = decodeJson(joinedTo, readTextIfThere(join(directory, 'server.json')) ?? '');
    if (!joined.ok || access.ca === null || access.cert === null || access.key === null) return err('this host was not joined');
    const read = (path: string): string => readFileSync(path, 'utf8');
    const sent = await sendHttp({
      url: `${joined.value.server.replace(/\/+$/, '')}${PATH}`,
      method: 'GET',
      headers: {},
      tls: { ca: read(access.ca), cert: read(access.cert), key: read(access.key), expect: 'server' },
      timeoutMs: REQUEST_MS,
      maxBytes: 256 * 1024,
    });
    if (!sent.ok) return err(`${joined.value.server}: ${sent.error.message}`);
    const answer = decodeJson(grant, sent.value.body.toString('utf8'));
    if (sent.value.status !== 200 || !answer.ok)
      return err(`${joined.value.server} did not say where the store is (HTTP status ${sent.value.status})`);
    const { endpoints, authority, username, password } = answer.value;
    const at = (kind: string): string => join(directory, `store-${record.id}.${kind}`);
    if (authority !== null) await writeFileAtomic(at('crt'), authority);
    if (password !== null) await writeFileAtomic(at('password'), `${password}\n`);
    const file: Prepared['file'] = {
      version: 1,
      configured: access.endpoints,
      endpoints,
      authority: authority === null ? null : at('crt'),
      username,
      passwordFile: password === null ? null : at('password'),
    };
    const store = openAccess({ ...access, ...pick(file) }, context);
    // A linearizable read with the login: what every later call needs.
    const [status, mark] = [await store.status(), await store.get(MOVE_KEY)];
    if (status.ok && mark.ok && status.value.incarnation === record.to) return ok({ id: record.id, store, file });
    store.close();
    if (!status.ok) return err(`${endpoints.join(', ')}: ${status.error.message}`);
    if (!mark.ok) return err(`${endpoints.join(', ')}: ${mark.error.message}`);
    return err(`${endpoints.join(', ')} is the store ${status.value.incarnation}, and ${record.to} was announced`);
  } catch (cause) {
    return err(cause instanceof Error ? cause.message : String(cause));
  }
}

function pick({
  endpoints,
  authority,
  username,
  passwordFile,
}: Prepared['file']): Pick<StoreAccess, 'endpoints' | 'authority' | 'username' | 'passwordFile'> {
  return { endpoints, authority, username, passwordFile };
}
