/** gRPC on HTTP/2 as far as it is bytes and headers: messages in frames, and how a call ended. *Source:* grpc/doc/PROTOCOL-HTTP2.md. */
import { constants } from 'node:http2';
import type { RpcError } from './classify.ts';
import { status } from './grpc-status.ts';

const HEADER_BYTES = 5;
/** Longer messages are refused: a list of everything is far shorter. */
export const MAX_MESSAGE_BYTES = 64 * 1024 * 1024;

/** One message, not compressed. */
export function frame(message: Uint8Array): Buffer {
  const out = Buffer.allocUnsafe(HEADER_BYTES + message.length);
  out[0] = 0;
  out.writeUInt32BE(message.length, 1);
  out.set(message, HEADER_BYTES);
  return out;
}

export interface FrameReader {
  /** Calls back with each message that is complete, in order; answers what is wrong with the bytes, or null. After a fault nothing is read any more. */
  push(chunk: Buffer): string | null;
}

/** The usual chunk is one whole message, which is handed on without a copy. */
export function createFrameReader(onMessage: (message: Buffer) => void): FrameReader {
  let kept: Buffer | null = null;
  let fault: string | null = null;
  return {
    push: (chunk) => {
      if (fault !== null) return fault;
      let rest: Buffer = kept === null ? chunk : Buffer.concat([kept, chunk]);
      kept = null;
      while (rest.length >= HEADER_BYTES) {
        const length = rest.readUInt32BE(1);
        if (rest[0] !== 0) fault = 'a compressed message, which was not asked for';
        else if (length > MAX_MESSAGE_BYTES) fault = `a message of ${length} bytes`;
        if (fault !== null) return fault;
        if (rest.length < HEADER_BYTES + length) break;
        onMessage(rest.subarray(HEADER_BYTES, HEADER_BYTES + length));
        rest = rest.subarray(HEADER_BYTES + length);
      }
      if (rest.length > 0) kept = rest;
      return null;
    },
  };
}

type Headers = Readonly<Record<string, unknown>>;

/** The status of a call from its trailers, or from headers that are all there is. Null: these headers have none. */
export function statusOf(headers: Headers): RpcError | null {
  const code = headers['grpc-status'];
  if (code === undefined) return null;
  const number = Number(code);
  return { code: Number.isInteger(number) ? number : status.UNKNOWN, details: decodeMessage(String(headers['grpc-message'] ?? '')) };
}

/** What an answer means that is none of gRPC's (a proxy in between, another service). Null for 200. *Source:* grpc/doc/http-grpc-status-mapping.md. */
export function statusOfHttp(headers: Headers): RpcError | null {
  const http = Number(headers[':status']);
  if (http === 200) return null;
  const code = HTTP_STATUS[http] ?? status.UNKNOWN;
  return { code, details: `HTTP status ${http}` };
}

const HTTP_STATUS: Readonly<Record<number, number>> = {
  400: status.INTERNAL,
  401: status.UNAUTHENTICATED,
  403: status.PERMISSION_DENIED,
  404: status.UNIMPLEMENTED,
  429: status.UNAVAILABLE,
  502: status.UNAVAILABLE,
  503: status.UNAVAILABLE,
  504: status.UNAVAILABLE,
};

/** A stream that ended without a status. `reset`: HTTP/2's code; `cause`: why the connection broke, when it did. */
export function statusOfEnd(reset: number | undefined, cause: Error | null): RpcError {
  switch (reset) {
    case constants.NGHTTP2_REFUSED_STREAM:
      return { code: status.UNAVAILABLE, details: 'the server refused the stream' };
    case constants.NGHTTP2_CANCEL:
      return { code: cause === null ? status.CANCELLED : status.UNAVAILABLE, details: cause?.message ?? 'the call was cancelled' };
    case constants.NGHTTP2_ENHANCE_YOUR_CALM:
      return { code: status.RESOURCE_EXHAUSTED, details: 'the server asks for fewer requests' };
    case constants.NGHTTP2_INADEQUATE_SECURITY:
      return { code: status.PERMISSION_DENIED, details: 'the server finds the connection not secure enough' };
    case undefined:
    case constants.NGHTTP2_NO_ERROR:
      return { code: status.UNAVAILABLE, details: cause?.message ?? 'the connection was dropped' };
    default:
      return { code: cause === null ? status.INTERNAL : status.UNAVAILABLE, details: cause?.message ?? `the stream was reset with code ${reset}` };
  }
}

/** Percent-encoded UTF-8; what cannot be decoded is shown as it came. */
function decodeMessage(text: string): string {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}
