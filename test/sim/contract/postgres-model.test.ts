import { createModelDriver } from './model-driver.ts';
import { postgresFacts } from './facts.ts';

// Delays and the order of things differ from seed to seed; the facts do not.
for (const seed of [1n, 2n, 3n, 4n, 5n]) postgresFacts(`model, seed ${seed}`, () => createModelDriver(seed));
