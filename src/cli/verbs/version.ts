import { Command } from 'commander';
import { EXIT } from '../exit.ts';
import { type Host, act } from '../session.ts';
import { VERSION } from '../../base/version.ts';

export function versionCommand(host: Host): Command {
  return new Command('version')
    .description("this program's version; with --server-version also the server's")
    .option('--server-version', 'ask the server too')
    .action(
      act(host, async (session, self) => {
        const here = { version: VERSION, node: process.versions.node };
        if (self.opts<{ serverVersion?: boolean }>().serverVersion !== true) {
          session.show(here, () => `pgherd ${VERSION} (Node.js ${here.node})`);
          return { ok: true, value: EXIT.done };
        }
        const api = session.api();
        if (!api.ok) return api;
        const server = await api.value.call('version', {});
        if (!server.ok) return server;
        session.show(
          { ...here, server: server.value },
          () => `pgherd ${VERSION} (Node.js ${here.node})\nserver ${server.value.version} (API ${server.value.api}, Node.js ${server.value.node})`,
        );
        return { ok: true, value: EXIT.done };
      }),
    );
}
