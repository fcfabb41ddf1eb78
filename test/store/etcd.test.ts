import { openStore } from '../../src/store/etcd-client.ts';
import { PATIENT, storeContract, until } from './contract.ts';
import { compact, startEtcd } from './fixtures.ts';

storeContract('etcd', async () => {
  const cluster = await startEtcd(1);
  const probe = openStore({ endpoints: cluster.urls, tls: null });
  await until('etcd answers', async () => (await probe.status()).ok, 15_000);
  probe.close();
  return {
    open: () => openStore({ ...PATIENT, endpoints: cluster.urls, tls: null }),
    compact: (revision) => compact(cluster.urls[0] ?? '', revision),
    close: () => cluster.stop(),
  };
});
