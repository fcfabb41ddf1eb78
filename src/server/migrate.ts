/** The store moves to another engine while clusters work: `pgherd store migrate`. */
import { randomBytes } from 'node:crypto';
import { rm } from 'node:fs/promises';
import { join } from 'node:path';
import { writeFileAtomic } from '../base/files.ts';
import { peerIdentity } from '../base/tls.ts';
import { type Failure, type Result, err, ok } from '../core/result.ts';
import { clusterKeys, ROOT } from '../store/keys.ts';
import { type Move, abort, announce, clustersOf, commit, copy, disturbances, readiness, seal } from '../store/move.ts';
import { MOVE_KEY, readMove } from '../store/move-record.ts';
import type { KeyValue, Store } from '../store/store.ts';
import { type ApiFailure, makeApiFailure } from '../api/errors.ts';
import type { Answer, Body } from '../api/routes.ts';
import { type ApiResult, type Handler, type ServerContext, storeFailure } from './context.ts';
import type { Place } from './store-place.ts';

/** Hosts fetch the address, connect and try it: a second on a quiet network. */
const READY_MS = 15_000;
/** After the move: until all have reported to the new store, so that its controller begins with a whole picture. Later it begins all the same. */
const ARRIVE_MS = 5000;
const LOOK_MS = 100;

/** By a host's own certificate: where the store is, or is about to be. */
export const storeAccess: Handler<'storeAccess'> = (context, { caller }) => {
  const peer = caller.socket === null ? null : peerIdentity(caller.socket);
  if (peer?.kind !== 'agent' && peer?.kind !== 'proxy')
    return err(
      makeApiFailure('auth.forbidden', {
        what: 'only a host that has joined is told',
        remedy: 'Call it over a connection that shows the host’s certificate.',
      }),
    );
  const granted = context.place.grant(context.place.told());
  return granted.ok ? ok({ ...granted.value, endpoints: [...granted.value.endpoints] }) : err(makeApiFailure('store.files', granted.error));
};

/** Places whose store is being moved by a call of this process; the mark in the store keeps other processes away. */
const moving = new WeakSet<object>();

export const storeMigrate: Handler<'storeMigrate'> = async (context, { body }) => {
  if (moving.has(context.place)) return err(refused('the store is being moved already', '', 'Wait for its end; see `pgherd store status`.'));
  moving.add(context.place);
  try {
    return await migrateOnce(context, body);
  } finally {
    moving.delete(context.place);
  }
};

async function migrateOnce(context: ServerContext, body: Body<'storeMigrate'>): Promise<ApiResult<Answer<'storeMigrate'>>> {
  const id = randomBytes(6).toString('hex');
  const placed = await placeOf(context, body, id);
  if (!placed.ok) return placed;
  let to: Store;
  try {
    to = context.place.open(placed.value);
  } catch (cause) {
    return err(refused('the new store cannot be opened', cause instanceof Error ? cause.message : String(cause), 'Check the files and addresses.'));
  }
  const done = await migrate(context, { to, next: placed.value, id, body });
  if (!done.ok || body.dryRun) {
    to.close();
    // An unclear end needs them at the next start.
    if (done.ok || done.error.code !== 'store.move-unclear') await Promise.all(filesOf(placed.value).map((file) => rm(file, { force: true })));
  }
  return done;
}

/** The embedded store, or an etcd whose files are kept in the data directory. */
async function placeOf(context: ServerContext, body: Body<'storeMigrate'>, id: string): Promise<ApiResult<Place>> {
  if (body.to === 'embedded')
    return context.place.hasEmbedded
      ? ok(null)
      : err(
          refused(
            'this server serves no store',
            'server.yaml names an etcd',
            'Write `store: { engine: embedded, … }` into server.yaml only after a move: copy the state with "pgherd store backup" and "restore" instead.',
          ),
        );
  if (body.endpoints.length === 0) return err(refused('no endpoints of etcd were given', '', 'Name them with --endpoints.'));
  const at = (name: string): string => join(context.config.dataDirectory, `store-${id}.${name}`);
  if (body.authority !== null) await writeFileAtomic(at('crt'), body.authority);
  if (body.password !== null) await writeFileAtomic(at('password'), `${body.password}\n`);
  return ok({
    endpoints: body.endpoints,
    ca: body.authority === null ? null : at('crt'),
    cert: null,
    key: null,
    username: body.username,
    passwordFile: body.password === null ? null : at('password'),
  });
}

