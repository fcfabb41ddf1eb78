/** A state that decides nothing: the cluster is registered, and not created. */
import { encodeJson } from '../../src/core/decode.ts';
import { initialState } from '../../src/core/cluster/goals.ts';
import { makeMonoMs, makeWallMs } from '../../src/core/ids.ts';

export const startTermless: string = encodeJson(initialState('elsewhere', { mono: makeMonoMs(0), wall: makeWallMs(0) }));
