/** Server-sent events as bytes: writing one, and reading a stream of them. Source: WHATWG HTML, 9.2 "Server-sent events". */

export interface SseItem {
  readonly id: string | null;
  /** `message` when the stream names none. */
  readonly event: string;
  readonly data: string;
}

/** One event longer than this is a defect or an attack. */
const MAX_EVENT_BYTES = 1024 * 1024;

/** Data may have several lines; id and event may not (line breaks are dropped). */
export function formatSse(item: { readonly id?: string; readonly event?: string; readonly data: string }): string {
  const head = `${item.id === undefined ? '' : `id: ${oneLine(item.id)}\n`}${item.event === undefined ? '' : `event: ${oneLine(item.event)}\n`}`;
  const data = item.data
    .split(/\r\n|\n|\r/)
    .map((line) => `data: ${line}\n`)
    .join('');
  return `${head}${data}\n`;
}

/** Ends with the stream; an event that was cut off by the end is dropped. Throws the stream's error, or when an event is too long. */
export async function* parseSse(stream: AsyncIterable<unknown>): AsyncGenerator<SseItem> {
  const decoder = new TextDecoder();
  let rest = '';
  let id: string | null = null;
  let event = '';
  let data: string[] = [];
  for await (const chunk of stream) {
    rest += decoder.decode(chunk as Uint8Array, { stream: true });
    if (rest.length > MAX_EVENT_BYTES) throw new Error(`an event is longer than ${MAX_EVENT_BYTES} bytes`);
    // A carriage return at the end may be the first half of a line break.
    const lines = rest.split(/\r\n|\n|\r(?!$)/);
    rest = lines.pop() ?? '';
    for (const line of lines) {
      if (line === '') {
        if (data.length > 0) yield { id, event: event === '' ? 'message' : event, data: data.join('\n') };
        event = '';
        data = [];
        continue;
      }
      const colon = line.indexOf(':');
      const field = colon < 0 ? line : line.slice(0, colon);
      const value = colon < 0 ? '' : line.slice(colon + 1).replace(/^ /, '');
      if (field === 'data') data.push(value);
      else if (field === 'event') event = value;
      else if (field === 'id') id = value;
    }
  }
}

function oneLine(text: string): string {
  return text.replaceAll(/[\r\n]/g, ' ');
}
