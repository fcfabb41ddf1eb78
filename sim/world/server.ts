/** `pgherd server` of one host, as far as it decides: the real controller loop. A service manager starts it again when it died. */
import { runController } from '../../src/controller/controller.ts';
import type { Fencer } from '../../src/controller/fencing.ts';
import type { ClusterId } from '../../src/core/ids.ts';
import type { Scope } from '../clock.ts';
import type { Trace } from '../trace.ts';
import type { StoreAccess } from './access.ts';
import type { Machines } from './machines.ts';

export interface SimServer {
  readonly name: string;
  start(): void;
  /** Stays dead until `start`. */
  kill(): void;
  stop(): void;
  resume(): void;
}

const START_MS = 400;

export function createServer(parts: {
  readonly name: string;
  readonly machines: Machines;
  readonly access: StoreAccess;
  readonly trace: Trace;
  readonly cluster: ClusterId;
  /** The power switch, as this process reaches it; null: no fencing command is configured. */
  readonly fencer: ((scope: Scope) => Fencer) | null;
}): SimServer {
  const { name, machines, trace } = parts;
  const machine = machines.of(name);
  let scope: Scope | null = null;

  function start(): void {
    if (scope?.alive() === true || !machine.scope().alive()) return;
    const own = machine.scope().child(`${name}/server`);
    scope = own;
    trace.add(`${name}/server`, 'started');
    runController({
      store: parts.access.open({ host: name, scope: own }, machine.clock, trace.logger(`${name}/server`)),
      cluster: parts.cluster,
      clock: machine.clock.of(own),
      log: trace.logger(`${name}/server`),
      name: `server/${name}`,
      fencer: parts.fencer?.(own) ?? null,
      signal: new AbortController().signal,
    }).catch((cause: unknown) => {
      machines.crashes.push(cause instanceof Error ? cause : new Error(String(cause)));
    });
  }

  machine.onPower((on) => {
    if (on) machine.scope().after(START_MS, start);
  });
  return {
    name,
    start,
    kill: () => {
      scope?.kill();
      trace.add(`${name}/server`, 'killed');
    },
    stop: () => scope?.pause(),
    resume: () => scope?.resume(),
  };
}