function filesOf(place: Place): readonly string[] {
  return [place?.ca ?? null, place?.passwordFile ?? null].filter((file) => file !== null);
}

interface Order {
  readonly to: Store;
  readonly next: Place;
  readonly id: string;
  readonly body: Body<'storeMigrate'>;
}

async function migrate(context: ServerContext, { to, next, id, body }: Order): Promise<ApiResult<Answer<'storeMigrate'>>> {
  const from = context.place.movable.present();
  const checked = await check(from, to);
  if (!checked.ok) return checked;
  const { record, expected, problems } = checked.value;
  const answer = { from: record.from, to: record.to, hosts: [...expected], problems: [...problems] };
  if (body.dryRun) return ok({ ...answer, moved: false });
  if (problems.length > 0)
    return err(
      makeApiFailure('store.move-refused', {
        what: 'the store was not moved',
        cause: problems.join('; '),
        remedy: 'Remove the causes, then ask again.',
      }),
    );
  const move: Move = {
    from,
    to,
    clock: context.clock,
    record: { version: 1, id, from: record.from, to: record.to, endpoints: next?.endpoints ?? [] },
  };
  await context.place.begin(id, next);
  const announced = await announce(move);
  if (!announced.ok) {
    await context.place.settle('given-up', null);
    return err(fromStore(announced.error));
  }
  context.log.warn({ move: id, to: record.to }, 'the store moves: hosts get ready');
  const ready = await waitReady(context, move, expected);
  const result = ready.ok ? await moveNow(context, move) : ready;
  if (!result.ok) {
    await giveUp(context, move, result.error);
    return err(fromStore(result.error));
  }
  await context.place.settle('moved', to);
  context.place.movable.hold(false);
  const arrived = await waitArrived(context, to, expected);
  context.controllers.start();
  context.log.warn({ move: id, to: record.to, arrived }, 'the store was moved');
  return ok({ ...answer, moved: true });
}

/** From the seal to the mark: nothing is decided meanwhile, some tenths of a second. */
async function moveNow(context: ServerContext, move: Move): Promise<Result<null, Failure>> {
  context.place.movable.hold(true);
  await context.controllers.stop();
  const sealed = await seal(move);
  if (!sealed.ok) return sealed;
  const disturbed = disturbances(sealed.value);
  if (disturbed.length > 0) return err(disturbance(disturbed));
  const copied = await copy(move, sealed.value);
  if (!copied.ok) return copied;
  const committed = await commit(move, sealed.value, copied.value);
  if (!committed.ok) return committed;
  return committed.value === 'moved' ? ok(null) : err(disturbance(['a write lease was taken at this moment']));
}

/** When it is not known what became of it, the next start of the server finds out; until then nothing is decided anywhere. */
async function giveUp(context: ServerContext, move: Move, why: Failure): Promise<void> {
  if (why.code === 'store.move-unclear') return;
  const ended = await abort(move.from, move.record.id);
  if (ended.ok) await context.place.settle('given-up', null);
  context.place.movable.hold(false);
  context.controllers.start();
  context.log.warn({ move: move.record.id, code: why.code }, `the store was not moved: ${why.what}${why.cause === '' ? '' : `: ${why.cause}`}`);
}

/** Everything that can be known before anybody is told. */
async function check(
  from: Store,
  to: Store,
): Promise<
  ApiResult<{
    readonly record: { readonly from: string; readonly to: string };
    readonly expected: ReadonlySet<string>;
    readonly problems: readonly string[];
  }>
