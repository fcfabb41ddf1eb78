/** Serves an embedded store until it is killed: argv FILE PORT. Prints one line when it listens. */
import { startEmbeddedStore } from '../../src/store/embedded/server.ts';

const [file = '', port = ''] = process.argv.slice(2);
const started = await startEmbeddedStore({ file, listen: { host: '127.0.0.1', port: Number(port) }, tls: null });
process.stdout.write(started.ok ? `listening on ${started.value.port}\n` : `${started.error.code}: ${started.error.cause}\n`);
if (!started.ok) process.exitCode = 1;
