/** An agent that arms its guard and then does nothing: to be killed or frozen by the test. */
import { monoMs } from '../../src/base/clock.ts';
import { addMono } from '../../src/core/ids.ts';
import { createGuardClient } from '../../src/agent/guard/guard-client.ts';

const [stateDirectory = '', dataDirectory = '', pid = '0', startTime = '0', forMs = '1000', table] = process.argv.slice(2);
const client = createGuardClient({ stateDirectory });
const armed = await client.arm({
  term: 3,
  leaseId: '77',
  deadline: addMono(monoMs(), Number(forMs)),
  dataDirectory,
  postmaster: { pid: Number(pid), startTime: Number(startTime) },
  table: table ?? null,
});
process.stdout.write(armed ? 'armed\n' : 'refused\n');
setInterval(() => undefined, 1000);
