/** The clients of src/demo/read-write-split.ts as a process of their own, on the client host: one JSON line in, one JSON line out. */
import { createInterface } from 'node:readline';
import { type SplitOptions, checkReadWriteSplit } from '../src/demo/read-write-split.ts';

const lines = createInterface({ input: process.stdin });
const options = JSON.parse(await new Promise<string>((resolve) => lines.once('line', resolve))) as SplitOptions;
process.stdout.write(`${JSON.stringify(await checkReadWriteSplit(options))}\n`);
lines.close();
