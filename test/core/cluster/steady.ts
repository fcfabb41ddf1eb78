/** A cluster in which nothing is wrong, and what somebody asks of it. */
import type { TaskRequest } from '../../../src/core/state.ts';
import { makeTask, picture } from './picture.ts';

export const STEADY = `term 3 primary n1 lease n1/3
  n1 primary @0/5000
  n2 standby @0/5000
  n3 standby @0/4000`;

export const ask = (request: TaskRequest, text = STEADY, extra: Parameters<typeof picture>[1] = {}): ReturnType<typeof picture> =>
  picture(text, { ...extra, tasks: [makeTask(request)] });
