import assert from 'node:assert/strict';
import { EventEmitter } from 'node:events';
import { chmodSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, test } from 'node:test';
import { silentLogger } from '../../src/base/log.ts';
import { handleShutdown } from '../../src/base/shutdown.ts';
import { notifySystemd } from '../../src/base/systemd.ts';

describe('signals of a role', () => {
  test('SIGTERM stops it once, with exit code 0', async () => {
    const signals = new EventEmitter();
    const reasons: string[] = [];
    const shutdown = handleShutdown({ log: silentLogger, signals, stop: async (reason) => void reasons.push(reason) });
    signals.emit('SIGTERM');
    signals.emit('SIGTERM');
    assert.equal(await shutdown.done, 0);
    assert.equal(shutdown.signal.aborted, true);
    assert.deepEqual(reasons, ['SIGTERM']);
    shutdown.dispose();
    assert.deepEqual(signals.eventNames(), []);
  });

  test('a stop that fails or never ends gives exit code 1', async () => {
    for (const stop of [() => Promise.reject(new Error('no')), () => new Promise<void>(() => {})]) {
      const shutdown = handleShutdown({ log: silentLogger, signals: new EventEmitter(), stop, limitMs: 20 });
      assert.equal(await shutdown.request('test'), 1);
    }
  });

  test('a second Ctrl+C ends the process at once', () => {
    const signals = new EventEmitter();
    const codes: number[] = [];
    handleShutdown({ log: silentLogger, signals, stop: () => new Promise<void>(() => {}), limitMs: 10, exit: (code) => void codes.push(code) });
    signals.emit('SIGINT');
    assert.deepEqual(codes, []);
    signals.emit('SIGINT');
    assert.deepEqual(codes, [130]);
  });

  test('SIGHUP reloads; a failed reload ends nothing', async () => {
    const signals = new EventEmitter();
    const logged: string[] = [];
    const log = {
      ...silentLogger,
      info: (_: object, message: string) => void logged.push(message),
      error: (_: object, message: string) => void logged.push(message),
    };
    let works = true;
    const shutdown = handleShutdown({
      log,
      signals,
      stop: async () => {},
      reload: () => (works ? Promise.resolve() : Promise.reject(new Error('bad file'))),
    });
    signals.emit('SIGHUP');
    works = false;
    signals.emit('SIGHUP');
    await new Promise((resolve) => setImmediate(resolve));
    assert.deepEqual(logged, ['configuration reloaded', 'reload failed; the old configuration stays in force']);
    assert.equal(shutdown.signal.aborted, false);
    shutdown.dispose();
  });
});

describe('systemd', () => {
  test('is told nothing where NOTIFY_SOCKET is not set', async () => {
    assert.equal(await notifySystemd('ready', { env: {}, command: '/nonexistent' }), false);
  });

  test('a missing systemd-notify is no error', async () => {
    assert.equal(await notifySystemd('ready', { env: { NOTIFY_SOCKET: '/run/x' }, command: '/nonexistent' }), false);
  });

  test('hears READY and a status from the right process', async () => {
    const directory = mkdtempSync(join(tmpdir(), 'pgherd-notify-'));
    try {
      const command = join(directory, 'notify');
      writeFileSync(command, `#!/bin/sh\nprintf '%s\\n' "$@" > ${directory}/args\n`);
      chmodSync(command, 0o755);
      assert.equal(await notifySystemd('ready', { env: { NOTIFY_SOCKET: '/run/x', PATH: process.env['PATH'] }, command, status: 'primary' }), true);
      assert.deepEqual(readFileSync(join(directory, 'args'), 'utf8').trim().split('\n'), [
        '--no-block',
        `--pid=${process.pid}`,
        '--ready',
        '--status=primary',
      ]);
    } finally {
      rmSync(directory, { recursive: true, force: true });
    }
  });
});
