/**
 * The measuring clients as a process of their own, for a host of their own. Reads one JSON line from standard input
 * (the password is in it, so that it is in no argument list), writes one JSON line an event to standard output, and
 * ends when standard input closes.
 */
import { createInterface } from 'node:readline';
import { decodeJson, formatDecodeError, integer, list, object, oneOf, text } from '../core/decode.ts';
import type { HistoryEvent } from './history.ts';
import { startWritableProbes } from './probe-writable.ts';
import { startRecorder } from './recorder.ts';

export const recorderConfig = object({
  run: text,
  targets: list(object({ node: text, host: text, port: integer })),
  login: object({ database: text, user: text, password: text }),
  probes: oneOf('on', 'off'),
});

/** Exit code 0 when it was told to stop, 2 when the configuration line is wrong. */
async function main(): Promise<number> {
  const lines = createInterface({ input: process.stdin });
  const first = await new Promise<string>((resolve) => {
    lines.once('line', resolve);
    lines.once('close', () => resolve(''));
  });
  const config = decodeJson(recorderConfig, first);
  if (!config.ok) {
    process.stderr.write(`recorder: the configuration line is wrong: ${formatDecodeError(config.error)}\n`);
    return 2;
  }
  const emit = (event: HistoryEvent): void => void process.stdout.write(`${JSON.stringify(event)}\n`);
  const closed = new Promise<void>((resolve) => lines.once('close', () => resolve()));
  const recorder = startRecorder({ ...config.value, emit });
  const probes = config.value.probes === 'on' ? startWritableProbes({ ...config.value, emit }) : null;
  await closed;
  // One after the other: `ended` is the last line, so that a reader knows that nothing was cut off.
  await probes?.stop();
  await recorder.stop();
  return 0;
}

process.exitCode = await main();
