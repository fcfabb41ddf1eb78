import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { existsSync } from 'node:fs';
import { describe, test } from 'node:test';

const MODULE = new URL('../../src/base/priority.ts', import.meta.url).href;

/** In a process of its own, since it changes the process. What `script` prints, as JSON. */
function run(script: string, nice: number): unknown {
  const child = spawnSync('nice', ['-n', String(nice), process.execPath, '--input-type=module', '--eval', PREAMBLE + script], { encoding: 'utf8' });
  assert.equal(child.status, 0, child.stderr);
  return JSON.parse(child.stdout);
}

const PREAMBLE = `
  import { execFileSync, spawn, spawnSync } from 'node:child_process';
  import { readFileSync } from 'node:fs';
  import { getPriority } from 'node:os';
  import { atNormalPriority, hurryProcess, raisePriority, stepBack } from ${JSON.stringify(MODULE)};
  const ofChild = () => Number(execFileSync('nice', { encoding: 'utf8' }));
  const say = (value) => process.stdout.write(JSON.stringify(value));
`;

/** Not every kernel groups by session. */
const hasGroups = existsSync('/proc/self/autogroup');
const group = (nice: string): string | null => (hasGroups ? nice : null);
const mayRaise = spawnSync('nice', ['-n', '-1', 'true'], { encoding: 'utf8' }).stderr === '';

describe('the priority of our own processes', () => {
  test('is raised where that is allowed, and children begin with a normal one', () => {
    const seen = run('say([raisePriority(), getPriority(), atNormalPriority(ofChild), getPriority(), ofChild()])', 0);
    assert.deepEqual(seen, mayRaise ? [true, -10, 0, -10, -10] : [false, 0, 0, 0, 0]);
  });

  test('of somebody’s own choice stays', () => {
    assert.deepEqual(run('say([raisePriority(), getPriority(), atNormalPriority(ofChild)])', 5), [false, 5, 5]);
  });

  test('is given to another process too, one that is gone is left alone, and nobody who may not raise itself raises others', () => {
    const script = (first: string): string => `${first}
      const other = spawn('sleep', ['5'], { detached: true });
      await new Promise((resolve) => other.once('spawn', resolve));
      hurryProcess(other.pid);
      const group = !${hasGroups} ? null : readFileSync('/proc/' + other.pid + '/autogroup', 'utf8').replace(/.* /s, '').trim();
      say([getPriority(other.pid), group]);
      other.kill();
      await new Promise((resolve) => other.once('exit', resolve));
      hurryProcess(other.pid);`;
    assert.deepEqual(run(script('raisePriority(); stepBack();'), 0), mayRaise ? [-10, group('-10')] : [0, group('0')]);
    assert.deepEqual(run(script(''), 0), [0, group('0')]);
  });

  test('is normal for a moment when others come first', () => {
    const seen = run(
      `raisePriority(); stepBack(); const during = getPriority(); const child = atNormalPriority(ofChild); const still = getPriority();
       setTimeout(() => say([during, child, still, getPriority()]), 1100);`,
      0,
    );
    assert.deepEqual(seen, mayRaise ? [0, 0, 0, -10] : [0, 0, 0, 0]);
  });
});
