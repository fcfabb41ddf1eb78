/**
 * Looks whether the endpoint in use still answers, and changes to one that does: a host that is gone says nothing, and every call would
 * learn that by its own limit, one after the other, while leases run down and watches stand still.
 *
 * The question is `Status`, which a member answers by itself, without its leader and without its disk: a cluster that elects a leader, or a
 * slow disk, moves nobody. It is asked only while there is somewhere else to go.
 */
import type { Clock } from '../base/clock.ts';
import { untilTick } from '../base/clock.ts';

export interface EndpointWatchOptions<E> {
  readonly endpoints: readonly E[];
  readonly clock: Clock;
  /** Ends the watching. */
  readonly signal: AbortSignal;
  readonly current: () => E;
  /** True when the endpoint answered within the limit; never rejects. */
  readonly ask: (endpoint: E, limitMs: number, signal: AbortSignal) => Promise<boolean>;
  /** The endpoint in use is given up for this one, which has just answered. */
  readonly moveTo: (endpoint: E) => void;
}

/** Between two questions. With `SUSPECT_MS` it is what the loss of a host costs each client: half a second, of a lease of three. */
const ASK_EVERY_MS = 250;
/** Silence this long makes us ask the others too. Too short costs a few questions more; too long is added to every failover. */
const SUSPECT_MS = 250;
/** The first answer within this time wins, also that of the suspect. When nobody answers, all are slow, or we are cut off: changing would help nobody. */
const OTHERS_MS = 600;

/** Does nothing with a single endpoint. Never throws. */
export function watchEndpoints<E>(options: EndpointWatchOptions<E>): void {
  if (options.endpoints.length < 2) return;
  void (async () => {
    const { clock, signal } = options;
    while (!signal.aborted) {
      await look(options);
      await clock.sleep(untilTick(clock.now().mono, ASK_EVERY_MS), signal);
    }
  })();
}

async function look<E>({ endpoints, clock, signal, current, ask, moveTo }: EndpointWatchOptions<E>): Promise<void> {
  const suspect = current();
  const enough = new AbortController();
  const ending = AbortSignal.any([signal, enough.signal]);
  const own = ask(suspect, SUSPECT_MS + OTHERS_MS, ending);
  const early = await Promise.race([own, clock.sleep(SUSPECT_MS, ending).then(() => null)]);
  // A member that refuses is not silent: whoever calls it goes to the next one by himself.
  if (early === null && !signal.aborted) {
    const others = endpoints.filter((one) => one !== suspect);
    const answers = [
      own.then((answered) => (answered ? suspect : null)),
      ...others.map(async (one) => ((await ask(one, OTHERS_MS, ending)) ? one : null)),
    ];
    const winner = await firstAnswer(answers);
    if (winner !== null && winner !== suspect && current() === suspect) moveTo(winner);
  }
  enough.abort();
}

/** The first that is not null; null when all are. */
function firstAnswer<E>(answers: readonly Promise<E | null>[]): Promise<E | null> {
  return new Promise((resolve) => {
    for (const answer of answers) void answer.then((value) => (value === null ? undefined : resolve(value)));
    void Promise.all(answers).then(() => resolve(null));
  });
}
