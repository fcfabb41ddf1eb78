import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { after, before, describe, test } from 'node:test';
import { Client } from 'pg';
import { silentLogger } from '../../src/base/log.ts';
import { makeNodeId, makeTerm, makeWallMs } from '../../src/core/ids.ts';
import type { Member, NodeReport } from '../../src/core/report.ts';
import { NO_ROUTE, type Route } from '../../src/core/route/decide.ts';
import { type Overview, answerAdmin, serveAdmin } from '../../src/proxy/admin.ts';
import { openAdminDoor } from '../../src/proxy/doorman.ts';
import { openRawBinding } from '../../src/proxy/io/raw-handle.ts';
import { HASHES } from '../../src/proxy/login/hashes.ts';
import { makeScramSecret } from '../../src/wire/scram.ts';

const [n1, n2] = [makeNodeId('n1'), makeNodeId('n2')];
const secret = makeScramSecret(HASHES, { password: 'right', salt: randomBytes(16), iterations: 4096 });
const members = new Map([n1, n2].map((node, index) => [node, { node, host: `10.0.0.${index + 1}`, port: 5432 } as Member]));
const reports = new Map([
  [n2, { node: n2, atWallMs: makeWallMs(0), postgres: { state: 'running', role: 'standby', walsenders: [] } } as unknown as NodeReport],
]);
const route: Route = {
  ...NO_ROUTE,
  epoch: 1,
  term: makeTerm(1),
  closed: null,
  writer: { node: n1, host: '10.0.0.1', port: 5432 },
  readers: [{ node: n2, host: '10.0.0.2', port: 5432, weight: 1, lagBytes: 42 }],
};
const calls: string[] = [];
let quiet = true;
const overview: Overview = {
  route: () => route,
  facts: () => ({ state: null, incarnation: null, newestTerm: makeTerm(0), members, reports, ageMs: 0, confirmed: null }),
  ports: [],
  pause: () => {
    calls.push('pause');
    return Promise.resolve(quiet);
  },
  resume: () => void calls.push('resume'),
};

describe('the admin database', () => {
  let port = 0;
  let close: () => void = () => undefined;
  before(async () => {
    const io = openRawBinding();
    const opened = await openAdminDoor({
      host: '127.0.0.1',
      number: 0,
      io,
      tls: null,
      secrets: { find: () => Promise.resolve(secret) },
      limits: { maxClients: 10, loginMs: 2000, connectMs: 100 },
      log: silentLogger,
      users: ['boss'],
      serve: (stream, user) => serveAdmin(stream, { overview, log: silentLogger, user }),
    });
    assert.ok(opened.ok);
    ({ port, close } = opened.value);
  });
  after(() => close());

  async function connect(user: string): Promise<Client> {
    const client = new Client({ host: '127.0.0.1', port, user, password: 'right', database: 'pgherd' });
    client.on('error', () => undefined);
    await client.connect();
    return client;
  }

  test('shows the nodes with the columns that people know', async () => {
    const client = await connect('boss');
    const { rows } = await client.query('show pool_nodes;');
    assert.deepEqual(
      rows.map((row) => [
        row.node_id,
        row.hostname,
        row.port,
        row.status,
        row.pg_status,
        row.lb_weight,
        row.role,
        row.load_balance_node,
        row.replication_delay,
      ]),
      [
        ['n1', '10.0.0.1', '5432', 'up', 'unknown', '0.000000', 'primary', 'false', null],
        ['n2', '10.0.0.2', '5432', 'up', 'up', '1.000000', 'standby', 'true', '42'],
      ],
    );
    for (const what of ['clients', 'servers', 'stats', 'version']) assert.ok((await client.query(`SHOW  ${what}`)).fields.length > 0, what);
    await client.end();
  });

  test('pauses and resumes, and says when transactions did not end', async () => {
    const client = await connect('boss');
    assert.equal((await client.query('PAUSE')).command, 'PAUSE');
    assert.equal((await client.query('resume')).command, 'RESUME');
    quiet = false;
    await assert.rejects(client.query('pause'), /did not end in time/);
    quiet = true;
    assert.deepEqual(calls, ['pause', 'resume', 'pause']);
    await client.end();
  });

  test('refuses other commands, parameters, and users who are not named', async () => {
    const client = await connect('boss');
    await assert.rejects(client.query('select 1'), /no command of the proxy/);
    await assert.rejects(client.query('show $1', ['clients']), /simple queries only/);
    assert.ok((await client.query('show version')).rows.length === 1, 'the session goes on');
    await client.end();
    await assert.rejects(
      connect('somebody').then((other) => other.query('show version')),
      /adminUsers|terminated|closed|queryable/,
    );
  });

  test('names its commands to those who ask for another', async () => {
    const answer = await answerAdmin('shutdown', overview);
    assert.ok(answer.kind === 'wrong' && answer.hint.includes('SHOW POOL_NODES'));
  });
});
