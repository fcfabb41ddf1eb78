/** The seeds that once failed: `sim/seeds.txt`, one a line, `SEED PROFILE # what it found`. Every test run replays them. */
import { readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import type { Job } from './worker.ts';

export function readSeeds(file: string = fileURLToPath(new URL('./seeds.txt', import.meta.url))): readonly Job[] {
  return readFileSync(file, 'utf8')
    .split('\n')
    .map((line) => line.replace(/#.*$/, '').trim())
    .filter((line) => line !== '')
    .map((line) => {
      const [seed = '', profile = null] = line.split(/\s+/);
      if (!/^\d+$/.test(seed)) throw new Error(`sim/seeds.txt: "${line}" does not begin with a seed`);
      return { seed, profile };
    });
}
