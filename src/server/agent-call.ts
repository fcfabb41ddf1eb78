/** One question to one agent over mutual TLS, bounded. */
import { sendHttp } from '../base/http.ts';
import { type Decoder, decodeJson } from '../core/decode.ts';
import type { Member } from '../core/report.ts';
import { formatUrl } from './addresses.ts';
import type { ServerContext } from './context.ts';

/** An agent may run a program for its answer; a person waits for it. */
const LIMIT_MS = 5000;
const MAX_BYTES = 1024 * 1024;

/** `body` given: POST. Null: no agent, no answer in time, or one of a version that does not know the question. */
export async function askAgent<T>(
  context: ServerContext,
  member: Member | undefined,
  { path, body, answer }: { readonly path: string; readonly body?: unknown; readonly answer: Decoder<T> },
): Promise<T | null> {
  if (member === undefined) return null;
  const sent = await sendHttp({
    url: `${formatUrl(member.internalHost ?? member.host, member.agentPort)}${path}`,
    ...(body === undefined ? {} : { method: 'POST', headers: { 'content-type': 'application/json' }, body: JSON.stringify(body) }),
    tls: { ...context.authority.server(), expect: 'agent' },
    timeoutMs: LIMIT_MS,
    maxBytes: MAX_BYTES,
  });
  if (!sent.ok || sent.value.status !== 200) return null;
  const decoded = decodeJson(answer, sent.value.body.toString('utf8'));
  return decoded.ok ? decoded.value : null;
}
