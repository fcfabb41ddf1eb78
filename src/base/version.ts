/** Version of this program: put in by the build, read from package.json when it runs from sources. */
import { existsSync, readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';

export const VERSION: string = process.env.PGHERD_BUILD_VERSION ?? versionOfSources();

function versionOfSources(): string {
  const file = fileURLToPath(new URL('../../package.json', import.meta.url));
  if (!existsSync(file)) return 'unknown';
  const content: unknown = JSON.parse(readFileSync(file, 'utf8'));
  return typeof content === 'object' && content !== null && 'version' in content ? String(content.version) : 'unknown';
}
