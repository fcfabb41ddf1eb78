import assert from 'node:assert/strict';
import { test } from 'node:test';
import { makeRevision } from '../../src/core/ids.ts';
import { checkStore, mayRevokeWrongly } from '../../src/server/store-checks.ts';
import type { StoreStatus } from '../../src/store/store.ts';

const status = (changes: Partial<StoreStatus>): StoreStatus => ({
  engine: 'etcd',
  version: '3.5.21',
  incarnation: '1',
  revision: makeRevision(1),
  dbSizeBytes: 0,
  endpoint: '',
  members: 3,
  ...changes,
});
const codes = (changes: Partial<StoreStatus>): readonly string[] => checkStore(status(changes)).map((check) => `${check.level} ${check.code}`);

test('versions of etcd that may revoke a living lease are told from those that do not', () => {
  const rows: readonly (readonly [string, boolean])[] = [
    ['3.4.23', true],
    ['3.4.30', true],
    ['3.4.31', false],
    ['3.5.12', true],
    ['3.5.13', false],
    ['3.6.0', false],
    ['unknown', false],
  ];
  for (const [version, wrongly] of rows) assert.equal(mayRevokeWrongly(version), wrongly, version);
});

test('the doctor names an old etcd, and one that cannot lose a member; a good one gets no word', () => {
  assert.deepEqual(codes({}), []);
  assert.deepEqual(codes({ version: '3.4.23' }), ['warn store.etcd-old']);
  assert.deepEqual(codes({ members: 1 }), ['warn store.few-members']);
  assert.deepEqual(codes({ engine: 'embedded', version: '3.4.0+pgherd-embedded', members: 1 }), ['ok store.embedded']);
  assert.deepEqual(checkStore(null), []);
});
