/** How often a client asks a member with users for a token: each time costs the member a tenth of a second of processor time. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { type DescMessage, type MessageShape, create } from '@bufbuild/protobuf';
import { realClock } from '../../src/base/clock.ts';
import type { Attempt, Channel, UnaryCall } from '../../src/store/channel.ts';
import { openStore } from '../../src/store/etcd-client.ts';
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

  readonly channel = (url: string): Channel => ({
    url,
    ready: () => Promise.resolve(null),
    onceLost: () => undefined,
    stream: () => ({ write: () => undefined, cancel: () => undefined }),
    close: () => undefined,
    unary: async <I extends DescMessage, O extends DescMessage>({ method, metadata }: UnaryCall<I, O>): Promise<Attempt<MessageShape<O>>> => {
      const header = create(ResponseHeaderSchema, { clusterId: 7n, revision: 3n });
      const answer = (value: unknown): Attempt<MessageShape<O>> => ({ kind: 'answer', value: value as MessageShape<O> });
      const failed = (code: number, details: string): Attempt<MessageShape<O>> => ({ kind: 'failed', sent: true, error: { code, details } });
      if (method.path.endsWith('/Status')) return answer(create(StatusResponseSchema, { header }));
      if (method.path.endsWith('/Authenticate')) {
        this.logins += 1;
        await realClock.sleep(this.loginMs);
        if (this.refuses) return failed(status.UNAUTHENTICATED, 'etcdserver: authentication failed, invalid user ID or password');
        const token = `token ${this.logins}`;
        this.tokens.add(token);
        return answer(create(AuthenticateResponseSchema, { header, token }));
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
  const early = await store.get('/a', { deadline: (realClock.now().mono + 300) as never });
  assert.match(early.ok ? '' : early.error.message, /the login at .* is still under way/);
  assert.ok((await store.get('/b', { deadline: (realClock.now().mono + 4000) as never })).ok);
  assert.deepEqual([member.logins, member.withoutToken], [1, 0]);
  store.close();
});

test('a login that is refused is an answer to every call that waited for it, and is asked for again by the next ones', async () => {
  const member = new Member();
  member.refuses = true;
  const store = client(member);
  const limited = await store.get('/a', { deadline: (realClock.now().mono + 300) as never });
  assert.ok(!limited.ok);
  member.refuses = false;
  assert.ok((await store.get('/b')).ok);
  store.close();
});
