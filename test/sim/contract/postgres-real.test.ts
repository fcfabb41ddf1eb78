import { createRealDriver } from './real-driver.ts';
import { postgresFacts } from './facts.ts';

postgresFacts('PostgreSQL', createRealDriver);
