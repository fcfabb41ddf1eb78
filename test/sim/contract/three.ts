/** The stage on which most facts are shown. */
import assert from 'node:assert/strict';
import type { Driver, Node } from './driver.ts';

/** A primary and two standbys that stream from it. */
export async function three(driver: Driver): Promise<readonly [Node, Node, Node]> {
  const [n1, n2, n3] = [await driver.node('n1'), await driver.node('n2'), await driver.node('n3')];
  await n1.create();
  for (const node of [n2, n3]) {
    assert.equal(await node.clone(n1), 'ok');
    assert.equal(await node.start('standby'), 'ok');
    assert.equal(await node.follow(n1), 'ok');
  }
  return [n1, n2, n3];
}
