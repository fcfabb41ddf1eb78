/** A store whose place may change while it is used: callers keep one `Store`, and find themselves in another one after a move. */
import { type Result, err } from '../core/result.ts';
import type { Op, Store, StoreError, Watcher } from './store.ts';

export interface MovableStore {
  readonly store: Store;
  /** The client in use now. */
  present(): Store;
  /** From here on every call goes to `next`; watches end with `lost`, so that their owners list again; the former client is closed. */
  replace(next: Store): void;
  /** While true, transactions that write are answered `unavailable`, and nothing was changed: what they wrote would be left behind. */
  hold(held: boolean): void;
}

export function createMovableStore(first: Store): MovableStore {
  let present = first;
  let held = false;
  let moves = 0;
  /** Prefixes that were listed in the present store. A watch from the revision of another store would wait for what was long ago. */
  const listed = new Set<string>();
  const enders = new Set<() => void>();

  function watch(...[prefix, after, handlers]: Parameters<Store['watch']>): Watcher {
    let over = false;
    if (moves > 0 && !listed.has(prefix)) {
      queueMicrotask(() => {
        if (!over) handlers.onEnd('lost', 'the store was moved since it was listed');
        over = true;
      });
      return {
        close: () => {
          over = true;
        },
      };
    }
    const inner = present.watch(prefix, after, {
      ...handlers,
      onEnd: (reason, message) => {
        if (over) return;
        finish();
        handlers.onEnd(reason, message);
      },
    });
    const moved = (): void => {
      if (over) return;
      finish();
      inner.close();
      handlers.onEnd('lost', 'the store was moved');
    };
    const finish = (): void => {
      over = true;
      enders.delete(moved);
    };
    enders.add(moved);
    return {
      close: () => {
        finish();
        inner.close();
      },
    };
  }

  const refused = (): Promise<Result<never, StoreError>> =>
    Promise.resolve(err({ kind: 'unavailable', message: 'the store is being moved; nothing was written' }));
  const store: Store = {
    status: (options) => present.status(options),
    get: (key, options) => present.get(key, options),
    list: async (prefix, options) => {
      const during = moves;
      const answer = await present.list(prefix, options);
      if (answer.ok && during === moves) listed.add(prefix);
      return answer;
    },
    txn: (compares, then, otherwise, options) =>
      held && [...then, ...(otherwise ?? [])].some(isWrite) ? refused() : present.txn(compares, then, otherwise, options),
    grantLease: (ttlMs, options) => present.grantLease(ttlMs, options),
    keepAlive: (lease, options) => present.keepAlive(lease, options),
    revokeLease: (lease, options) => present.revokeLease(lease, options),
    watch,
    close: () => present.close(),
  };
  return {
    store,
    present: () => present,
    replace: (next) => {
      const former = present;
      present = next;
      moves++;
      listed.clear();
      for (const end of [...enders]) end();
      former.close();
    },
    hold: (on) => {
      held = on;
    },
  };
}

function isWrite(op: Op): boolean {
  return op.kind !== 'get' && op.kind !== 'get-prefix';
}
