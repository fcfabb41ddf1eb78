/** Loaded before a worker (`--import`): gives it the source with the defect that PGHERD_SIM_MUTANT names. A fragment that is not found exactly once is an error. */
import { registerHooks } from 'node:module';
import { fileURLToPath } from 'node:url';
import { applyPatches } from './apply.ts';
import { findMutant } from './mutants.ts';

const name = process.env['PGHERD_SIM_MUTANT'] ?? '';
const mutant = findMutant(name);
if (mutant === null) throw new Error(`no mutant "${name}"`);
const root = fileURLToPath(new URL('../../', import.meta.url));

registerHooks({
  load: (url, context, nextLoad) => {
    const loaded = nextLoad(url, context);
    if (!url.startsWith('file:')) return loaded;
    const path = fileURLToPath(url).slice(root.length);
    const patches = mutant.patches.filter((patch) => patch.file === path);
    if (patches.length === 0 || loaded.source === undefined || loaded.source === null) return loaded;
    const text = typeof loaded.source === 'string' ? loaded.source : new TextDecoder().decode(loaded.source as Uint8Array);
    return { ...loaded, source: applyPatches(text, patches) };
  },
});
