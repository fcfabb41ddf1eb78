import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { MANAGED_PARAMETERS, refuseParameter } from '../../src/core/managed-parameters.ts';

describe('parameters that pgherd sets itself', () => {
  test('are refused in any case of letters', () => {
    for (const name of MANAGED_PARAMETERS) {
      assert.match(refuseParameter(name, 'x') ?? '', /set by pgherd/);
      assert.notEqual(refuseParameter(name.toUpperCase(), 'x'), null, name);
    }
  });

  test('nobody sets an archive to recover from: history of a timeline that is not the cluster’s cannot come from there (Q31)', () => {
    assert.match(refuseParameter('restore_command', 'cp /archive/%f %p') ?? '', /set by pgherd/);
    assert.match(refuseParameter('recovery_target_timeline', '7') ?? '', /set by pgherd/);
  });

  test('wal_level may be raised to logical, not lowered', () => {
    assert.equal(refuseParameter('wal_level', 'logical'), null);
    assert.match(refuseParameter('wal_level', 'minimal') ?? '', /replica or logical/);
  });

  test('so few connections that PostgreSQL would not start are refused', () => {
    assert.match(refuseParameter('max_connections', '3') ?? '', /may not be less than 10/);
    assert.equal(refuseParameter('Max_Connections', '10'), null);
  });

  test('others are not refused', () => {
    assert.equal(refuseParameter('work_mem', '64MB'), null);
  });
});
