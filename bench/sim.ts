/** `npm run bench -- sim`: simulated cluster-hours in a minute of wall clock, over fixed seeds. Fails below the floor. */
import { execFileSync } from 'node:child_process';
import { availableParallelism } from 'node:os';
import { fileURLToPath } from 'node:url';

/** Cluster-hours a minute on two processors. */
const FLOOR = 150;

const jobs = Math.min(2, availableParallelism());
const main = fileURLToPath(new URL('../sim/main.ts', import.meta.url));
const text = execFileSync(process.execPath, [main, '--from', '1', '--seeds', '200', '--jobs', String(jobs), '--json'], {
  encoding: 'utf8',
  maxBuffer: 16 * 1024 * 1024,
});
const summary = JSON.parse(text.trim().split('\n').at(-1) ?? '{}') as { seeds: number; clusterHours: number; wallSeconds: number; events: number };
const perMinute = (summary.clusterHours / summary.wallSeconds) * 60;
process.stdout.write(
  `sim: ${perMinute.toFixed(0)} cluster-hours a minute (${summary.clusterHours} h of ${summary.seeds} seeds in ${summary.wallSeconds} s, ${jobs} processes, ${Math.round(summary.events / summary.wallSeconds)} events a second); floor ${FLOOR}\n`,
);
process.exitCode = perMinute >= FLOOR ? 0 : 1;
