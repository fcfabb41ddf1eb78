/** `fencing` of server.yaml and agent.yaml: the command that turns a host off, run by the elected controller. */
import { list, number, object, refine, text } from './decode.ts';

const program = refine(text, (path) => (path.startsWith('/') ? path : null), 'an absolute path');
const command = refine(
  list(text),
  (argv) => (argv.length > 0 && program(argv[0], '').ok ? argv : null),
  'a list: the absolute path of a program, then its arguments',
);

export const fencingConfig = object(
  {
    /** `{cluster}`, `{node}`, `{host}` and `{internalHost}` are replaced in the arguments. No shell. Exit code 0 means that the host is off. */
    command,
    /** Longer than the power controller needs, shorter than people wait. */
    timeoutMs: number({ integer: true, min: 1000, max: 120_000 }),
  },
  'strict',
);
