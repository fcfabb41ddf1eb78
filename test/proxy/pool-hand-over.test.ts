import assert from 'node:assert/strict';
import { test } from 'node:test';
import { makeNodeId } from '../../src/core/ids.ts';
import type { RouteTarget } from '../../src/core/route/decide.ts';
import type { Backend } from '../../src/proxy/login/backend.ts';
import type { Login } from '../../src/proxy/login/client-login.ts';
import type { PoolsOptions } from '../../src/proxy/pool-contract.ts';
import { createPools } from '../../src/proxy/pool.ts';
import { SessionMemory } from '../../src/proxy/memory.ts';
import type { ByteStream, StreamEvents } from '../../src/proxy/io/stream.ts';
import type { SessionHost } from '../../src/proxy/session-host.ts';
import { Session } from '../../src/proxy/session.ts';
import { silentLogger } from '../../src/base/log.ts';
import { buildCommandComplete, buildDataRow, buildReady } from '../../src/wire/backend.ts';
import { joinBytes } from '../../src/wire/bytes.ts';
import { NO_RULES } from '../../src/wire/rules.ts';
import { buildQuery } from '../../src/wire/frontend.ts';

test('a connection is not given away while its last bytes are still on their way to a slow client', () => {
  const heard = new Map<string, StreamEvents>();
  let takes = true;
  const streamOf = (name: string): ByteStream => ({
    listen: (events) => void heard.set(name, events),
    write: () => name === 'server' || takes,
    pause: () => undefined,
    resume: () => undefined,
    end: () => undefined,
    destroy: () => undefined,
    onClose: () => undefined,
    remote: name,
  });
  let quiet = 0;
  const host = {
    log: silentLogger,
    writes: true,
    holding: () => false,
    servedBy: () => ({ count: 0 }),
    onQuiet: () => (quiet += 1),
    readers: null,
  };
  const login = { user: 'u', database: 'd', replication: false, startup: { major: 3, minor: 0, parameters: [] } } as unknown as Login;
  const session = new Session({
    host: host as unknown as SessionHost,
    login,
    client: streamOf('client'),
    processId: 1,
    memory: new SessionMemory(() => NO_RULES, login),
    rest: null,
  });
  const target: RouteTarget = { node: makeNodeId('n1'), host: '127.0.0.1', port: 1 };
  session.adopt({ target, stream: streamOf('server'), key: null, parameters: new Map() });
  const say = (name: string, ...messages: Uint8Array[]): void => {
    const bytes = joinBytes(messages);
    heard.get(name)?.onData(bytes, bytes.length);
  };
  say('client', buildQuery('select 1'));
  takes = false;
  say('server', buildDataRow(['x'.repeat(50_000)]), buildCommandComplete('SELECT 1'), buildReady('idle'));
  assert.deepEqual([session.idle, session.isSpare, session.release()], [true, false, null]);
  const before = quiet;
  heard.get('client')?.onDrain();
  assert.equal(quiet, before + 1, 'whoever waits for the connection hears of it');
  assert.deepEqual([session.isSpare, session.release()?.target], [true, target]);
});

test('twenty thousand sessions that wait for one connection get it one after the other, however deep the queue', () => {
  const target: RouteTarget = { node: makeNodeId('n1'), host: '127.0.0.1', port: 1 };
  const login = { user: 'u', database: 'd', replication: false, startup: { parameters: [] } } as unknown as Login;
  const memory = { stateKey: '', version: 0, wrote: false, doubtful: false, isDiscardable: true, pinned: () => null, takeCatalogChange: () => false };
  let served = 0;
  const make = (): Session => {
    const session = {
      login,
      memory: { ...memory },
      closed: false,
      welcomed: true,
      waiting: true,
      isSpare: true,
      usesUnnamed: false,
      statements: 0,
      backend: null as Backend | null,
    };
    return session as unknown as Session;
  };
  const stream = { listen: () => undefined, resume: () => undefined, onClose: () => undefined } as unknown as Backend['stream'];
  const pools = createPools({
    poolRules: [{ database: null, user: null, mode: 'transaction', size: 1 }],
    catalog: { isFresh: () => true } as unknown as PoolsOptions['catalog'],
    idleMs: 1e6,
    lifetimeMs: 1e6,
    limitMs: 1000,
    mayOpen: () => true,
    keeps: () => true,
    open: (session) => {
      const backend = { target, stream, key: null, parameters: new Map<string, string>() };
      pools.noteOpened(session, backend);
      give(session, backend);
    },
    deliver: (session, backend) => give(session, backend),
    onRefused: () => assert.fail('refused'),
    onLost: () => assert.fail('lost'),
    onBroken: () => assert.fail('broken'),
  });
  const give = (session: Session, backend: Backend): void => {
    const mutable = session as unknown as { backend: Backend | null; waiting: boolean; release: () => Backend | null };
    mutable.backend = backend;
    mutable.waiting = false;
    mutable.release = () => {
      mutable.backend = null;
      return backend;
    };
    served += 1;
    pools.noteQuiet(session);
  };
  const all = Array.from({ length: 20_000 }, make);
  const [first] = all as [Session];
  pools.request(first, target);
  Object.assign(first, { isSpare: false });
  for (const session of all) pools.request(session, target);
  assert.equal(pools.waiting(), 19_999);
  Object.assign(first, { isSpare: true });
  pools.noteQuiet(first);
  assert.equal(served, 20_000);
  assert.deepEqual([pools.waiting(), pools.facts()[0]?.lent], [0, 1]);
});
