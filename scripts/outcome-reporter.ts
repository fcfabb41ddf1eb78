/** A reporter for `node --test`: one line of JSON for each failed test, with the file it stands in, and one with the counts of all tests. */
import type { TestEvent } from 'node:test/reporters';

export type OutcomeLine = { readonly failedIn: string } | { readonly passed: number; readonly failed: number; readonly skipped: number };

export default async function* outcome(events: AsyncIterable<TestEvent>): AsyncGenerator<string> {
  for await (const event of events) {
    const line = lineOf(event);
    if (line !== null) yield `${JSON.stringify(line)}\n`;
  }
}

function lineOf({ type, data }: TestEvent): OutcomeLine | null {
  // A suite fails with each of its tests, and what could not be run to its end is a failed file of its own name. Only the last summary names no file.
  if (type === 'test:fail' && data.details.type !== 'suite') return { failedIn: data.file ?? data.name };
  if (type !== 'test:summary' || data.file !== undefined) return null;
  const { passed, skipped, todo, tests } = data.counts;
  return { passed, failed: tests - passed - skipped - todo, skipped: skipped + todo };
}
