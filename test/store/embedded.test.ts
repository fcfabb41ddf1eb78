import { join } from 'node:path';
import { openStore } from '../../src/store/etcd-client.ts';
import { PATIENT, storeContract } from './contract.ts';
import { compact, removeDir, startEmbedded, tempDir } from './fixtures.ts';

/** The way of the server that serves the store. */
storeContract('embedded, in process', async () => {
  const dir = tempDir();
  const server = await startEmbedded({ file: join(dir, 'store.db') });
  const url = `http://127.0.0.1:${server.port}`;
  return {
    open: () => openStore({ ...PATIENT, endpoints: [url], tls: null, openChannel: server.openChannel }),
    compact: (revision) => compact(url, revision),
    close: async () => {
      await server.close();
      removeDir(dir);
    },
  };
});

storeContract('embedded', async () => {
  const dir = tempDir();
  const server = await startEmbedded({ file: join(dir, 'store.db') });
  const url = `http://127.0.0.1:${server.port}`;
  return {
    open: () => openStore({ ...PATIENT, endpoints: [url], tls: null }),
    compact: (revision) => compact(url, revision),
    close: async () => {
      await server.close();
      removeDir(dir);
    },
  };
});
