/** `npm run bench -- proxy …`, `npm run bench -- sim`: measurements, never part of the tests. */
import { readFileSync } from 'node:fs';
import { parseArgs } from 'node:util';
import { MODES, type Mode, type ProxyBench, joinBenches, renderProxyBench, writeProxyBench } from './proxy-table.ts';
import { benchProxy } from './proxy.ts';

const USAGE = `npm run bench -- sim
npm run bench -- proxy [--json] [--seconds 3] [--runs 3] [--clients 1,8,32] [--modes simple,prepared,connect] [--write]
npm run bench -- proxy --from FILE,FILE… [--write]     pieces that --json has printed, as one
`;

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    json: { type: 'boolean', default: false },
    seconds: { type: 'string', default: '3' },
    runs: { type: 'string', default: '3' },
    clients: { type: 'string', default: '1,8,32' },
    modes: { type: 'string', default: MODES.join(',') },
    from: { type: 'string' },
    write: { type: 'boolean', default: false },
  },
});

if (positionals[0] === 'proxy') {
  const result = values.from === undefined ? await measure() : joinBenches(values.from.split(',').map(read));
  if (values.write) writeProxyBench(result, values);
  process.stdout.write(values.json ? `${JSON.stringify(result)}\n` : `${renderProxyBench(result)}\n`);
} else if (positionals[0] === 'sim') {
  await import('./sim.ts');
} else {
  process.stderr.write(USAGE);
  process.exitCode = 2;
}

function read(file: string): ProxyBench {
  return JSON.parse(readFileSync(file, 'utf8')) as ProxyBench;
}

function measure(): Promise<ProxyBench> {
  const ended = new AbortController();
  for (const name of ['SIGINT', 'SIGTERM'] as const) process.once(name, () => ended.abort(new Error(`ended by ${name}`)));
  return benchProxy({
    signal: ended.signal,
    seconds: Number(values.seconds),
    runs: Number(values.runs),
    clients: values.clients.split(',').map(Number),
    modes: values.modes.split(',').filter((mode): mode is Mode => (MODES as readonly string[]).includes(mode)),
    say: (line) => void process.stderr.write(`${line}\n`),
  });
}
