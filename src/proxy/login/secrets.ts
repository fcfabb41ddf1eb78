/** Login secrets of users, read from any node that answers (they are the same on all) and remembered for a short time. */
import { type Clock, realClock } from '../../base/clock.ts';
import type { MonoMs } from '../../core/ids.ts';
import type { Route, RouteTarget } from '../../core/route/decide.ts';
import { type ScramSecret, parseScramSecret } from '../../wire/scram.ts';
import type { Controls } from '../control.ts';

/** A changed password is known after this at the latest, and at once when somebody fails with the old one. */
const FRESH_MS = 5000;
/** A node that hangs must not hold up those who were known a moment ago. */
const PATIENCE_MS = 300;
/** While no node can be asked, what was read lately still lets people in: the server checks again. */
const KEEP_MS = 3_600_000;
/** Names come from strangers: what is remembered is bounded. */
const MAX_USERS = 1000;

interface Remembered {
  readonly secret: ScramSecret | null;
  readonly at: MonoMs;
}

export interface Secrets {
  /** Null: there is no such user, or it cannot log in with SCRAM. `unknown`: no node answered, and nothing is remembered. `fresh`: ask in any case. */
  find(user: string, fresh: boolean): Promise<ScramSecret | null | 'unknown'>;
}

export function openSecrets(options: { readonly controls: Controls; readonly route: () => Route; readonly clock?: Clock }): Secrets {
  const clock = options.clock ?? realClock;
  const remembered = new Map<string, Remembered>();
  const asking = new Map<string, Promise<ScramSecret | null | 'unknown'>>();

  async function ask(user: string): Promise<ScramSecret | null | 'unknown'> {
    const now = clock.now().mono;
    for (const target of askable(options.route())) {
      const answer = await options.controls.of(target).ask('select pgherd.login_secret($1) as secret', [user]);
      if (!answer.ok) continue;
      const text = answer.value[0]?.['secret'];
      const secret = typeof text === 'string' ? parseScramSecret(text) : null;
      remembered.delete(user);
      if (secret !== null) remembered.set(user, { secret, at: now });
      for (const oldest of remembered.keys()) {
        if (remembered.size <= MAX_USERS) break;
        remembered.delete(oldest);
      }
      return secret;
    }
    const known = remembered.get(user);
    return known !== undefined && now - known.at < KEEP_MS ? known.secret : 'unknown';
  }

  return {
    find: (user, fresh) => {
      const known = remembered.get(user);
      if (!fresh && known !== undefined && clock.now().mono - known.at < FRESH_MS) return Promise.resolve(known.secret);
      const running = asking.get(user);
      if (running !== undefined) return running;
      const question = ask(user).finally(() => asking.delete(user));
      asking.set(user, question);
      if (fresh || known === undefined) return question;
      return Promise.race([question, clock.sleep(PATIENCE_MS).then(() => known.secret)]);
    },
  };
}

/** The primary first: it knows a changed password before the others. */
function askable(route: Route): readonly RouteTarget[] {
  const others = route.readers.filter((reader) => reader.node !== route.writer?.node);
  const next = route.next !== null && !others.some((reader) => reader.node === route.next?.node) ? [route.next] : [];
  return route.writer === null ? [...others, ...next] : [route.writer, ...others, ...next];
}
