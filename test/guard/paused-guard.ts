/** A guard whose machine "was paused" for 20 s once the file `paused` lies in its state directory: the boot clock runs ahead from then on. */
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { now } from '../../src/base/clock.ts';
import { runGuard } from '../../src/agent/guard/guard-main.ts';
import { bootMs } from '../../src/agent/lease/boot-clock.ts';

const argv = process.argv.slice(2);
const marker = join(argv[argv.indexOf('--state') + 1] ?? '', 'paused');
process.exit(await runGuard(argv, () => ({ mono: now().mono, wall: now().wall, boot: bootMs() + (existsSync(marker) ? 20_000 : 0) })));