> {
  const [here, there, present, target] = await Promise.all([from.status(), to.status(), from.list(ROOT), to.list(ROOT)]);
  if (!here.ok) return err(storeFailure(here.error, 'asking the present store'));
  if (!present.ok) return err(storeFailure(present.error, 'reading the present store'));
  if (!there.ok)
    return err(
      refused('the new store does not answer', `${there.error.kind}: ${there.error.message}`, 'Check endpoints, authority, user and password.'),
    );
  if (!target.ok)
    return err(
      refused('the new store cannot be read', `${target.error.kind}: ${target.error.message}`, 'The user needs to read and write below /pgherd/.'),
    );
  const problems: string[] = [];
  if (here.value.incarnation === there.value.incarnation) problems.push('this is the store that is in use');
  const left = readMove(target.value.kvs.find((kv) => kv.key === MOVE_KEY));
  if (target.value.kvs.length > 0 && left?.phase !== 'moved')
    problems.push(`the new store already holds data of pgherd (${target.value.kvs[0]?.key})`);
  const { expected, silent } = hostsOf(present.value.kvs);
  problems.push(...disturbances(present.value.kvs), ...silent.map((name) => `${name} does not report; bring it back first`));
  return ok({ record: { from: here.value.incarnation, to: there.value.incarnation }, expected, problems });
}

/** `agent/CLUSTER/NODE` of every node of a spec, `proxy/CLUSTER/ID` of every proxy that is alive. */
function hostsOf(kvs: readonly KeyValue[]): { readonly expected: ReadonlySet<string>; readonly silent: readonly string[] } {
  const expected = new Set<string>();
  const silent: string[] = [];
  for (const cluster of clustersOf(kvs)) {
    const keys = clusterKeys(cluster);
    const has = (key: string): boolean => kvs.some((kv) => kv.key === key && kv.lease !== null);
    for (const kv of kvs) {
      const [node = '', what] = kv.key.startsWith(keys.nodes) ? kv.key.slice(keys.nodes.length).split('/') : [];
      if (what === 'member') expected.add(`agent/${cluster}/${node}`);
      if (what === 'member' && !has(`${keys.nodes}${node}/report`)) silent.push(`${cluster}/${node}`);
      const [proxy = '', ack] = kv.key.startsWith(keys.proxies) ? kv.key.slice(keys.proxies.length).split('/') : [];
      if (ack === 'ack' && kv.lease !== null) expected.add(`proxy/${cluster}/${proxy}`);
    }
  }
  return { expected, silent };
}

async function waitReady({ clock }: ServerContext, move: Move, expected: ReadonlySet<string>): Promise<Result<null, Failure>> {
  const until = clock.now().mono + READY_MS;
  for (;;) {
    const said = await readiness(move);
    if (!said.ok) return said;
    const missing = [...expected].filter((name) => said.value.get(name) !== null || !said.value.has(name));
    if (missing.length === 0) return ok(null);
    if (clock.now().mono >= until)
      return err(
        disturbance(
          missing.map((name) => `${name} cannot use the new store: ${said.value.get(name) ?? 'it did not answer; its version may be older'}`),
        ),
      );
    await clock.sleep(LOOK_MS);
  }
}

async function waitArrived({ clock }: ServerContext, to: Store, expected: ReadonlySet<string>): Promise<boolean> {
  const until = clock.now().mono + ARRIVE_MS;
  while (clock.now().mono < until) {
    const listed = await to.list(ROOT);
    const here = listed.ok ? new Set(listed.value.kvs.flatMap((kv) => (kv.lease === null ? [] : [kv.key]))) : new Set<string>();
    if ([...expected].every((name) => here.has(liveKey(name)))) return true;
    await clock.sleep(LOOK_MS);
  }
  return false;
}

function liveKey(name: string): string {
  const [kind, cluster = '', host = ''] = name.split('/');
  return kind === 'proxy' ? `${ROOT}${cluster}/proxies/${host}/ack` : `${ROOT}${cluster}/nodes/${host}/report`;
}

function disturbance(causes: readonly string[]): Failure {
  return {
    code: 'store.move-refused',
    what: 'the store was not moved',
    cause: causes.join('; '),
    now: 'Clusters go on in the store that they use.',
    remedy: 'Remove the causes, then ask again.',
    retryable: true,
  };
}

function refused(what: string, cause: string, remedy: string): ApiFailure {
  return makeApiFailure('store.move-refused', { what, cause, now: 'Nothing was changed.', remedy });
}

function fromStore(failure: Failure): ApiFailure {
  return makeApiFailure(
    failure.code === 'store.move-unclear' ? 'store.move-unclear' : failure.code === 'store.move' ? 'store.move' : 'store.move-refused',
    failure,
  );
}
