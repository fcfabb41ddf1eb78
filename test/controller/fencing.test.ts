import assert from 'node:assert/strict';
import { chmodSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { realClock } from '../../src/base/clock.ts';
import { createLogger } from '../../src/base/log.ts';
import { type FenceAnswer, createFenceRunner, createFencer } from '../../src/controller/fencing.ts';
import { fencingConfig } from '../../src/core/fencing-config.ts';
import { makeClusterId, makeNodeId, makeTerm } from '../../src/core/ids.ts';
import { NOW, picture } from '../core/cluster/picture.ts';

const target = { cluster: makeClusterId('demo'), node: makeNodeId('n1'), host: 'n1.example', internalHost: '10.0.0.1' };
let dir = '';
before(() => {
  dir = mkdtempSync(join(tmpdir(), 'pgherd-fence-'));
});
after(() => rmSync(dir, { recursive: true, force: true }));

function script(name: string, body: string): string {
  const path = join(dir, name);
  writeFileSync(path, `#!/bin/sh\n${body}\n`);
  chmodSync(path, 0o755);
  return path;
}

test('the command gets its arguments without a shell, and exit code 0 is success', async () => {
  const said = join(dir, 'said');
  const fence = createFencer({
    command: [
      script('ok', `printf '%s|' "$@" > ${said}; echo 'Chassis Power Control: Down/Off'`),
      '{host};x',
      '-n',
      '{node}/{cluster}',
      '{internalHost}',
      '{secret}',
    ],
    timeoutMs: 5000,
  });
  assert.deepEqual(await fence({ ...target, host: '$(touch x)' }), { ok: true, text: 'Chassis Power Control: Down/Off' });
  assert.equal(readFileSync(said, 'utf8'), '$(touch x);x|-n|n1/demo|10.0.0.1|{secret}|');
});

test('anything else is a failure in words: another exit code, a signal, a time-out, no such program', async () => {
  const cases: readonly (readonly [string, RegExp])[] = [
    [script('one', "echo 'no route' >&2; exit 1"), /^exit code 1: no route$/],
    [script('signal', 'kill -9 $$'), /was ended by SIGKILL/],
    [script('slow', 'sleep 60 & sleep 60'), /did not end within 1000 ms and was killed/],
    [join(dir, 'missing'), /ENOENT/],
  ];
  for (const [path, text] of cases) {
    const answer = await createFencer({ command: [path], timeoutMs: 1000 })(target);
    assert.equal(answer.ok, false, path);
    assert.match(answer.text, text);
  }
});

test('what a command prints is cut and cannot move a cursor', async () => {
  const answer = await createFencer({
    command: [script('loud', `head -c 100000 /dev/zero | tr '\\0' x; printf '\\033[2J'; exit 3`)],
    timeoutMs: 5000,
  })(target);
  assert.ok(answer.text.length < 250);
  assert.doesNotMatch(answer.text, /\p{Cc}/u);
});

test('an order is carried out once, its answer stands until the order goes, and a late answer of an older order is dropped', async () => {
  const answers: ((answer: FenceAnswer) => void)[] = [];
  let ended = 0;
  const runner = createFenceRunner({
    cluster: target.cluster,
    clock: realClock,
    log: createLogger({ role: 'test', level: 'error' }),
    fencer: () => new Promise((resolve) => answers.push(resolve)),
    onEnd: () => ended++,
  });
  const calm = picture('term 3 primary n1 lease n1/3\n n1 dead\n n2 standby @0/4000');
  const ordered = (id: string): typeof calm => ({
    ...calm,
    state: { ...calm.state, fence: { id, node: target.node, term: makeTerm(3), tries: 1, askedWallMs: NOW.wall, failed: null } },
  });
  assert.equal(runner.look(calm), null);
  assert.equal(runner.look(ordered('a')), null);
  assert.equal(runner.look(ordered('a')), null);
  assert.equal(answers.length, 1);
  runner.look(ordered('b'));
  answers[0]?.({ ok: true, text: 'late' });
  await new Promise(setImmediate);
  assert.equal(runner.look(ordered('b')), null);
  answers[1]?.({ ok: false, text: 'no' });
  await new Promise(setImmediate);
  const seen = runner.look(ordered('b'));
  assert.deepEqual({ id: seen?.id, ok: seen?.ok, text: seen?.text }, { id: 'b', ok: false, text: 'no' });
  assert.equal(ended, 1);
  runner.look(calm);
  assert.equal(runner.look(ordered('b')), null, 'forgotten with its order');
});

test('without a command the order fails at once, and says where one belongs', async () => {
  const runner = createFenceRunner({
    cluster: target.cluster,
    clock: realClock,
    log: createLogger({ role: 'test', level: 'error' }),
    fencer: null,
    onEnd: () => undefined,
  });
  const calm = picture('term 3 primary n1 lease n1/3\n n1 dead\n n2 standby @0/4000');
  const view = {
    ...calm,
    state: { ...calm.state, fence: { id: 'a', node: target.node, term: makeTerm(3), tries: 1, askedWallMs: NOW.wall, failed: null } },
  };
  runner.look(view);
  await new Promise(setImmediate);
  assert.match(runner.look(view)?.text ?? '', /fencing\.command in server\.yaml/);
});

test('a command is an absolute path and its arguments', () => {
  const decode = (command: unknown): boolean => fencingConfig({ command, timeoutMs: 5000 }, '').ok;
  assert.equal(decode(['/usr/bin/ipmitool', '-H', '{host}']), true);
  for (const wrong of [[], ['ipmitool'], 'rm -rf /', [''], null]) assert.equal(decode(wrong), false, JSON.stringify(wrong));
});
