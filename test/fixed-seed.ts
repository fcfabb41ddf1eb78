/**
 * Every test that draws its cases imports this: the same cases are drawn each time, since a suite that fails by chance teaches people to look away. Other cases by
 * hand, with as many runs as the machine has hours for: `PGHERD_SEED=7 PGHERD_RUNS=100000`. What they find becomes an example or a row of a table.
 */
import fc from 'fast-check';

fc.configureGlobal({ seed: Number(process.env['PGHERD_SEED'] ?? 1) });
