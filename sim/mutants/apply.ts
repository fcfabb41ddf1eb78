/** A defect as text: one fragment of one source file, found exactly once, and what stands in its place. */
export interface Patch {
  readonly file: string;
  readonly from: string;
  readonly to: string;
}

/** Throws when a fragment is not found exactly once: then the source has changed, and the defect has to be said anew. */
export function applyPatches(text: string, patches: readonly Patch[]): string {
  let result = text;
  for (const { file, from, to } of patches) {
    const found = result.split(from).length - 1;
    if (found !== 1) throw new Error(`the fragment is found ${found} times in ${file}: ${from.slice(0, 80)}`);
    result = result.replace(from, () => to);
  }
  return result;
}
