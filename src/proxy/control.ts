/** The proxy's own connections to the nodes, one each, as role `pgherd_proxy`: login secrets, WAL positions. Bounded, opened when needed, opened anew after an error. */
import { Client } from 'pg';
import { type Clock, realClock } from '../base/clock.ts';
import { type MonoMs, addMono, makeMonoMs } from '../core/ids.ts';
import { type Result, err, ok } from '../core/result.ts';
import type { RouteTarget } from '../core/route/decide.ts';

/** Role and database that the agents make (agent/postgres/setup-roles.ts). */
export const PROXY_ROLE = 'pgherd_proxy';
export const PROXY_DATABASE = 'pgherd';

/** A question to a healthy server takes well below a millisecond; a node that takes longer is asked by nobody's login. */
const QUESTION_MS = 1000;
/** After a failed connect the node is left alone for this long. */
const PAUSE_MS = 300;

export interface NodeControl {
  readonly target: RouteTarget;
  /** The rows; the error is one line. Questions of one node run one after the other. Never rejects. */
  ask(text: string, values?: readonly unknown[]): Promise<Result<readonly Record<string, unknown>[], string>>;
  close(): void;
}

export interface ControlOptions {
  readonly id: string;
  readonly password: string;
  /** PEM of the cluster's authority; null: clear text (tests of single parts). */
  readonly ca: string | null;
  readonly connectMs: number;
  readonly clock?: Clock;
}

export function openControl(target: RouteTarget, options: ControlOptions): NodeControl {
  const clock = options.clock ?? realClock;
  let client: Promise<Result<Client, string>> | null = null;
  let notBefore: MonoMs = makeMonoMs(0);
  let closed = false;

  const connect = async (): Promise<Result<Client, string>> => {
    const made = new Client({
      host: target.host,
      port: target.port,
      database: PROXY_DATABASE,
      user: PROXY_ROLE,
      password: options.password,
      application_name: `pgherd_proxy_${options.id}`,
      connectionTimeoutMillis: options.connectMs,
      query_timeout: QUESTION_MS,
      keepAlive: true,
      ...(options.ca === null ? {} : { ssl: { ca: options.ca, checkServerIdentity: () => undefined } }),
    });
    const forget = (): void => {
      client = null;
    };
    made.on('error', forget);
    made.on('end', forget);
    try {
      await made.connect();
      if (closed) await made.end();
      return ok(made);
    } catch (cause) {
      client = null;
      notBefore = addMono(clock.now().mono, PAUSE_MS);
      return err(cause instanceof Error ? cause.message : String(cause));
    }
  };

  return {
    target,
    ask: async (text, values = []) => {
      if (closed) return err('the proxy stops');
      if (client === null && clock.now().mono < notBefore) return err(`${target.node} did not answer just now`);
      client ??= connect();
      const connected = await client;
      if (!connected.ok) return connected;
      try {
        const result = await connected.value.query<Record<string, unknown>>(text, [...values]);
        return ok(result.rows);
      } catch (cause) {
        // After a time-out the connection's next answer would belong to this question.
        client = null;
        connected.value.end().catch(() => undefined);
        return err(cause instanceof Error ? cause.message : String(cause));
      }
    },
    close: () => {
      closed = true;
      const open = client;
      client = null;
      void open?.then((connected) => (connected.ok ? connected.value.end().catch(() => undefined) : undefined));
    },
  };
}

/** One control for each node that was ever asked; a node whose address changed gets a new one. */
export interface Controls {
  of(target: RouteTarget): NodeControl;
  close(): void;
}

export function openControls(options: ControlOptions): Controls {
  const all = new Map<string, NodeControl>();
  return {
    of: (target) => {
      const known = all.get(target.node);
      if (known !== undefined && known.target.host === target.host && known.target.port === target.port) return known;
      known?.close();
      const made = openControl(target, options);
      all.set(target.node, made);
      return made;
    },
    close: () => {
      for (const control of all.values()) control.close();
      all.clear();
    },
  };
}
