/** `npm run bench -- proxy [--json] [--seconds 3] [--runs 3] [--clients 1,8,32] [--write]`, `npm run bench -- sim`: measurements, never part of the tests. */
import { parseArgs } from 'node:util';
import { benchProxy, renderProxyBench, writeProxyBench } from './proxy.ts';

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    json: { type: 'boolean', default: false },
    seconds: { type: 'string', default: '3' },
    runs: { type: 'string', default: '3' },
    clients: { type: 'string', default: '1,8,32' },
    write: { type: 'boolean', default: false },
  },
});

if (positionals[0] === 'proxy') {
  const ended = new AbortController();
  for (const name of ['SIGINT', 'SIGTERM'] as const) process.once(name, () => ended.abort(new Error(`ended by ${name}`)));
  const result = await benchProxy({
    signal: ended.signal,
    seconds: Number(values.seconds),
    runs: Number(values.runs),
    clients: values.clients.split(',').map(Number),
    say: (line) => void process.stderr.write(`${line}\n`),
  });
  if (values.write) writeProxyBench(result, values);
  process.stdout.write(values.json ? `${JSON.stringify(result)}\n` : `${renderProxyBench(result)}\n`);
} else if (positionals[0] === 'sim') {
  await import('./sim.ts');
} else {
  process.stderr.write('npm run bench -- sim\nnpm run bench -- proxy [--json] [--seconds 3] [--runs 3] [--clients 1,8,32] [--write]\n');
  process.exitCode = 2;
}
