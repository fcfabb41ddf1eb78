import assert from 'node:assert/strict';
import { test } from 'node:test';
import { isIdleTalk } from '../../src/proxy/idle-talk.ts';
import { buildError, buildNotice, buildParameterStatus } from '../../src/wire/backend.ts';
import { joinBytes } from '../../src/wire/bytes.ts';

const told = (bytes: Uint8Array): boolean => isIdleTalk(bytes, bytes.length);
const notice = buildNotice({ severity: 'WARNING', sqlState: '01000', message: 'a notice' });
const status = buildParameterStatus('TimeZone', 'UTC');
const goodbye = buildError({ severity: 'FATAL', sqlState: '57P01', message: 'terminating connection due to administrator command' });

test('notices and settings end nothing', () => {
  assert.equal(told(joinBytes([notice, status])), true);
});

test('an error does, wherever it stands, and so do parts of messages and garbage', () => {
  for (const bytes of [goodbye, joinBytes([notice, goodbye]), notice.slice(0, -1), goodbye.slice(0, 3), new Uint8Array([0, 1, 2, 3, 4, 5])])
    assert.equal(told(bytes), false);
});
