/** Where this server's store is: where server.yaml says, or where it was moved to since; and how the hosts are told. */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import type { Clock } from '../base/clock.ts';
import { readTextIfThere, writeFileAtomic } from '../base/files.ts';
import type { Logger } from '../base/log.ts';
import { type Decoded, decodeJson, encodeJson, list, literal, nullable, object, text } from '../core/decode.ts';
import { type Failure, type Result, err, ok } from '../core/result.ts';
import type { ServerConfig } from '../core/server-config.ts';
import { openAccess } from '../store/access.ts';
import type { EmbeddedStore } from '../store/embedded/server.ts';
import { type MovableStore, createMovableStore } from '../store/movable.ts';
import { abort } from '../store/move.ts';
import { MOVE_KEY, readMove } from '../store/move-record.ts';
import { readPem } from '../store/pem.ts';
import type { Store } from '../store/store.ts';
import type { Authority } from './authority.ts';

/** An etcd. Files are named by their paths. */
const place = object({
  endpoints: list(text),
  ca: nullable(text),
  cert: nullable(text),
  key: nullable(text),
  username: nullable(text),
  passwordFile: nullable(text),
});
export type EtcdPlace = Decoded<typeof place>;
/** Null: the store that this server serves itself. */
export type Place = EtcdPlace | null;

const placeFile = object({
  version: literal(1),
  /** The part `store` of server.yaml that this replaces; when that is edited, it counts again. */
  configured: text,
  present: nullable(place),
  /** A move that was begun: the mark in the present store tells whether it was made. */
  next: nullable(object({ id: text, place: nullable(place) })),
});
type PlaceFile = Decoded<typeof placeFile>;

export interface Grant {
  readonly endpoints: readonly string[];
  readonly authority: string | null;
  readonly username: string | null;
  readonly password: string | null;
}

export interface StorePlace {
  readonly movable: MovableStore;
  present(): Place;
  /** A client of its own for this place, with the server's keys. Throws for files that cannot be read. */
  open(place: Place): Store;
  /** What hosts need for it. `store.files`: a file of it cannot be read. */
  grant(place: Place): Result<Grant, Failure>;
  /** What is told to hosts that ask: during a move the next place. */
  told(): Place;
  /** Durable: a move to this place begins. */
  begin(id: string, next: Place): Promise<void>;
  /** Durable: it was made (the server uses the new store from here on), or given up. */
  settle(outcome: 'moved' | 'given-up', next: Store | null): Promise<void>;
  /** True when this server can serve a store itself. */
  readonly hasEmbedded: boolean;
}

export interface StorePlaceOptions {
  readonly config: ServerConfig;
  readonly authority: Authority;
  readonly clock: Clock;
  readonly log: Logger;
  /** Of the server's own store; null when server.yaml names an etcd. */
  readonly embedded: EmbeddedStore | null;
  /** As this server and as hosts reach the own store. */
  readonly own: { readonly here: string; readonly hosts: string; readonly spares: readonly string[] };
}

const SETTLE_TRIES = 10;
const SETTLE_PAUSE_MS = 500;

/** Opens the store that is in use, and ends a move that a former run of this server left unfinished. Throws for key files that cannot be read. */
export async function openStorePlace(options: StorePlaceOptions): Promise<StorePlace> {
  const { config, authority, clock, log, embedded, own } = options;
  const file = join(config.dataDirectory, 'store.json');
  const configured = JSON.stringify(config.store);
  let held = readPlace(file, configured, config, log);
  const write = async (next: PlaceFile): Promise<void> => {
    held = next;
    await writeFileAtomic(file, `${encodeJson(next)}\n`);
  };
  const open = (at: Place): Store => {
    if (at === null && embedded === null) throw new Error('server.yaml names an etcd: this server serves no store itself');
    const files = authority.files;
    if (at === null) {
      const access = { endpoints: [own.here], ...files, authority: null, username: null, passwordFile: null };
      return openAccess(access, { clock, ...(embedded === null ? {} : { openChannel: embedded.openChannel }) });
    }
    const shown = at.cert === null || at.key === null ? files : { cert: at.cert, key: at.key };
    return openAccess(
      { ...at, ca: files.ca, cert: shown.cert, key: shown.key, authority: at.ca },
      { clock, near: [config.listen.host, ...config.names] },
    );
  };
  const movable = createMovableStore(open(held.present));
  const result: StorePlace = {
    movable,
    hasEmbedded: embedded !== null,
    present: () => held.present,
    told: () => (held.next === null ? held.present : held.next.place),
    open,
    grant: (at) => {
      if (at === null)
        return ok({ endpoints: [own.hosts, ...own.spares.filter((url) => url !== own.hosts)], authority: null, username: null, password: null });
      try {
        return ok({
          endpoints: at.endpoints,
          authority: at.ca === null ? null : readPem(at.ca).toString('utf8'),
          username: at.username,
          password: at.passwordFile === null ? null : readFileSync(at.passwordFile, 'utf8').trim(),
        });
      } catch (cause) {
        return err({
          code: 'store.files',
          what: 'a file for the store cannot be read',
          cause: cause instanceof Error ? cause.message : String(cause),
          now: 'Nothing was given out.',
          remedy: 'Give the server the right to read the authority and the password of the store.',
          retryable: true,
        });
      }
    },
    begin: (id, next) => write({ ...held, next: { id, place: next } }),
    settle: async (outcome, next) => {
      await write({ ...held, present: outcome === 'moved' && held.next !== null ? held.next.place : held.present, next: null });
      if (next !== null) movable.replace(next);
    },
  };
  if (held.next !== null) await settleUnfinished(result, held.next, options);
  return result;
}

function readPlace(file: string, configured: string, config: ServerConfig, log: Logger): PlaceFile {
  const { store } = config;
  const { engine: _engine, ...etcd } =
    store.engine === 'etcd' ? store : { engine: null, endpoints: [], ca: null, cert: null, key: null, username: null, passwordFile: null };
  const fromConfig: PlaceFile = { version: 1, configured, present: store.engine === 'etcd' ? etcd : null, next: null };
  const content = readTextIfThere(file);
  if (content === null) return fromConfig;
  const decoded = decodeJson(placeFile, content);
  if (decoded.ok && decoded.value.configured === configured) return decoded.value;
  log.warn(
    { file },
    decoded.ok ? 'the store of server.yaml was changed since it was moved: server.yaml counts' : `${file} cannot be read: server.yaml counts`,
  );
  return fromConfig;
}

/** The mark in the store that was to be left tells what became of the move. Without an answer the old store stays in use: it is sealed, so that nothing is decided in it. */
async function settleUnfinished(
  held: StorePlace,
  next: { readonly id: string; readonly place: Place },
  { clock, log }: StorePlaceOptions,
): Promise<void> {
  for (let tries = 0; tries < SETTLE_TRIES; tries++) {
    const read = await held.movable.store.get(MOVE_KEY);
    if (!read.ok) {
      await clock.sleep(SETTLE_PAUSE_MS);
      continue;
    }
    const record = readMove(read.value);
    const moved = record?.id === next.id && record.phase === 'moved';
    if (!moved) {
      const ended = await abort(held.movable.store, next.id);
      if (!ended.ok) continue;
    }
    await held.settle(moved ? 'moved' : 'given-up', moved ? held.open(next.place) : null);
    log.warn(
      { move: next.id, moved },
      moved
        ? 'the store was moved when this server stopped: it uses the new one'
        : 'a move of the store was not finished when this server stopped: it was given up',
    );
    return;
  }
  log.error({ move: next.id }, 'it is not known whether the store was moved, for the old one does not answer; restart the server when it does');
}
