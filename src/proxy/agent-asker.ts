/** Asks the agent of a node whether it is the primary, and for how long that is sure. */
import { readFileSync } from 'node:fs';
import { createHttpAgent, sendHttp } from '../base/http.ts';
import { bool, decodeJson, number, object, text } from '../core/decode.ts';
import type { ClusterId, NodeId, Term } from '../core/ids.ts';
import { type Member, term } from '../core/report.ts';
import { nodeId } from '../core/spec.ts';

const ASK_LIMIT_MS = 400;

/** What the agent answers under /v1/route. Source: src/agent/http/health.ts. */
const routeAnswer = object({ cluster: text, node: nodeId, term, primary: bool, validMs: number({ min: 0 }) });

export interface RouteAnswer {
  readonly node: NodeId;
  readonly term: Term;
  readonly primary: boolean;
  /** Counted from before the question was sent. */
  readonly validMs: number;
}

export interface Asker {
  /** Null when it did not answer properly in time, or for another cluster. */
  ask(of: Member): Promise<RouteAnswer | null>;
  close(): void;
}

export function createAsker(cluster: ClusterId, files: { readonly ca: string; readonly cert: string; readonly key: string }): Asker {
  const tls = {
    ca: readFileSync(files.ca, 'utf8'),
    cert: readFileSync(files.cert, 'utf8'),
    key: readFileSync(files.key, 'utf8'),
    expect: 'agent' as const,
  };
  const agent = createHttpAgent();
  return {
    ask: async (of) => {
      const url = `https://${of.internalHost ?? of.host}:${of.agentPort}/v1/route`;
      const answered = await sendHttp({ url, tls, timeoutMs: ASK_LIMIT_MS, maxBytes: 65_536, agent });
      if (!answered.ok || answered.value.status !== 200) return null;
      const decoded = decodeJson(routeAnswer, answered.value.body.toString('utf8'));
      return decoded.ok && decoded.value.cluster === cluster && decoded.value.node === of.node ? decoded.value : null;
    },
    close: () => agent.destroy(),
  };
}
