/** An agent that arms its guard and then does nothing: to be killed or frozen by the test. */
import { monoMs } from '../../src/base/clock.ts';
import { addMono } from '../../src/core/ids.ts';
import { createGuardClient } from '../../src/agent/guard/guard-client.ts';
import { PATIENT } from './harness.ts';

const [stateDirectory = '', dataDirectory = '', pid = '0', startTime = '0', forMs = '1000', table] = process.argv.slice(2);
const client = createGuardClient({ ...PATIENT, stateDirectory });
// Before the deadline is set: on a busy host the guard's start alone takes seconds.
await client.ensure();
const armed = await client.arm({
  term: 3,
  leaseId: '77',
  deadline: addMono(monoMs(), Number(forMs)),
  dataDirectory,
  postmaster: { pid: Number(pid), startTime: Number(startTime) },
  table: table ?? null,
  addresses: [],
  at: null,
  lease: null,
});
process.stdout.write(armed ? 'armed\n' : 'refused\n');
if (!armed) process.exit(1);
setInterval(() => undefined, 1000);
