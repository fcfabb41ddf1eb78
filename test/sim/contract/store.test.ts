/** The modelled store keeps the promises of the real engines: the same suite, on virtual time. */
import { makeMonoMs } from '../../../src/core/ids.ts';
import { createClock } from '../../../sim/clock.ts';
import { createStoreModel } from '../../../sim/model/store.ts';
import { createStreamHub } from '../../../sim/model/stream.ts';
import { createNetwork } from '../../../sim/network.ts';
import { createRandom } from '../../../sim/random.ts';
import { storeContract } from '../../store/contract.ts';
import { startVirtualTime } from './virtual-time.ts';

const clock = createClock();
const time = { mono: () => makeMonoMs(clock.now()), sleep: (ms: number) => clock.sleep(ms) };

for (const members of [['s1'], ['s1', 's2', 's3']]) {
  storeContract(
    'simulated',
    () => {
      const running = startVirtualTime(clock);
      const random = createRandom(BigInt(members.length));
      const network = createNetwork(clock, random.stream('network'));
      const store = createStoreModel({
        clock,
        network,
        streams: createStreamHub(clock, network),
        random: random.stream('store'),
        members: members.map((host) => ({ host, scope: clock.scope(host) })),
      });
      const machine = clock.scope('client');
      return Promise.resolve({
        open: () => store.open({ host: 'client', scope: machine.child('process'), now: running.now }),
        compact: (revision: number) => Promise.resolve(store.keyspace().compact(revision)),
        close: () => running.stop(),
      });
    },
    time,
  );
}
