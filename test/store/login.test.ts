/** How often a client asks a member with users for a token: each time costs the member a tenth of a second of processor time. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { type DescMessage, type MessageShape, create } from '@bufbuild/protobuf';
import { realClock } from '../../src/base/clock.ts';
import { type MonoMs, addMono } from '../../src/core/ids.ts';
import type { Attempt, Channel, UnaryCall } from '../../src/store/channel.ts';
import { openStore } from '../../src/store/etcd-client.ts';
import { until } from './contract.ts';
import { etcdctl, startEtcd } from './fixtures.ts';
import { status } from '../../src/store/grpc-status.ts';
import { AuthenticateResponseSchema, RangeResponseSchema, ResponseHeaderSchema, StatusResponseSchema } from '../../src/store/proto/gen/rpc_pb.ts';

/** A member of etcd with users, as far as it concerns a login. *Source:* etcd 3.4, rpctypes ErrGRPCInvalidAuthToken and ErrGRPCUserEmpty. */
class Member {
  logins = 0;
  withoutToken = 0;
  /** Tokens that it knows; a member that is started again knows none. */
  readonly tokens = new Set<string>();
  refuses = false;
  loginMs = 20;
  /** Reads are not answered. */
  silent = false;
  closed = 0;

  readonly channel = (url: string): Channel => {
    let drop: () => void = () => undefined;
    const dropped = new Promise<void>((resolve) => (drop = resolve));
    return {
      ...this.#channel(url, dropped),
      close: () => {
        this.closed += 1;
        drop();
      },
    };
  };

  readonly #channel = (url: string, dropped: Promise<void>): Channel => ({
    url,
    ready: () => Promise.resolve(null),
    onceLost: () => undefined,
    stream: () => ({ write: () => undefined, cancel: () => undefined }),
    close: () => undefined,
    unary: async <I extends DescMessage, O extends DescMessage>({
      method,
      metadata,
      limitMs,
    }: UnaryCall<I, O>): Promise<Attempt<MessageShape<O>>> => {
      const header = create(ResponseHeaderSchema, { clusterId: 7n, revision: 3n });
      const answer = (value: unknown): Attempt<MessageShape<O>> => ({ kind: 'answer', value: value as MessageShape<O> });
      const failed = (code: number, details: string): Attempt<MessageShape<O>> => ({ kind: 'failed', sent: true, error: { code, details } });
      if (method.path.endsWith('/Status')) return answer(create(StatusResponseSchema, { header }));
      if (method.path.endsWith('/Authenticate')) {
        this.logins += 1;
        const { token: old } = metadata;
        if (old !== undefined && !this.tokens.has(old)) return failed(status.UNAUTHENTICATED, 'etcdserver: invalid auth token');
        if ((await Promise.race([realClock.sleep(this.loginMs), dropped.then(() => 'dropped')])) === 'dropped')
          return failed(status.UNAVAILABLE, 'the connection was dropped');
        if (this.refuses) return failed(status.UNAUTHENTICATED, 'etcdserver: authentication failed, invalid user ID or password');
        const token = `token ${this.logins}`;
        this.tokens.add(token);
        return answer(create(AuthenticateResponseSchema, { header, token }));
      }
      if (this.silent) {
        await realClock.sleep(limitMs);
        return failed(status.DEADLINE_EXCEEDED, 'no answer');
      }
      await realClock.sleep(1);
      const { token } = metadata;
      if (token === undefined) {
        this.withoutToken += 1;
        return failed(status.INVALID_ARGUMENT, 'etcdserver: user name is empty');
      }
      return this.tokens.has(token)
        ? answer(create(RangeResponseSchema, { header }))
        : failed(status.UNAUTHENTICATED, 'etcdserver: invalid auth token');
    },
  });
}

const client = (member: Member): ReturnType<typeof openStore> =>
  openStore({ endpoints: ['http://127.0.0.1:1'], tls: null, username: 'pgherd', password: 'x', openChannel: member.channel });

const within = (ms: number): { readonly deadline: MonoMs } => ({ deadline: addMono(realClock.now().mono, ms) });

const twenty = (store: ReturnType<typeof openStore>): ReturnType<typeof store.get>[] => Array.from({ length: 20 }, (_, i) => store.get(`/${i}`));

test('many calls at once make one login, at the first use and after the member forgot every token; none goes without a token', async () => {
  const member = new Member();
  const store = client(member);
  for (const logins of [1, 2, 3]) {
    for (const read of await Promise.all(twenty(store))) assert.ok(read.ok, JSON.stringify(read));
    assert.deepEqual([member.logins, member.withoutToken], [logins, 0]);
    member.tokens.clear();
  }
  store.close();
});

test('a login that takes longer than a try goes on while calls give up on it, and is not begun again: otherwise a busy member would never end one', async () => {
  const member = new Member();
  member.loginMs = 1500;
  const store = client(member);
  const early = await store.get('/a', within(300));
  assert.match(early.ok ? '' : early.error.message, /the login at .* is still under way/);
  assert.ok((await store.get('/b', within(4000))).ok);
  assert.deepEqual([member.logins, member.withoutToken], [1, 0]);
  store.close();
});

test('a login outlives the connection that is given up because the busy member is silent', async () => {
  const member = new Member();
  const store = client(member);
  assert.ok((await store.get('/a')).ok);
  member.tokens.clear();
  member.loginMs = 3000;
  const refused = await store.get('/b', within(300));
  assert.match(refused.ok ? '' : refused.error.message, /under way|invalid auth token/);
  member.silent = true;
  await store.get('/c', within(1900));
  assert.ok(member.closed === 0 && member.logins === 2, 'the login goes on');
  member.silent = false;
  assert.ok((await store.get('/d', within(4000))).ok);
  assert.deepEqual([member.logins, member.withoutToken], [2, 0]);
  assert.equal(member.closed, 1, 'the former connection is closed when its login has ended');
  store.close();
});

test('a login that is refused is an answer to every call that waited for it, and is asked for again by the next ones', async () => {
  const member = new Member();
  member.refuses = true;
  const store = client(member);
  const limited = await store.get('/a', within(300));
  assert.ok(!limited.ok);
  member.refuses = false;
  assert.ok((await store.get('/b')).ok);
  store.close();
});

test('an etcd with users whose members were all started anew knows no token, and its clients log in again', async (t) => {
  const cluster = await startEtcd(3);
  t.after(() => cluster.stop());
  const ctl = (...args: string[]): Promise<string> => etcdctl('--endpoints', cluster.urls.join(','), ...args);
  const added = (): Promise<boolean> =>
    ctl('user', 'add', 'root:x').then(
      () => true,
      () => false,
    );
  await until('etcd answers', added, 20_000);
  await ctl('user', 'grant-role', 'root', 'root');
  await ctl('auth', 'enable');
  const stores = Array.from({ length: 4 }, () => openStore({ endpoints: cluster.urls, tls: null, username: 'root', password: 'x' }));
  t.after(() => {
    for (const store of stores) store.close();
  });
  // As an agent does: a dozen calls a second.
  const reads = async (): Promise<boolean> => {
    const answers = await Promise.all(stores.flatMap((store) => ['/a', '/b', '/c'].map((key) => store.get(key, within(800)))));
    return answers.every((answer) => answer.ok);
  };
  await until('it is read', reads, 20_000);
  for (let times = 0; times < 2; times++) {
    await Promise.all(cluster.members.map((member) => member.restart()));
    await until('it is read again', reads, 20_000);
  }
});
