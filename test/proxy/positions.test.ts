import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { type Clock, realClock } from '../../src/base/clock.ts';
import { addMono, makeMonoMs, makeNodeId, makeTerm } from '../../src/core/ids.ts';
import { formatLsn, makeLsn } from '../../src/core/lsn.ts';
import { ok } from '../../src/core/result.ts';
import { NO_ROUTE, type Route, type RouteTarget } from '../../src/core/route/decide.ts';
import type { Controls } from '../../src/proxy/control.ts';
import { PATIENCE_MS, type Positions, type Token, openPositions } from '../../src/proxy/positions.ts';

const [primary, standby] = ['n1', 'n2'].map((name) => ({ node: makeNodeId(name), host: name, port: 5432 })) as [RouteTarget, RouteTarget];

/** Two nodes whose positions the test moves, on a clock that moves with each sleep. */
function stage(): {
  readonly positions: Positions;
  readonly nodes: { written: bigint; replayed: bigint };
  readonly asked: { n1: number; n2: number };
  route(change: Partial<Route>): void;
} {
  const nodes = { written: 10n, replayed: 10n };
  const asked = { n1: 0, n2: 0 };
  let route: Route = { ...NO_ROUTE, closed: null, term: makeTerm(1), writer: primary };
  let at = makeMonoMs(1000);
  const clock: Clock = {
    now: () => ({ ...realClock.now(), mono: at }),
    sleep: async (ms) => {
      at = addMono(at, ms);
      await new Promise((resolve) => setImmediate(resolve));
    },
  };
  const controls: Controls = {
    of: (target) => ({
      target,
      ask: async () => {
        asked[target.node as 'n1' | 'n2'] += 1;
        const position = target.node === 'n1' ? nodes.written : nodes.replayed;
        await new Promise((resolve) => setImmediate(resolve));
        return ok([{ lsn: formatLsn(makeLsn(position)) }]);
      },
      close: () => undefined,
    }),
    close: () => undefined,
  };
  return {
    positions: openPositions({ controls, route: () => route, clock }),
    nodes,
    asked,
    route: (change) => {
      route = { ...route, ...change };
    },
  };
}

const token = (lsn: bigint, term = 1): Token => ({ term: makeTerm(term), lsn: makeLsn(lsn) });
const settle = async (): Promise<void> => {
  for (let n = 0; n < 200; n++) await new Promise((resolve) => setImmediate(resolve));
};

describe('how far the nodes are', () => {
  test('one question serves everybody who came before it was sent', async () => {
    const { positions, asked, nodes } = stage();
    const seen: bigint[] = [];
    const want = (): void => positions.want({ onToken: ({ lsn }) => void seen.push(lsn) });
    want();
    // The first question is under way by now: who comes during it waits for the next one, whose answer is newer.
    for (let n = 0; n < 50; n++) want();
    nodes.written = 20n;
    await settle();
    assert.equal(asked.n1, 2);
    assert.deepEqual([seen.length, seen[0], seen.at(-1)], [51, 10n, 20n]);
  });

  test('who waits is told as soon as the standby has replayed enough, and not before', async () => {
    const { positions, nodes } = stage();
    const told: true[] = [];
    assert.equal(
      positions.reached(standby, token(15n), () => void told.push(true)),
      false,
    );
    await new Promise((resolve) => setImmediate(resolve));
    assert.equal(told.length, 0);
    nodes.replayed = 15n;
    await settle();
    assert.equal(told.length, 1);
    assert.equal(positions.reached(standby, token(15n)), true, 'known from here on');
    assert.equal(positions.late(standby), false);
  });

  test('a standby that is far behind is not asked for ever, and is known to be late for a while', async () => {
    const { positions, asked } = stage();
    const told: true[] = [];
    positions.reached(standby, token(99n), () => void told.push(true));
    await settle();
    assert.equal(told.length, 0);
    assert.ok(asked.n2 <= PATIENCE_MS + 2, `${asked.n2} questions`);
    assert.equal(positions.late(standby), true);
  });

  test('positions of before a new term count no more; a token of an older term is compared with those of the present one', async () => {
    const { positions, nodes } = stage();
    positions.reached(standby, token(10n));
    await settle();
    assert.equal(positions.reached(standby, token(10n)), true);
    nodes.replayed = 8n;
    assert.equal(positions.reached(standby, token(9n, 2)), false, 'it may have been rewound');
    await settle();
    assert.equal(positions.reached(standby, token(8n, 1)), true);
    assert.equal(positions.reached(standby, token(10n, 1)), false);
  });

  test('an answer that was asked for in a former term is no token', async () => {
    const { positions, route } = stage();
    const told: true[] = [];
    positions.want({ onToken: () => void told.push(true) });
    route({ term: makeTerm(2) });
    await settle();
    assert.equal(told.length, 0);
  });
});
