/** Calls to other members' agents: kept connections, one deadline a call, never an exception. */
import { Agent, request } from 'node:https';
import { type Result, err, ok } from '../../core/result.ts';

export interface AgentClientOptions {
  readonly tls: { readonly ca: string; readonly cert: string; readonly key: string };
}

export interface AgentClient {
  /** The parsed answer of a 200, else a short text of what went wrong. */
  call(target: { readonly host: string; readonly port: number }, method: 'GET' | 'POST', path: string, body: unknown, timeoutMs: number): Promise<Result<unknown, string>>;
  close(): void;
}

const MAX_ANSWER_BYTES = 1_048_576;

export function createAgentClient(options: AgentClientOptions): AgentClient {
  const agent = new Agent({
    ca: options.tls.ca,
    cert: options.tls.cert,
    key: options.tls.key,
    keepAlive: true,
    maxSockets: 2,
    // Members are known by the authority that signed them; their addresses change with virtual hosts and namespaces.
    checkServerIdentity: () => undefined,
  });
  return {
    call: (target, method, path, body, timeoutMs) =>
      new Promise((resolve) => {
        const text = body === undefined || body === null ? null : JSON.stringify(body);
        const headers = text === null ? {} : { 'content-type': 'application/json', 'content-length': Buffer.byteLength(text) };
        const sent = request({ agent, host: target.host, port: target.port, method, path, headers }, (response) => {
          const chunks: Buffer[] = [];
          let size = 0;
          response.on('data', (chunk: Buffer) => {
            size += chunk.length;
            if (size > MAX_ANSWER_BYTES) sent.destroy(new Error('the answer is too large'));
            else chunks.push(chunk);
          });
          response.on('error', (cause) => end(err(cause.message)));
          response.on('end', () => end(parse(response.statusCode ?? 0, Buffer.concat(chunks).toString('utf8'))));
        });
        const timer = setTimeout(() => sent.destroy(new Error(`no answer within ${timeoutMs} ms`)), timeoutMs);
        const end = (result: Result<unknown, string>): void => {
          clearTimeout(timer);
          resolve(result);
        };
        sent.on('error', (cause) => end(err(cause.message)));
        sent.end(text ?? undefined);
      }),
    close: () => agent.destroy(),
  };
}

function parse(status: number, text: string): Result<unknown, string> {
  if (status !== 200) return err(`HTTP ${status}: ${text.slice(0, 200).trim()}`);
  try {
    return ok(JSON.parse(text) as unknown);
  } catch (cause) {
    if (cause instanceof SyntaxError) return ok(text);
    throw cause;
  }
}
